//! Whether a delivery may leave now: the table, the endpoint's breaker, pace and window, the transform, a track, the
//! lease.
//!
//! What may not go soon waits in the ledger without an attempt, behind its endpoint's gate.

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use dispatcher_core::delivery::EndReason;
use dispatcher_core::limits::{SNAPSHOT_POLL_INTERVAL, UNUSABLE_ENDPOINT_PAUSE};
use dispatcher_core::route::Content;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Worker;
use super::endpoints::{Admitted, Entered};
use super::part::Job;
use super::recorder::{Effect, Entry};
use super::transform::{NotShaped, Shaped, shape};
use crate::ledger::GateChange;
use crate::snapshot::{EndpointRoute, NotDeliverable, Snapshot};

/// The answer.
pub(super) enum Admission {
    /// Send it.
    Go(Go),
    /// Record it as waiting, without an attempt.
    Wait(Duration),
    /// Record it as cancelled.
    Cancel(EndReason),
    /// Record an attempt that failed before anything was sent.
    Fail(Failed),
}

/// A delivery whose transform yields nothing.
pub(super) struct Failed {
    pub(super) route: Arc<EndpointRoute>,
    pub(super) entered: Entered,
    /// Why, for people.
    pub(super) message: String,
}

/// Everything that a delivery needs to go. Dropping it gives all of it back.
pub(super) struct Go {
    pub(super) route: Arc<EndpointRoute>,
    pub(super) entered: Entered,
    pub(super) track: Track,
    pub(super) shaped: Shaped,
}

/// Where the exchange is counted.
pub(super) enum Track {
    Fast(OwnedSemaphorePermit),
    Slow(OwnedSemaphorePermit),
}

/// Asks for everything, and waits for room and pace up to the soft budget.
pub(super) async fn admit(worker: &Worker, job: &Job) -> Admission {
    let endpoint_id = job.key.target.endpoint;
    let patient_until = Instant::now() + worker.config.soft_budget;
    let mut has_waited = false;
    loop {
        if worker.stopping.is_cancelled() {
            return Admission::Wait(Duration::ZERO);
        }
        let snapshot = Arc::clone(&worker.snapshot.borrow());
        let route = match snapshot.may_deliver(endpoint_id) {
            Ok(route) => Arc::clone(route),
            Err(reason) => return not_deliverable(worker, job, &snapshot, reason).await,
        };
        let Some(content) = snapshot.index.content(job.key.target.subscription) else {
            return without_subscription(worker, job, &snapshot);
        };
        let endpoint = worker.endpoints.of(&route.row, worker.config.soft_budget);
        let patience = patient_until.saturating_duration_since(Instant::now());
        match endpoint.enter(&route.row, patience) {
            Admitted::Go(entered) => {
                if has_waited {
                    endpoint.pass_on();
                }
                return fill(worker, job, content, route, entered).await;
            }
            Admitted::WaitForRoom => endpoint.wait_for_room(patience).await,
            Admitted::WaitForPace(wait) => tokio::time::sleep(wait).await,
            Admitted::Park(gate) => return park(worker, gate).await,
            // The ledger has closed its gate, or is about to.
            Admitted::Disabled => return Admission::Wait(SNAPSHOT_POLL_INTERVAL),
        }
        has_waited = true;
    }
}

/// A delivery that is parked is due at once, behind the gate.
async fn park(worker: &Worker, gate: GateChange) -> Admission {
    worker.recorder.send(Entry::Effect(Effect::Gate(gate))).await;
    Admission::Wait(Duration::ZERO)
}

/// The ledger keeps the gate of what is suspended, held, disabled or deleted shut. The delay is for tables that differ:
/// of this process, which may be older than the one that chose the target, and of the ledger.
async fn not_deliverable(worker: &Worker, job: &Job, snapshot: &Snapshot, reason: NotDeliverable) -> Admission {
    let endpoint = job.key.target.endpoint;
    let table_version = job.table_version.0;
    tracing::debug!(%endpoint, table_version, reason = reason.as_str(), "a delivery waits");
    if reason == NotDeliverable::Unsealable
        && let Some(row) = snapshot.index.endpoint(endpoint)
    {
        let revision = row.revision.clone();
        let gate = GateChange { endpoint, revision, closed_for: UNUSABLE_ENDPOINT_PAUSE, quota: None };
        return park(worker, gate).await;
    }
    Admission::Wait(SNAPSHOT_POLL_INTERVAL)
}

