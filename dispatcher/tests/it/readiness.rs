//! A service whose consumer has stopped, although everything is connected.

use std::sync::Arc;

use async_trait::async_trait;
use dispatcher::ledger::Ledger;
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::queue::memory::MemoryQueue;
use dispatcher::queue::{Consumer, Message, PublishError, Queue, QueueError, Received, Track};
use dispatcher::service::{Service, ServiceConfig};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::limits::MEMORY_QUEUE_MESSAGES_MAX;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::deliver::harness::{Receiver, endpoint, eventually, policy, sealing_key};
use crate::program::harness::{get, publish, table};

/// A queue whose consumers hear nothing until they are told to.
struct DeafQueue(MemoryQueue, watch::Receiver<bool>);

struct DeafConsumer(Box<dyn Consumer>, watch::Receiver<bool>);

#[async_trait]
impl Queue for DeafQueue {
    async fn publish(&self, pool: &str, track: Track, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        self.0.publish(pool, track, messages).await
    }

    fn room(&self, pool: &str, track: Track) -> usize {
        self.0.room(pool, track)
    }

    fn is_connected(&self) -> bool {
        self.0.is_connected()
    }

    fn waiting(&self, pool: &str) -> u64 {
        self.0.waiting(pool)
    }

    async fn consume(&self, pool: &str, deliveries_max: usize) -> Result<Box<dyn Consumer>, QueueError> {
        Ok(Box::new(DeafConsumer(self.0.consume(pool, deliveries_max).await?, self.1.clone())))
    }
}

#[async_trait]
impl Consumer for DeafConsumer {
    async fn next(&mut self) -> Result<Option<Received>, QueueError> {
        self.1.wait_for(|hears| *hears).await.unwrap();
        self.0.next().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_has_stopped_never_looks_healthy() {
    let receiver = Receiver::start(200).await;
    let folder = tempfile::tempdir().unwrap();
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(folder.path()).await.unwrap());
    ledger.publish_table(table(endpoint("sink", &receiver.url, policy())), None).await.unwrap();
    let (hears, hearing) = watch::channel(false);
    let queue = Arc::new(DeafQueue(MemoryQueue::new(MEMORY_QUEUE_MESSAGES_MAX), hearing));
    let config = ServiceConfig::new(ledger, queue, Arc::new(sealing_key()), AddressPolicy::development());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shutdown = CancellationToken::new();
    let service = Service::start(config, listener, Some(admin), shutdown.clone()).await.unwrap();
    let admin = service.admin_address.unwrap();
    let consuming = async || {
        let (status, body) = get(admin, "/readyz").await;
        let answer: Value = serde_json::from_str(&body).unwrap();
        (status, answer["checks"]["consuming"].as_str().unwrap().to_owned())
    };
    eventually("all is well", || async { consuming().await == (200, "ok".to_owned()) }).await;
    assert_eq!(publish(service.address, "order.created", 1).await.0, 202);
    eventually("the stall is seen", || async { consuming().await == (503, "stalled".to_owned()) }).await;
    hears.send_replace(true);
    eventually("all is well again", || async { consuming().await == (200, "ok".to_owned()) }).await;
    assert_eq!(receiver.count(), 1);
    shutdown.cancel();
    service.join.await.unwrap().unwrap();
}
