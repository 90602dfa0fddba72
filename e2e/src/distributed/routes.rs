//! The routing table of a test: one tenant, some endpoints at one receiver, one subscription to everything.

use dispatcher_core::delivery::{DeliveryKey, Target};
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, SubscriptionId, TenantId};
use dispatcher_core::limits::MAX_IN_FLIGHT_MAX;
use dispatcher_core::recipient::RecipientRule;
use dispatcher_core::redacted::Redacted;
use dispatcher_core::retry::{Backoff, RetryPolicy};
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{
    BodyFormat, BreakerPolicy, DEFAULT_POOL, DeliveryPolicy, EndpointRow, EndpointSecrets, EndpointState, KeyBytes,
    Row, RowKey, SigningKey, SigningScheme, SubscriptionRow, TenantRow,
};

/// The tenant's name.
pub const TENANT: &str = "shop";
const SUBSCRIPTION: &str = "all";
/// More attempts in a window than any test makes: what fails here fails for reasons of the test.
const NEVER: u32 = 1_000_000;

/// Who gets what. Every event goes to every endpoint.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Where the endpoints are.
    pub url: String,
    /// Names of the endpoints.
    pub endpoints: Vec<&'static str>,
    /// Most exchanges in flight to each endpoint.
    pub max_in_flight: u32,
    /// Deadline of an exchange.
    pub timeout_seconds: u32,
}

impl Routes {
    /// Two endpoints at a URL.
    pub fn to(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            endpoints: vec!["billing", "mail"],
            max_in_flight: MAX_IN_FLIGHT_MAX,
            timeout_seconds: 15,
        }
    }

    /// Deliveries of one event.
    pub fn fanout(&self) -> usize {
        self.endpoints.len()
    }

    /// The tenant.
    pub fn tenant(&self) -> TenantId {
        TenantId::of_namespace_name(TENANT)
    }

    /// The targets of every event.
    pub fn targets(&self) -> Vec<Target> {
        let subscription = SubscriptionId::derive(self.tenant(), SUBSCRIPTION);
        self.endpoint_ids().map(|endpoint| Target { subscription, endpoint }).collect()
    }

    /// The deliveries of an event: what the receiver sees as `webhook-id`.
    pub fn deliveries_of(&self, event: EventId) -> Vec<DeliveryId> {
        let key = |target| DeliveryKey::new(self.tenant(), event, target).delivery;
        self.targets().into_iter().map(key).collect()
    }

    /// The keys of all rows but the tenant's, to drop them.
    pub fn keys(&self) -> Vec<RowKey> {
        let subscription = RowKey::Subscription(SubscriptionId::derive(self.tenant(), SUBSCRIPTION));
        self.endpoint_ids().map(RowKey::Endpoint).chain([subscription]).collect()
    }

    /// The rows, their secrets sealed.
    pub fn rows(&self, sealing_key: &SealingKey) -> Vec<Row> {
        let tenant = self.tenant();
        let mut endpoints: Vec<EndpointId> = self.endpoint_ids().collect();
        endpoints.sort();
        let subscription = SubscriptionRow {
            id: SubscriptionId::derive(tenant, SUBSCRIPTION),
            tenant,
            name: SUBSCRIPTION.to_owned(),
            endpoints,
            event_types: vec!["**".to_owned()],
            filter: None,
            transform: None,
            suspended: false,
        };
        let mut rows =
            vec![Row::Tenant(TenantRow { id: tenant, name: TENANT.to_owned() }), Row::Subscription(subscription)];
        rows.extend(self.endpoints.iter().map(|name| Row::Endpoint(Box::new(self.endpoint(name, sealing_key)))));
        rows
    }

    fn endpoint_ids(&self) -> impl Iterator<Item = EndpointId> {
        self.endpoints.iter().map(|name| EndpointId::derive(self.tenant(), name))
    }

    fn endpoint(&self, name: &str, sealing_key: &SealingKey) -> EndpointRow {
        let id = EndpointId::derive(self.tenant(), name);
        let secrets = EndpointSecrets {
            url: Redacted::new(format!("{}/{name}", self.url)),
            keys: vec![SigningKey { bytes: Redacted::new(KeyBytes(vec![42; 32])), retires_at_unix_ms: None }],
            headers: Vec::new(),
            tls: None,
            token: None,
        };
        EndpointRow {
            id,
            tenant: self.tenant(),
            name: name.to_owned(),
            revision: "1".to_owned(),
            recipient: RecipientRule::Unaddressed,
            state: EndpointState::Active,
            host: "the test's receiver".to_owned(),
            policy: self.policy(),
            pool: DEFAULT_POOL.to_owned(),
            sealed: sealing_key.seal(id, &secrets),
        }
    }

    /// A second between attempts, and neither a circuit nor a count of attempts that ends them.
    fn policy(&self) -> DeliveryPolicy {
        DeliveryPolicy {
            timeout_seconds: self.timeout_seconds,
            retry: RetryPolicy {
                backoff: Backoff::Fixed { delay_seconds: 1 },
                jitter_percent: 0,
                max_attempts: 100,
                ..RetryPolicy::default()
            },
            rate_limit: None,
            max_in_flight: self.max_in_flight,
            circuit_breaker: BreakerPolicy { min_attempts: NEVER, ..BreakerPolicy::default() },
            disable_after_failing_for_seconds: None,
            format: BodyFormat::Payload,
            signing_scheme: SigningScheme::StandardWebhooks,
        }
    }
}
