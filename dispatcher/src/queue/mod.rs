//! The queue: carries what is due now, spreads it over dispatchers, pushes back.
//!
//! It may lose everything it holds and no delivery is lost: the lease of the work runs out and the work
//! is due again. A message is acknowledged only after what became of it is committed.

pub mod envelope;
pub mod memory;
mod pack;
pub mod rabbitmq;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dispatcher_core::delivery::Target;
use dispatcher_core::event::Event;
use dispatcher_core::id::DeliveryId;

pub use self::pack::pack;

/// The seam. One implementation per broker.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Publishes messages of a pool; returns once the broker has taken each of them on, or has not.
    /// Answers in the order asked.
    async fn publish(&self, pool: &str, track: Track, messages: Vec<Message>) -> Vec<Result<(), PublishError>>;

    /// Room for this many further deliveries before the pool's queue is as deep as it should be.
    fn room(&self, pool: &str, track: Track) -> usize;

    /// Whether the broker is there.
    fn is_connected(&self) -> bool;

    /// Messages that wait in a pool's queues, as far as is known. None of those that a consumer holds count.
    fn waiting(&self, pool: &str) -> u64;

    /// What went wrong with messages since the start.
    fn counts(&self) -> QueueCounts {
        QueueCounts::default()
    }

    /// Opens a consumer of a pool. `deliveries_max` bounds what it holds without having acknowledged it.
    async fn consume(&self, pool: &str, deliveries_max: usize) -> Result<Box<dyn Consumer>, QueueError>;
}

/// What went wrong with messages since the start. No delivery is lost by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages that could not be understood and were acknowledged away.
    pub poisoned: u64,
    /// Messages that came back because their queue was missing.
    pub returned: u64,
    /// Messages that a full queue refused.
    pub refused: u64,
}

impl QueueCounts {
    /// The counts by their stable names.
    pub fn by_name(self) -> [(&'static str, u64); 3] {
        [("poisoned", self.poisoned), ("returned", self.returned), ("refused", self.refused)]
    }
}

/// A consumer of one pool's queues. Dropping it gives back what it holds.
#[async_trait]
pub trait Consumer: Send {
    /// The next message, fresh ones first; `None` once the queue is closed and empty.
    /// Cancelling the call loses no message.
    async fn next(&mut self) -> Result<Option<Received>, QueueError>;
}

/// A received message, to be acknowledged.
pub struct Received {
    /// The work.
    pub message: Message,
    /// Whether somebody may have received it before.
    pub redelivered: bool,
    /// How often it was received before, as far as the queue knows. One that keeps coming back may hold a delivery
    /// that takes its consumer down: split it.
    pub delivery_count: u32,
    /// Acknowledges the message; dropped without that, the message goes back to the queue.
    pub ack: Box<dyn Acknowledge>,
}

/// The acknowledgement of one message.
pub trait Acknowledge: Send + Sync {
    /// The outcomes are committed: the queue may forget the message.
    fn acknowledge(self: Box<Self>);
}

/// Which of a pool's two queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Track {
    /// Work that ingest has just accepted.
    Fresh,
    /// Work whose time has come again.
    Due,
}

/// A batch of work: up to 128 deliveries, each event's body once.
#[derive(Clone, Debug)]
pub struct Message {
    /// The work.
    pub items: Vec<Item>,
}

impl Message {
    /// Deliveries in the message.
    pub fn deliveries(&self) -> usize {
        self.items.iter().map(|item| item.work.deliveries()).sum()
    }
}

/// An event and what to do with it.
#[derive(Clone, Debug)]
pub struct Item {
    /// The event, whole.
    pub event: Arc<Event>,
    /// Version of the routing table that its targets came from.
    pub table_version: dispatcher_core::table::TableVersion,
    /// When the lease ends, in milliseconds since the Unix epoch by the ledger's clock.
    pub lease_until_unix_ms: u64,
    /// The work.
    pub work: Work,
}

/// What to do with an event.
#[derive(Clone, Debug)]
pub enum Work {
    /// First attempts of a part.
    Part {
        /// The part's number.
        part: u16,
        /// Generation of the hold.
        r#gen: u32,
        /// The targets.
        targets: Vec<Target>,
    },
    /// Further attempts of deliveries that have rows.
    Due(Vec<DueDelivery>),
}

impl Work {
    /// Deliveries in the work.
    pub fn deliveries(&self) -> usize {
        match self {
            Self::Part { targets, .. } => targets.len(),
            Self::Due(deliveries) => deliveries.len(),
        }
    }
}

/// A delivery that is due again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueDelivery {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Why and where.
    pub target: Target,
    /// Its run.
    pub run: u32,
    /// Generation of the hold.
    pub r#gen: u32,
    /// Attempts made in this run.
    pub attempts: u32,
    /// Age of the run when it was claimed.
    pub run_age: Duration,
}

/// Why a message was not taken on. The work stays in the ledger and is due again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The queue is as deep as it may be.
    #[error("the queue is full")]
    Full,
    /// The broker is not there, or did not confirm.
    #[error("the queue is not available")]
    Unavailable,
}

/// Why nothing can be consumed.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The broker is not there.
    #[error("the queue is not available: {0}")]
    Unavailable(String),
    /// The broker's address or our rights there are wrong: trying again does not help.
    #[error("{0}")]
    Misconfigured(String),
}
