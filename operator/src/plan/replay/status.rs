//! Statuses of replays.

use std::time::Duration;

use crds::Kind;
use crds::condition::{ConditionStatus, ConditionType, Reason};
use crds::replay::{Replay, ReplayStatus};
use dispatcher::ledger::{ReplayRecord, ReplayStage};
use dispatcher_core::limits::{REPLAYS_RUNNING_MAX, REPLAYS_RUNNING_PER_TENANT_MAX};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::ReplayProgress;
use crate::conditions::{Conditions, Verdict, facts_stay_for, find, generation, time};
use crate::plan::events::{Regarding, transitions};
use crate::plan::{ObjectStatus, StatusBody, StatusChange};
use crate::validate::{Problem, in_words};

/// What is known of how far a replay has come.
pub(super) enum Known<'a> {
    /// Nothing: as far as anybody here knows it has not begun.
    Nothing,
    /// Its status says that it has begun; how far it is by now will be told.
    Begun(&'a ReplayStatus),
    /// Its status says that it is complete, and that is for ever.
    Complete(&'a Condition),
    /// How far it is now.
    Progress(&'a ReplayProgress),
}

impl<'a> Known<'a> {
    pub(super) fn of(replay: &'a Replay, progress: Option<&'a ReplayProgress>) -> Self {
        let status = replay.status.as_ref();
        let complete = status.and_then(|status| find(&status.conditions, ConditionType::Complete));
        match (complete, progress, status) {
            (Some(complete), ..) if complete.status == ConditionStatus::True.as_str() => Self::Complete(complete),
            (_, Some(progress), _) => Self::Progress(progress),
            (_, None, Some(status)) if status.started_time.is_some() => Self::Begun(status),
            (_, None, _) => Self::Nothing,
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    pub(super) fn is_complete(&self) -> bool {
        match self {
            Self::Complete(..) => true,
            Self::Progress(progress) => progress.record.finished_at_unix_ms.is_some(),
            Self::Nothing | Self::Begun(_) => false,
        }
    }

    pub(super) fn record(&self) -> Option<&'a ReplayRecord> {
        match self {
            Self::Progress(progress) => Some(&progress.record),
            Self::Nothing | Self::Begun(_) | Self::Complete(..) => None,
        }
    }
}

/// Makes statuses, and says when the next one is due although nothing changes.
pub(super) struct Statuses {
    pub(super) next_look_in: Option<Duration>,
    now_unix_ms: u64,
}

impl Statuses {
    pub(super) fn new(now_unix_ms: u64) -> Self {
        Self { next_look_in: None, now_unix_ms }
    }

    /// The new status, if it differs from the present one.
    pub(super) fn of(
        &mut self,
        replay: &Replay,
        (namespace, name): (&str, &str),
        problems: &[Problem],
        known: &Known<'_>,
        has_turn: bool,
    ) -> Option<ObjectStatus> {
        let present = replay.status.as_ref();
        let previous = present.map_or(&[][..], |status| &status.conditions);
        let generation = generation(&replay.metadata);
        let mut conditions = Conditions::new(Kind::Replay, previous, generation, self.now_unix_ms);
        set_conditions(&mut conditions, &verdict(replay, problems, known, has_turn), problems, known);
        let conditions = conditions.finish();
        let conditions_change = previous != conditions;
        let counted = self.counts(present, known, conditions_change);
        let status = ReplayStatus { observed_generation: Some(generation), conditions, ..counted };
        if present == Some(&status) {
            return None;
        }
        let regarding = Regarding { kind: Kind::Replay, namespace, name, uid: replay.metadata.uid.as_deref() };
        Some(ObjectStatus {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            change: if conditions_change { StatusChange::Conditions } else { StatusChange::Facts { steps: 1 } },
            events: transitions(regarding, previous, &status.conditions),
            body: StatusBody::Replay(status),
        })
    }

    /// The counts, exact. They change together with a condition, or else when they have grown enough to tell something
    /// new.
    fn counts(&mut self, present: Option<&ReplayStatus>, known: &Known<'_>, conditions_change: bool) -> ReplayStatus {
        let Some(record) = known.record() else { return present.cloned().unwrap_or_default() };
        let new = status_of(record, self.now_unix_ms);
        let Some(present) = present.filter(|present| present.started_time.is_some() && !conditions_change) else {
            return new;
        };
        if rounded(present) == rounded(&new) {
            return present.clone();
        }
        match facts_stay_for(present.measured_time.as_ref(), self.now_unix_ms) {
            Some(left) => {
                self.next_look_in = [self.next_look_in, Some(left)].into_iter().flatten().min();
                present.clone()
            }
            None => new,
        }
    }
}

fn verdict(replay: &Replay, problems: &[Problem], known: &Known<'_>, has_turn: bool) -> Verdict {
    use ConditionStatus::{False, True, Unknown};
    if let Known::Complete(complete) = known {
        return (True, Reason::Completed, complete.message.clone());
    }
    if let Some(record) = known.record().filter(|record| record.finished_at_unix_ms.is_some()) {
        return (True, Reason::Completed, counts_in_words(record, replay.spec.dry_run));
    }
    if let Some(first) = problems.first() {
        return (False, first.reason, in_words(problems));
    }
    let is_done = known.record().is_some_and(|record| record.cursor.stage == ReplayStage::Done);
    let was_done = matches!(known, Known::Begun(status) if ready_reason(status) == Some(Reason::Delivering.as_str()));
    if is_done || was_done {
        return (True, Reason::Delivering, "Everything is started; some of it is not finished".to_owned());
    }
    if replay.spec.suspend {
        return (True, Reason::Suspended, "Suspended, as the spec asks".to_owned());
    }
    match (known.has_begun(), has_turn) {
        (true, true) => (True, Reason::Running, "Deliveries are looked for and started".to_owned()),
        (true, false) => (True, Reason::Running, waits_for_turn()),
        (false, true) => (Unknown, Reason::Pending, "About to begin".to_owned()),
        (false, false) => (Unknown, Reason::Pending, waits_for_turn()),
    }
}

fn waits_for_turn() -> String {
    format!(
        "Waits for older replays: at most {REPLAYS_RUNNING_MAX} look for deliveries at once, \
         {REPLAYS_RUNNING_PER_TENANT_MAX} of one namespace"
    )
}

fn counts_in_words(record: &ReplayRecord, dry_run: bool) -> String {
    let ReplayRecord { matched, queued, delivered, failed, .. } = record;
    if dry_run {
        return format!("Dry run: {matched} matched, nothing was started");
    }
    format!("{matched} matched, {queued} queued, {delivered} delivered, {failed} failed")
}

fn ready_reason(status: &ReplayStatus) -> Option<&str> {
    find(&status.conditions, ConditionType::Ready).map(|ready| ready.reason.as_str())
}

fn set_conditions(
    conditions: &mut Conditions<'_>,
    (status, reason, message): &Verdict,
    problems: &[Problem],
    known: &Known<'_>,
) {
    use ConditionStatus::{False, True};
    let is_missing =
        |problem: &&Problem| matches!(problem.reason, Reason::EndpointNotFound | Reason::SubscriptionNotFound);
    match problems.iter().find(is_missing) {
        Some(problem) => conditions.set(ConditionType::ResolvedRefs, False, problem.reason, problem.to_string()),
        None => {
            conditions.set(ConditionType::ResolvedRefs, True, Reason::Resolved, "Everything that is named is there");
        }
    }
    conditions.set(ConditionType::Ready, *status, *reason, message.clone());
    let complete = if *reason == Reason::Completed { True } else { False };
    conditions.set(ConditionType::Complete, complete, *reason, message.clone());
    let trouble = match known {
        Known::Progress(progress) => progress.trouble.as_ref(),
        Known::Nothing | Known::Begun(_) | Known::Complete(..) => None,
    };
    match reason {
        Reason::InvalidSpec | Reason::InvalidFilter => {
            conditions.set(ConditionType::Stalled, True, *reason, message.clone());
        }
        Reason::EndpointNotFound | Reason::SubscriptionNotFound => {
            conditions.set(ConditionType::Reconciling, True, Reason::ProgressingWithRetry, message.clone());
        }
        Reason::Pending => conditions.set(ConditionType::Reconciling, True, Reason::Progressing, message.clone()),
        _ => {
            if let Some(trouble) = trouble.filter(|_| *reason != Reason::Completed) {
                conditions.set(ConditionType::Reconciling, True, Reason::ProgressingWithRetry, trouble.clone());
            }
        }
    }
}

fn status_of(record: &ReplayRecord, now_unix_ms: u64) -> ReplayStatus {
    let number = |count: u64| Some(i64::try_from(count).unwrap_or(i64::MAX));
    ReplayStatus {
        observed_generation: None,
        conditions: Vec::new(),
        matched: number(record.matched),
        queued: number(record.queued),
        delivered: number(record.delivered),
        failed: number(record.failed),
        cursor: Some(record.cursor.to_string()),
        started_time: Some(time(record.started_at_unix_ms)),
        finished_time: record.finished_at_unix_ms.map(time),
        measured_time: Some(time(now_unix_ms)),
    }
}

/// The counts to their first two digits.
fn rounded(status: &ReplayStatus) -> [i64; 4] {
    [status.matched, status.queued, status.delivered, status.failed].map(|count| {
        let count = count.unwrap_or(-1);
        let unit = 10_i64.pow(count.max(1).ilog10().saturating_sub(1));
        count / unit * unit
    })
}
