//! Whether this process can do its work, with what keeps it from it in words.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use dispatcher::admin::Report;
use serde_json::{Value, json};

use super::metrics::OperatorMetrics;
use super::watch::WatchStates;

/// What the parts of the process tell of themselves.
#[derive(Clone)]
pub struct Readiness {
    told: Arc<Mutex<Told>>,
    metrics: Arc<OperatorMetrics>,
}

#[derive(Default)]
struct Told {
    watches: Option<Arc<WatchStates>>,
    is_synced: bool,
    is_leader: bool,
    ledger: Option<String>,
    /// What waits for people; it keeps nobody from being ready.
    removal: Option<String>,
    table_version: Option<u64>,
    is_stopping: bool,
}

impl Readiness {
    /// Not ready: nothing is connected.
    pub fn new(metrics: Arc<OperatorMetrics>) -> Self {
        let told = Told { ledger: Some("the ledger is being connected".to_owned()), ..Told::default() };
        Self { told: Arc::new(Mutex::new(told)), metrics }
    }

    /// The watches begin.
    pub fn watch(&self, watches: Arc<WatchStates>) {
        self.told().watches = Some(watches);
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

    /// What is wrong with the ledger; `None` if it works. Answers whether that is news.
    pub fn set_ledger(&self, complaint: Option<String>) -> bool {
        let mut told = self.told();
        let is_news = told.ledger != complaint;
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

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Report for Readiness {
    async fn readiness(&self) -> (bool, Value) {
        let told = self.told();
        let mut reasons = told.watches.as_ref().map(|watches| watches.complaints()).unwrap_or_default();
        if reasons.is_empty() && !told.is_synced {
            reasons.push("not everything has been listed yet".to_owned());
        }
        reasons.extend(told.ledger.iter().map(|complaint| format!("ledger: {complaint}")));
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
        self.metrics.render()
    }
}
