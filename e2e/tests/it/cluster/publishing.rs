//! A producer of many events: batches over several connections, each repeated until it is acknowledged.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use e2e::http::Client;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::support::DEADLINE;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause before a batch that was not acknowledged is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What is published, and where.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) api: SocketAddr,
    pub(super) tenant: String,
    pub(super) token: String,
    pub(super) event_type: &'static str,
    /// Targets that each event has.
    pub(super) fanout: u64,
}

/// How much is published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Connections, each with one request at a time.
    pub(super) connections: u32,
    /// Events of one request.
    pub(super) batch: u64,
    /// Pause of a connection after each request.
    pub(super) pause: Duration,
    /// Most events in all.
    pub(super) events_max: u64,
}

/// What was published: the numbers of all events are acknowledged.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) numbers: Range<u64>,
    /// Requests that were not acknowledged at first.
    pub(super) repeated: usize,
}

/// A running producer.
pub(super) struct Publishing {
    shared: Arc<Shared>,
    first: u64,
    workers: JoinSet<()>,
}

struct Shared {
    topic: Topic,
    load: Load,
    next: AtomicU64,
    end: u64,
    repeated: AtomicUsize,
    acknowledged: AtomicU64,
    /// What the API said to a request that it will never take.
    refusal: Mutex<Option<String>>,
    changed: Notify,
    stopping: watch::Sender<bool>,
}

impl Publishing {
    /// Begins. Numbers of events are used once in this process.
    pub(super) fn start(topic: Topic, load: Load) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let first = NEXT.fetch_add(load.events_max, Ordering::Relaxed);
        let shared = Arc::new(Shared {
            topic,
            load,
            next: AtomicU64::new(first),
            end: first + load.events_max,
            repeated: AtomicUsize::new(0),
            acknowledged: AtomicU64::new(0),
            refusal: Mutex::default(),
            changed: Notify::new(),
            stopping: watch::Sender::new(false),
        });
        let mut workers = JoinSet::new();
        for _ in 0..load.connections {
            workers.spawn(work(Arc::clone(&shared)));
        }
        Self { shared, first, workers }
    }

    /// Waits until this many further events are acknowledged.
    pub(super) async fn further_acknowledged(&self, count: u64) {
        let acknowledged = || self.shared.acknowledged.load(Ordering::Relaxed);
        let wanted = acknowledged() + count;
        let wait = async {
            while acknowledged() < wanted {
                let mut changed = std::pin::pin!(self.shared.changed.notified());
                changed.as_mut().enable();
                if acknowledged() < wanted {
                    changed.await;
                }
            }
        };
        let result = tokio::time::timeout(DEADLINE, wait).await;
        assert!(result.is_ok(), "{} acknowledged; {:?}", acknowledged(), self.refusal());
    }

    /// Begins nothing new, and answers when everything that was begun is acknowledged.
    pub(super) async fn stop(self) -> Published {
        self.shared.stopping.send_replace(true);
        self.finish().await
    }

    /// Answers when as much as was asked for is acknowledged.
    pub(super) async fn finish(mut self) -> Published {
        let joined = async { while self.workers.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(DEADLINE, joined).await.is_ok();
        assert!(in_time && self.refusal().is_none(), "not all is acknowledged: {:?}", self.refusal());
        let numbers = self.first..self.shared.next.load(Ordering::Relaxed).min(self.shared.end);
        assert_eq!(self.shared.acknowledged.load(Ordering::Relaxed), numbers.end - numbers.start);
        Published { numbers, repeated: self.shared.repeated.load(Ordering::Relaxed) }
    }

    fn refusal(&self) -> Option<String> {
        self.shared.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn work(shared: Arc<Shared>) {
    let client = Client::default();
    let mut stopping = shared.stopping.subscribe();
    while !*stopping.borrow() {
        let first = shared.next.fetch_add(shared.load.batch, Ordering::Relaxed);
        let numbers = first..(first + shared.load.batch).min(shared.end);
        if numbers.is_empty() {
            return;
        }
        let body = batch(shared.topic.event_type, numbers.clone());
        loop {
            match publish(&shared.topic, &client, body.clone()).await {
                Answer::Acknowledged => break,
                Answer::TryAgain => {
                    shared.repeated.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Answer::Refused(why) => {
                    *shared.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                    return;
                }
            }
        }
        shared.acknowledged.fetch_add(numbers.end - numbers.start, Ordering::Relaxed);
        shared.changed.notify_waiters();
        tokio::select! {
            () = tokio::time::sleep(shared.load.pause) => {}
            // The sender lives as long as this worker.
            _ = stopping.changed() => {}
        }
    }
}

/// The identity of an event is its idempotency key: repeated, whatever became of the request before, it is the same event.
fn batch(event_type: &str, numbers: Range<u64>) -> Bytes {
    let event = |number: u64| {
        json!({
            "specversion": "1.0", "id": number.to_string(), "source": "/test", "type": event_type,
            "datacontenttype": "application/json", "data": {"number": number},
        })
    };
    Value::Array(numbers.map(event).collect()).to_string().into()
}

enum Answer {
    Acknowledged,
    /// Nobody took it, or nobody knows: producers try again.
    TryAgain,
    Refused(String),
}

async fn publish(topic: &Topic, client: &Client, body: Bytes) -> Answer {
    let Topic { api, tenant, token, .. } = topic;
    let request = Request::post(format!("http://{api}/v1/tenants/{tenant}/events"))
        .header("content-type", "application/cloudevents-batch+json")
        .header("authorization", format!("Bearer {token}"))
        .body(Full::new(body))
        .unwrap();
    match tokio::time::timeout(REQUEST_TIMEOUT, client.send(request)).await {
        Ok(Ok((StatusCode::ACCEPTED, answer))) => {
            let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
            let mut events = answer["events"].as_array().into_iter().flatten();
            match events.find(|event| event["fanout_count"] != topic.fanout) {
                None => Answer::Acknowledged,
                Some(event) => Answer::Refused(format!("an event has other targets: {event}")),
            }
        }
        Ok(Ok((StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, _)) | Err(_)) | Err(_) => {
            Answer::TryAgain
        }
        Ok(Ok((status, answer))) => Answer::Refused(format!("{status}: {}", String::from_utf8_lossy(&answer))),
    }
}
