//! The queue on RabbitMQ: quorum queues, two for each pool, by AMQP 0-9-1.
//!
//! Publishing and consuming have a connection each: an alarm of the broker stops the one that publishes, and must not
//! stop acknowledgements. Both come back by themselves. As long as they are away, publishing answers
//! [`PublishError::Unavailable`] and consumers wait; nothing is lost, because the ledger has the work.

mod consume;
mod depth;
mod held;
mod link;
mod pools;
mod publish;
mod tags;
mod topology;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use dispatcher_core::limits::{BROKER_ANSWER_TIMEOUT, BROKER_QUEUE_MESSAGES_MAX};
use dispatcher_core::redacted::Redacted;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::consume::{RabbitConsumer, Subscription};
use self::link::{Broker, Link, Session, refused_or_unavailable};
use self::pools::Pools;
use self::publish::Publisher;
use self::topology::QueueName;
use super::{Consumer, Message, PublishError, Queue, QueueCounts, QueueError, Track};

/// What the client library must not log: it prints a message that came back with all its bytes.
///
/// A filter of `tracing-subscriber` takes this as one more directive.
pub const LOG_DIRECTIVE: &str = "lapin::returned_messages=off";

/// How to reach the broker, and what is expected of it.
#[derive(Clone)]
pub struct RabbitConfig {
    /// `amqp://USER:PASSWORD@HOST:PORT/VHOST`, or `amqps` with the feature of that name. The default vhost is `%2f`.
    pub url: Redacted<String>,
    /// Pools whose queues are made at once. Others are made when they are first used.
    pub pools: Vec<String>,
    /// Certificates that the broker's is checked against, in PEM, instead of those of the system.
    pub ca_certificates_pem: Option<String>,
    /// Our certificate, in PEM, where the broker asks for one.
    pub client_certificate_pem: Option<String>,
    /// Its key, PKCS #8 in PEM.
    pub client_key_pem: Redacted<String>,
    /// How the broker's operator sees us.
    pub connection_name: String,
    /// Most messages that a queue takes, if this process makes it.
    pub queue_messages_max: u32,
}

impl RabbitConfig {
    /// The defaults for an address.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: Redacted::new(url.into()),
            pools: Vec::new(),
            ca_certificates_pem: None,
            client_certificate_pem: None,
            client_key_pem: Redacted::default(),
            connection_name: "harborhook".to_owned(),
            queue_messages_max: BROKER_QUEUE_MESSAGES_MAX,
        }
    }
}

/// A queue on a RabbitMQ broker.
pub struct RabbitQueue {
    publisher: Arc<Publisher>,
    publish_link: Link,
    consume_link: Link,
    pools: Arc<Pools>,
    queue_messages_max: u32,
    counts: Arc<Counts>,
    /// Ends publishing and consumers.
    closing: CancellationToken,
    /// Ends the connections too.
    closed: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    connections: Mutex<Vec<JoinHandle<()>>>,
}

impl RabbitQueue {
    /// Connects to the broker and makes the queues of the pools.
    ///
    /// A broker that cannot be reached is no error: it is tried again and again, and [`Queue::is_connected`] says
    /// whether it is there. Fails with [`QueueError::Misconfigured`] when the address is wrong or the broker refuses us.
    pub async fn connect(config: RabbitConfig) -> Result<Self, QueueError> {
        let broker = Broker::new(&config)?;
        let pools = Arc::new(Pools::default());
        for pool in &config.pools {
            for track in [Track::Fresh, Track::Due] {
                let queue = pools.queue(pool, track);
                queue.ok_or_else(|| {
                    QueueError::Misconfigured(format!(
                        "`{pool}` cannot be a pool: its name is too long, or there are too many"
                    ))
                })?;
            }
        }
        let messages_max = config.queue_messages_max;
        let publish_session = attempt(async {
            let session = broker.open("publish").await?;
            let made = pools.ensure(&session, messages_max).await;
            made.map(|()| session).map_err(|error| refused_or_unavailable(&error))
        })
        .await?;
        let consume_session = match &publish_session {
            Some(_) => attempt(broker.open("consume")).await?,
            None => None,
        };
        let closed = CancellationToken::new();
        let (publish_link, keep_publish) = Link::new(broker.clone(), "publish", publish_session, closed.clone());
        let (consume_link, keep_consume) = Link::new(broker, "consume", consume_session, closed.clone());
        let connections = vec![tokio::spawn(keep_publish), tokio::spawn(keep_consume)];
        let counts = Arc::new(Counts::default());
        let closing = closed.child_token();
        let watch = {
            let (pools, link, closing) = (Arc::clone(&pools), publish_link.clone(), closing.clone());
            async move {
                closing.run_until_cancelled(pools.watch(&link, messages_max)).await;
            }
        };
        Ok(Self {
            publisher: Arc::new(Publisher::new(publish_link.clone(), messages_max, Arc::clone(&counts))),
            publish_link,
            consume_link,
            pools,
            queue_messages_max: messages_max,
            counts,
            closing,
            closed,
            tasks: Mutex::new(vec![tokio::spawn(watch)]),
            connections: Mutex::new(connections),
        })
    }

