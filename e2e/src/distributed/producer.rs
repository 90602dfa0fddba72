//! A producer that publishes until it is told to stop, tries again whatever was not acknowledged, and remembers exactly
//! what was.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use dispatcher_core::id::EventId;
use hyper::StatusCode;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::{DEADLINE, TENANT};
use crate::http::Client;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause after a request that was not acknowledged.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How much is published.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Requests at once.
    pub workers: u32,
    /// Pause of a worker after each event.
    pub pause: Duration,
}

impl Load {
    /// Some 200 events a second: enough that something is always in flight, little enough for a busy machine.
    pub const STEADY: Self = Self { workers: 12, pause: Duration::from_millis(50) };
    /// Some 600 events a second, many of them at once, so that batches form.
    pub const BURST: Self = Self { workers: 32, pause: Duration::from_millis(50) };
}

/// What was acknowledged: the number of each event with the identity that the answer gave it.
pub type Acknowledged = HashMap<u64, EventId>;

/// What came of requests that were not acknowledged: the status of each answer, or none where no answer came.
pub type Failures = BTreeMap<Option<StatusCode>, u64>;

/// All that came of a producer.
#[derive(Debug, Default)]
pub struct Published {
    /// Every event that it began, since it tries each until it is acknowledged.
    pub acknowledged: Acknowledged,
    /// What came of the other requests.
    pub failures: Failures,
}

impl From<Acknowledged> for Published {
    /// Accepted without a request.
    fn from(acknowledged: Acknowledged) -> Self {
        Self { acknowledged, failures: Failures::new() }
    }
}

/// A running producer.
pub struct Producer {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
}

struct Shared {
    load: Load,
    addresses: Mutex<Vec<SocketAddr>>,
    next: AtomicU64,
    failures: Mutex<Failures>,
    acknowledged: Mutex<Acknowledged>,
    changed: Notify,
    stopping: watch::Sender<bool>,
}

impl Producer {
    /// Starts to publish to these processes in turn.
    pub fn start(addresses: &[SocketAddr], load: Load) -> Self {
        let shared = Arc::new(Shared {
            load,
            addresses: Mutex::new(addresses.to_vec()),
            next: AtomicU64::new(0),
            failures: Mutex::default(),
            acknowledged: Mutex::default(),
            changed: Notify::new(),
            stopping: watch::Sender::new(false),
        });
        let mut workers = JoinSet::new();
        for _ in 0..load.workers {
            workers.spawn(work(Arc::clone(&shared)));
        }
        Self { shared, workers }
    }

    /// From now on publishes to these.
    pub fn aim_at(&self, addresses: &[SocketAddr]) {
        *lock(&self.shared.addresses) = addresses.to_vec();
    }

    /// What was acknowledged so far.
    pub fn acknowledged(&self) -> Acknowledged {
        lock(&self.shared.acknowledged).clone()
    }

    /// How many events were acknowledged so far.
    pub fn acknowledged_count(&self) -> usize {
        lock(&self.shared.acknowledged).len()
    }

    /// Requests that were not acknowledged so far.
    pub fn failures(&self) -> u64 {
        lock(&self.shared.failures).values().sum()
    }

    /// Waits until this many further events have been acknowledged.
    pub async fn further_acknowledged(&self, count: usize) -> Result<()> {
        let wanted = self.acknowledged_count() + count;
        self.wait(&format!("{count} more events are acknowledged"), || self.acknowledged_count() >= wanted).await
    }

    /// Waits until this many further requests have failed.
    pub async fn further_failures(&self, count: u64) -> Result<()> {
        let wanted = self.failures() + count;
        self.wait(&format!("{count} more requests fail"), || self.failures() >= wanted).await
    }

    /// Publishes nothing new; returns when everything that was begun is acknowledged.
    pub async fn stop(self) -> Result<Published> {
        self.shared.stopping.send_replace(true);
        let joined = tokio::time::timeout(DEADLINE, self.workers.join_all()).await;
        joined.context("events that were begun are not acknowledged")?;
        let acknowledged = std::mem::take(&mut *lock(&self.shared.acknowledged));
        Ok(Published { acknowledged, failures: std::mem::take(&mut *lock(&self.shared.failures)) })
    }

    async fn wait(&self, what: &str, condition: impl Fn() -> bool) -> Result<()> {
        let wait = async {
            loop {
                let changed = self.shared.changed.notified();
                if condition() {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.with_context(|| format!("in vain: {what}"))
    }
}

async fn work(shared: Arc<Shared>) {
    let client = Client::default();
    let mut stopping = shared.stopping.subscribe();
    while !*stopping.borrow() {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let body = event(number);
        let mut tries = 0;
        while !publish(&shared, &client, number, tries, body.clone()).await {
            tries += 1;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        tokio::select! {
            () = tokio::time::sleep(shared.load.pause) => {}
            // The sender lives as long as this worker.
            _ = stopping.changed() => {}
        }
    }
}

/// The key makes the repetition of an event, whatever became of the request before, the same event.
fn event(number: u64) -> Bytes {
    format!(r#"{{"event_type":"order.created","idempotency_key":"{number}","payload":{{"number":{number}}}}}"#).into()
}

/// Once; answers whether it was acknowledged. Every try goes to another process.
async fn publish(shared: &Shared, client: &Client, number: u64, tries: u64, body: Bytes) -> bool {
    let address = {
        let addresses = lock(&shared.addresses);
        addresses[usize::try_from(number + tries).unwrap_or_default() % addresses.len()]
    };
    let url = format!("http://{address}/v1/tenants/{TENANT}/events:publish");
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, client.post_json(&url, body)).await.ok().and_then(Result::ok);
    let event = match &answer {
        Some((StatusCode::ACCEPTED, answer)) => event_id(answer),
        _ => None,
    };
    if let Some(event) = event {
        lock(&shared.acknowledged).insert(number, event);
    } else {
        *lock(&shared.failures).entry(answer.map(|(status, _)| status)).or_default() += 1;
    }
    shared.changed.notify_waiters();
    event.is_some()
}

/// The event that the answer to a request tells of.
pub fn event_id(answer: &[u8]) -> Option<EventId> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    answer["event_id"].as_str()?.parse().ok()
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
