//! Consuming: a task keeps a channel open and hands over what arrives; acknowledgements go back in groups.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dispatcher_core::limits::{
    BROKER_ANSWER_TIMEOUT, BROKER_CONNECT_TIMEOUT, BROKER_RETRY_PAUSE_MAX, BROKER_RETRY_PAUSE_MIN, PREFETCH_BYTES_MAX,
    PREFETCH_MESSAGES_MAX, PREFETCH_MESSAGES_MIN, QUEUE_LEADERLESS_MAX,
};
use futures::StreamExt;
use futures::future::join_all;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, ErrorKind};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Counts;
use super::held::{Arrived, Held, Step};
use super::link::{Link, Session};
use super::topology::{self, QueueName};
use crate::queue::envelope;
use crate::queue::{Consumer, QueueError, Received, Track};

/// Deliveries in one message, as long as nothing is known.
const MESSAGE_DELIVERIES_GUESS: usize = 16;
/// Reply code of a broker that cannot do what was asked (AMQP 0-9-1, 1.2). Where a quorum queue has no leader RabbitMQ
/// closes the connection with it, after it has said nothing for a while.
const INTERNAL_ERROR: u16 = 541;
/// Header in which a quorum queue counts the times that it delivered a message before.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// The consuming side of one pool.
pub(super) struct RabbitConsumer {
    held: Arc<Held>,
    deliveries_max: usize,
    counts: Arc<Counts>,
    _stop: DropGuard,
}

/// What to consume.
pub(super) struct Subscription {
    pub(super) link: Link,
    pub(super) fresh: QueueName,
    pub(super) due: QueueName,
    /// Most messages in each queue, should it have to be made.
    pub(super) messages_max: u32,
    /// Most deliveries that are handed out at once.
    pub(super) deliveries_max: usize,
}

/// The work beside a consumer.
struct Subscriber {
    subscription: Subscription,
    held: Arc<Held>,
    /// The queue that the last attempt failed at, if it was for want of a leader.
    leaderless: Option<Leaderless>,
}

/// A queue that could not be consumed for want of a leader.
struct Leaderless {
    queue: QueueName,
    since: Instant,
    attempts: u32,
}

/// Where the two queues arrive.
struct Streams {
    channel: Channel,
    fresh: lapin::Consumer,
    due: lapin::Consumer,
    prefetch: u16,
}

impl RabbitConsumer {
    /// A consumer and the work beside it, which ends when the consumer is dropped or `shutdown` is cancelled.
    pub(super) fn new(
        subscription: Subscription,
        counts: Arc<Counts>,
        shutdown: &CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let stop = shutdown.child_token();
        let held = Arc::new(Held::default());
        let deliveries_max = subscription.deliveries_max;
        let subscriber = Subscriber { subscription, held: Arc::clone(&held), leaderless: None };
        let work = subscriber.run(stop.clone());
        (Self { held, deliveries_max, counts, _stop: stop.drop_guard() }, work)
    }

    /// What was received, understood; `None` when it means nothing. That is acknowledged away: it would come again for
    /// ever, and the ledger has the work.
    fn understand(&self, arrived: Arrived, channel: u64) -> Option<Received> {
        let Arrived { tag, delivery_count, envelope } = arrived;
        match envelope::decode(&envelope) {
            Ok(message) => {
                let ack = self.held.receipt(tag, channel, message.deliveries());
                Some(Received { message, redelivered: delivery_count > 0, delivery_count, ack })
            }
            Err(error) => {
                if self.counts.poisoned.add(1) == 0 {
                    let bytes = envelope.len();
                    tracing::error!(%error, bytes, "dropped a queue message that means nothing; further ones are only counted");
                }
                self.held.discard(tag, channel);
                None
            }
        }
    }
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn next(&mut self) -> Result<Option<Received>, QueueError> {
        loop {
            // Registered before the look, so that an arrival between the look and the wait is not missed.
            let mut arrived = std::pin::pin!(self.held.arrived.notified());
            arrived.as_mut().enable();
            match self.held.try_receive(self.deliveries_max) {
                Step::Received(arrived, channel) => {
                    if let Some(received) = self.understand(arrived, channel) {
                        return Ok(Some(received));
                    }
                }
                Step::Ended => return Ok(None),
                Step::Wait => arrived.await,
            }
        }
    }
}

impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        self.held.end();
    }
}

