//! A queue on a real broker, and a second look at that broker.

use std::sync::Arc;

use async_trait::async_trait;
use dispatcher::queue::rabbitmq::{RabbitConfig, RabbitQueue};
use dispatcher::queue::{Queue, Track};
use lapin::options::{BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use testbed::TestVhost;

use crate::queue::support::{POOL, TestQueue, until};

/// A vhost of the test's own. Without a server the test bed says so, and the test passes without having tested.
pub(super) async fn vhost() -> Option<TestVhost> {
    testbed::vhost().await.expect("the test bed works or says why it cannot")
}

pub(super) fn config(url: &str) -> RabbitConfig {
    RabbitConfig { pools: vec![POOL.to_owned()], ..RabbitConfig::new(url) }
}

pub(super) fn name(track: Track) -> String {
    match track {
        Track::Fresh => format!("harborhook.v1.{POOL}.fresh"),
        Track::Due => format!("harborhook.v1.{POOL}.due"),
    }
}

pub(super) struct RabbitTest {
    pub(super) queue: Arc<RabbitQueue>,
    pub(super) broker: Admin,
    _vhost: Option<TestVhost>,
}

impl RabbitTest {
    pub(super) async fn connect(vhost: TestVhost, messages_max: u32) -> Option<Self> {
        let config = RabbitConfig { queue_messages_max: messages_max, ..config(vhost.url()) };
        let test = Self::with_config(config).await;
        Some(Self { _vhost: Some(vhost), ..test })
    }

    pub(super) async fn with_config(config: RabbitConfig) -> Self {
        let broker = Admin::connect(config.url.expose()).await;
        let queue = Arc::new(RabbitQueue::connect(config).await.unwrap());
        Self { queue, broker, _vhost: None }
    }
}

#[async_trait]
impl TestQueue for RabbitTest {
    fn queue(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.queue) as Arc<dyn Queue>
    }

    async fn close(&self) {
        self.queue.close().await;
    }

    async fn sent(&self) {
        until("the queues are empty", async || {
            self.broker.waiting(Track::Fresh).await == 0 && self.broker.waiting(Track::Due).await == 0
        })
        .await;
    }
}

/// A connection that does to the broker's queues what others might do.
pub(super) struct Admin(Connection);

impl Admin {
    pub(super) async fn connect(url: &str) -> Self {
        Self(Connection::connect(url, ConnectionProperties::default()).await.unwrap())
    }

    /// Messages that wait in a queue; none in one that is missing.
    pub(super) async fn waiting(&self, track: Track) -> u32 {
        self.look(track).await.unwrap_or(0)
    }

    /// Messages that wait in a queue, if it is there.
    pub(super) async fn look(&self, track: Track) -> Option<u32> {
        let channel = self.0.create_channel().await.unwrap();
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(name(track).into(), options, FieldTable::default()).await;
        found.ok().map(|queue| queue.message_count())
    }

    pub(super) async fn delete(&self, track: Track) {
        let channel = self.0.create_channel().await.unwrap();
        channel.queue_delete(name(track).into(), QueueDeleteOptions::default()).await.unwrap();
    }

    /// Makes a queue with arguments that are not ours.
    pub(super) async fn declare_otherwise(&self, track: Track) {
        let channel = self.0.create_channel().await.unwrap();
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(name(track).into(), options, FieldTable::default()).await.unwrap();
    }

    pub(super) async fn publish(&self, track: Track, body: &[u8]) {
        let channel = self.0.create_channel().await.unwrap();
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish("".into(), name(track).into(), options, body, properties).await.unwrap();
        until("the message is there", async || self.waiting(track).await > 0).await;
    }
}
