//! Identities. All are UUIDs; distinct types keep one from being passed for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

identity!(
    /// A tenant: the UID of its namespace, so that a reused namespace name inherits nothing.
    TenantId
);
identity!(
    /// An event: a UUIDv7, whose first 48 bits are the milliseconds at which it was accepted.
    EventId
);
identity!(
    /// An endpoint: stable over deletion and re-creation under the same name.
    EndpointId
);
identity!(
    /// A subscription: stable over deletion and re-creation under the same name.
    SubscriptionId
);
identity!(
    /// An issuer of tokens.
    IssuerId
);
identity!(
    /// A delivery of one event to one endpoint because of one subscription.
    DeliveryId
);
identity!(
    /// A replay of many deliveries: its name and what it asks for, so that the same asked again is known to be done.
    ReplayId
);

/// Kinds of resources that have an identity in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    /// An `Endpoint`.
    Endpoint,
    /// A `Replay`.
    Replay,
    /// A `Subscription`.
    Subscription,
}

impl TenantId {
    /// The tenant of a namespace that no API server gave a UID to: UUIDv5 of its name.
    pub fn of_namespace_name(namespace: &str) -> Self {
        Self(Uuid::new_v5(&Uuid::NAMESPACE_DNS, namespace.as_bytes()))
    }
}

impl EndpointId {
    /// UUIDv5(tenant, "Endpoint/" name).
    pub fn derive(tenant: TenantId, name: &str) -> Self {
        Self(resource_identity(tenant, ResourceKind::Endpoint, name))
    }
}

impl SubscriptionId {
    /// UUIDv5(tenant, "Subscription/" name).
    pub fn derive(tenant: TenantId, name: &str) -> Self {
        Self(resource_identity(tenant, ResourceKind::Subscription, name))
    }
}

impl ReplayId {
    /// UUIDv5(UUIDv5(tenant, "Replay/" name), SHA-256 of what it asks for).
    pub fn derive(tenant: TenantId, name: &str, asked: &[u8; 32]) -> Self {
        Self(Uuid::new_v5(&resource_identity(tenant, ResourceKind::Replay, name), asked))
    }
}

impl IssuerId {
    /// UUIDv5 of the issuer's URL, as it stands in the claim `iss`.
    pub fn of_issuer(issuer: &str) -> Self {
        Self(Uuid::new_v5(&Uuid::NAMESPACE_URL, issuer.as_bytes()))
    }
}

impl EventId {
    /// A UUIDv7 from a time in milliseconds since the Unix epoch and ten random bytes (RFC 9562, 5.7).
    pub fn from_parts(unix_ms: u64, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
    }

    /// Milliseconds since the Unix epoch that the identity carries.
    pub fn unix_ms(self) -> u64 {
        self.0.as_u128().to_be_bytes()[..6].iter().fold(0, |ms, byte| (ms << 8) | u64::from(*byte))
    }
}

impl DeliveryId {
    /// Computed, never drawn: whoever knows the event, the subscription and the endpoint knows the delivery.
    ///
    /// UUIDv8 (RFC 9562, 5.8): the event's 48 bits of time, then SHA-256 over the three identities. It is
    /// the `webhook-id` over every retry, copy and replay, so that receivers can drop duplicates.
    pub fn derive(event: EventId, subscription: SubscriptionId, endpoint: EndpointId) -> Self {
        let digest = Sha256::new()
            .chain_update(event.0.as_bytes())
            .chain_update(subscription.0.as_bytes())
            .chain_update(endpoint.0.as_bytes())
            .finalize();
        let mut bytes = [0_u8; 16];
        bytes[..6].copy_from_slice(&event.0.as_bytes()[..6]);
        bytes[6..].copy_from_slice(&digest[..10]);
        Self(Uuid::new_v8(bytes))
    }
}

fn resource_identity(tenant: TenantId, kind: ResourceKind, name: &str) -> Uuid {
    let kind = match kind {
        ResourceKind::Endpoint => "Endpoint",
        ResourceKind::Replay => "Replay",
        ResourceKind::Subscription => "Subscription",
    };
    Uuid::new_v5(&tenant.0, format!("{kind}/{name}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_shares_its_events_time_and_is_the_same_for_whoever_computes_it() {
        let tenant = TenantId::of_namespace_name("shop");
        let event = EventId::from_parts(1_700_000_000_123, [7; 10]);
        let subscription = SubscriptionId::derive(tenant, "orders");
        let endpoint = EndpointId::derive(tenant, "billing");
        let delivery = DeliveryId::derive(event, subscription, endpoint);
        assert_eq!(delivery, DeliveryId::derive(event, subscription, endpoint));
        assert_eq!(delivery.0.get_version_num(), 8);
        assert_eq!(delivery.0.as_bytes()[..6], event.0.as_bytes()[..6]);
        assert_eq!(event.unix_ms(), 1_700_000_000_123);
    }

    #[test]
    fn kinds_and_tenants_do_not_share_identities() {
        let (a, b) = (TenantId::of_namespace_name("a"), TenantId::of_namespace_name("b"));
        assert_ne!(EndpointId::derive(a, "x").0, SubscriptionId::derive(a, "x").0);
        assert_ne!(EndpointId::derive(a, "x"), EndpointId::derive(b, "x"));
    }

    #[test]
    fn a_replay_is_its_tenant_its_name_and_what_it_asks_for() {
        let (a, b) = (TenantId::of_namespace_name("a"), TenantId::of_namespace_name("b"));
        let replay = ReplayId::derive(a, "x", &[1; 32]);
        assert_eq!(replay, ReplayId::derive(a, "x", &[1; 32]));
        for other in
            [ReplayId::derive(b, "x", &[1; 32]), ReplayId::derive(a, "y", &[1; 32]), ReplayId::derive(a, "x", &[2; 32])]
        {
            assert_ne!(replay, other);
        }
    }
}
