//! Leader election by a `coordination/v1` Lease: at most one operator writes.
//!
//! [`state`] decides; this file asks the API server. Needs `get`, `create` and `update` on the one Lease.

mod lead;
mod record;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dispatcher::clock::now_unix_ms;
use dispatcher_core::limits::{
    LEASE_DURATION_DEFAULT, LEASE_DURATION_MIN, LEASE_FAILURES_TOLERATED, LEASE_POLL_MAX, LEASE_RELEASE_DEADLINE,
    LEASE_RENEW_EVERY_DEFAULT,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, PostParams};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::lead::Standing;
pub use self::lead::{Lead, LeaseComplaint};
use self::state::{Holder, Observed, State, Step, Timing, Write, WriteEnd};
use super::FIELD_MANAGER;
use super::failure::{ApiFailure, FailureClass, within};

/// What to elect by.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who this process is, for people: the name of its pod.
    pub identity: String,
    /// How long others wait for a leader that does not renew: at least [`LEASE_DURATION_MIN`].
    pub duration: Duration,
    /// How often a leader renews: at most a quarter of the duration.
    pub renew_every: Duration,
}

impl LeaseConfig {
    /// With the usual times.
    pub fn new(namespace: String, name: String, identity: String) -> Self {
        let (duration, renew_every) = (LEASE_DURATION_DEFAULT, LEASE_RENEW_EVERY_DEFAULT);
        Self { namespace, name, identity, duration, renew_every }
    }

    fn timing(&self) -> Timing {
        let duration = self.duration.max(LEASE_DURATION_MIN);
        let renew_every = self.renew_every.min(duration / 4);
        Timing { duration, renew_every, poll_every: renew_every.min(LEASE_POLL_MAX) }
    }
}

/// Whether this process leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// Another one may.
    Follower,
    /// It does, and no other one.
    Leader {
        /// The Lease's `leaseTransitions`: grows with each change of leader. What is written with a smaller one comes
        /// from a leader of the past.
        epoch: u64,
    },
}

/// Tells an [`Elector`] which epochs others have used.
#[derive(Clone, Debug, Default)]
pub struct EpochFloor(Arc<Floor>);

#[derive(Debug, Default)]
struct Floor {
    epoch: AtomicU64,
    raised: Notify,
}

impl EpochFloor {
    /// Epochs up to this one are not to be used: something that was written carries it, and this process did not write
    /// it. A Lease counts anew when it was deleted, or when another cluster used the same ledger before. The holder of the
    /// Lease goes on with a larger epoch, once its next renewal has confirmed that it still is the holder.
    pub fn raise(&self, epoch: u64) {
        self.0.epoch.fetch_max(epoch, Ordering::Relaxed);
        self.0.raised.notify_one();
    }
}

/// Takes part in the election.
pub struct Elector {
    api: Api<Lease>,
    namespace: String,
    name: String,
    state: State,
    call_deadline: Duration,
    /// The Lease as it was seen or written last.
    present: Option<Lease>,
    start: Instant,
    floor: EpochFloor,
    standing: watch::Sender<Standing>,
    complaint: LeaseComplaint,
    /// Calls in a row that failed.
    failures: u32,
}

impl Elector {
    /// Takes part once it runs, and says whether it leads.
    pub fn new(client: kube::Client, config: LeaseConfig) -> (Self, Lead) {
        let timing = config.timing();
        let (standing, receiver) = watch::channel(Standing::UNKNOWN);
        let me = Holder { identity: config.identity, instance: Uuid::new_v4().to_string() };
        let elector = Self {
            api: Api::namespaced(client, &config.namespace),
            namespace: config.namespace,
            name: config.name,
            state: State::new(me, timing),
            // Two renewals must fit into the time that a leader has.
            call_deadline: timing.duration / 5,
            present: None,
            start: Instant::now(),
            floor: EpochFloor::default(),
            standing,
            complaint: LeaseComplaint::default(),
            failures: 0,
        };
        (elector, Lead::new(receiver))
    }

    /// Where to say which epochs others have used.
    pub fn epoch_floor(&self) -> EpochFloor {
        self.floor.clone()
    }

    /// Where it says what keeps it from the Lease.
    pub fn complaint(&self) -> LeaseComplaint {
        self.complaint.clone()
    }