impl Subscriber {
    async fn run(mut self, stop: CancellationToken) {
        let mut pause = BROKER_RETRY_PAUSE_MIN;
        while !stop.is_cancelled() {
            let opening = async {
                let session = self.subscription.link.wait().await;
                timeout(BROKER_ANSWER_TIMEOUT, self.open(&session)).await.unwrap_or_else(|_| {
                    session.give_up();
                    Err(timed_out())
                })
            };
            let opened = tokio::select! {
                () = stop.cancelled() => break,
                opened = opening => opened,
            };
            match opened {
                Ok(streams) => {
                    pause = BROKER_RETRY_PAUSE_MIN;
                    self.pump(streams, &stop).await;
                }
                Err(error) => {
                    tracing::warn!(queue = self.subscription.fresh.as_str(), %error, "cannot consume; trying again");
                    pause = (pause * 2).min(BROKER_RETRY_PAUSE_MAX);
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(pause) => {}
            }
        }
        self.held.end();
    }

    /// Opens a channel on which both queues arrive. They are made where they are missing.
    async fn open(&mut self, session: &Session) -> lapin::Result<Streams> {
        self.delete_leaderless(session).await?;
        let Subscription { fresh, due, messages_max, .. } = &self.subscription;
        for queue in [fresh, due] {
            topology::declare(session.channel().await?, queue, *messages_max).await?;
        }
        let channel = session.channel().await?;
        let prefetch = self.prefetch();
        self.held.open();
        let (fresh, due) = (fresh.clone(), due.clone());
        let streams = Streams {
            fresh: self.subscribe(session, &channel, &fresh, prefetch).await?,
            due: self.subscribe(session, &channel, &due, prefetch).await?,
            channel,
            prefetch,
        };
        self.leaderless = None;
        Ok(streams)
    }

    async fn subscribe(
        &mut self,
        session: &Session,
        channel: &Channel,
        queue: &QueueName,
        prefetch: u16,
    ) -> lapin::Result<lapin::Consumer> {
        channel.basic_qos(prefetch, BasicQosOptions { global: false }).await?;
        let options = BasicConsumeOptions::default();
        let consuming = channel.basic_consume(queue.get(), "".into(), options, FieldTable::default());
        let answer = timeout(QUEUE_LEADERLESS_MAX / 2, consuming).await.unwrap_or_else(|_| {
            session.give_up();
            Err(timed_out())
        });
        if answer.as_ref().is_err_and(is_for_want_of_a_leader) {
            let known = self.leaderless.take().filter(|known| known.queue == *queue);
            let (since, attempts) = known.map_or((Instant::now(), 0), |known| (known.since, known.attempts));
            self.leaderless = Some(Leaderless { queue: queue.clone(), since, attempts: attempts + 1 });
        }
        answer
    }

    /// Deletes a queue that has been without a leader for long, at more than one attempt. A broker that was killed a
    /// moment after the queue was made comes back with one that never elects any, and has lost its messages; the ledger
    /// has the work.
    async fn delete_leaderless(&mut self, session: &Session) -> lapin::Result<()> {
        let is_hopeless = |known: &mut Leaderless| known.attempts > 1 && known.since.elapsed() >= QUEUE_LEADERLESS_MAX;
        if let Some(Leaderless { queue, .. }) = self.leaderless.take_if(is_hopeless) {
            tracing::error!(queue = queue.as_str(), "the queue has no leader and does not get one; making it anew");
            topology::delete(session.channel().await?, &queue).await?;
        }
        Ok(())
    }

    /// Carries messages in and acknowledgements out, until the channel is lost or the consumer stops.
    async fn pump(&self, mut streams: Streams, stop: &CancellationToken) {
        loop {
            let waiting_max = usize::from(streams.prefetch / 4);
            let is_alive = tokio::select! {
                () = stop.cancelled() => {
                    self.held.end();
                    break;
                }
                delivery = streams.fresh.next() => self.arrive(Track::Fresh, delivery),
                delivery = streams.due.next() => self.arrive(Track::Due, delivery),
                () = self.held.settled.notified() => self.tell(&streams.channel, waiting_max).await.is_ok(),
            };
            if !is_alive {
                self.held.lose();
                break;
            }
        }
        // From here on nothing is acknowledged any more; what was is told, and the broker takes back the rest. When one
        // queue is lost the channel is still there for the other. Closed in order, because a channel that is dropped
        // sends requests that cross each other, and the client library gives up its connection when one fails.
        let closing = async {
            self.tell(&streams.channel, 0).await?;
            streams.channel.close(200, "OK".into()).await
        };
        let _closed = timeout(BROKER_CONNECT_TIMEOUT, closing).await;
    }

    /// Whether the stream goes on.
    fn arrive(&self, track: Track, delivery: Option<lapin::Result<Delivery>>) -> bool {
        let Some(Ok(delivery)) = delivery else { return false };
        let delivery_count = delivery_count(&delivery.properties).max(u32::from(delivery.redelivered));
        let arrived = Arrived { tag: delivery.delivery_tag, delivery_count, envelope: Bytes::from(delivery.data) };
        self.held.arrive(track, arrived);
        true
    }

    /// Tells the broker what was settled since the last time. While this is under way the next group gathers.
    async fn tell(&self, channel: &Channel, waiting_max: usize) -> lapin::Result<()> {
        let settled = self.held.take_settled(waiting_max);
        let nack = BasicNackOptions { multiple: false, requeue: true };
        all(settled.rejected.iter().map(|tag| channel.basic_nack(*tag, nack))).await?;
        if let Some(tag) = settled.up_to {
            channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
        }
        all(settled.single.iter().map(|tag| channel.basic_ack(*tag, BasicAckOptions { multiple: false }))).await
    }

    /// By the size of the messages so far. A window is fixed for the life of its subscription.
    fn prefetch(&self) -> u16 {
        let (deliveries, bytes) = self.held.message_size().unwrap_or((MESSAGE_DELIVERIES_GUESS, 0));
        prefetch(self.subscription.deliveries_max, deliveries, bytes)
    }
}

/// Whether a consumer that could not be opened looks as if its queue had no leader.
fn is_for_want_of_a_leader(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::IOError(error) => error.kind() == std::io::ErrorKind::TimedOut,
        _ => topology::reply_code(error) == Some(INTERNAL_ERROR),
    }
}

