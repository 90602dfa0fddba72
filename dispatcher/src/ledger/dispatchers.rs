//! The processes that work on a ledger: what each tells of itself, and what is known of all.

use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use dispatcher_core::table::TableVersion;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DispatcherRole {
    /// Accepts events.
    Ingest,
    /// Delivers them.
    Deliver,
    /// Both.
    All,
}

impl DispatcherRole {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Deliver => "deliver",
            Self::All => "all",
        }
    }

    /// Reads the name of a role. `None` is one that only a newer release knows, which is warned of once.
    pub(super) fn parse(name: &str) -> Option<Self> {
        static WARNED: Once = Once::new();
        let role = [Self::Ingest, Self::Deliver, Self::All].into_iter().find(|role| role.as_str() == name);
        if role.is_none() {
            WARNED.call_once(|| {
                tracing::warn!(
                    "a process of a newer release has a role that this release does not know; it is not listed"
                );
            });
        }
        role
    }

    /// Whether it accepts events.
    pub fn ingests(self) -> bool {
        self != Self::Deliver
    }

    /// Whether it delivers.
    pub fn delivers(self) -> bool {
        self != Self::Ingest
    }
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who it is: another one after every start.
    pub instance: Uuid,
    /// What it does.
    pub role: DispatcherRole,
    /// Pool that it delivers for; `None` if it does not deliver.
    pub pool: Option<String>,
    /// Version of the routing table that it works with.
    pub table_version: TableVersion,
}

/// What a heartbeat is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The ledger's clock, in milliseconds since the Unix epoch.
    pub ledger_unix_ms: u64,
    /// Milliseconds that the ledger's clock is ahead of this process's; negative if it is behind. Beyond
    /// [`dispatcher_core::limits::CLOCK_OFFSET_MAX`] the process's clock should be mended; identities and leases are
    /// made by the ledger's clock all the same.
    pub clock_offset_ms: i64,
}

/// A process as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatcherRecord {
    /// Who it is.
    pub instance: Uuid,
    /// What it does.
    pub role: DispatcherRole,
    /// Pool that it delivers for; `None` if it does not deliver.
    pub pool: Option<String>,
    /// Version of the routing table that it worked with when it was last seen.
    pub table_version: TableVersion,
    /// How long ago that was.
    pub seen_ago: Duration,
}

/// The instance that a ledger's process beats for, and so holds what it records as in flight; none before the first
/// beat and after the last.
#[derive(Debug, Default)]
pub(super) struct Holder(Mutex<Option<Uuid>>);

impl Holder {
    pub(super) fn get(&self) -> Option<Uuid> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn beats(&self, instance: Uuid) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(instance);
    }

    pub(super) fn retires(&self, instance: Uuid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take_if(|holder| *holder == instance);
    }
}
