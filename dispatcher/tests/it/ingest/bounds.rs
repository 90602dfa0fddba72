//! What one request and one commit may hold, and what waits.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use dispatcher::ingest::{AcceptError, Acceptor, AcceptorTask, NewRequest};
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::ledger::{Ledger, LedgerError};
use dispatcher::metrics::Metrics;
use dispatcher::queue::memory::MemoryQueue;
use dispatcher_core::delivery::Target;
use dispatcher_core::event::{Attributes, Event};
use dispatcher_core::id::{EndpointId, EventId, SubscriptionId, TenantId};
use dispatcher_core::limits::{
    ACCEPT_BATCH_TARGETS_MAX, ACCEPT_CROWD_MIN, ACCEPT_REST_MAX, ACCEPT_WAITING_TARGETS_MAX, FANOUT_MAX,
    REQUEST_TARGETS_MAX,
};
use dispatcher_core::recipient::RecipientRule;
use dispatcher_core::table::{EndpointState, Row, TableChange, TableVersion};
use futures::future::join_all;
use futures::poll;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{CLOUDEVENTS, JSON, PUBLISH};
use crate::api::harness::{World, endpoint_row, eventually, subscription_row};
use crate::ledger_proxy::{Before, LedgerProxy};

/// An acceptor whose task does not run yet, so that whatever is asked of it waits.
struct Line {
    acceptor: Acceptor,
    task: AcceptorTask,
    metrics: Arc<Metrics>,
    ledger: Arc<dyn Ledger>,
    _folder: tempfile::TempDir,
}

impl Line {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(folder.path()).await.unwrap());
        let metrics = Arc::new(Metrics::new());
        // Without room in the queue nothing is published, and only commits are seen.
        let queue = Arc::new(MemoryQueue::new(0));
        let (acceptor, task) = Acceptor::new(Arc::clone(&ledger), queue, Arc::clone(&metrics));
        Self { acceptor, task, metrics, ledger, _folder: folder }
    }
}

fn request(number: usize, targets: usize) -> NewRequest {
    let tenant = TenantId::of_namespace_name("shop");
    let subscription = SubscriptionId::derive(tenant, "all");
    let target = |number: usize| {
        let endpoint = EndpointId::derive(tenant, &number.to_string());
        ("default".to_owned(), Target { subscription, endpoint })
    };
    NewRequest {
        event: Arc::new(Event {
            id: EventId::from_parts(1 + number as u64, [0; 10]),
            tenant,
            event_type: "order.created".into(),
            recipient: None,
            content_type: JSON.into(),
            body: Bytes::from_static(b"1"),
            attributes: Attributes::default(),
        }),
        targets: (0..targets).map(target).collect(),
        table_version: TableVersion(1),
        idempotency: None,
    }
}

/// How many commits there were, and of how many events.
fn commits(metrics: &Metrics) -> (String, String) {
    let text = metrics.render().unwrap();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().to_owned()
    };
    (value("harborhook_accept_batch_events_count"), value("harborhook_accept_batch_events_sum"))
}

#[tokio::test]
async fn requests_that_wait_share_one_commit() {
    let line = Line::new().await;
    let mut all = std::pin::pin!(join_all((0..300).map(|number| line.acceptor.accept(request(number, 2)))));
    assert!(poll!(&mut all).is_pending(), "all of them wait");
    tokio::spawn(line.task.run(CancellationToken::new()));
    let receipts = all.await;
    assert!(receipts.iter().all(|receipt| receipt.is_ok_and(|receipt| receipt.fanout_count == 2)));
    assert_eq!(commits(&line.metrics), ("1".to_owned(), "300.0".to_owned()));
    let balance = line.ledger.balance().await.unwrap();
    assert_eq!(balance.iter().map(|balance| (balance.accepted, balance.open)).next(), Some((600, 600)));
}

#[tokio::test]
async fn a_commit_holds_no_more_targets_than_it_may() {
    let line = Line::new().await;
    let requests = ACCEPT_BATCH_TARGETS_MAX / FANOUT_MAX + 1;
    let mut all =
        std::pin::pin!(join_all((0..requests).map(|number| line.acceptor.accept(request(number, FANOUT_MAX)))));
    assert!(poll!(&mut all).is_pending());
    tokio::spawn(line.task.run(CancellationToken::new()));
    assert!(all.await.iter().all(Result::is_ok));
    assert_eq!(commits(&line.metrics).0, "2");
}

#[tokio::test]
async fn the_waiting_line_is_bounded_in_targets() {
    let line = Line::new().await;
    let fitting = ACCEPT_WAITING_TARGETS_MAX / FANOUT_MAX;
    let mut waiting =
        std::pin::pin!(join_all((0..fitting).map(|number| line.acceptor.accept(request(number, FANOUT_MAX)))));
    assert!(poll!(&mut waiting).is_pending());
    assert_eq!(line.acceptor.accept(request(fitting, 1)).await, Err(AcceptError::Full));
    let mut without_targets = std::pin::pin!(line.acceptor.accept(request(fitting, 0)));
    assert!(poll!(&mut without_targets).is_pending(), "an event without targets takes no room");
    drop(line.task);
    assert!(waiting.await.iter().all(|answer| *answer == Err(AcceptError::Stopping)));
    assert_eq!(without_targets.await, Err(AcceptError::Stopping));
}