    /// Ends in order: no message is taken on any more, consumers see their end, what they acknowledged is told to the
    /// broker, which takes back the rest.
    pub async fn close(&self) {
        self.closing.cancel();
        finish(&self.tasks).await;
        self.closed.cancel();
        finish(&self.connections).await;
    }
}

#[async_trait]
impl Queue for RabbitQueue {
    async fn publish(&self, pool: &str, track: Track, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        match self.pools.queue(pool, track) {
            Some(queue) if !self.closing.is_cancelled() => self.publisher.publish(queue, messages).await,
            _ => vec![Err(PublishError::Unavailable); messages.len()],
        }
    }

    fn room(&self, pool: &str, track: Track) -> usize {
        match self.pools.queue(pool, track) {
            Some(queue) if self.publisher.takes_messages() => lock(&queue.depth).room(self.queue_messages_max),
            _ => 0,
        }
    }

    /// Whether both connections are there.
    fn is_connected(&self) -> bool {
        self.publish_link.session().is_some() && self.consume_link.session().is_some()
    }

    fn waiting(&self, pool: &str) -> u64 {
        let queues = [Track::Fresh, Track::Due].into_iter().filter_map(|track| self.pools.queue(pool, track));
        queues.map(|queue| lock(&queue.depth).seen()).sum()
    }

    fn counts(&self) -> QueueCounts {
        QueueCounts {
            poisoned: self.counts.poisoned.get(),
            returned: self.counts.returned.get(),
            refused: self.counts.refused.get(),
        }
    }

    async fn consume(&self, pool: &str, deliveries_max: usize) -> Result<Box<dyn Consumer>, QueueError> {
        let names = QueueName::new(pool, Track::Fresh).zip(QueueName::new(pool, Track::Due));
        let Some((fresh, due)) = names else {
            return Err(QueueError::Misconfigured(format!("`{pool}` cannot be a pool: its name is too long")));
        };
        let subscription = Subscription {
            link: self.consume_link.clone(),
            fresh,
            due,
            messages_max: self.queue_messages_max,
            deliveries_max,
        };
        let (consumer, work) = RabbitConsumer::new(subscription, Arc::clone(&self.counts), &self.closing);
        let mut tasks = lock(&self.tasks);
        tasks.retain(|task| !task.is_finished());
        tasks.push(tokio::spawn(work));
        Ok(Box::new(consumer))
    }
}

impl Drop for RabbitQueue {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

/// The first connection: `None` when the broker is not there, which may pass.
async fn attempt(opening: impl Future<Output = Result<Session, QueueError>>) -> Result<Option<Session>, QueueError> {
    match opening.await {
        Ok(session) => Ok(Some(session)),
        Err(error @ QueueError::Misconfigured(_)) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "the broker cannot be used yet; trying again");
            Ok(None)
        }
    }
}

/// Waits for tasks that were told to end.
async fn finish(tasks: &Mutex<Vec<JoinHandle<()>>>) {
    let tasks = std::mem::take(&mut *lock(tasks));
    // What does not end in time ends with the process.
    let _finished = timeout(BROKER_ANSWER_TIMEOUT, futures::future::join_all(tasks)).await;
}

#[derive(Default)]
struct Counts {
    poisoned: Count,
    returned: Count,
    refused: Count,
}

#[derive(Default)]
struct Count(AtomicU64);

impl Count {
    /// Answers what it was before.
    fn add(&self, by: usize) -> u64 {
        self.0.fetch_add(by as u64, Ordering::Relaxed)
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// No code panics while it holds one of these locks, so a poisoned one is still consistent.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
