//! The routing table of the benchmark.

use std::net::SocketAddr;

use dispatcher_core::id::{EndpointId, SubscriptionId, TenantId};
use dispatcher_core::limits::MAX_IN_FLIGHT_MAX;
use dispatcher_core::recipient::RecipientRule;
use dispatcher_core::redacted::Redacted;
use dispatcher_core::retry::RetryPolicy;
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{
    BodyFormat, BreakerPolicy, DEFAULT_POOL, DeliveryPolicy, EndpointRow, EndpointSecrets, EndpointState, KeyBytes,
    Row, SigningKey, SigningScheme, SubscriptionRow, TableChange, TenantRow,
};

/// The tenant's name.
pub const TENANT: &str = "bench";
/// Endpoints of the largest fan-out; the first of them are those of the others.
const ENDPOINTS: usize = 100;
/// Event types, and how many endpoints each goes to.
const FANOUTS: [(&str, usize); 4] = [("none", 0), ("one", 1), ("ten", 10), ("hundred", ENDPOINTS)];

/// The event type that goes to so many endpoints.
///
/// # Panics
/// If there is none.
pub fn event_type(fanout: u64) -> &'static str {
    match fanout {
        0 => "bench.none",
        1 => "bench.one",
        10 => "bench.ten",
        100 => "bench.hundred",
        _ => panic!("no event goes to {fanout} endpoints"),
    }
}

/// The whole table: a subscription for each fan-out, all endpoints at one sink.
pub fn table(sealing_key: &SealingKey, sink: SocketAddr) -> TableChange {
    let tenant = TenantId::of_namespace_name(TENANT);
    let endpoints: Vec<_> = (0..ENDPOINTS).map(|number| endpoint(sealing_key, sink, tenant, number)).collect();
    let mut put = vec![Row::Tenant(TenantRow { id: tenant, name: TENANT.to_owned() })];
    for (name, fanout) in FANOUTS {
        let first = endpoints[..fanout].iter().map(|endpoint| endpoint.id).collect();
        put.push(Row::Subscription(subscription(tenant, name, first)));
    }
    put.extend(endpoints.into_iter().map(|endpoint| Row::Endpoint(Box::new(endpoint))));
    TableChange { put, drop: Vec::new() }
}

fn endpoint(sealing_key: &SealingKey, sink: SocketAddr, tenant: TenantId, number: usize) -> EndpointRow {
    let name = format!("sink-{number}");
    let id = EndpointId::derive(tenant, &name);
    let secrets = EndpointSecrets {
        url: Redacted::new(format!("http://{sink}/{name}")),
        keys: vec![SigningKey { bytes: Redacted::new(KeyBytes(vec![42; 32])), retires_at_unix_ms: None }],
        headers: Vec::new(),
        tls: None,
        token: None,
    };
    EndpointRow {
        id,
        tenant,
        name,
        revision: "1".to_owned(),
        recipient: RecipientRule::Unaddressed,
        state: EndpointState::Active,
        host: sink.to_string(),
        policy: DeliveryPolicy {
            timeout_seconds: 15,
            retry: RetryPolicy::default(),
            rate_limit: None,
            max_in_flight: MAX_IN_FLIGHT_MAX,
            circuit_breaker: BreakerPolicy::default(),
            disable_after_failing_for_seconds: None,
            format: BodyFormat::Payload,
            signing_scheme: SigningScheme::StandardWebhooks,
        },
        pool: DEFAULT_POOL.to_owned(),
        sealed: sealing_key.seal(id, &secrets),
    }
}

fn subscription(tenant: TenantId, name: &str, mut endpoints: Vec<EndpointId>) -> SubscriptionRow {
    endpoints.sort();
    SubscriptionRow {
        id: SubscriptionId::derive(tenant, name),
        tenant,
        name: name.to_owned(),
        endpoints,
        event_types: vec![format!("bench.{name}")],
        filter: None,
        transform: None,
        suspended: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fan_out_has_its_event_type() {
        for (name, fanout) in FANOUTS {
            assert_eq!(event_type(fanout as u64), format!("bench.{name}"));
        }
    }
}
