//! Whether the process can do its work, and what keeps it from it.
//!
//! What is observed is judged by a pure function. A process that has work and gets nothing done is not ready, whatever
//! its connections say: a consumer that has stopped must never look healthy.

mod probe;
mod stall;
#[cfg(test)]
mod tests;

pub use probe::Probe;
pub(crate) use probe::{Observer, Watched, watch};
pub use stall::{Stall, Unpublished};

use std::time::Duration;

use dispatcher_core::limits::{CLOCK_OFFSET_MAX, HEARTBEAT_DEAD_AFTER, PROGRESS_DEADLINE};
use dispatcher_core::table::TableVersion;

use crate::ledger::DispatcherRole;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// The ledger answers in time.
    Ledger,
    /// The queue is there.
    Queue,
    /// A routing table is loaded.
    Table,
    /// What producers send is committed.
    Accepting,
    /// What waits in the queue is received.
    Consuming,
    /// What was received is recorded.
    Recording,
    /// What is due is claimed.
    Claiming,
    /// What was claimed is published.
    Publishing,
    /// The ledger knows that the process lives.
    Heartbeat,
    /// The process's clock shows about the ledger's time.
    Clock,
    /// No shutdown has begun.
    Serving,
}

impl Check {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Queue => "queue",
            Self::Table => "table",
            Self::Accepting => "accepting",
            Self::Consuming => "consuming",
            Self::Recording => "recording",
            Self::Claiming => "claiming",
            Self::Publishing => "publishing",
            Self::Heartbeat => "heartbeat",
            Self::Clock => "clock",
            Self::Serving => "serving",
        }
    }

    /// Whether a process of a role does this at all.
    fn concerns(self, role: DispatcherRole) -> bool {
        match self {
            Self::Accepting => role.ingests(),
            Self::Consuming | Self::Recording | Self::Claiming | Self::Publishing => role.delivers(),
            _ => true,
        }
    }

    /// Whether a process of a role is of no use without it. One that ingests is: what it accepts without a queue is
    /// delivered once the queue is back.
    fn is_required(self, role: DispatcherRole) -> bool {
        !(self == Self::Queue && role.ingests())
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finding {
    /// All is well.
    Ok,
    /// It has not been tried to the end yet.
    Connecting,
    /// It cannot be reached, or takes no writes.
    Unreachable,
    /// Its schema is older than this release needs: it waits to be migrated.
    SchemaTooOld,
    /// It does not answer in time.
    NotAnswering,
    /// Nothing is loaded yet.
    NotLoaded,
    /// There is work, and for a while nothing of it got done.
    Stalled,
    /// The ledger has not accepted it for too long, so that it may give what the process holds to others.
    NotAccepted,
    /// It is wrong by more than a second.
    Skewed,
    /// The process is about to stop.
    Stopping,
}

impl Finding {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Connecting => "connecting",
            Self::Unreachable => "unreachable",
            Self::SchemaTooOld => "schema_too_old",
            Self::NotAnswering => "not_answering",
            Self::NotLoaded => "not_loaded",
            Self::Stalled => "stalled",
            Self::NotAccepted => "not_accepted",
            Self::Skewed => "skewed",
            Self::Stopping => "stopping",
        }
    }
}

/// For how long there has been work of which nothing got done; zero where there is none, or where it gets done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// Of requests that wait for a commit.
    pub accepting: Duration,
    /// Of messages that wait in the queue.
    pub consuming: Duration,
    /// Of deliveries that were received.
    pub recording: Duration,
    /// Of looks for due work, which never end.
    pub claiming: Duration,
    /// Of deliveries that were claimed.
    pub publishing: Duration,
}

/// Everything that readiness is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What the process does.
    pub role: DispatcherRole,
    /// What the ledger said last.
    pub ledger: Finding,
    /// What the queue said last.
    pub queue: Finding,
    /// The routing table in use, once there is one.
    pub table: Option<TableVersion>,
    /// What gets done.
    pub stalls: Stalls,
    /// How long ago the last heartbeat was sent that the ledger accepted, if one was.
    pub heartbeat_age: Option<Duration>,
    /// Milliseconds that the ledger's clock is ahead of the process's.
    pub clock_offset_ms: i64,
    /// Whether a shutdown has begun.
    pub stopping: bool,
}

/// The judgement: every check that concerns the role, with what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether every check that is required is well.
    pub ready: bool,
    /// In a stable order.
    pub checks: Vec<(Check, Finding)>,
    /// The routing table in use, once there is one.
    pub table: Option<TableVersion>,
}

/// Judges what was observed.
pub fn judge(observation: &Observation) -> Readiness {
    let Observation { role, ledger, queue, table, stalls, heartbeat_age, clock_offset_ms, stopping } = *observation;
    let is = |well: bool, else_finding: Finding| if well { Finding::Ok } else { else_finding };
    let progress = |stalled: Duration| is(stalled < PROGRESS_DEADLINE, Finding::Stalled);
    let beats = heartbeat_age.is_some_and(|age| age < HEARTBEAT_DEAD_AFTER);
    let offset = Duration::from_millis(clock_offset_ms.unsigned_abs());
    let found = [
        (Check::Ledger, ledger),
        (Check::Queue, queue),
        (Check::Table, is(table.is_some(), Finding::NotLoaded)),
        (Check::Accepting, progress(stalls.accepting)),
        (Check::Consuming, progress(stalls.consuming)),
        (Check::Recording, progress(stalls.recording)),
        (Check::Claiming, progress(stalls.claiming)),
        (Check::Publishing, progress(stalls.publishing)),
        (Check::Heartbeat, is(beats, Finding::NotAccepted)),
        (Check::Clock, is(offset <= CLOCK_OFFSET_MAX, Finding::Skewed)),
        (Check::Serving, is(!stopping, Finding::Stopping)),
    ];
    let checks: Vec<_> = found.into_iter().filter(|(check, _)| check.concerns(role)).collect();
    let ready = checks.iter().all(|(check, finding)| *finding == Finding::Ok || !check.is_required(role));
    Readiness { ready, checks, table }
}
