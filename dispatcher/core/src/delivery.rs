//! The life of a delivery: what an attempt's result is, and what follows from it.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{DeliveryId, EndpointId, EventId, SubscriptionId, TenantId};
use crate::limits::MESSAGE_DELIVERIES_MAX;

/// Result of one attempt, from a closed set. The names are stable: metrics, the API and the ledger carry them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// 2xx.
    Delivered,
    /// The deadline of the whole exchange passed.
    Timeout,
    /// Nobody listens there.
    ConnectionRefused,
    /// The name did not resolve.
    DnsError,
    /// TLS failed: certificate, protocol or handshake.
    TlsError,
    /// Any other failure of the connection: reset, closed early, not HTTP.
    Network,
    /// The address is one that may not be reached.
    AddressBlocked,
    /// 3xx; redirects are never followed.
    #[serde(rename = "http_3xx")]
    Http3xx,
    /// 4xx other than the two below.
    #[serde(rename = "http_4xx")]
    Http4xx,
    /// 410: the receiver is gone for good.
    #[serde(rename = "http_410")]
    Http410,
    /// 429: the receiver asks for less.
    #[serde(rename = "http_429")]
    Http429,
    /// 5xx.
    #[serde(rename = "http_5xx")]
    Http5xx,
    /// The subscription's transform made no body of the event: nothing was sent.
    TransformFailed,
    /// No access token could be had for the request: nothing was sent to the receiver.
    TokenFailed,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Not finished.
    Open,
    /// The receiver answered 2xx.
    Delivered,
    /// Given up; can be replayed.
    Dead,
    /// Its endpoint or subscription was removed, or somebody cancelled it.
    Cancelled,
}

/// Why a delivery ended without being delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The policy's attempts are used up.
    AttemptsExhausted,
    /// The policy's age is reached.
    TooOld,
    /// The receiver answered 410.
    Gone,
    /// The endpoint was deleted and its grace is over.
    EndpointDeleted,
    /// The subscription was deleted and its grace is over.
    SubscriptionDeleted,
    /// More deliveries waited for the endpoint than it may have.
    Overflow,
    /// The event's day was dropped.
    Retention,
    /// Somebody asked for it.
    Requested,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 14] = [
        Self::Delivered,
        Self::Timeout,
        Self::ConnectionRefused,
        Self::DnsError,
        Self::TlsError,
        Self::Network,
        Self::AddressBlocked,
        Self::Http3xx,
        Self::Http4xx,
        Self::Http410,
        Self::Http429,
        Self::Http5xx,
        Self::TransformFailed,
        Self::TokenFailed,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Timeout => "timeout",
            Self::ConnectionRefused => "connection_refused",
            Self::DnsError => "dns_error",
            Self::TlsError => "tls_error",
            Self::Network => "network",
            Self::AddressBlocked => "address_blocked",
            Self::Http3xx => "http_3xx",
            Self::Http4xx => "http_4xx",
            Self::Http410 => "http_410",
            Self::Http429 => "http_429",
            Self::Http5xx => "http_5xx",
            Self::TransformFailed => "transform_failed",
            Self::TokenFailed => "token_failed",
        }
    }

    /// Whether the result says something about the endpoint, and not only about what was to be sent to it.
    ///
    /// Where its access tokens come from is part of an endpoint, as its host is: without a token nothing reaches it,
    /// whatever is sent, so [`Outcome::TokenFailed`] counts although the receiver was not asked. A transform belongs to
    /// a subscription, and other subscriptions' events reach the endpoint all the same.
    pub fn is_about_endpoint(self) -> bool {
        self != Self::TransformFailed
    }
}

impl DeliveryState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Open, Self::Delivered, Self::Dead, Self::Cancelled];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

impl EndReason {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::TooOld => "too_old",
            Self::Gone => "gone",
            Self::EndpointDeleted => "endpoint_deleted",
            Self::SubscriptionDeleted => "subscription_deleted",
            Self::Overflow => "overflow",
            Self::Retention => "retention",
            Self::Requested => "requested",
        }
    }
}

