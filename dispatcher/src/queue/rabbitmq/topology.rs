//! The queues: their names, their arguments, and how one comes to be.

use dispatcher_core::limits::{BROKER_DELIVERIES_MAX, BROKER_QUEUE_BYTES_MAX, POOL_NAME_BYTES_MAX};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ErrorKind};

use crate::queue::Track;
use crate::queue::envelope::VERSION;

/// One of a pool's queues.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct QueueName(ShortString);

impl QueueName {
    /// `harborhook.v1.POOL.fresh` or `….due`; `None` when the pool's name is too long for it.
    ///
    /// The version is that of the envelope: a process reads only queues whose messages it understands.
    pub(super) fn new(pool: &str, track: Track) -> Option<Self> {
        let track = match track {
            Track::Fresh => "fresh",
            Track::Due => "due",
        };
        if pool.len() > POOL_NAME_BYTES_MAX {
            return None;
        }
        ShortString::try_new(format!("harborhook.v{VERSION}.{pool}.{track}")).ok().map(Self)
    }

    pub(super) fn get(&self) -> ShortString {
        self.0.clone()
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Declares a queue, which makes it where it is missing. The channel is closed: a refusal would close it anyway.
///
/// Everybody uses the same arguments, so it does not matter who comes first. A queue with other arguments is refused.
pub(super) async fn declare(channel: Channel, queue: &QueueName, messages_max: u32) -> lapin::Result<()> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.get(), options, arguments(messages_max)).await?;
    channel.close(200, "OK".into()).await
}

/// Deletes a queue with all that is in it. The channel is closed.
pub(super) async fn delete(channel: Channel, queue: &QueueName) -> lapin::Result<()> {
    channel.queue_delete(queue.get(), QueueDeleteOptions::default()).await?;
    channel.close(200, "OK".into()).await
}

/// How many messages wait in a queue. Closes the channel when the queue is missing.
pub(super) async fn count(channel: &Channel, queue: &QueueName) -> lapin::Result<u32> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    Ok(channel.queue_declare(queue.get(), options, FieldTable::default()).await?.message_count())
}

/// The code with which the broker refused a request or ended a channel or connection.
pub(super) fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// Quorum queues, because classic ones confirm before they have written to disk. A full queue refuses, rather than
/// dropping what it has. The delivery limit is named because its default differs between releases of RabbitMQ.
fn arguments(messages_max: u32) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(messages_max.into()));
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(BROKER_QUEUE_BYTES_MAX.into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(BROKER_DELIVERIES_MAX.into()));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queues_name_carries_the_envelopes_version() {
        let name = QueueName::new("default", Track::Fresh).unwrap();
        assert_eq!(name.as_str(), "harborhook.v1.default.fresh");
        assert_ne!(name, QueueName::new("default", Track::Due).unwrap());
    }

    #[test]
    fn the_longest_name_of_a_pool_has_queues_and_a_longer_one_has_none() {
        for track in [Track::Fresh, Track::Due] {
            assert!(QueueName::new(&"x".repeat(POOL_NAME_BYTES_MAX), track).is_some());
            assert!(QueueName::new(&"x".repeat(POOL_NAME_BYTES_MAX + 1), track).is_none());
        }
    }
}
