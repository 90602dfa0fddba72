//! Writes statuses, as fast as conditions need and as rarely as facts allow.
//!
//! [`schedule`] decides what is written next; this file writes it. Needs `patch` on the status of the kinds.

mod patch;
mod schedule;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crds::Kind;
use dispatcher_core::limits::{API_CALL_DEADLINE, FAILURE_LOG_INTERVAL};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::schedule::{Key, Next, Schedule};
use super::events::EventWriter;
use super::failure::{ApiFailure, FailureClass, within};
use super::lease::{Lead, Leadership};
use super::metrics::OperatorMetrics;
use crate::plan::ObjectStatus;

/// Writes statuses. Clones share what waits; one of them runs.
#[derive(Clone)]
pub struct StatusWriter {
    shared: Arc<Shared>,
}

struct Shared {
    client: kube::Client,
    metrics: Arc<OperatorMetrics>,
    events: Option<EventWriter>,
    lead: Option<Lead>,
    schedule: Mutex<Schedule>,
    changed: Notify,
    start: Instant,
}

/// A write that has ended.
struct Ended {
    status: ObjectStatus,
    result: Result<(), ApiFailure>,
}

impl StatusWriter {
    /// Writes once it runs. The Events of a status go nowhere.
    pub fn new(client: kube::Client, metrics: Arc<OperatorMetrics>) -> Self {
        Self::of(client, metrics, None, None)
    }

    /// Writes once it runs, while this process leads, and then has told what a status has to tell: an Event never precedes
    /// the condition.
    pub fn with_events(client: kube::Client, metrics: Arc<OperatorMetrics>, events: EventWriter, lead: Lead) -> Self {
        Self::of(client, metrics, Some(events), Some(lead))
    }

    fn of(
        client: kube::Client,
        metrics: Arc<OperatorMetrics>,
        events: Option<EventWriter>,
        lead: Option<Lead>,
    ) -> Self {
        let schedule = Mutex::new(Schedule::new());
        let shared = Shared { client, metrics, events, lead, schedule, changed: Notify::new(), start: Instant::now() };
        Self { shared: Arc::new(shared) }
    }

    /// Takes on statuses. Each replaces the one that waits for the same object. Never blocks.
    pub fn want(&self, statuses: Vec<ObjectStatus>) {
        self.want_within(&[], statuses);
    }

    /// Takes on all statuses that objects of these kinds need: what waits for other objects of these kinds is forgotten,
    /// since the last plan did not ask for it again. Never blocks.
    pub fn want_all(&self, kinds: &[Kind], statuses: Vec<ObjectStatus>) {
        self.want_within(kinds, statuses);
    }

    /// Forgets all that waits: this process no longer leads.
    pub fn clear(&self) {
        self.shared.schedule().clear();
        self.shared.count_waiting();
    }

    fn want_within(&self, kinds: &[Kind], statuses: Vec<ObjectStatus>) {
        let now = self.shared.now();
        let mut schedule = self.shared.schedule();
        if !kinds.is_empty() {
            schedule.keep_only(kinds, &statuses);
        }
        for status in statuses {
            schedule.want(status, now);
        }
        drop(schedule);
        self.shared.count_waiting();
        self.shared.changed.notify_one();
    }

    /// Writes until it is told to stop. Writes that are on their way are awaited, no longer than their deadline.
    pub async fn run(self, shutdown: CancellationToken) {
        let shared = self.shared;
        let mut writes = FuturesUnordered::new();
        let mut log = FailureLog::default();
        loop {
            let wait = loop {
                if !shared.may_write() {
                    shared.schedule().clear();
                }
                let next = shared.schedule().next(shared.now());
                match next {
                    Next::Write(status) => writes.push(write(&shared.client, *status)),
                    Next::Wait(until) => break Some(shared.start + until),
                    Next::Idle => break None,
                }
            };
            shared.count_waiting();
            let timer = async {
                match wait {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = writes.next() => shared.end(ended, &mut log),
                () = shared.changed.notified() => {}
                () = timer => {}
            }
        }
        while let Some(ended) = writes.next().await {
            shared.end(ended, &mut log);
        }
    }
}

async fn write(client: &kube::Client, status: ObjectStatus) -> Ended {
    let result = match patch::request(&status) {
        Ok(request) => within(API_CALL_DEADLINE, client.request_text(request)).await.map(drop),
        Err(error) => Err(ApiFailure::of(&error)),
    };
    Ended { status, result }
}

impl Shared {
    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Asked before each write: another process may lead by now, although nobody has cleared what waits here.
    fn may_write(&self) -> bool {
        self.lead.as_ref().is_none_or(|lead| lead.now() != Leadership::Follower)
    }

    fn count_waiting(&self) {
        let (conditions, facts) = self.schedule().counts();
        self.metrics.set_statuses_waiting(conditions, facts);
    }

    fn end(&self, Ended { status, result }: Ended, log: &mut FailureLog) {
        let key = Key::of(&status);
        self.schedule().ended(&key, self.now(), result.as_ref().copied().map_err(|failure| failure.class));
        match result {
            Ok(()) => {
                self.metrics.status_written(status.change);
                if let Some(events) = &self.events {
                    events.tell(status.events);
                }
            }
            Err(failure) => {
                self.metrics.status_failed(failure.class);
                log.tell(&key, &failure, Instant::now());
            }
        }
    }
}

/// Tells of failures, each class at most once in [`FAILURE_LOG_INTERVAL`]: thousands of objects fail for one reason.
#[derive(Default)]
struct FailureLog {
    told: HashMap<FailureClass, Instant>,
}

impl FailureLog {
    fn tell(&mut self, key: &Key, failure: &ApiFailure, now: Instant) {
        let help = match failure.class {
            // The object is gone, or another try will do.
            FailureClass::NotFound | FailureClass::Exists | FailureClass::Conflict => return,
            FailureClass::Forbidden => "grant the operator patch on this resource's status",
            FailureClass::Invalid => "install the definitions of this release; the present ones are of another",
            FailureClass::Unavailable => "another attempt follows",
        };
        let told = self.told.get(&failure.class);
        if told.is_some_and(|told| now < *told + FAILURE_LOG_INTERVAL) {
            return;
        }
        self.told.insert(failure.class, now);
        let Key { kind, namespace, name } = key;
        let (kind, class) = (kind.as_str(), failure.class.as_str());
        tracing::warn!(kind, namespace, name, class, "a status was not written: {failure}; {help}");
    }
}
