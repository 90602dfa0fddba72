//! A served API over a real ledger in a folder of its own, without anybody who delivers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dispatcher::api::{Api, router};
use dispatcher::ingest::{Acceptor, Admission, AdmissionLimits, BodyReader, Ingest, Routing};
use dispatcher::ledger::Ledger;
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::metrics::Metrics;
use dispatcher::queue::Queue;
use dispatcher::queue::memory::MemoryQueue;
use dispatcher::server::{self, ServerLimits};
use dispatcher::snapshot::{SnapshotLoader, SnapshotReceiver};
use dispatcher_core::id::{EndpointId, SubscriptionId, TenantId};
use dispatcher_core::limits::MEMORY_QUEUE_MESSAGES_MAX;
use dispatcher_core::recipient::RecipientRule;
use dispatcher_core::retry::RetryPolicy;
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{
    BodyFormat, BreakerPolicy, DEFAULT_POOL, DeliveryPolicy, EndpointRow, EndpointSecrets, EndpointState, KeyBytes,
    Row, SigningKey, SigningScheme, SubscriptionRow, TableChange, TenantRow,
};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The path of the receiver's URL: a secret that no answer may show.
pub(crate) const SECRET_PATH: &str = "hunter2";

/// What a test may change.
pub(crate) struct Options {
    pub(crate) admission: AdmissionLimits,
    pub(crate) bodies: BodyReader,
    pub(crate) queue_messages_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            admission: AdmissionLimits::default(),
            bodies: BodyReader::default(),
            queue_messages_max: MEMORY_QUEUE_MESSAGES_MAX,
        }
    }
}

