//! A message that keeps coming back: its work is done one by one.
//!
//! Something in it may take its consumer down. Taken, sent and committed alone, whatever stands before the culprit is
//! not sent again, and whatever stands behind it is reached by the first consumer that survives.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Worker;
use super::acknowledgement::Acknowledgement;
use crate::queue::{Acknowledge, Item, Work};

/// Delivers each part and each due delivery only after the one before it is committed, and then acknowledges the
/// message. If that cannot be, the message goes back.
pub(super) async fn deliver(worker: Arc<Worker>, items: Vec<Item>, receipt: Box<dyn Acknowledge>) {
    for item in items.into_iter().flat_map(split) {
        let Some(taken) = worker.take(vec![item], true).await else { return };
        if taken.is_empty() {
            continue;
        }
        let (committed, is_committed) = oneshot::channel();
        worker.start(taken, Acknowledgement::new(Box::new(Told(committed))));
        if is_committed.await.is_err() {
            return;
        }
    }
    receipt.acknowledge();
}

/// Each due delivery of an event by itself. A part stays whole: it is recorded as one.
fn split(item: Item) -> Vec<Item> {
    match item.work {
        Work::Due(deliveries) => deliveries
            .into_iter()
            .map(|due| Item { event: Arc::clone(&item.event), work: Work::Due(vec![due]), ..item })
            .collect(),
        work @ Work::Part { .. } => vec![Item { work, ..item }],
    }
}

/// Tells that the work is committed.
struct Told(oneshot::Sender<()>);

impl Acknowledge for Told {
    fn acknowledge(self: Box<Self>) {
        // Nobody waits any longer when the process stops.
        self.0.send(()).ok();
    }
}
