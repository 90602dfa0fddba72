//! Observes the process: asks the ledger and the queue, and watches what gets done.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use dispatcher_core::limits::{PROGRESS_LOOK_INTERVAL, READINESS_DEADLINE};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Finding, Observation, Readiness, Stall, Stalls, Unpublished, judge};
use crate::ingest::Acceptor;
use crate::ledger::{DispatcherRole, Ledger};
use crate::metrics::Metrics;
use crate::queue::{Queue, Track};
use crate::snapshot::SnapshotReceiver;

/// Answers whether the process is ready, from its first moment on.
pub struct Probe {
    role: DispatcherRole,
    starting: Mutex<Starting>,
    observer: OnceLock<Observer>,
    stalls: Mutex<Stalls>,
    /// When the last heartbeat was sent that the ledger accepted.
    beat_at: Mutex<Option<Instant>>,
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
    pub fn new(role: DispatcherRole) -> Self {
        Self {
            role,
            starting: Mutex::new(Starting { ledger: Finding::Connecting, queue: Finding::Connecting }),
            observer: OnceLock::new(),
            stalls: Mutex::default(),
            beat_at: Mutex::default(),
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

    /// The ledger has accepted a heartbeat that was sent then.
    pub(crate) fn beat_accepted(&self, sent_at: Instant) {
        *lock(&self.beat_at) = Some(sent_at);
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
        let heartbeat_age = lock(&self.beat_at).map(|sent_at| sent_at.elapsed());
        let Some(observer) = self.observer.get() else {
            let Starting { ledger, queue } = *lock(&self.starting);
            return Observation {
                role: self.role,
                ledger,
                queue,
                table: None,
                stalls: Stalls::default(),
                heartbeat_age,
                clock_offset_ms: 0,
                stopping: false,
            };
        };
        let ledger = match tokio::time::timeout(READINESS_DEADLINE, observer.ledger.ping()).await {
            Ok(Ok(())) => Finding::Ok,
            Ok(Err(_)) => Finding::Unreachable,
            Err(_) => Finding::NotAnswering,
        };
        let queue = if observer.queue.is_connected() { Finding::Ok } else { Finding::Unreachable };
        Observation {
            role: self.role,
            ledger,
            queue,
            table: Some(observer.snapshot.borrow().version),
            stalls: *lock(&self.stalls),
            heartbeat_age,
            clock_offset_ms: observer.ledger.clock().offset_ms(),
            stopping: observer.stopping.is_cancelled(),
        }
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
    let mut progress = Progress::default();
    loop {
        let stalls = progress.look(start.elapsed(), &watched);
        *lock(&probe.stalls) = stalls;
        watched.metrics.set_queue_counts(watched.queue.counts());
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PROGRESS_LOOK_INTERVAL) => {}
        }
    }
}

#[derive(Default)]
struct Progress {
    consuming: Stall,
    recording: Stall,
    claiming: Stall,
    publishing: Stall,
    unpublished: Unpublished,
}

impl Progress {
    fn look(&mut self, now: Duration, watched: &Watched) -> Stalls {
        let work = watched.metrics.work_counts();
        let is_unpublished = self.unpublished.sample(now, work.claimed, work.published);
        // Whoever holds what it can gets no more; what it holds is watched too.
        let queue = &watched.queue;
        let is_waiting = work.held == 0 && queue.is_connected() && queue.waiting(&watched.pool) > 0;
        // Nothing is looked for while the queue is full.
        let has_room = queue.room(&watched.pool, Track::Due) > 0;
        Stalls {
            accepting: watched.acceptor.as_ref().map(Acceptor::stalled_for).unwrap_or_default(),
            consuming: self.consuming.sample(now, is_waiting, work.received),
            recording: self.recording.sample(now, work.held > 0, work.recorded),
            claiming: self.claiming.sample(now, has_room, work.claims),
            publishing: self.publishing.sample(now, is_unpublished, work.published),
        }
    }
}

/// No code panics while it holds one of these locks, so a poisoned one is still consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