/// Notes when commits begin, and has each take a while.
#[derive(Default)]
struct Slow(Mutex<Vec<Instant>>);

const COMMIT: Duration = Duration::from_millis(50);

#[async_trait]
impl Before for Arc<Slow> {
    async fn call(&self, method: &'static str) -> Result<(), LedgerError> {
        if method == "accept" {
            self.0.lock().unwrap().push(Instant::now());
            tokio::time::sleep(COMMIT).await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn the_writer_rests_after_a_crowd() {
    let line = Line::new().await;
    let slow = Arc::new(Slow::default());
    let ledger = Arc::new(LedgerProxy { real: line.ledger, before: Arc::clone(&slow) });
    let (acceptor, task) = Acceptor::new(ledger, Arc::new(MemoryQueue::new(0)), line.metrics);
    let mut crowd = std::pin::pin!(join_all((0..ACCEPT_CROWD_MIN).map(|number| acceptor.accept(request(number, 1)))));
    assert!(poll!(&mut crowd).is_pending());
    tokio::spawn(task.run(CancellationToken::new()));
    assert!(crowd.await.iter().all(Result::is_ok));
    acceptor.accept(request(ACCEPT_CROWD_MIN, 1)).await.unwrap();
    let [first, second] = slow.0.lock().unwrap()[..] else { panic!("there were two commits") };
    assert!(second - first >= COMMIT + ACCEPT_REST_MAX, "{:?}", second - first);
}

/// Puts rows into the table of `shop` and waits until they are routed by.
async fn put(world: &World, put: Vec<Row>) {
    let version = world.ledger.publish_table(TableChange { put, drop: Vec::new() }, None).await.unwrap();
    world.table_changed.notify_one();
    eventually("the table is loaded", || async { world.snapshot.borrow().version >= version }).await;
}

#[tokio::test]
async fn a_batch_with_too_many_targets_is_refused_as_a_whole() {
    const ENDPOINTS: usize = 1_000;
    let world = World::start().await;
    let names: Vec<String> = (0..ENDPOINTS).map(|number| format!("e{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let endpoint = |name: &&str| endpoint_row(name, EndpointState::Active, RecipientRule::Exactly("acme".into()));
    let mut rows: Vec<Row> = names.iter().map(endpoint).collect();
    rows.push(subscription_row("wide", &names, &["wide"], None));
    put(&world, rows).await;
    let batch = |events: usize| {
        let event = |number: usize| json!({"specversion": "1.0", "id": number.to_string(), "source": "/s", "type": "wide", "recipient": "acme"});
        json!((0..events).map(event).collect::<Vec<_>>()).to_string()
    };
    let most = REQUEST_TARGETS_MAX / ENDPOINTS;
    let refused = world.post(CLOUDEVENTS, "application/cloudevents-batch+json", batch(most + 1)).await;
    assert!(refused.json()["detail"].as_str().unwrap().contains("together"), "{refused:?}");
    assert_eq!(refused.problem(), (422, "too-many-targets".into(), None));
    world.assert_nothing_stored("too many targets").await;
    let accepted = world.post(CLOUDEVENTS, "application/cloudevents-batch+json", batch(most)).await;
    assert_eq!((accepted.status, &accepted.json()["events"][0]["fanout_count"]), (202, &json!(ENDPOINTS)));
}

#[tokio::test]
async fn a_filter_that_could_take_too_long_fails_and_is_counted() {
    let world = World::start().await;
    let filter = Some("event.data.exists(x, event.data.exists(y, x != y))");
    put(&world, vec![subscription_row("slow", &["billing"], &["slow"], filter)]).await;
    let body = format!(r#"{{"event_type":"slow","payload":[{}1]}}"#, "7,".repeat(2_000));
    let explained = world.post("/v1/tenants/shop/events:route", JSON, body.clone()).await.json();
    let slow = explained["not_matched"].as_array().unwrap().iter().find(|item| item["subscription"] == "slow");
    assert_eq!(slow.unwrap()["reason"], "filter_failed");
    assert!(slow.unwrap()["message"].as_str().unwrap().contains("steps"), "{explained}");
    let answer = world.post(PUBLISH, JSON, body).await;
    assert_eq!((answer.status, &answer.json()["fanout_count"]), (202, &json!(1)), "only `everything` matches");
    let counted = "harborhook_filter_errors_total{reason=\"cost_exceeded\"} 1";
    assert!(world.metrics.render().unwrap().contains(counted));
}