/// A served API.
pub(crate) struct World {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) queue: Arc<MemoryQueue>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) address: SocketAddr,
    pub(crate) http: reqwest::Client,
    pub(crate) table_changed: Arc<Notify>,
    pub(crate) snapshot: SnapshotReceiver,
    shutdown: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Status, label of the problem, and field at fault.
    pub(crate) fn problem(&self) -> (u16, String, Option<String>) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status);
        assert!(json["title"].is_string() && json["detail"].is_string(), "{json}");
        let label = json["type"].as_str().unwrap().strip_prefix(dispatcher::problem::TYPE_PREFIX).unwrap();
        (self.status, label.to_owned(), json["field"].as_str().map(str::to_owned))
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default(), |ledger| ledger).await
    }

    /// `wrap` may put another ledger before the real one, once the table is published.
    pub(crate) async fn start_with(options: Options, wrap: impl FnOnce(Arc<dyn Ledger>) -> Arc<dyn Ledger>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(folder.path()).await.unwrap());
        ledger.publish_table(TableChange { put: table(), drop: Vec::new() }, None).await.unwrap();
        let served = wrap(Arc::clone(&ledger));
        let metrics = Arc::new(Metrics::new());
        let table_changed = Arc::new(Notify::new());
        let (loader, snapshot) = SnapshotLoader::start(
            Arc::clone(&ledger),
            Arc::new(sealing_key()),
            Arc::clone(&table_changed),
            Arc::clone(&metrics),
        )
        .await
        .unwrap();
        let queue = Arc::new(MemoryQueue::new(options.queue_messages_max));
        let (acceptor, accepting) =
            Acceptor::new(Arc::clone(&served), Arc::clone(&queue) as Arc<dyn Queue>, Arc::clone(&metrics));
        let (admission, counting) = Admission::new(Arc::clone(&served), options.admission, Arc::clone(&metrics));
        let shutdown = CancellationToken::new();
        tokio::spawn(loader.run(shutdown.clone()));
        tokio::spawn(accepting.run(shutdown.clone()));
        tokio::spawn(counting.run(shutdown.clone()));
        let api = Api {
            ledger: Arc::clone(&served),
            snapshot: snapshot.clone(),
            due_changed: Arc::new(Notify::new()),
            metrics: Arc::clone(&metrics),
        };
        let ingest = Ingest {
            snapshot: snapshot.clone(),
            acceptor,
            admission,
            bodies: options.bodies,
            routing: Routing::default(),
            clock: served.clock(),
            metrics: Arc::clone(&metrics),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server::serve(listener, router(api, ingest), ServerLimits::default(), shutdown.clone()));
        let http = reqwest::Client::builder().build().unwrap();
        Self { ledger, queue, metrics, address, http, table_changed, snapshot, shutdown, _folder: folder }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.bytes().await.unwrap().to_vec() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.http.get(self.url(path))).await
    }

    pub(crate) async fn post(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send(self.http.post(self.url(path)).header("content-type", content_type).body(body)).await
    }

    /// Publishes to the tenant `shop` and answers the event's identity.
    pub(crate) async fn publish(&self, event_type: &str, payload: &str) -> String {
        let body = format!(r#"{{"event_type":"{event_type}","payload":{payload}}}"#);
        let answer = self.post("/v1/tenants/shop/events:publish", "application/json", body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["event_id"].as_str().unwrap().to_owned()
    }

    /// Asserts that nothing is stored, and nothing is queued.
    pub(crate) async fn assert_nothing_stored(&self, context: &str) {
        assert!(self.ledger.balance().await.unwrap().iter().all(|balance| balance.accepted == 0), "{context}");
        for tenant in ["shop", "other"] {
            let query = dispatcher::ledger::EventQuery { rows_max: 10, ..Default::default() };
            let page = self.ledger.events(TenantId::of_namespace_name(tenant), query).await.unwrap();
            assert!(page.rows.is_empty(), "{context}: {:?}", page.rows);
        }
    }
}

/// Waits until a condition holds; panics after a generous deadline.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

pub(crate) fn sealing_key() -> SealingKey {
    SealingKey::from_bytes(&[7; 32])
}

/// Tenant `shop` with an active, a suspended, a held and a customer's endpoint; tenant `other` with nothing.
fn table() -> Vec<Row> {
    let mut rows: Vec<Row> = ["shop", "other"].map(tenant_row).into();
    rows.push(endpoint_row("billing", EndpointState::Active, RecipientRule::Unaddressed));
    rows.push(endpoint_row("paused", EndpointState::Suspended, RecipientRule::Unaddressed));
    let held = EndpointState::Held { reason: "SecretNotFound".into() };
    rows.push(endpoint_row("broken", held, RecipientRule::Unaddressed));
    rows.push(endpoint_row("acme", EndpointState::Active, RecipientRule::Exactly("acme".into())));
    rows.push(subscription_row("orders", &["billing", "acme"], &["order.*"], None));
    rows.push(subscription_row("everything", &["paused"], &["**"], None));
    rows.push(subscription_row("large", &["billing"], &["order.*"], Some("event.data.total > 100")));
    rows.push(subscription_row("lost", &["nowhere"], &["**"], None));
    rows
}

pub(crate) fn tenant_row(name: &str) -> Row {
    Row::Tenant(TenantRow { id: TenantId::of_namespace_name(name), name: name.into() })
}

pub(crate) fn endpoint_row(name: &str, state: EndpointState, recipient: RecipientRule) -> Row {
    let tenant = TenantId::of_namespace_name("shop");
    let id = EndpointId::derive(tenant, name);
    let secrets = EndpointSecrets {
        url: format!("https://{name}.example/{SECRET_PATH}").into(),
        keys: vec![SigningKey { bytes: KeyBytes(vec![9; 32]).into(), retires_at_unix_ms: None }],
        headers: vec![("x-token".into(), String::from("swordfish").into())],
        tls: None,
        token: None,
    };
    Row::Endpoint(Box::new(EndpointRow {
        id,
        tenant,
        name: name.into(),
        revision: "1".into(),
        recipient,
        state,
        host: format!("{name}.example"),
        policy: DeliveryPolicy {
            timeout_seconds: 15,
            retry: RetryPolicy::default(),
            rate_limit: None,
            max_in_flight: 32,
            circuit_breaker: BreakerPolicy::default(),
            disable_after_failing_for_seconds: None,
            format: BodyFormat::Payload,
            signing_scheme: SigningScheme::StandardWebhooks,
        },
        pool: DEFAULT_POOL.into(),
        sealed: sealing_key().seal(id, &secrets),
    }))
}

pub(crate) fn subscription_row(name: &str, endpoints: &[&str], event_types: &[&str], filter: Option<&str>) -> Row {
    let tenant = TenantId::of_namespace_name("shop");
    Row::Subscription(SubscriptionRow {
        id: SubscriptionId::derive(tenant, name),
        tenant,
        name: name.into(),
        endpoints: endpoints.iter().map(|endpoint| EndpointId::derive(tenant, endpoint)).collect(),
        event_types: event_types.iter().map(|event_type| (*event_type).to_owned()).collect(),
        filter: filter.map(str::to_owned),
        transform: None,
        suspended: false,
    })
}
