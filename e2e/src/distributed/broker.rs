//! A client of the broker that does to its queues what others might do.

use anyhow::{Context, Result, ensure};
use dispatcher::queue::envelope::VERSION;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

/// Delivery mode of a message that the broker writes to disk (AMQP 0-9-1, 1.8.3).
const PERSISTENT: u8 = 2;

/// A connection.
pub struct Broker(Connection);

impl Broker {
    /// Connects.
    pub async fn connect(url: &str) -> Result<Self> {
        Ok(Self(Connection::connect(url, ConnectionProperties::default()).await.context("no broker")?))
    }

    /// How the names of all queues begin that carry a version of the envelope.
    pub fn queue_prefix(version: u8) -> String {
        format!("harborhook.v{version}.")
    }

    /// The queues of the default pool, the one that carries new work first.
    pub fn queues() -> [String; 2] {
        ["fresh", "due"].map(|track| format!("{}default.{track}", Self::queue_prefix(VERSION)))
    }

    /// Messages that wait in a queue; none in one that is missing.
    pub async fn waiting(&self, queue: &str) -> Result<u32> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let channel = self.0.create_channel().await?;
        let found = channel.queue_declare(queue.into(), options, FieldTable::default()).await;
        Ok(found.map_or(0, |queue| queue.message_count()))
    }

    /// Deletes a queue with all that is in it. Answers how many messages that were.
    pub async fn delete(&self, queue: &str) -> Result<u32> {
        let channel = self.0.create_channel().await?;
        Ok(channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?)
    }

    /// Takes every message out of a queue.
    pub async fn take_all(&self, queue: &str) -> Result<Vec<Vec<u8>>> {
        let channel = self.0.create_channel().await?;
        let mut bodies = Vec::new();
        while let Some(message) = channel.basic_get(queue.into(), BasicGetOptions::default()).await? {
            message.ack(BasicAckOptions::default()).await?;
            bodies.push(message.delivery.data);
        }
        Ok(bodies)
    }

    /// Puts messages into a queue, in this order; returns when the broker has them.
    pub async fn publish(&self, queue: &str, bodies: &[Vec<u8>]) -> Result<()> {
        let channel: Channel = self.0.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        for body in bodies {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let sent = channel.basic_publish("".into(), queue.into(), options, body, properties.clone()).await?;
            ensure!(matches!(sent.await?, Confirmation::Ack(None)), "the broker did not take a message for {queue}");
        }
        Ok(())
    }
}
