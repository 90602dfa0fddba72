//! What an endpoint gets back of deliveries that could not be sent in time.

use dispatcher_core::address::AddressPolicy;
use dispatcher_core::delivery::{DeliveryKey, Target};
use dispatcher_core::event::{Attributes, Event};
use dispatcher_core::id::SubscriptionId;
use dispatcher_core::recipient::RecipientRule;
use dispatcher_core::retry::RetryPolicy;
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{
    BodyFormat, BreakerPolicy, DeliveryPolicy, EndpointRow, EndpointSecrets, EndpointState, KeyBytes, RateLimit, Row,
    SigningKey, SigningScheme, SubscriptionRow, TableChange, TableVersion,
};

use super::admit::{Admission, admit};
use super::endpoints::Admitted;
use super::part::Job;
use super::recorder::{Effect, Entry};
use super::*;
use crate::http::{ClientConfig, ResolverConfig};
use crate::ledger::sqlite::SqliteLedger;
use crate::snapshot::SnapshotLoader;

/// An endpoint that is sent one request a second.
pub(crate) fn endpoint_row(tenant: TenantId, name: &str) -> EndpointRow {
    let id = EndpointId::derive(tenant, name);
    let secrets = EndpointSecrets {
        url: "http://127.0.0.1:1/".to_owned().into(),
        keys: vec![SigningKey { bytes: KeyBytes(vec![9; 32]).into(), retires_at_unix_ms: None }],
        headers: Vec::new(),
        tls: None,
        token: None,
    };
    EndpointRow {
        id,
        tenant,
        name: name.into(),
        revision: "1".into(),
        recipient: RecipientRule::Any,
        state: EndpointState::Active,
        host: "127.0.0.1".into(),
        policy: DeliveryPolicy {
            timeout_seconds: 15,
            retry: RetryPolicy::default(),
            rate_limit: Some(RateLimit { per_second: 1, burst: 1 }),
            max_in_flight: 8,
            circuit_breaker: BreakerPolicy::default(),
            disable_after_failing_for_seconds: None,
            format: BodyFormat::Payload,
            signing_scheme: SigningScheme::StandardWebhooks,
        },
        pool: DEFAULT_POOL.into(),
        sealed: sealing_key().seal(id, &secrets),
    }
}

fn sealing_key() -> SealingKey {
    SealingKey::from_bytes(&[7; 32])
}

fn tenant() -> TenantId {
    TenantId::of_namespace_name("shop")
}

fn subscription_row(name: &str, transform: Option<&str>) -> SubscriptionRow {
    SubscriptionRow {
        id: SubscriptionId::derive(tenant(), name),
        tenant: tenant(),
        name: name.into(),
        endpoints: Vec::new(),
        event_types: vec!["**".into()],
        filter: None,
        transform: transform.map(str::to_owned),
        suspended: false,
    }
}

/// A worker without a running recorder: what it hands over waits there.
async fn worker(ledger: Arc<dyn Ledger>, rows: Vec<Row>) -> (Worker, Recorder) {
    ledger.publish_table(TableChange { put: rows, drop: Vec::new() }, None).await.unwrap();
    let (metrics, sealing_key) = (Arc::new(Metrics::new()), Arc::new(sealing_key()));
    let (_, snapshot) =
        SnapshotLoader::start(Arc::clone(&ledger), sealing_key, Arc::default(), Arc::clone(&metrics)).await.unwrap();
    let resolver = ResolverConfig { fixed_hosts: std::collections::HashMap::new() };
    let client = Client::new(ClientConfig { address_policy: AddressPolicy::development(), resolver }).unwrap();
    let (observers, _) = broadcast::channel(1);
    let (handle, recorder) =
        Recorder::new(Arc::clone(&ledger), Arc::clone(&metrics), observers.clone(), Arc::default());
    let worker = Worker {
        config: DeliverConfig::default(),
        clock: ledger.clock(),
        ledger,
        snapshot,
        tokens: Tokens::new(client.clone(), TOKEN_REQUEST_TIMEOUT),
        client,
        metrics,
        observers,
        endpoints: Endpoints::default(),
        transforms: Transforms::default(),
        recorder: handle,
        fast: Arc::new(Semaphore::new(0)),
        slow: Arc::new(Semaphore::new(0)),
        stopping: CancellationToken::new(),
        aborting: CancellationToken::new(),
        tasks: TaskTracker::new(),
        shortage_told_at_ms: AtomicU64::new(0),
    };
    (worker, recorder)
}

/// A delivery whose lease is as good as over, of an event whose transform is costly.
fn late_job(subscription: &str) -> Job {
    let event = Event {
        id: EventId::from_parts(1, [0; 10]),
        tenant: tenant(),
        event_type: "a".into(),
        recipient: None,
        content_type: "application/json".into(),
        body: format!("[{}]", vec!["7"; 50_000].join(",")).into(),
        attributes: Attributes::default(),
    };
    let target = Target {
        subscription: SubscriptionId::derive(tenant(), subscription),
        endpoint: EndpointId::derive(tenant(), "e"),
    };
    Job {
        key: DeliveryKey::new(event.tenant, event.id, target),
        event: Arc::new(event),
        attempt_number: 1,
        run_age: Duration::ZERO,
        arrived: std::time::Instant::now(),
        lease_until_unix_ms: 0,
        table_version: TableVersion(1),
        run: 1,
        r#gen: 1,
    }
}

#[tokio::test]
async fn what_is_too_late_to_be_sent_gives_back_its_token_and_the_place_in_the_lane() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Arc::new(SqliteLedger::open_in(folder.path()).await.unwrap());
    let row = endpoint_row(tenant(), "e");
    let rows = vec![
        Row::Endpoint(Box::new(row.clone())),
        Row::Subscription(subscription_row("costly", Some("{'all': event.data}"))),
        Row::Subscription(subscription_row("plain", None)),
    ];
    let (worker, mut recorder) = worker(ledger, rows).await;
    // There is no thread for the transform of the one, and no track for the other.
    let _threads = worker.transforms.all_threads().await;
    for (subscription, pause) in [("costly", worker.config.soft_budget), ("plain", Duration::ZERO)] {
        for _ in 0..2 {
            let admission = admit(&worker, &late_job(subscription)).await;
            assert!(matches!(admission, Admission::Wait(delay) if delay == pause), "{subscription}");
            let gates: Vec<_> = recorder.waiting().into_iter().collect();
            let [Entry::Effect(Effect::Gate(gate))] = &gates[..] else { panic!("{subscription}: {}", gates.len()) };
            assert_eq!((gate.closed_for, gate.quota), (Duration::ZERO, Some(1)), "{subscription}");
        }
    }
    let endpoint = worker.endpoints.of(&row, worker.config.soft_budget);
    assert!(matches!(endpoint.enter(&row, Duration::ZERO), Admitted::Go(_)), "no token was used");
}