/// Without its subscription nobody knows what may be sent of the event, so nothing is. It waits for the subscription to
/// be created anew, and is cancelled when the grace of the deletion is over.
fn without_subscription(worker: &Worker, job: &Job, snapshot: &Snapshot) -> Admission {
    // The table that chose the target had it: one that is older says nothing.
    if job.table_version > snapshot.version {
        return Admission::Wait(SNAPSHOT_POLL_INTERVAL);
    }
    let subscription = job.key.target.subscription;
    let absent_for = snapshot.departures.absent_for(subscription, StdInstant::now());
    let grace_left = worker.config.deletion_grace.saturating_sub(absent_for);
    tracing::debug!(%subscription, delivery = %job.key.delivery, ?grace_left, "the subscription is deleted");
    if grace_left.is_zero() {
        return Admission::Cancel(EndReason::SubscriptionDeleted);
    }
    let pause = look_again_after(absent_for, worker.config.deletion_pause, rand::random());
    Admission::Wait(grace_left.min(pause))
}

/// How long a delivery without its subscription is left alone: as long as the subscription has been away already, at
/// least `pause`, and up to twice that, by `random_unit` in `[0, 1)`. Each look claims, publishes and rewrites the
/// delivery: so the looks of one become fewer, and those of many spread.
fn look_again_after(absent_for: Duration, pause: Duration, random_unit: f64) -> Duration {
    absent_for.max(pause).mul_f64(1.0 + random_unit)
}

/// Makes what is sent, and takes a track for it.
async fn fill(worker: &Worker, job: &Job, content: &Content, route: Arc<EndpointRoute>, entered: Entered) -> Admission {
    match shape(worker, job, content, entered.endpoint()).await {
        Ok(shaped) => take_track(worker, job, route, entered, shaped).await,
        Err(NotShaped::Failed(message)) => Admission::Fail(Failed { route, entered, message }),
        Err(NotShaped::Late) => give_back(worker, entered, worker.config.soft_budget).await,
    }
}

/// Takes a slot on a track, and looks at the lease for the last time before something is sent. Waits no longer than
/// the lease allows: what cannot leave in time goes back.
async fn take_track(
    worker: &Worker,
    job: &Job,
    route: Arc<EndpointRoute>,
    entered: Entered,
    shaped: Shaped,
) -> Admission {
    let track = if entered.endpoint().is_slow() {
        match Arc::clone(&worker.slow).try_acquire_owned() {
            Ok(permit) => Track::Slow(permit),
            Err(_) => return park(worker, entered.endpoint().gate(worker.config.soft_budget)).await,
        }
    } else {
        match fast_permit(worker, job).await {
            Some(permit) => Track::Fast(permit),
            None => return give_back(worker, entered, Duration::ZERO).await,
        }
    };
    worker.recorder.wait_until_it_answers(|| worker.time_left(job.lease_until_unix_ms)).await;
    if worker.stopping.is_cancelled() || worker.is_late(job.lease_until_unix_ms) {
        return give_back(worker, entered, Duration::ZERO).await;
    }
    Admission::Go(Go { route, entered, track, shaped })
}

/// A slot on the fast track, at once if there is one, else for as long as the lease allows.
async fn fast_permit(worker: &Worker, job: &Job) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = Arc::clone(&worker.fast).try_acquire_owned() {
        return Some(permit);
    }
    let waiting = Arc::clone(&worker.fast).acquire_owned();
    tokio::time::timeout(worker.time_left(job.lease_until_unix_ms), waiting).await.ok()?.ok()
}

/// Nothing was sent in time: the endpoint gets back what the delivery had taken, and the delivery waits.
async fn give_back(worker: &Worker, entered: Entered, delay: Duration) -> Admission {
    if let Some(effect) = entered.give_back() {
        worker.recorder.send(Entry::Effect(effect)).await;
    }
    Admission::Wait(delay)
}

#[cfg(test)]
mod tests {
    use dispatcher_core::limits::{DELETED_SUBSCRIPTION_PAUSE, DELETION_GRACE};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_looks_at_a_delivery_without_its_subscription_are_few_and_adopt_it_in_proportion(
            units in proptest::collection::vec(0.0..1.0, 8),
        ) {
            let (mut absent_for, mut looks) = (Duration::ZERO, 1);
            for unit in units {
                let pause = look_again_after(absent_for, DELETED_SUBSCRIPTION_PAUSE, unit);
                let longest = 2 * absent_for.max(DELETED_SUBSCRIPTION_PAUSE);
                prop_assert!(pause >= DELETED_SUBSCRIPTION_PAUSE && pause <= longest, "{pause:?} at {absent_for:?}");
                absent_for += pause;
                looks += 1;
                if absent_for >= DELETION_GRACE {
                    break;
                }
            }
            prop_assert!(absent_for >= DELETION_GRACE && looks <= 6, "{looks} looks, {absent_for:?}");
        }
    }
}
