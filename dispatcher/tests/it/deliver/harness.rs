//! A delivering process around an SQLite file, and receivers that answer as they are told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dispatcher::clock::now_unix_ms;
use dispatcher::deliver::{Deliver, DeliverConfig};
use dispatcher::due::Due;
use dispatcher::http::{Client, ClientConfig, ResolverConfig};
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::ledger::{AttemptRecord, DeliveryRecord, Ledger, NewEvent};
use dispatcher::metrics::Metrics;
use dispatcher::queue::memory::MemoryQueue;
use dispatcher::queue::{Item, Message, Queue, Track, Work};
use dispatcher::snapshot::{SnapshotLoader, SnapshotReceiver};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::delivery::{Target, split_into_parts};
use dispatcher_core::event::{Attributes, Event};
use dispatcher_core::id::{EndpointId, EventId, SubscriptionId, TenantId};
use dispatcher_core::limits::{ATTEMPTS_READ_MAX, LEASE};
use dispatcher_core::recipient::RecipientRule;
use dispatcher_core::retry::{Backoff, RetryPolicy};
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{
    BodyFormat, BreakerPolicy, DEFAULT_POOL, DeliveryPolicy, EndpointRow, EndpointSecrets, EndpointState, KeyBytes,
    Row, SigningKey, SigningScheme, SubscriptionRow, TableChange, TableVersion,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) const KEY: [u8; 32] = [9; 32];

pub(crate) fn tenant() -> TenantId {
    TenantId::of_namespace_name("shop")
}

/// Waits for a condition, with a deadline that only a failure reaches.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

/// A request as a receiver saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// A receiver on loopback that remembers all requests and answers as `status` says; 0 answers nothing, ever.
pub(crate) struct Receiver {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    status: watch::Sender<u16>,
}

