//! What plans make of replays.

use std::sync::Arc;
use std::time::Duration;

use crds::condition::{ConditionType, Reason};
use crds::{Kind, Replay};
use dispatcher::ledger::{ReplayCursor, ReplayRecord, ReplayStage};
use dispatcher_core::id::{EndpointId, SubscriptionId, TenantId};
use dispatcher_core::limits::{FACTS_INTERVAL, REPLAYS_RUNNING_MAX, REPLAYS_RUNNING_PER_TENANT_MAX};
use operator::conditions::find;
use operator::plan::replay::{ReplayJob, ReplayProgress, replay_id};
use uuid::Uuid;

use crate::fixtures::{Harness, NOW, good, subscription, word};

const ROUTE: &str = "endpointRef: {name: e}\neventTypes: ['order.*']";
const TIMES: &str = "sinceTime: 2023-11-14T00:00:00Z\nuntilTime: 2023-11-15T00:00:00Z";

/// The replay `r` of namespace `shop` with these lines of spec beside its times.
fn replay(spec: &str) -> String {
    replay_in("shop", "r", spec)
}

pub(crate) fn replay_in(namespace: &str, name: &str, spec: &str) -> String {
    let spec = format!("{TIMES}\n{spec}").trim_end().replace('\n', "\n  ");
    format!(
        "---\napiVersion: harborhook.dev/v1alpha1\nkind: Replay\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  {spec}\n"
    )
}

/// An endpoint and a subscription that are in effect, and the replay.
fn harness(spec: &str) -> Harness {
    let mut harness = Harness::of(&format!("{}{}", good(""), subscription(ROUTE)));
    harness.settle();
    harness.change(&format!("{}{}{}", good(""), subscription(ROUTE), replay(spec)));
    harness
}

fn shop() -> TenantId {
    TenantId::of_namespace_name("shop")
}

fn only(harness: &Harness) -> &Replay {
    let [replay] = &harness.world.replays[..] else { panic!("one replay") };
    replay
}

/// Plans until nothing changes, and answers the jobs of the last plan.
fn settle(harness: &mut Harness) -> Vec<ReplayJob> {
    for _ in 0..3 {
        let plan = harness.plan();
        harness.world.apply(&plan);
    }
    let last = harness.plan();
    assert!(last.statuses.is_empty() && last.table.is_empty(), "{last:?}");
    last.replays
}

/// The reason and status of a condition, if there is one.
fn condition(harness: &Harness, type_: ConditionType) -> Option<(String, String)> {
    let status = only(harness).status.as_ref().expect("it has a status");
    find(&status.conditions, type_).map(|condition| (condition.reason.clone(), condition.status.clone()))
}

#[expect(clippy::unnecessary_wraps, reason = "it is compared with a condition that may be absent")]
fn is(reason: Reason, status: &str) -> Option<(String, String)> {
    Some((word(reason), status.to_owned()))
}

fn record(harness: &Harness, stage: ReplayStage, counts: [u64; 4]) -> ReplayRecord {
    let [matched, queued, delivered, failed] = counts;
    ReplayRecord {
        replay: replay_id(shop(), "r", &only(harness).spec),
        step: 1,
        cursor: ReplayCursor { stage, after: Uuid::from_u128(7) },
        started_at_unix_ms: NOW,
        finished_at_unix_ms: None,
        until_unix_ms: NOW,
        matched,
        queued,
        delivered,
        failed,
    }
}

fn tell(harness: &mut Harness, record: ReplayRecord) {
    let progress = ReplayProgress { record, trouble: None };
    harness.world.replay_progress.insert(record.replay, progress);
}

