//! Messages that are told apart, and ways to publish and receive them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dispatcher::queue::{Consumer, Item, Message, Queue, Received, Track, Work};
use dispatcher_core::delivery::Target;
use dispatcher_core::event::{Attributes, Event};
use dispatcher_core::id::{EndpointId, EventId, SubscriptionId, TenantId};
use dispatcher_core::table::TableVersion;

pub(crate) const POOL: &str = "default";
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);

/// A queue of an implementation, with what the suite asks of it beyond the seam.
#[async_trait]
pub(crate) trait TestQueue: Send + Sync {
    fn queue(&self) -> Arc<dyn Queue>;

    async fn close(&self);

    /// Returns when the consumers of [`POOL`] have been sent all that waits.
    async fn sent(&self);
}

/// A message that is told from others by its number.
pub(crate) fn message(number: u64, deliveries: usize) -> Message {
    let tenant = TenantId::of_namespace_name("shop");
    let event = Event {
        id: EventId::from_parts(number, [0; 10]),
        tenant,
        event_type: "order.created".into(),
        recipient: None,
        content_type: "application/json".into(),
        body: Bytes::from_static(b"{}"),
        attributes: Attributes::default(),
    };
    let target = Target {
        subscription: SubscriptionId::derive(tenant, "orders"),
        endpoint: EndpointId::derive(tenant, "billing"),
    };
    Message {
        items: vec![Item {
            event: Arc::new(event),
            table_version: TableVersion(1),
            lease_until_unix_ms: 0,
            work: Work::Part { part: 0, r#gen: 1, targets: vec![target; deliveries] },
        }],
    }
}

pub(crate) fn messages(numbers: Range<u64>) -> Vec<Message> {
    numbers.map(|number| message(number, 1)).collect()
}

pub(crate) fn number(received: &Received) -> u64 {
    received.message.items[0].event.id.unix_ms()
}

pub(crate) async fn publish(queue: &dyn Queue, track: Track, numbers: Range<u64>) {
    let results = queue.publish(POOL, track, messages(numbers)).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

pub(crate) async fn next(consumer: &mut Box<dyn Consumer>) -> Received {
    tokio::time::timeout(DEADLINE, consumer.next()).await.expect("a message comes").unwrap().expect("not closed")
}

/// Receives and acknowledges; answers the numbers and whether they were marked as redelivered.
pub(crate) async fn drain(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<(u64, bool)> {
    let mut seen = Vec::new();
    for _ in 0..count {
        let received = next(consumer).await;
        seen.push((number(&received), received.redelivered));
        received.ack.acknowledge();
    }
    seen
}

/// Whether a call that has been polled often still waits: nothing is there for it.
pub(crate) async fn waits(consumer: &mut Box<dyn Consumer>) -> bool {
    let mut call = consumer.next();
    for _ in 0..100 {
        if futures::poll!(&mut call).is_ready() {
            return false;
        }
        tokio::task::yield_now().await;
    }
    true
}

/// Waits for a condition.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}