    /// Takes part until it is told to stop; then this process no longer leads, and the Lease is given up, so that
    /// another one leads within a second. Whoever acts as leader should have ended by then.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            self.state.raise_floor(self.floor.0.epoch.load(Ordering::Relaxed), self.now());
            self.publish();
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.step() => {}
            }
        }
        let release = self.state.give_up();
        self.publish();
        let given_up = tokio::time::timeout(LEASE_RELEASE_DEADLINE, self.release(release)).await;
        if given_up.is_err() {
            tracing::warn!("the Lease could not be given up in time; another operator waits until it runs out");
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn publish(&self) {
        let now = self.now();
        let leadership = self.state.leadership(now);
        let until = self.state.leads_until(now).map(|until| self.start + until);
        // A renewal is no news.
        let changed = self.standing.send_if_modified(|known| {
            std::mem::replace(known, Standing { leadership, until }).leadership != leadership
        });
        match leadership {
            Leadership::Leader { epoch } if changed => tracing::info!(epoch, "this operator leads"),
            Leadership::Follower if changed => tracing::info!("this operator does not lead any more"),
            _ => {}
        }
    }

    async fn step(&mut self) {
        match self.state.next(self.now()) {
            Step::Wait(until) => {
                let floor = self.floor.clone();
                tokio::select! {
                    () = tokio::time::sleep_until(self.start + until) => {}
                    () = floor.0.raised.notified() => {}
                }
            }
            Step::Look => self.look().await,
            Step::Write(write) => self.write(write).await,
        }
    }

    /// No call outlasts leading: whatever hangs, the end of it is told in time.
    fn deadline(&self) -> Duration {
        let now = self.now();
        self.state
            .leads_until(now)
            .map_or(self.call_deadline, |until| self.call_deadline.min(until.saturating_sub(now)))
    }

    async fn look(&mut self) {
        let found = within(self.deadline(), self.api.get_opt(&self.name)).await;
        let now = self.now();
        match found {
            Ok(lease) => {
                self.healed();
                self.state.looked(now, record::observed(lease.as_ref()), rand::random());
                self.present = lease;
            }
            Err(failure) => {
                self.state.looked_in_vain(now, rand::random());
                self.tell(&failure, "read");
            }
        }
    }

    async fn write(&mut self, write: Write) {
        let started = self.now();
        let written = self.send(&write, self.deadline()).await;
        let end = match written {
            Ok(lease) => {
                self.healed();
                let Observed::Present { version, .. } = record::observed(Some(&lease)) else { return };
                self.present = Some(lease);
                WriteEnd::Done { version }
            }
            Err(failure) => match failure.class {
                FailureClass::Conflict | FailureClass::Exists | FailureClass::NotFound => WriteEnd::Refused,
                _ => {
                    self.tell(&failure, "written");
                    WriteEnd::Unknown
                }
            },
        };
        let now = self.now();
        self.state.written((started, now), write.record, end, rand::random());
    }

    async fn send(&self, write: &Write, deadline: Duration) -> Result<Lease, ApiFailure> {
        let present = self.present.as_ref().filter(|_| write.expected.is_some());
        let lease = record::lease(present, &self.name, write.expected.as_deref(), &write.record, now_unix_ms());
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        if write.expected.is_some() {
            within(deadline, self.api.replace(&self.name, &params, &lease)).await
        } else {
            within(deadline, self.api.create(&params, &lease)).await
        }
    }

    /// Gives the Lease up. A renewal that was on its way when the stop came may have changed its version.
    async fn release(&mut self, mut release: Option<Write>) {
        loop {
            let written = match &release {
                Some(write) => self.send(write, self.call_deadline).await.map(drop),
                None => Ok(()),
            };
            match written {
                Err(failure) if failure.class == FailureClass::Conflict => self.look().await,
                Err(failure) => return self.tell(&failure, "given up"),
                Ok(()) => return,
            }
            release = self.state.give_up();
        }
    }

    /// Tells of trouble once, until it is over. One call that failed keeps nobody from being ready.
    fn tell(&mut self, failure: &ApiFailure, what: &'static str) {
        let help = match failure.class {
            FailureClass::Forbidden => "grant get, create and update on leases.coordination.k8s.io in its namespace",
            _ => "another attempt follows",
        };
        let lease = &self.name;
        self.failures = self.failures.saturating_add(1);
        if self.failures > LEASE_FAILURES_TOLERATED {
            self.complaint.set(Some(lead::complaint(lease, &self.namespace, failure)));
        }
        if self.failures > 1 {
            tracing::debug!(lease, class = failure.class.as_str(), "the Lease could not be {what}: {failure}; {help}");
        } else {
            tracing::warn!(lease, class = failure.class.as_str(), "the Lease could not be {what}: {failure}; {help}");
        }
    }

    fn healed(&mut self) {
        if std::mem::take(&mut self.failures) > 0 {
            self.complaint.set(None);
            tracing::info!(lease = self.name, "the Lease is within reach again");
        }
    }
}