#[test]
fn a_replay_lives_from_pending_to_complete() {
    let mut harness = harness("endpointRef: {name: e}");
    let jobs = settle(&mut harness);
    assert_eq!(condition(&harness, ConditionType::Ready), is(Reason::Pending, "Unknown"));
    assert_eq!(condition(&harness, ConditionType::Reconciling), is(Reason::Progressing, "True"));
    assert_eq!(condition(&harness, ConditionType::Complete), is(Reason::Pending, "False"));
    let [job] = &jobs[..] else { panic!("{jobs:?}") };
    assert_eq!((job.per_second, job.dry_run, job.is_looking), (100, false, true));
    assert_eq!(job.scope.endpoint, Some(EndpointId::derive(shop(), "e")));
    assert!(job.scope.dead && !job.scope.delivered && !job.scope.missing && !job.scope.with_events);
    assert_eq!(job.scope.until_unix_ms - job.scope.since_unix_ms, 24 * 3_600_000);

    let running = record(&harness, ReplayStage::Deliveries, [40, 30, 10, 1]);
    tell(&mut harness, running);
    assert_eq!(settle(&mut harness), jobs);
    assert_eq!(condition(&harness, ConditionType::Ready), is(Reason::Running, "True"));
    assert_eq!(condition(&harness, ConditionType::Reconciling), None);
    let status = only(&harness).status.clone().unwrap();
    assert_eq!(
        (status.matched, status.queued, status.delivered, status.failed),
        (Some(40), Some(30), Some(10), Some(1))
    );
    assert_eq!(status.cursor.as_deref(), Some("d00000000000000000000000000000007"));
    assert!(status.started_time.is_some() && status.finished_time.is_none());

    let looked = record(&harness, ReplayStage::Done, [40, 40, 10, 1]);
    tell(&mut harness, looked);
    assert_eq!(settle(&mut harness).len(), 1, "what is open is looked after");
    assert_eq!(condition(&harness, ConditionType::Ready), is(Reason::Delivering, "True"));
    assert_eq!(condition(&harness, ConditionType::Complete), is(Reason::Delivering, "False"));

    let finished =
        ReplayRecord { finished_at_unix_ms: Some(NOW + 5_000), ..record(&harness, ReplayStage::Done, [40, 40, 38, 2]) };
    tell(&mut harness, finished);
    assert!(settle(&mut harness).is_empty());
    assert_eq!(condition(&harness, ConditionType::Complete), is(Reason::Completed, "True"));
    let status = only(&harness).status.clone().unwrap();
    let ready = find(&status.conditions, ConditionType::Ready).unwrap();
    assert_eq!(ready.message, "40 matched, 40 queued, 38 delivered, 2 failed");
    assert!(status.finished_time.is_some());

    // Complete is complete, whatever becomes of what it named, and whoever plans.
    harness.world.replay_progress.clear();
    harness.world.endpoints.clear();
    harness.world.published.clear();
    assert!(settle(&mut harness).is_empty());
    assert_eq!(only(&harness).status.as_ref(), Some(&status));
}

#[test]
fn what_cannot_work_says_all_that_is_wrong() {
    let mut invalid = harness("eventTypes: ['**']\nfilter: 'event.'");
    assert!(settle(&mut invalid).is_empty());
    assert_eq!(condition(&invalid, ConditionType::Ready), is(Reason::InvalidFilter, "False"));
    assert_eq!(condition(&invalid, ConditionType::Stalled), is(Reason::InvalidFilter, "True"));
    assert_eq!(condition(&invalid, ConditionType::ResolvedRefs), is(Reason::Resolved, "True"));

    let mut all = harness("endpointRef: {name: f}\nsubscriptionRef: {name: t}\nfilter: 'now()'");
    settle(&mut all);
    let status = only(&all).status.as_ref().unwrap();
    let message = &find(&status.conditions, ConditionType::Ready).unwrap().message;
    for field in ["spec.filter: ", "spec.endpointRef.name: ", "spec.subscriptionRef.name: "] {
        assert!(message.contains(field), "{message}");
    }

    // A spec that the schema of another release admitted.
    let mut outdated = harness("endpointRef: {name: e}");
    Arc::make_mut(&mut outdated.world.replays[0]).spec.per_second = Some(0);
    settle(&mut outdated);
    assert_eq!(condition(&outdated, ConditionType::Stalled), is(Reason::InvalidSpec, "True"));
}

