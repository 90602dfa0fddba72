//! A queue on a real broker, a second look at that broker, and a network between them that can be cut.

use std::sync::Arc;

use async_trait::async_trait;
use dispatcher::queue::rabbitmq::{RabbitConfig, RabbitQueue};
use dispatcher::queue::{Queue, Track};
use dispatcher_core::redacted::Redacted;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use testbed::TestVhost;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

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

/// A way to a server that can be cut.
pub(super) struct Proxy {
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to the server of a URL, and the URL that leads through it.
    pub(super) async fn to(url: &str) -> (Self, Redacted<String>) {
        let mut url = url::Url::parse(url).unwrap();
        let server = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5672));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let connections: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let accepted = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let server = server.clone();
                accepted.lock().await.push(tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    // Either side may end it at any time.
                    let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }));
            }
        });
        (Self { connections, accepting }, Redacted::new(url.to_string()))
    }

    /// Connections that were made since the start, or since they were cut.
    pub(super) async fn connections(&self) -> usize {
        self.connections.lock().await.len()
    }

    /// Ends every connection; returns when nothing goes through them any more. New ones are made as before.
    pub(super) async fn cut(&self) {
        for connection in self.connections.lock().await.drain(..) {
            connection.abort();
            assert!(connection.await.unwrap_err().is_cancelled(), "it was still there");
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
