//! The two ways to load a system: as fast as it delivers, and at a fixed rate whatever it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::sink::Sink;
use crate::http::Client;

/// Requests in flight of a closed loop: enough to keep two cores busy.
const CONNECTIONS: usize = 64;
/// Events of a closed loop that have been posted and not arrived everywhere.
const OUTSTANDING_EVENTS: u64 = 512;
/// Fewer where each fans out far: arrivals that a closed loop waits for.
const OUTSTANDING_ARRIVALS: u64 = 6_400;
/// Fewest events of which percentiles are taken: twenty are beyond the 99th, so that no single stall of the machine decides
/// about it.
const LATENCY_EVENTS_MIN: u32 = 2_000;
/// How long the last arrivals of a fixed rate may take.
const SETTLE_DEADLINE: Duration = Duration::from_secs(30);

/// What is loaded: where a body goes, and how often it then arrives at the sink.
#[derive(Clone)]
pub struct Subject {
    /// Where requests are posted.
    pub url: String,
    /// Whether a payload is wrapped into a publish request of this event type, or posted as it is.
    pub event_type: Option<&'static str>,
    /// Arrivals of one event.
    pub fanout: u64,
    /// Size of a payload.
    pub payload_bytes: usize,
}

impl Subject {
    fn outstanding(&self) -> usize {
        let events = OUTSTANDING_EVENTS.min(OUTSTANDING_ARRIVALS / self.fanout.max(1));
        usize::try_from(events).unwrap_or(usize::MAX)
    }

    fn body(&self, scheduled: Duration) -> Bytes {
        let payload = Sink::payload(scheduled, self.payload_bytes);
        match self.event_type {
            None => payload,
            Some(event_type) => {
                let mut body = format!(r#"{{"event_type":"{event_type}","payload":"#).into_bytes();
                body.extend_from_slice(&payload);
                body.push(b'}');
                body.into()
            }
        }
    }
}

/// Arrivals a second while as many events as the subject delivers are posted.
pub async fn closed_loop(sink: &Sink, subject: &Subject, warm_up: Duration, measured: Duration) -> Result<f64> {
    let load = ClosedLoop::start(sink, subject);
    tokio::time::sleep(warm_up).await;
    let (before, started) = (sink.arrivals(), Instant::now());
    tokio::time::sleep(measured).await;
    let (after, elapsed) = (sink.arrivals(), started.elapsed());
    load.stop(sink).await?;
    Ok(count(after - before) / elapsed.as_secs_f64())
}

/// A closed loop that runs: as many events are posted as the subject delivers, or, of a subject without fan-out, as it
/// accepts.
pub struct ClosedLoop {
    url: String,
    permits: Arc<Semaphore>,
    counts: Arc<Counts>,
    posters: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl ClosedLoop {
    /// Starts it.
    pub fn start(sink: &Sink, subject: &Subject) -> Self {
        let permits = Arc::new(Semaphore::new(subject.outstanding()));
        if subject.fanout > 0 {
            sink.close_loop(Arc::clone(&permits), subject.fanout);
        }
        let counts = Arc::new(Counts::default());
        let client = Client::default();
        let mut posters = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (client, subject) = (client.clone(), subject.clone());
            posters.spawn(post_again_and_again(client, subject, Arc::clone(&permits), Arc::clone(&counts)));
        }
        Self { url: subject.url.clone(), permits, counts, posters }
    }

    /// Events accepted so far.
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// Ends it. An error if anything was refused.
    pub async fn stop(self, sink: &Sink) -> Result<()> {
        self.permits.close();
        self.posters.join_all().await;
        sink.open_loop();
        sink.take_latencies();
        match self.counts.refused.load(Ordering::Relaxed) {
            0 => Ok(()),
            refused => bail!("{refused} requests to {} were refused", self.url),
        }
    }
}

async fn post_again_and_again(client: Client, subject: Subject, permits: Arc<Semaphore>, counts: Arc<Counts>) {
    let body = subject.body(Duration::ZERO);
    while let Ok(permit) = permits.acquire().await {
        match client.post_json(&subject.url, body.clone()).await {
            Ok((status, _)) if status.is_success() => {
                counts.accepted.fetch_add(1, Ordering::Relaxed);
                if subject.fanout > 0 {
                    permit.forget();
                }
            }
            _ => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Events that are posted at a fixed rate, whatever the subject does, over connections that are kept.
pub struct FixedRate {
    client: Client,
    subject: Subject,
    per_second: u32,
}

impl FixedRate {
    /// So many events a second.
    pub fn new(subject: Subject, per_second: u32) -> Self {
        Self { client: Client::default(), subject, per_second }
    }

    /// How long events are posted so that percentiles mean something: at least this long.
    pub fn duration(&self, at_least: Duration) -> Duration {
        at_least.max(Duration::from_secs(1) * LATENCY_EVENTS_MIN / self.per_second)
    }

    /// Posts for `measured`, and for `warm_up` before, of which nothing is kept: connections are open then, and
    /// statements prepared. Answers the latencies from the scheduled time to the arrival.
    pub async fn run(&self, sink: &Sink, warm_up: Duration, measured: Duration) -> Result<Vec<Duration>> {
        self.post_for(sink, warm_up).await?;
        self.post_for(sink, measured).await
    }

    async fn post_for(&self, sink: &Sink, duration: Duration) -> Result<Vec<Duration>> {
        let pause = Duration::from_secs(1) / self.per_second;
        let events = u32::try_from(duration.as_nanos() / pause.as_nanos())?;
        let expected = sink.arrivals() + u64::from(events) * self.subject.fanout;
        sink.take_latencies();
        let (origin, origin_in_sink) = (Instant::now(), sink.now());
        let mut posters = JoinSet::new();
        for number in 0..events {
            let offset = pause * number;
            tokio::time::sleep_until(origin + offset).await;
            let (client, subject) = (self.client.clone(), self.subject.clone());
            let scheduled = origin_in_sink + offset;
            posters.spawn(async move { post(&client, &subject, scheduled).await });
        }
        while let Some(posted) = posters.join_next().await {
            posted??;
        }
        let settled = Instant::now() + SETTLE_DEADLINE;
        while sink.arrivals() < expected {
            if Instant::now() > settled {
                bail!("{} arrivals are missing after {SETTLE_DEADLINE:?}", expected - sink.arrivals());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(sink.take_latencies())
    }
}

async fn post(client: &Client, subject: &Subject, scheduled: Duration) -> Result<()> {
    match client.post_json(&subject.url, subject.body(scheduled)).await? {
        (StatusCode::ACCEPTED | StatusCode::NO_CONTENT, _) => Ok(()),
        (status, body) => bail!("{}: {status} {}", subject.url, String::from_utf8_lossy(&body)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of requests is far below 2^52")]
fn count(number: u64) -> f64 {
    number as f64
}