#[test]
fn what_is_named_must_be_in_effect_and_is_waited_for() {
    for (spec, reason) in [
        ("endpointRef: {name: f}", Reason::EndpointNotFound),
        ("subscriptionRef: {name: t}", Reason::SubscriptionNotFound),
    ] {
        let mut harness = harness(spec);
        assert!(settle(&mut harness).is_empty());
        assert_eq!(condition(&harness, ConditionType::Ready), is(reason, "False"));
        assert_eq!(condition(&harness, ConditionType::ResolvedRefs), is(reason, "False"));
        assert_eq!(condition(&harness, ConditionType::Reconciling), is(Reason::ProgressingWithRetry, "True"));
        assert_eq!(condition(&harness, ConditionType::Stalled), None, "it heals");
    }
    // All at once, as from one commit: the first plan publishes the routes, and only then is there a job.
    let mut new = Harness::of(&format!("{}{}{}", good(""), subscription(ROUTE), replay("subscriptionRef: {name: s}")));
    let first = new.plan();
    assert!(!first.table.is_empty() && first.replays.is_empty());
    new.world.apply(&first);
    assert_eq!(new.plan().replays.len(), 1);
    assert_eq!(new.plan().replays[0].scope.subscription, Some(SubscriptionId::derive(shop(), "s")));
}

#[test]
fn a_suspended_replay_looks_for_nothing_and_goes_on_counting() {
    let mut harness = harness("endpointRef: {name: e}\nsuspend: true");
    assert!(settle(&mut harness).is_empty(), "it has not even begun");
    assert_eq!(condition(&harness, ConditionType::Ready), is(Reason::Suspended, "True"));
    let record = record(&harness, ReplayStage::Deliveries, [4, 3, 0, 0]);
    tell(&mut harness, record);
    let jobs = settle(&mut harness);
    assert!(jobs.len() == 1 && !jobs[0].is_looking, "{jobs:?}");
    assert_eq!(condition(&harness, ConditionType::Complete), is(Reason::Suspended, "False"));
    Arc::make_mut(&mut harness.world.replays[0]).spec.suspend = false;
    assert!(settle(&mut harness)[0].is_looking);
    assert_eq!(condition(&harness, ConditionType::Ready), is(Reason::Running, "True"));
    // What it names goes while it runs.
    harness.world.published.clear();
    harness.world.endpoints.clear();
    let plan = harness.plan();
    assert!(plan.replays.len() == 1 && !plan.replays[0].is_looking);
}

#[test]
fn a_new_process_keeps_what_the_status_says_until_it_knows_better() {
    let mut harness = harness("endpointRef: {name: e}");
    for (stage, reason) in [(ReplayStage::Deliveries, Reason::Running), (ReplayStage::Done, Reason::Delivering)] {
        let record = record(&harness, stage, [40, 30, 10, 1]);
        tell(&mut harness, record);
        settle(&mut harness);
        let before = only(&harness).status.clone();
        harness.world.replay_progress.clear();
        assert_eq!(settle(&mut harness).len(), 1);
        assert_eq!(only(&harness).status, before);
        assert_eq!(condition(&harness, ConditionType::Ready), is(reason, "True"));
    }
}

#[test]
fn trouble_shows_while_it_lasts() {
    let mut harness = harness("endpointRef: {name: e}");
    let record = record(&harness, ReplayStage::Deliveries, [4, 3, 0, 0]);
    let progress = ReplayProgress { record, trouble: Some("The ledger is away".to_owned()) };
    harness.world.replay_progress.insert(record.replay, progress);
    settle(&mut harness);
    assert_eq!(condition(&harness, ConditionType::Reconciling), is(Reason::ProgressingWithRetry, "True"));
    tell(&mut harness, record);
    settle(&mut harness);
    assert_eq!(condition(&harness, ConditionType::Reconciling), None);
}

