//! A queue that does not answer is nobody's reason to wait but its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dispatcher::ingest::{Acceptor, NewRequest};
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::ledger::{Claim, Ledger};
use dispatcher::metrics::Metrics;
use dispatcher::queue::memory::MemoryQueue;
use dispatcher::queue::{Consumer, Message, PublishError, Queue, QueueCounts, QueueError, Track};
use dispatcher_core::delivery::Target;
use dispatcher_core::event::{Attributes, Event};
use dispatcher_core::id::{EndpointId, EventId, SubscriptionId, TenantId};
use dispatcher_core::limits::{ACCEPT_PUBLISHING_MAX, LEASE};
use dispatcher_core::table::TableVersion;
use tokio_util::sync::CancellationToken;

/// The pool whose messages nobody confirms, and one that is well.
const POOLS: [&str; 2] = ["a-silent", "b-well"];

/// A queue that never says what became of a message to the first of [`POOLS`].
struct HalfSilent(MemoryQueue);

#[async_trait]
impl Queue for HalfSilent {
    async fn publish(&self, pool: &str, track: Track, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        if pool == POOLS[0] {
            std::future::pending::<()>().await;
        }
        self.0.publish(pool, track, messages).await
    }

    fn room(&self, pool: &str, track: Track) -> usize {
        self.0.room(pool, track)
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn waiting(&self, pool: &str) -> u64 {
        self.0.waiting(pool)
    }

    fn counts(&self) -> QueueCounts {
        self.0.counts()
    }

    async fn consume(&self, pool: &str, deliveries_max: usize) -> Result<Box<dyn Consumer>, QueueError> {
        self.0.consume(pool, deliveries_max).await
    }
}

/// A request with a target in each pool.
fn request(ledger: &dyn Ledger, number: u8) -> NewRequest {
    let tenant = TenantId::of_namespace_name("shop");
    let subscription = SubscriptionId::derive(tenant, "all");
    let target = |pool: &str| Target { subscription, endpoint: EndpointId::derive(tenant, pool) };
    NewRequest {
        event: Arc::new(Event {
            id: EventId::from_parts(ledger.clock().now_unix_ms(), [number; 10]),
            tenant,
            event_type: "order.created".into(),
            recipient: None,
            content_type: "application/json".into(),
            body: Bytes::from_static(b"1"),
            attributes: Attributes::default(),
        }),
        targets: POOLS.iter().map(|pool| ((*pool).to_owned(), target(pool))).collect(),
        table_version: TableVersion(1),
        idempotency: None,
    }
}

#[tokio::test]
async fn a_queue_that_does_not_answer_holds_up_neither_accepting_nor_what_goes_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(folder.path()).await.unwrap());
    let queue = Arc::new(HalfSilent(MemoryQueue::new(256)));
    let shared: Arc<dyn Queue> = Arc::<HalfSilent>::clone(&queue);
    let (acceptor, task) = Acceptor::new(Arc::clone(&ledger), shared, Arc::new(Metrics::new()));
    tokio::spawn(task.run(CancellationToken::new()));
    let published = u8::try_from(ACCEPT_PUBLISHING_MAX).unwrap();
    let mut expected = BTreeSet::new();
    // More than may be published at once: what comes then is due at once.
    for number in 0..2 * published {
        let request = request(&*ledger, number);
        expected.insert(request.event.id);
        let accepting = tokio::time::timeout(Duration::from_mins(1), acceptor.accept(request));
        let receipt = accepting.await.expect("accepting does not wait for the queue").unwrap();
        assert_eq!(receipt.fanout_count, 2);
        assert_eq!(acceptor.stalled_for(), Duration::ZERO, "all is stored");
    }

    let mut found = BTreeSet::new();
    let mut consumer = queue.consume(POOLS[1], usize::MAX).await.unwrap();
    for _ in 0..published {
        let received = consumer.next().await.unwrap().unwrap();
        found.extend(received.message.items.iter().map(|item| item.event.id));
        received.ack.acknowledge();
    }
    assert_eq!(found.len(), ACCEPT_PUBLISHING_MAX, "the pool that is well has what was published");
    let claim = Claim { pool: POOLS[1].into(), instance: uuid::Uuid::nil(), lease: LEASE, deliveries_max: 100 };
    let claimed = ledger.claim(claim).await.unwrap();
    found.extend(claimed.items.iter().map(|item| item.event.id));
    assert_eq!(found, expected, "the rest waits in the ledger");
}
