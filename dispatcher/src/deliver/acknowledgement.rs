//! One acknowledgement for many changes: the message goes when the last of them is committed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::queue::Acknowledge;

/// The receipt of a message. Dropped before all its changes are committed, it gives the message back.
pub(super) struct Acknowledgement {
    open_changes: AtomicUsize,
    receipt: Mutex<Option<Box<dyn Acknowledge>>>,
}

impl Acknowledgement {
    pub(super) fn new(receipt: Box<dyn Acknowledge>) -> Self {
        Self { open_changes: AtomicUsize::new(0), receipt: Mutex::new(Some(receipt)) }
    }

    /// Waits for this many changes; with none there is nothing to wait for, and the message goes at once.
    pub(super) fn after(mut self, changes: usize) -> Option<Arc<Self>> {
        if changes == 0 {
            self.acknowledge();
            return None;
        }
        *self.open_changes.get_mut() = changes;
        Some(Arc::new(self))
    }

    /// One of the changes is committed.
    pub(super) fn committed(&self) {
        if self.open_changes.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.acknowledge();
        }
    }

    fn acknowledge(&self) {
        // Nothing panics while it holds the lock.
        if let Some(receipt) = self.receipt.lock().unwrap_or_else(PoisonError::into_inner).take() {
            receipt.acknowledge();
        }
    }
}
