//! Its second half: messages in, signed requests out, attempts into the table, acknowledgements.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use dispatcher::clock::now_unix_ms;
use dispatcher_core::redacted::Redacted;
use dispatcher_core::sign::{Message, sign};
use dispatcher_core::table::{KeyBytes, SigningKey, SigningScheme};
use futures::StreamExt;
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use sqlx::PgConnection;
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use super::client::Client;
use super::rows::{self, Rows};
use super::{OVER_TLS, QUEUE, channel, connect};
use crate::bench::certificate;

/// Exchanges in flight.
const IN_FLIGHT_MAX: usize = 64;
/// Messages that the broker sends ahead: enough for all exchanges while attempts are copied.
const PREFETCH_MESSAGES: u16 = 512;
/// Most attempts of one copy; they are those that came while the last one was under way.
const BATCH_ATTEMPTS_MAX: usize = 1024;

/// A message with the deliveries of it that are not made yet.
struct Work {
    tag: u64,
    event: Uuid,
    fanout: u8,
    over_tls: bool,
    body: Bytes,
}

struct Attempt {
    tag: u64,
    fanout: u8,
    event: Uuid,
    endpoint: u8,
    started_ms: i64,
    duration: Duration,
    status: u16,
}

/// Where requests go.
struct Target {
    plain: Client,
    tls: Client,
    keys: Vec<SigningKey>,
}

/// The sink's addresses, and the file of those who vouch for it over TLS.
pub struct Sinks<'a> {
    /// Without TLS.
    pub plain: SocketAddr,
    /// With it.
    pub tls: SocketAddr,
    /// In PEM.
    pub authorities: &'a Path,
}

/// Runs until it is killed. The endpoints are `/sink-0` and so on.
pub async fn run(database: &str, broker: &str, sinks: Sinks<'_>) -> Result<()> {
    let connection = rows::connect(database).await?;
    let broker = connect(broker).await?;
    let channel = channel(&broker).await?;
    channel.basic_qos(PREFETCH_MESSAGES, BasicQosOptions::default()).await?;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(QUEUE.into(), "".into(), options, arguments).await?;
    let keys = vec![SigningKey { bytes: Redacted::new(KeyBytes(vec![42; 32])), retires_at_unix_ms: None }];
    let target = Arc::new(Target {
        plain: Client::new(sinks.plain, None),
        tls: Client::new(sinks.tls, Some(certificate::client(sinks.authorities)?)),
        keys,
    });
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let (sender, attempts) = mpsc::unbounded_channel();
    let recording = tokio::spawn(record(connection, channel, attempts));
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        let work = parse(delivery.delivery_tag, delivery.data).context("a message of another program")?;
        for endpoint in 0..work.fanout {
            let permit = Arc::clone(&in_flight).acquire_owned().await?;
            let (target, sender) = (Arc::clone(&target), sender.clone());
            let Work { tag, event, fanout, over_tls, .. } = work;
            let body = work.body.clone();
            tokio::spawn(async move {
                let started = (now_ms(), Instant::now());
                let client = if over_tls { &target.tls } else { &target.plain };
                let status = post(client, &target.keys, (event, endpoint), body, started.0).await;
                drop(permit);
                let duration = started.1.elapsed();
                // Without the recorder there is nobody to tell.
                let attempt = Attempt { tag, fanout, event, endpoint, started_ms: started.0, duration, status };
                let _ = sender.send(attempt);
            });
        }
    }
    recording.await?
}

fn parse(tag: u64, data: Vec<u8>) -> Option<Work> {
    let data = Bytes::from(data);
    let event = Uuid::from_slice(data.get(1..17)?).ok()?;
    let (fanout, over_tls) = (data[0] & !OVER_TLS, data[0] & OVER_TLS != 0);
    Some(Work { tag, event, fanout, over_tls, body: data.slice(17..) })
}

/// The status code; zero when there is none.
async fn post(client: &Client, keys: &[SigningKey], (event, endpoint): (Uuid, u8), body: Bytes, now_ms: i64) -> u16 {
    let id = format!("{event}-{endpoint}");
    let message = Message { id: &id, unix_seconds: now_ms / 1000, body: &body };
    let scheme = SigningScheme::StandardWebhooks;
    let now = u64::try_from(now_ms).unwrap_or_default();
    let signature = sign(scheme, keys, now, &message).expect("the key is in force");
    let mut headers = HeaderMap::from_iter(signature);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    client.post(&format!("/sink-{endpoint}"), headers, body).await.map_or(0, |status| status.as_u16())
}

/// Copies attempts and acknowledges the messages of which all are copied.
async fn record(
    mut connection: PgConnection,
    channel: Channel,
    mut attempts: mpsc::UnboundedReceiver<Attempt>,
) -> Result<()> {
    let mut batch = Vec::with_capacity(BATCH_ATTEMPTS_MAX);
    let mut tags = Tags::default();
    let statement = "COPY attempts (event, endpoint, started_ms, duration_us, status) FROM STDIN (FORMAT binary)";
    while attempts.recv_many(&mut batch, BATCH_ATTEMPTS_MAX).await > 0 {
        let mut rows = Rows::new();
        for attempt in &batch {
            rows.row(5)
                .uuid(attempt.event)
                .int4(attempt.endpoint.into())
                .int8(attempt.started_ms)
                .int8(i64::try_from(attempt.duration.as_micros()).unwrap_or(i64::MAX))
                .int2(i16::try_from(attempt.status).unwrap_or(i16::MAX));
        }
        rows.copy(&mut connection, statement).await?;
        for attempt in batch.drain(..) {
            tags.attempted(attempt.tag, attempt.fanout);
        }
        if let Some(tag) = tags.take() {
            channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
        }
    }
    Ok(())
}

/// The delivery tags of the channel, which count up from 1, and what is missing of each.
#[derive(Default)]
struct Tags {
    /// Tags up to here are acknowledged.
    told: u64,
    /// Attempts that the following tags still wait for; `None` as long as there was none.
    missing: VecDeque<Option<u8>>,
}

impl Tags {
    /// One more attempt of a message with so many.
    fn attempted(&mut self, tag: u64, fanout: u8) {
        let place = usize::try_from(tag - self.told - 1).expect("the prefetch is bounded");
        if self.missing.len() <= place {
            self.missing.resize(place + 1, None);
        }
        self.missing[place] = Some(self.missing[place].unwrap_or(fanout) - 1);
    }

    /// The tag up to which everything is attempted, if it is a new one.
    fn take(&mut self) -> Option<u64> {
        let before = self.told;
        while let Some(Some(0)) = self.missing.front() {
            self.missing.pop_front();
            self.told += 1;
        }
        (self.told > before).then_some(self.told)
    }
}

fn now_ms() -> i64 {
    i64::try_from(now_unix_ms()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_acknowledged_after_its_last_attempt_and_those_before_it() {
        let mut tags = Tags::default();
        tags.attempted(2, 1);
        tags.attempted(1, 2);
        assert_eq!(tags.take(), None);
        tags.attempted(1, 2);
        assert_eq!(tags.take(), Some(2));
        tags.attempted(3, 1);
        assert_eq!(tags.take(), Some(3));
    }
}