fn timed_out() -> lapin::Error {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

async fn all(requests: impl Iterator<Item = impl Future<Output = lapin::Result<()>>>) -> lapin::Result<()> {
    join_all(requests).await.into_iter().collect()
}

/// How many messages of a size the broker may send ahead: twice what may be handed out, so that the next is there when
/// one is done, and no more, because what one process holds the others cannot have.
fn prefetch(deliveries_max: usize, message_deliveries: usize, message_bytes: usize) -> u16 {
    let by_deliveries = deliveries_max.saturating_mul(2) / message_deliveries.max(1);
    let by_bytes = PREFETCH_BYTES_MAX / message_bytes.max(1);
    let messages = u16::try_from(by_deliveries.min(by_bytes)).unwrap_or(u16::MAX);
    messages.clamp(PREFETCH_MESSAGES_MIN, PREFETCH_MESSAGES_MAX)
}

/// How often the queue says that it delivered a message before.
fn delivery_count(properties: &BasicProperties) -> u32 {
    let header = properties.headers().as_ref().and_then(|headers| headers.inner().get(DELIVERY_COUNT));
    let count = match header {
        Some(AMQPValue::LongLongInt(count)) => *count,
        Some(AMQPValue::LongInt(count)) => i64::from(*count),
        Some(AMQPValue::LongUInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortShortInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortShortUInt(count)) => i64::from(*count),
        _ => 0,
    };
    u32::try_from(count.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_counted_in_messages_and_follows_their_size() {
        for (deliveries_max, message_deliveries, message_bytes, messages) in [
            (1024, 128, 100_000, 16),
            (1024, 16, 1000, 128),
            (1024, 1, 1000, PREFETCH_MESSAGES_MAX),
            (1024, 1, 1024 * 1024, 32),
            (1, 128, 0, PREFETCH_MESSAGES_MIN),
            (usize::MAX, 1, 0, PREFETCH_MESSAGES_MAX),
        ] {
            assert_eq!(prefetch(deliveries_max, message_deliveries, message_bytes), messages);
        }
    }

    #[test]
    fn the_broker_counts_deliveries_in_whatever_integer_it_likes() {
        let count = |value| {
            let mut headers = FieldTable::default();
            headers.insert(DELIVERY_COUNT.into(), value);
            delivery_count(&BasicProperties::default().with_headers(headers))
        };
        assert_eq!(count(AMQPValue::LongLongInt(3)), 3);
        assert_eq!(count(AMQPValue::ShortShortUInt(3)), 3);
        assert_eq!(count(AMQPValue::LongInt(-1)), 0);
        assert_eq!(count(AMQPValue::Boolean(true)), 0);
        assert_eq!(delivery_count(&BasicProperties::default()), 0);
    }
}
