//! The in-process queue.

use std::sync::Arc;

use async_trait::async_trait;
use dispatcher::queue::memory::MemoryQueue;
use dispatcher::queue::{PublishError, Queue, Track};

use super::support::{POOL, TestQueue, drain, message, messages, publish};

struct Memory(Arc<MemoryQueue>);

#[async_trait]
impl TestQueue for Memory {
    fn queue(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.0) as Arc<dyn Queue>
    }

    async fn close(&self) {
        self.0.close();
    }

    async fn sent(&self) {}
}

#[expect(clippy::unused_async, reason = "the suite awaits what opens a queue")]
async fn open(messages_max: usize) -> Option<Memory> {
    Some(Memory(Arc::new(MemoryQueue::new(messages_max))))
}

crate::queue::conformance::conformance_suite!(open);

#[tokio::test]
async fn the_bound_is_exact() {
    let queue = MemoryQueue::new(2);
    let batch = (0..3).map(|number| message(number, 1)).collect();
    assert_eq!(queue.publish(POOL, Track::Fresh, batch).await, [Ok(()), Ok(()), Err(PublishError::Full)]);
}

#[tokio::test]
async fn a_message_given_back_comes_before_those_that_wait() {
    let queue = MemoryQueue::new(1);
    publish(&queue, Track::Fresh, 0..1).await;
    let mut consumer = queue.consume(POOL, 10).await.unwrap();
    let first = consumer.next().await.unwrap().unwrap();
    publish(&queue, Track::Fresh, 1..2).await;
    drop(first.ack);
    assert_eq!(drain(&mut consumer, 2).await, [(0, true), (1, false)]);
}

#[tokio::test]
async fn every_fourth_message_is_a_due_one_while_there_are_some() {
    let queue = MemoryQueue::new(100);
    publish(&queue, Track::Due, 100..103).await;
    publish(&queue, Track::Fresh, 0..12).await;
    let mut consumer = queue.consume(POOL, 1).await.unwrap();
    let order: Vec<u64> = drain(&mut consumer, 15).await.into_iter().map(|(number, _)| number).collect();
    assert_eq!(order, [0, 1, 2, 100, 3, 4, 5, 101, 6, 7, 8, 102, 9, 10, 11]);
}

#[tokio::test]
async fn a_closed_queue_hands_out_what_it_has() {
    let queue = MemoryQueue::new(10);
    publish(&queue, Track::Due, 0..1).await;
    queue.close();
    assert_eq!(queue.publish(POOL, Track::Due, messages(1..2)).await, [Err(PublishError::Unavailable)]);
    let mut consumer = queue.consume(POOL, 10).await.unwrap();
    assert_eq!(drain(&mut consumer, 1).await, [(0, false)]);
    assert!(consumer.next().await.unwrap().is_none());
}
