//! A ledger that fails until it is repaired, before a real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use dispatcher::ledger::{Ledger, LedgerError, NewEvent};

use crate::ledger_proxy::{Before, LedgerProxy};

/// The type of events that are refused as data, even when the ledger is repaired.
pub(crate) const REFUSED_TYPE: &str = "refused";

/// Whether the ledger is still broken, and how often it was asked to store events.
#[derive(Clone)]
pub(crate) struct Gate {
    broken: Arc<AtomicBool>,
    accepts: Arc<AtomicUsize>,
}

impl Gate {
    pub(crate) fn repair(&self) {
        self.broken.store(false, Ordering::SeqCst);
    }

    pub(crate) fn accepts(&self) -> usize {
        self.accepts.load(Ordering::SeqCst)
    }
}

/// The gate, and what puts a ledger that fails whatever the API asks before a real one.
pub(crate) fn broken_ledger() -> (Gate, impl FnOnce(Arc<dyn Ledger>) -> Arc<dyn Ledger>) {
    let gate = Gate { broken: Arc::new(AtomicBool::new(true)), accepts: Arc::default() };
    let before = gate.clone();
    (gate, move |real| Arc::new(LedgerProxy { real, before }))
}

#[async_trait]
impl Before for Gate {
    async fn call(&self, method: &'static str) -> Result<(), LedgerError> {
        if method == "accept" {
            self.accepts.fetch_add(1, Ordering::SeqCst);
        }
        let broken = self.broken.load(Ordering::SeqCst);
        if broken { Err(LedgerError::Unavailable("the disk is full".into())) } else { Ok(()) }
    }

    fn accept(&self, events: &[NewEvent]) -> Result<(), LedgerError> {
        let refused = events.iter().any(|new| new.event.event_type == REFUSED_TYPE);
        if refused { Err(LedgerError::Refused("not this type".into())) } else { Ok(()) }
    }
}
