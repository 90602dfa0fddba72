//! A ledger whose recording is unavailable for a while, before a real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use dispatcher::ledger::{Ledger, LedgerError};
use tokio::sync::Notify;

use crate::ledger_proxy::{Before, LedgerProxy};

/// How often recording still fails, and has failed.
#[derive(Clone, Default)]
pub(crate) struct Failures {
    left: Arc<AtomicUsize>,
    seen: Arc<AtomicUsize>,
}

impl Failures {
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    /// From now on recording succeeds.
    pub(crate) fn end(&self) {
        self.left.store(0, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), LedgerError> {
        let one_less = |left: usize| left.checked_sub(1);
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
            Ok(_) => {
                self.seen.fetch_add(1, Ordering::SeqCst);
                Err(LedgerError::Unavailable("the disk is full".into()))
            }
            Err(_) => Ok(()),
        }
    }
}

/// Fails to record as often as it was told, and never answers whoever takes work over if it was told so.
struct Unavailable {
    failures: Failures,
    takes_hang: Option<Arc<Notify>>,
}

/// What is left of the failures, and what puts a ledger that fails to record so often before a real one.
pub(crate) fn failing_ledger(failures: usize) -> (Failures, impl FnOnce(Arc<dyn Ledger>) -> Arc<dyn Ledger>) {
    let failures = Failures { left: Arc::new(AtomicUsize::new(failures)), seen: Arc::default() };
    let before = Unavailable { failures: failures.clone(), takes_hang: None };
    (failures, move |real| Arc::new(LedgerProxy { real, before }))
}

/// A ledger that never answers a take, and notifies `asked` of one.
pub(crate) fn hanging_ledger(asked: &Arc<Notify>) -> impl FnOnce(Arc<dyn Ledger>) -> Arc<dyn Ledger> + use<> {
    let before = Unavailable { failures: Failures::default(), takes_hang: Some(Arc::clone(asked)) };
    move |real| Arc::new(LedgerProxy { real, before })
}

#[async_trait]
impl Before for Unavailable {
    async fn call(&self, method: &'static str) -> Result<(), LedgerError> {
        match (method, &self.takes_hang) {
            ("record", _) => self.failures.check(),
            ("take", Some(asked)) => {
                asked.notify_one();
                std::future::pending().await
            }
            _ => Ok(()),
        }
    }
}
