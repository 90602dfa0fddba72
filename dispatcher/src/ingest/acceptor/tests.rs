//! What counts as waiting.

use bytes::Bytes;
use dispatcher_core::event::Attributes;
use dispatcher_core::id::{EndpointId, SubscriptionId, TenantId};
use dispatcher_core::limits::FANOUT_MAX;
use futures::FutureExt;
use futures::future::join_all;

use super::*;
use crate::ledger::sqlite::SqliteLedger;
use crate::queue::memory::MemoryQueue;

/// A request that goes to as many as one may.
fn request(number: u64) -> NewRequest {
    let tenant = TenantId::of_namespace_name("shop");
    let subscription = SubscriptionId::derive(tenant, "all");
    let target = |number: usize| {
        let endpoint = EndpointId::derive(tenant, &number.to_string());
        ("default".to_owned(), Target { subscription, endpoint })
    };
    NewRequest {
        event: Arc::new(Event {
            id: EventId::from_parts(1 + number, [0; 10]),
            tenant,
            event_type: "order.created".into(),
            recipient: None,
            content_type: "application/json".into(),
            body: Bytes::from_static(b"1"),
            attributes: Attributes::default(),
        }),
        targets: (0..FANOUT_MAX).map(target).collect(),
        table_version: TableVersion(1),
        idempotency: None,
    }
}

#[tokio::test]
async fn what_is_taken_waits_no_more_and_what_is_put_back_does() {
    let folder = tempfile::tempdir().unwrap();
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(folder.path()).await.unwrap());
    let (acceptor, mut task) = Acceptor::new(ledger, Arc::new(MemoryQueue::new(0)), Arc::new(Metrics::new()));
    // One more than fits into a transaction.
    let fitting = ACCEPT_BATCH_TARGETS_MAX / FANOUT_MAX;
    let mut accepting = Box::pin(join_all((0..=fitting as u64).map(|number| acceptor.accept(request(number)))));
    assert!((&mut accepting).now_or_never().is_none());
    assert_eq!(task.gathering.waiting(), fitting + 1);
    let first = task.receiver.try_recv().unwrap();
    let (batch, put_back) = task.gather(first);
    assert_eq!((batch.len(), task.gathering.waiting()), (fitting, 1), "one is put back");
    task.refuse(put_back.unwrap());
    assert!(task.commit(batch, None).await.is_stored);
    assert_eq!(task.gathering.waiting(), 0);
    let answers = accepting.await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), fitting);
    assert_eq!(answers[fitting], Err(AcceptError::Unavailable));
}
