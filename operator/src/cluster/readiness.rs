//! Whether this process can do its work, with what keeps it from it in words.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use dispatcher::admin::Report;
use serde_json::{Value, json};

use super::lease::LeaseComplaint;
use super::metrics::{OperatorMetrics, TroubledPart};
use super::watch::WatchStates;

/// What the parts of the process tell of themselves.
#[derive(Clone)]
pub struct Readiness {
    told: Arc<Mutex<Told>>,
    metrics: Arc<OperatorMetrics>,
}

#[expect(clippy::struct_excessive_bools, reason = "each holds or not, whatever the others do")]
#[derive(Default)]
struct Told {
    watches: Option<Arc<WatchStates>>,
    lease: LeaseComplaint,
    is_synced: bool,
    is_leader: bool,
    /// The ledger has not been connected yet.
    is_connecting: bool,
    ledger: Option<String>,
    /// What waits for people; it keeps nobody from being ready.
    removal: Option<String>,
    table_version: Option<u64>,
    is_stopping: bool,
}

impl Readiness {
    /// Not ready: nothing is connected.
    pub fn new(metrics: Arc<OperatorMetrics>) -> Self {
        let ledger = Some("the ledger is being connected".to_owned());
        let told = Told { ledger, is_connecting: true, ..Told::default() };
        Self { told: Arc::new(Mutex::new(told)), metrics }
    }

    /// The watches begin, and the election.
    pub fn watch(&self, watches: Arc<WatchStates>, lease: LeaseComplaint) {
        let mut told = self.told();
        told.watches = Some(watches);
        told.lease = lease;
    }

    /// Whether everything has been listed once.
    pub fn set_synced(&self, is_synced: bool) {
        self.told().is_synced = is_synced;
    }

    /// Whether this process leads.
    pub fn set_leader(&self, is_leader: bool) {
        let mut told = self.told();
        told.is_leader = is_leader;
        if !is_leader {
            told.removal = None;
        }
    }

    /// What is wrong with the ledger; `None` if it works. Answers whether it was otherwise before: other words for the same
    /// are no news.
    pub fn set_ledger(&self, complaint: Option<String>) -> bool {
        let mut told = self.told();
        let is_news = told.ledger.is_some() != complaint.is_some();
        told.is_connecting &= complaint.is_some();
        told.ledger = complaint;
        is_news
    }

    /// Which removal waits for a confirmation. Answers whether that is news.
    pub fn set_removal(&self, message: Option<String>) -> bool {
        let mut told = self.told();
        let is_news = told.removal != message;
        told.removal = message;
        is_news
    }

    /// The version of the routing table that was planned last.
    pub fn set_table_version(&self, version: u64) {
        self.told().table_version = Some(version);
    }

    /// A shutdown has begun.
    pub fn set_stopping(&self) {
        self.told().is_stopping = true;
    }

    /// What somebody has to mend, by the part that complains. A part that only has not begun yet is not among them.
    pub fn troubles(&self) -> Vec<(TroubledPart, Vec<String>)> {
        let told = self.told();
        let watches = told.watches.as_ref().map(|watches| watches.failures()).unwrap_or_default();
        let ledger = told.ledger.iter().filter(|_| !told.is_connecting).map(|complaint| ledger_complaint(complaint));
        vec![
            (TroubledPart::Watches, watches),
            (TroubledPart::Lease, told.lease.get().into_iter().collect()),
            (TroubledPart::Ledger, ledger.collect()),
        ]
    }

    /// Which removal waits for a confirmation.
    pub fn removal(&self) -> Option<String> {
        self.told().removal.clone()
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ledger_complaint(complaint: &str) -> String {
    format!("ledger: {complaint}")
}

#[async_trait]
impl Report for Readiness {
    async fn readiness(&self) -> (bool, Value) {
        let told = self.told();
        let mut reasons = told.watches.as_ref().map(|watches| watches.complaints()).unwrap_or_default();
        if reasons.is_empty() && !told.is_synced {
            reasons.push("not everything has been listed yet".to_owned());
        }
        reasons.extend(told.lease.get());
        reasons.extend(told.ledger.iter().map(|complaint| ledger_complaint(complaint)));
        if told.is_stopping {
            reasons.push("stopping".to_owned());
        }
        let ready = reasons.is_empty();
        let answer = json!({
            "ready": ready,
            "leader": told.is_leader,
            "reasons": reasons,
            "waiting": told.removal,
            "table_version": told.table_version,
        });
        (ready, answer)
    }

    fn metrics(&self) -> Result<String, fmt::Error> {
        for (part, complaints) in self.troubles() {
            self.metrics.set_troubles(part, complaints.len());
        }
        self.metrics.render()
    }
}