#[test]
fn counts_are_written_when_they_tell_something_new_and_not_too_often() {
    let mut harness = harness("endpointRef: {name: e}");
    let first = record(&harness, ReplayStage::Deliveries, [1_234, 1_000, 0, 0]);
    tell(&mut harness, first);
    settle(&mut harness);
    harness.now += 60_000;
    tell(&mut harness, ReplayRecord { matched: 1_239, ..first });
    assert!(harness.plan().statuses.is_empty(), "rounded it is the same");
    tell(&mut harness, ReplayRecord { matched: 1_301, ..first });
    let plan = harness.plan();
    assert_eq!(plan.statuses.len(), 1);
    harness.world.apply(&plan);
    assert_eq!(only(&harness).status.as_ref().unwrap().matched, Some(1_301), "what is written is exact");
    harness.now += 4_000;
    tell(&mut harness, ReplayRecord { matched: 2_000, ..first });
    let plan = harness.plan();
    assert!(plan.statuses.is_empty());
    assert_eq!(plan.next_look_in, FACTS_INTERVAL.checked_sub(Duration::from_secs(4)));
    // What changes a condition is written at once.
    let looked = record(&harness, ReplayStage::Done, [2_000, 1_000, 0, 0]);
    tell(&mut harness, looked);
    assert_eq!(harness.plan().statuses.len(), 1);
}

#[test]
fn a_replay_is_what_it_asks_for() {
    let spec = |text: &str| only(&harness(text)).spec.clone();
    let base = "endpointRef: {name: e}\neventTypes: [a, b]\nstates: [Dead, Missing]";
    let id = |text: &str| replay_id(shop(), "r", &spec(text));
    for same in [
        "endpointRef: {name: e}\neventTypes: [b, a]\nstates: [Missing, Dead]",
        &format!("{base}\nsuspend: true\nperSecond: 7"),
        &format!("{base}\ndryRun: false"),
    ] {
        assert_eq!(id(same), id(base), "{same}");
    }
    assert_eq!(id("endpointRef: {name: e}"), id("endpointRef: {name: e}\nstates: [Dead]"));
    for other in [
        "endpointRef: {name: e}\neventTypes: [a]\nstates: [Dead, Missing]",
        "endpointRef: {name: e}\neventTypes: [a, b]\nstates: [Dead]",
        "subscriptionRef: {name: e}\neventTypes: [a, b]\nstates: [Dead, Missing]",
        &format!("{base}\ndryRun: true"),
        &format!("{base}\nfilter: 'true'"),
    ] {
        assert_ne!(id(other), id(base), "{other}");
    }
    let mut finer = spec(base);
    finer.since_time.0 += Duration::from_millis(1);
    assert_ne!(replay_id(shop(), "r", &finer), id(base));
    assert_ne!(replay_id(shop(), "q", &spec(base)), id(base));
}

#[test]
fn the_oldest_have_their_turn_and_no_namespace_has_them_all() {
    let mut harness = harness("eventTypes: ['**']");
    let pattern = only(&harness).clone();
    harness.world.replays.clear();
    let namespaces: Vec<String> = (0..10).map(|number| format!("n{number}")).collect();
    harness.world.tenants.extend(namespaces.iter().map(|name| (TenantId::of_namespace_name(name), name.clone())));
    for (number, namespace) in namespaces.iter().cycle().take(10 * 12).enumerate() {
        let mut replay = Replay::clone(&pattern);
        replay.metadata.namespace = Some(namespace.clone());
        replay.metadata.name = Some(format!("r{number:03}"));
        let created = i64::try_from(1_000_000 - number).unwrap();
        replay.metadata.creation_timestamp = Some(operator::conditions::time(created.unsigned_abs() * 1000));
        harness.world.replays.push(Arc::new(replay));
    }
    let jobs = harness.plan().replays;
    assert_eq!(jobs.len(), REPLAYS_RUNNING_MAX);
    for namespace in &namespaces {
        let of_namespace = jobs.iter().filter(|job| job.namespace == *namespace).count();
        assert!(of_namespace <= REPLAYS_RUNNING_PER_TENANT_MAX, "{namespace}: {of_namespace}");
    }
    assert!(jobs.iter().any(|job| job.name == "r119") && jobs.iter().all(|job| job.name != "r000"), "the oldest");
    let waiting = harness.plan().statuses;
    assert_eq!(waiting.iter().filter(|status| status.body.kind() == Kind::Replay).count(), 120);
}