impl Receiver {
    pub(crate) async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (sender, receiver) = watch::channel(status);
        let requests = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&requests), receiver.clone()));
            }
        });
        Self { url, seen, status: sender }
    }

    /// Answers this from the next answer on; requests that hang are answered with it.
    pub(crate) fn answer(&self, status: u16) {
        self.status.send_replace(status);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// What was seen since the last call.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn serve(mut stream: tokio::net::TcpStream, seen: Arc<Mutex<Vec<Seen>>>, mut status: watch::Receiver<u16>) {
    let mut buffer = Vec::new();
    loop {
        let Some(head_end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
            continue;
        };
        let head = String::from_utf8(buffer[..head_end].to_vec()).unwrap();
        let headers: http::HeaderMap = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
        while buffer.len() < head_end + 4 + length {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body = buffer[head_end + 4..head_end + 4 + length].to_vec();
        buffer.drain(..head_end + 4 + length);
        seen.lock().unwrap().push(Seen { headers, body });
        let Ok(code) = status.wait_for(|status| *status != 0).await.map(|status| *status) else { return };
        let answer = format!("HTTP/1.1 {code} Told\r\ncontent-length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A policy under which retries come quickly.
pub(crate) fn policy() -> DeliveryPolicy {
    DeliveryPolicy {
        timeout_seconds: 20,
        retry: RetryPolicy {
            backoff: Backoff::Fixed { delay_seconds: 1 },
            jitter_percent: 0,
            max_attempts: 5,
            max_age_seconds: 3_600,
        },
        rate_limit: None,
        max_in_flight: 32,
        circuit_breaker: BreakerPolicy { min_attempts: 1_000, ..BreakerPolicy::default() },
        disable_after_failing_for_seconds: None,
        format: BodyFormat::Payload,
        signing_scheme: SigningScheme::StandardWebhooks,
    }
}

pub(crate) fn endpoint_id(name: &str) -> EndpointId {
    EndpointId::derive(tenant(), name)
}

pub(crate) fn sealing_key() -> SealingKey {
    SealingKey::from_bytes(&[7; 32])
}

pub(crate) fn endpoint(name: &str, url: &str, policy: DeliveryPolicy) -> EndpointRow {
    let id = endpoint_id(name);
    let secrets = EndpointSecrets {
        url: url.to_owned().into(),
        keys: vec![SigningKey { bytes: KeyBytes(KEY.to_vec()).into(), retires_at_unix_ms: None }],
        headers: vec![("x-token".into(), String::from("swordfish").into())],
        tls: None,
        token: None,
    };
    EndpointRow {
        id,
        tenant: tenant(),
        name: name.into(),
        revision: "1".into(),
        recipient: RecipientRule::Any,
        state: EndpointState::Active,
        host: "127.0.0.1".into(),
        policy,
        pool: DEFAULT_POOL.into(),
        sealed: sealing_key().seal(id, &secrets),
    }
}

/// Short budgets, so that tests of what is slow need not be.
pub(crate) fn config() -> DeliverConfig {
    DeliverConfig {
        soft_budget: Duration::from_millis(300),
        lease_margin: Duration::from_millis(300),
        drain_deadline: Duration::from_millis(500),
        ..DeliverConfig::default()
    }
}

/// A delivering process.
pub(crate) struct Process {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) queue: Arc<MemoryQueue>,
    pub(crate) observers: broadcast::Sender<Arc<dispatcher::deliver::Observed>>,
    snapshot: SnapshotReceiver,
    table_changed: Arc<Notify>,
    shutdown: CancellationToken,
    deliver: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Process {
    pub(crate) async fn start(rows: Vec<EndpointRow>, config: DeliverConfig) -> Self {
        Self::start_before(rows, config, |ledger| ledger).await
    }

    /// Starts with something in front of the ledger.
    pub(crate) async fn start_before(
        rows: Vec<EndpointRow>,
        config: DeliverConfig,
        wrap: impl FnOnce(Arc<dyn Ledger>) -> Arc<dyn Ledger>,
    ) -> Self {
        Self::start_on(rows, config, wrap, |queue| queue).await
    }

    /// Starts with something in front of the ledger, and of the queue that is consumed.
    pub(crate) async fn start_on(
        rows: Vec<EndpointRow>,
        config: DeliverConfig,
        wrap: impl FnOnce(Arc<dyn Ledger>) -> Arc<dyn Ledger>,
        wrap_queue: impl FnOnce(Arc<MemoryQueue>) -> Arc<dyn Queue>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let real: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(folder.path()).await.unwrap());
        put(&real, rows).await;
        let put = vec![Row::Subscription(subscription("all", None))];
        real.publish_table(TableChange { put, drop: Vec::new() }, None).await.unwrap();
        let ledger = wrap(real);
        let queue = Arc::new(MemoryQueue::new(256));
        let (metrics, table_changed) = (Arc::new(Metrics::new()), Arc::new(Notify::new()));
        let (loader, snapshot) = SnapshotLoader::start(
            Arc::clone(&ledger),
            Arc::new(sealing_key()),
            Arc::clone(&table_changed),
            Arc::clone(&metrics),
        )
        .await
        .unwrap();
        let (shutdown, due_changed) = (CancellationToken::new(), Arc::new(Notify::new()));
        let (observers, _) = broadcast::channel(1_024);
        let resolver = ResolverConfig { fixed_hosts: HashMap::new() };
        let client = Client::new(ClientConfig { address_policy: AddressPolicy::development(), resolver }).unwrap();
        let due = Due {
            ledger: Arc::clone(&ledger),
            queue: Arc::clone(&queue) as Arc<dyn Queue>,
            pool: config.pool.clone(),
            instance: config.instance,
            changed: Arc::clone(&due_changed),
            metrics: Arc::clone(&metrics),
        };
        let deliver = Deliver {
            config,
            ledger: Arc::clone(&ledger),
            queue: wrap_queue(Arc::clone(&queue)),
            snapshot: snapshot.clone(),
            client,
            metrics,
            observers: observers.clone(),
            due_changed,
        };
        tokio::spawn(loader.run(shutdown.clone()));
        tokio::spawn(due.run(shutdown.clone()));
        let deliver = tokio::spawn(deliver.run(shutdown.clone()));
        Self { ledger, queue, observers, snapshot, table_changed, shutdown, deliver, _folder: folder }
    }

    /// Changes endpoints.
    pub(crate) async fn put(&self, rows: Vec<EndpointRow>) {
        put(&self.ledger, rows).await;
        self.table_changed.notify_one();
    }

    /// Changes the table, and waits until the process has loaded it.
    pub(crate) async fn change_table(&self, change: TableChange) {
        let version = self.ledger.publish_table(change, None).await.unwrap();
        self.table_changed.notify_one();
        let mut snapshot = self.snapshot.clone();
        let loading = snapshot.wait_for(|snapshot| snapshot.version >= version);
        drop(tokio::time::timeout(Duration::from_mins(1), loading).await.expect("the table is loaded").unwrap());
    }

    /// Puts a subscription with this transform into the table.
    pub(crate) async fn subscribe(&self, name: &str, transform: Option<&str>) {
        let put = vec![Row::Subscription(subscription(name, transform))];
        self.change_table(TableChange { put, drop: Vec::new() }).await;
    }

    /// Accepts an event for these endpoints, and publishes it with its lease of `lease`.
    pub(crate) async fn publish(&self, endpoints: &[&str], lease: Duration) -> EventId {
        let (event, message) = self.accept(endpoints, lease).await;
        self.send(message).await;
        event
    }

    /// Accepts an event of this body by way of a subscription, and publishes it.
    pub(crate) async fn publish_by(&self, subscription: &str, endpoints: &[&str], body: impl Into<Bytes>) -> EventId {
        let event = Event { body: body.into(), ..new_event() };
        let (event, message) = self.accept_by(event, subscription, endpoints, LEASE).await;
        self.send(message).await;
        event
    }

    async fn send(&self, message: Message) {
        let results = self.queue.publish(DEFAULT_POOL, Track::Fresh, vec![message]).await;
        assert_eq!(results, [Ok(())]);
    }

    /// Accepts an event and answers the message that would carry it.
    pub(crate) async fn accept(&self, endpoints: &[&str], lease: Duration) -> (EventId, Message) {
        self.accept_by(new_event(), "all", endpoints, lease).await
    }

    async fn accept_by(
        &self,
        event: Event,
        subscription: &str,
        endpoints: &[&str],
        lease: Duration,
    ) -> (EventId, Message) {
        let event = Arc::new(event);
        let target = |name: &&str| (DEFAULT_POOL.to_owned(), target_by(subscription, name));
        let targets = endpoints.iter().map(target).collect();
        let parts = split_into_parts(targets);
        let (id, table_version) = (event.id, TableVersion(1));
        let new = NewEvent { event: Arc::clone(&event), parts: parts.clone(), table_version, idempotency: None, lease };
        self.ledger.accept(vec![new]).await.unwrap();
        let lease_until_unix_ms = now_unix_ms() + u64::try_from(lease.as_millis()).unwrap();
        let items = parts.into_iter().map(|part| Item {
            event: Arc::clone(&event),
            table_version,
            lease_until_unix_ms,
            work: Work::Part { part: part.number, r#gen: 1, targets: part.targets },
        });
        (id, Message { items: items.collect() })
    }

    pub(crate) async fn delivery(&self, event: EventId, name: &str) -> DeliveryRecord {
        self.ledger.delivery(tenant(), target(name).delivery(event)).await.unwrap().unwrap()
    }

    pub(crate) async fn attempts(&self, event: EventId, name: &str) -> Vec<AttemptRecord> {
        self.ledger.attempts(tenant(), target(name).delivery(event), ATTEMPTS_READ_MAX).await.unwrap()
    }

    /// Waits until no delivery is open.
    pub(crate) async fn finished(&self) {
        eventually("nothing is open", || async {
            self.ledger.balance().await.unwrap().iter().all(|balance| balance.open == 0)
        })
        .await;
    }

    pub(crate) async fn assert_balanced(&self) {
        for balance in self.ledger.balance().await.unwrap() {
            let sum = balance.delivered + balance.dead + balance.cancelled + balance.open;
            assert_eq!(balance.accepted, sum, "{balance:?}");
        }
    }

    /// Open deliveries of an endpoint that have a row: those that only the outbox knows are not counted.
    pub(crate) async fn pending(&self, name: &str) -> u64 {
        let facts = self.ledger.endpoint_facts(tenant(), Duration::from_mins(1)).await.unwrap();
        facts.iter().filter(|facts| facts.endpoint == endpoint_id(name)).map(|facts| facts.pending).sum()
    }

    /// Stops delivering, drained.
    pub(crate) async fn stop(&mut self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_mins(1), &mut self.deliver).await.expect("a drain ends").unwrap();
    }
}

async fn put(ledger: &Arc<dyn Ledger>, rows: Vec<EndpointRow>) {
    let put = rows.into_iter().map(|row| Row::Endpoint(Box::new(row))).collect();
    ledger.publish_table(TableChange { put, drop: Vec::new() }, None).await.unwrap();
}

/// A subscription that selects nothing by itself: tests choose targets.
pub(crate) fn subscription(name: &str, transform: Option<&str>) -> SubscriptionRow {
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

pub(crate) fn target(name: &str) -> Target {
    target_by("all", name)
}

/// An endpoint by way of a subscription.
pub(crate) fn target_by(subscription: &str, name: &str) -> Target {
    Target { subscription: SubscriptionId::derive(tenant(), subscription), endpoint: endpoint_id(name) }
}

pub(crate) fn new_event() -> Event {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut random = [0; 10];
    random.copy_from_slice(&Uuid::new_v4().as_bytes()[..10]);
    Event {
        id: EventId::from_parts(now_unix_ms(), random),
        tenant: tenant(),
        event_type: "order.created".into(),
        recipient: None,
        content_type: "application/json".into(),
        body: Bytes::from(format!("{{\"number\":  {number}}}")),
        attributes: Attributes::default(),
    }
}
