//! The routing table of the benchmark.

use dispatcher_core::id::{EndpointId, SubscriptionId, TenantId};
use dispatcher_core::limits::MAX_IN_FLIGHT_MAX;
use dispatcher_core::recipient::RecipientRule;
use dispatcher_core::redacted::Redacted;
use dispatcher_core::retry::RetryPolicy;
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{
    BodyFormat, BreakerPolicy, DEFAULT_POOL, DeliveryPolicy, EndpointRow, EndpointSecrets, EndpointState, KeyBytes,
    Row, SigningKey, SigningScheme, SubscriptionRow, TableChange, TenantRow, TlsIdentity,
};

use super::sink::Sink;

/// The tenant's name.
pub const TENANT: &str = "bench";
/// Endpoints of the largest fan-out; the first of them are those of the others.
const ENDPOINTS: usize = 100;

/// Where an event goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Nowhere: it is only accepted.
    None,
    /// To one endpoint.
    One,
    /// To ten.
    Ten,
    /// To a hundred.
    Hundred,
    /// To one endpoint, over TLS.
    OneOverTls,
}

impl Route {
    /// All.
    pub const ALL: [Self; 5] = [Self::None, Self::One, Self::Ten, Self::Hundred, Self::OneOverTls];

    /// Arrivals of one event.
    pub fn fanout(self) -> u64 {
        self.endpoints() as u64
    }

    /// The type of its events.
    pub fn event_type(self) -> &'static str {
        match self {
            Self::None => "bench.none",
            Self::One => "bench.one",
            Self::Ten => "bench.ten",
            Self::Hundred => "bench.hundred",
            Self::OneOverTls => "bench.tls",
        }
    }

    fn endpoints(self) -> usize {
        match self {
            Self::None => 0,
            Self::One | Self::OneOverTls => 1,
            Self::Ten => 10,
            Self::Hundred => ENDPOINTS,
        }
    }
}

/// The whole table: a subscription for each route, all endpoints at one sink.
pub fn table(sealing_key: &SealingKey, sink: &Sink) -> TableChange {
    let tenant = TenantId::of_namespace_name(TENANT);
    let plain: Vec<_> = (0..ENDPOINTS)
        .map(|number| {
            let name = format!("sink-{number}");
            let url = format!("http://{}/{name}", sink.address);
            endpoint(sealing_key, tenant, name, url, None)
        })
        .collect();
    let authorities = Some(Redacted::new(sink.certificate.pem()));
    let identity = TlsIdentity { authorities, client: None };
    let url = format!("https://{}/tls", sink.tls_address);
    let tls = endpoint(sealing_key, tenant, "tls".to_owned(), url, Some(identity));
    let mut put = vec![Row::Tenant(TenantRow { id: tenant, name: TENANT.to_owned() })];
    for route in Route::ALL {
        let endpoints = match route {
            Route::OneOverTls => vec![tls.id],
            _ => plain[..route.endpoints()].iter().map(|endpoint| endpoint.id).collect(),
        };
        put.push(Row::Subscription(subscription(tenant, route, endpoints)));
    }
    put.extend(plain.into_iter().chain([tls]).map(|endpoint| Row::Endpoint(Box::new(endpoint))));
    TableChange { put, drop: Vec::new() }
}

fn endpoint(
    sealing_key: &SealingKey,
    tenant: TenantId,
    name: String,
    url: String,
    tls: Option<TlsIdentity>,
) -> EndpointRow {
    let id = EndpointId::derive(tenant, &name);
    let secrets = EndpointSecrets {
        url: Redacted::new(url),
        keys: vec![SigningKey { bytes: Redacted::new(KeyBytes(vec![42; 32])), retires_at_unix_ms: None }],
        headers: Vec::new(),
        tls,
        token: None,
    };
    EndpointRow {
        id,
        tenant,
        name,
        revision: "1".to_owned(),
        recipient: RecipientRule::Unaddressed,
        state: EndpointState::Active,
        host: "127.0.0.1".to_owned(),
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

fn subscription(tenant: TenantId, route: Route, mut endpoints: Vec<EndpointId>) -> SubscriptionRow {
    endpoints.sort();
    SubscriptionRow {
        id: SubscriptionId::derive(tenant, route.event_type()),
        tenant,
        name: route.event_type().to_owned(),
        endpoints,
        event_types: vec![route.event_type().to_owned()],
        filter: None,
        transform: None,
        suspended: false,
    }
}
