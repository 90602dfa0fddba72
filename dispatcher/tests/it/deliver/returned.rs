//! Messages that keep coming back.

use std::sync::Arc;

use async_trait::async_trait;
use dispatcher::queue::memory::MemoryQueue;
use dispatcher::queue::{Consumer, Message, PublishError, Queue, QueueError, Received, Track};
use dispatcher_core::limits::{LEASE, MESSAGE_RETURNS_MAX};
use dispatcher_core::table::DEFAULT_POOL;

use super::harness::{Process, Receiver, config, endpoint, eventually, policy};

/// A queue whose messages have all come back too often.
struct ReturningQueue(Arc<MemoryQueue>);

struct ReturningConsumer(Box<dyn Consumer>);

#[async_trait]
impl Queue for ReturningQueue {
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
        Ok(Box::new(ReturningConsumer(self.0.consume(pool, deliveries_max).await?)))
    }
}

#[async_trait]
impl Consumer for ReturningConsumer {
    async fn next(&mut self) -> Result<Option<Received>, QueueError> {
        let received = self.0.next().await?;
        let delivery_count = MESSAGE_RETURNS_MAX + 1;
        Ok(received.map(|received| Received { redelivered: true, delivery_count, ..received }))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_keeps_coming_back_is_worked_on_one_by_one() {
    let receiver = Receiver::start(0).await;
    let rows = vec![endpoint("one", &receiver.url, policy())];
    let process = Process::start_on(rows, config(), |ledger| ledger, |queue| Arc::new(ReturningQueue(queue))).await;
    let (first, mut message) = process.accept(&["one"], LEASE).await;
    let (second, more) = process.accept(&["one"], LEASE).await;
    message.items.extend(more.items);
    process.queue.publish(DEFAULT_POOL, Track::Fresh, vec![message]).await;
    eventually("both are sent", || async { receiver.count() == 2 }).await;
    assert!(process.pending("one").await > 0, "the first was recorded before the second was sent");
    receiver.answer(200);
    process.finished().await;
    for event in [first, second] {
        assert_eq!(process.attempts(event, "one").await.len(), 1);
    }
}
