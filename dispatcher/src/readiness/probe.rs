//! Observes the process: asks the ledger and the queue, and watches what gets done.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use dispatcher_core::limits::{PROGRESS_LOOK_INTERVAL, READINESS_DEADLINE};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Finding, Observation, Readiness, Stall, Stalls, judge};
use crate::ingest::Acceptor;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::service::ServiceRole;
use crate::snapshot::SnapshotReceiver;

/// Answers whether the process is ready, from its first moment on.
pub struct Probe {
    role: ServiceRole,
    starting: Mutex<Starting>,
    observer: OnceLock<Observer>,
    stalls: Mutex<Stalls>,
}

/// How far the start has come.
struct Starting {
    ledger: Finding,
    queue: Finding,
}

/// What a running service is observed by.
pub(crate) struct Observer {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) snapshot: SnapshotReceiver,
    pub(crate) stopping: CancellationToken,
}

impl Probe {
    /// The probe of a process that has just started.
    pub fn new(role: ServiceRole) -> Self {
        Self {
            role,
            starting: Mutex::new(Starting { ledger: Finding::Connecting, queue: Finding::Connecting }),
            observer: OnceLock::new(),
            stalls: Mutex::default(),
        }
    }

    /// What the start has found out about the ledger.
    pub fn set_ledger(&self, finding: Finding) {
        lock(&self.starting).ledger = finding;
    }

    /// What the start has found out about the queue.
    pub fn set_queue(&self, finding: Finding) {
        lock(&self.starting).queue = finding;
    }

    /// From now on the service is observed.
    pub(crate) fn observe(&self, observer: Observer) {
        // There is one service behind a probe, so nobody else has set it.
        self.observer.set(observer).ok();
    }

    /// Looks, and judges.
    pub async fn readiness(&self) -> Readiness {
        judge(&self.look().await)
    }

    async fn look(&self) -> Observation {
        let (role, stalls) = (self.role, *lock(&self.stalls));
        let Some(observer) = self.observer.get() else {
            let Starting { ledger, queue } = *lock(&self.starting);
            return Observation { role, ledger, queue, table: None, stalls, stopping: false };
        };
        let ledger = match tokio::time::timeout(READINESS_DEADLINE, observer.ledger.ping()).await {
            Ok(Ok(())) => Finding::Ok,
            Ok(Err(_)) => Finding::Unreachable,
            Err(_) => Finding::NotAnswering,
        };
        let queue = if observer.queue.is_connected() { Finding::Ok } else { Finding::Unreachable };
        let table = Some(observer.snapshot.borrow().version);
        Observation { role, ledger, queue, table, stalls, stopping: observer.stopping.is_cancelled() }
    }
}

/// What progress is watched by.
pub(crate) struct Watched {
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) pool: String,
    pub(crate) acceptor: Option<Acceptor>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Watches what gets done until it is told to stop.
pub(crate) async fn watch(probe: Arc<Probe>, watched: Watched, shutdown: CancellationToken) {
    let start = Instant::now();
    let mut watches = Watches::default();
    loop {
        let stalls = watches.look(start.elapsed(), &watched);
        *lock(&probe.stalls) = stalls;
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PROGRESS_LOOK_INTERVAL) => {}
        }
    }
}

#[derive(Default)]
struct Watches {
    consuming: Stall,
    recording: Stall,
    claiming: Stall,
    publishing: Stall,
    /// Deliveries that had been claimed when the last of them were published.
    claimed_at_publish: u64,
    published: u64,
}

impl Watches {
    fn look(&mut self, now: Duration, watched: &Watched) -> Stalls {
        let work = watched.metrics.work_counts();
        if work.published != self.published {
            (self.published, self.claimed_at_publish) = (work.published, work.claimed);
        }
        // Whoever holds what it can gets no more; what it holds is watched too.
        let queue = &watched.queue;
        let is_waiting = work.held == 0 && queue.is_connected() && queue.waiting(&watched.pool) > 0;
        Stalls {
            accepting: watched.acceptor.as_ref().map(Acceptor::busy_for).unwrap_or_default(),
            consuming: self.consuming.sample(now, is_waiting, work.received),
            recording: self.recording.sample(now, work.held > 0, work.recorded),
            claiming: self.claiming.sample(now, true, work.claims),
            publishing: self.publishing.sample(now, work.claimed > self.claimed_at_publish, work.published),
        }
    }
}

/// No code panics while it holds one of these locks, so a poisoned one is still consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