/// What follows after a delivery was looked at. Delays are relative: the ledger's clock makes times of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Finished well.
    Delivered,
    /// Finished badly.
    Dead(EndReason),
    /// Finished because it is no longer wanted.
    Cancelled(EndReason),
    /// Due again after the delay. Without an attempt it only waits: behind the endpoint's gate, or for a slot.
    Waiting {
        /// How long to wait at least.
        delay: Duration,
    },
    /// Still in flight on the slow track, held by this process until the lease ends.
    InFlight {
        /// How long the holder may need.
        lease: Duration,
    },
}

/// One target of an event: which subscription sends it to which endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    /// Why it is sent.
    pub subscription: SubscriptionId,
    /// Where it is sent.
    pub endpoint: EndpointId,
}

impl Target {
    /// The delivery of an event to this target.
    pub fn delivery(self, event: EventId) -> DeliveryId {
        DeliveryId::derive(event, self.subscription, self.endpoint)
    }
}

/// Everything that identifies a delivery's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeliveryKey {
    /// The delivery itself.
    pub delivery: DeliveryId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What is sent.
    pub event: EventId,
    /// Why and where.
    pub target: Target,
}

impl DeliveryKey {
    /// The key of an event's delivery to a target.
    pub fn new(tenant: TenantId, event: EventId, target: Target) -> Self {
        Self { delivery: target.delivery(event), tenant, event, target }
    }
}

/// One attempt, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Number within the run, from 1.
    pub number: u32,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_at_unix_ms: u64,
    /// How long it took, answer included.
    pub duration: Duration,
    /// Its result.
    pub outcome: Outcome,
    /// Status code, if the receiver answered.
    pub status_code: Option<u16>,
    /// The beginning of the receiver's answer, or of the error's description: foreign bytes.
    pub excerpt: Bytes,
}

/// A slice of an event's targets that travels, is leased and is recorded as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Number of the part within the event, from 0.
    pub number: u16,
    /// Pool whose dispatchers deliver it.
    pub pool: String,
    /// The targets, at most [`MESSAGE_DELIVERIES_MAX`].
    pub targets: Vec<Target>,
}

/// Cuts an event's targets, each with its pool, into parts: one pool each, no part too large, in a stable order.
pub fn split_into_parts(mut targets: Vec<(String, Target)>) -> Vec<Part> {
    targets.sort();
    targets.dedup();
    let mut parts: Vec<Part> = Vec::new();
    for (pool, target) in targets {
        match parts.last_mut() {
            Some(part) if part.pool == pool && part.targets.len() < MESSAGE_DELIVERIES_MAX => part.targets.push(target),
            _ => {
                let number = u16::try_from(parts.len()).expect("the fan-out limit keeps parts below 65,536");
                parts.push(Part { number, pool, targets: vec![target] });
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stable_names_are_what_is_serialised() {
        for outcome in Outcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
        for state in DeliveryState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }

    fn targets(numbers: &[(u8, u16)]) -> Vec<(String, Target)> {
        let tenant = TenantId::of_namespace_name("shop");
        let target = |number: u16| Target {
            subscription: SubscriptionId::derive(tenant, &(number % 7).to_string()),
            endpoint: EndpointId::derive(tenant, &number.to_string()),
        };
        numbers.iter().map(|(pool, number)| (format!("pool{pool}"), target(*number))).collect()
    }

    proptest! {
        #[test]
        fn parts_lose_nothing_and_keep_their_bounds(numbers in prop::collection::vec((0..3_u8, 0..400_u16), 0..600)) {
            let given = targets(&numbers);
            let parts = split_into_parts(given.clone());
            let together: Vec<(String, Target)> = parts
                .iter()
                .flat_map(|part| part.targets.iter().map(|target| (part.pool.clone(), *target)))
                .collect();
            let expected: BTreeSet<(String, Target)> = given.into_iter().collect();
            prop_assert_eq!(together, expected.into_iter().collect::<Vec<_>>());
            for (number, part) in parts.iter().enumerate() {
                prop_assert_eq!(usize::from(part.number), number);
                prop_assert!((1..=MESSAGE_DELIVERIES_MAX).contains(&part.targets.len()));
            }
            let mut reversed = numbers.clone();
            reversed.reverse();
            prop_assert_eq!(split_into_parts(targets(&reversed)), parts);
        }
    }
}
