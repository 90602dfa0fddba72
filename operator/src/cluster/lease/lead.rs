//! Whether this process leads, for those who act as leader, and what keeps it from finding out.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::Leadership;
use crate::cluster::failure::{ApiFailure, FailureClass};

/// What an elector has found out last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) leadership: Leadership,
    /// When that ends unless the Lease is renewed.
    pub(super) until: Option<Instant>,
}

impl Standing {
    /// Nobody has asked yet.
    pub(super) const UNKNOWN: Self = Self { leadership: Leadership::Follower, until: None };
}

/// Whether this process leads. The answer goes by the clock: a process that stood still, for whatever reason, does not
/// lead when it goes on, although nobody has had the time to tell it.
#[derive(Clone, Debug)]
pub struct Lead {
    standing: watch::Receiver<Standing>,
}

impl Lead {
    pub(super) fn new(standing: watch::Receiver<Standing>) -> Self {
        Self { standing }
    }

    /// One that leads with an epoch, for as long as it exists: where nobody else could.
    pub fn for_ever(epoch: u64) -> Self {
        let (_, standing) = watch::channel(Standing { leadership: Leadership::Leader { epoch }, until: None });
        Self { standing }
    }

    /// Whether it leads at this moment.
    pub fn now(&self) -> Leadership {
        let Standing { leadership, until } = *self.standing.borrow();
        if until.is_some_and(|until| Instant::now() >= until) { Leadership::Follower } else { leadership }
    }

    /// Whether the time of a lead is over and the elector has not said yet what comes next.
    pub fn is_undecided(&self) -> bool {
        self.standing.borrow().leadership != Leadership::Follower && self.now() == Leadership::Follower
    }

    /// Waits until an elector has found out something else. Answers whether there still is one.
    pub async fn changed(&mut self) -> bool {
        self.standing.changed().await.is_ok()
    }
}

/// Why the Lease cannot be read or written, in a sentence that says what to do; nothing while it can.
#[derive(Clone, Debug, Default)]
pub struct LeaseComplaint(Arc<Mutex<Option<String>>>);

impl LeaseComplaint {
    /// What is wrong.
    pub fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, complaint: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = complaint;
    }
}

/// What is wrong with a Lease, and what to do.
pub(super) fn complaint(lease: &str, namespace: &str, failure: &ApiFailure) -> String {
    match failure.class {
        FailureClass::Forbidden => format!(
            "lease {lease}: not allowed: let a Role in namespace {namespace} grant get, create and update on leases of \
             coordination.k8s.io: {failure}"
        ),
        _ => format!(
            "lease {lease}: the API server cannot be reached or does not answer, so nobody here leads for longer than the \
             Lease allows and nothing changes; look at the API server and the network on the way to it: {failure}"
        ),
    }
}
