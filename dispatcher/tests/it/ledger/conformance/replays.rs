use std::sync::Arc;
use std::time::Duration;

use dispatcher::clock::now_unix_ms;
use dispatcher::ledger::{
    DeliveryQuery, Ledger, LedgerError, NewEvent, NewReplay, Recorded, ReplayCursor, ReplayFound, ReplayRecord,
    ReplayScope, ReplayStage, ReplayStep, Replayed,
};
use dispatcher_core::delivery::{Attempt, DeliveryState, EndReason, Next, Outcome, Target};
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, ReplayId, SubscriptionId};
use dispatcher_core::table::{EndpointState, Row, RowKey, SubscriptionRow, TableChange};
use uuid::Uuid;

use crate::ledger::support::*;

fn dead() -> (Option<Attempt>, Next) {
    (Some(attempt(1, Outcome::Http410)), Next::Dead(EndReason::Gone))
}

fn subscription_row(id: SubscriptionId) -> Row {
    Row::Subscription(SubscriptionRow {
        id,
        tenant: shop(),
        name: "orders".into(),
        endpoints: vec![endpoint("a"), endpoint("b")],
        event_types: vec!["**".into()],
        filter: None,
        transform: None,
        suspended: false,
    })
}

/// The endpoints `a` and `b`, and the subscription that sends to them.
async fn publish(ledger: &Arc<dyn Ledger>) {
    let endpoints = ["a", "b"].map(|name| endpoint_row(name, "1", EndpointState::Active));
    let put = endpoints.into_iter().chain([subscription_row(target("a").subscription)]).collect();
    ledger.publish_table(TableChange { put, drop: vec![] }, None).await.unwrap();
}

/// An event to these endpoints whose first attempts all end like this.
async fn ended(ledger: &Arc<dyn Ledger>, names: &[&str], what: &(Option<Attempt>, Next)) -> NewEvent {
    let new = new_event(names, HOUR);
    accept(ledger, &new).await;
    assert_eq!(record(ledger, part_change(&new, 0, 1, what)).await, Recorded::Applied);
    new
}

/// Everything that was given up.
fn scope() -> ReplayScope {
    ReplayScope {
        tenant: shop(),
        endpoint: None,
        subscription: None,
        since_unix_ms: 0,
        until_unix_ms: now_unix_ms(),
        dead: true,
        delivered: false,
        missing: false,
        with_events: false,
    }
}

fn replay_id(name: &str) -> ReplayId {
    ReplayId::derive(shop(), name, &[7; 32])
}

fn new_replay(name: &str, first_stage: ReplayStage) -> NewReplay {
    NewReplay { replay: replay_id(name), tenant: shop(), asked_until_unix_ms: u64::MAX, first_stage }
}

async fn begin(ledger: &Arc<dyn Ledger>, name: &str) -> ReplayRecord {
    ledger.begin_replay(new_replay(name, ReplayStage::Deliveries), None).await.unwrap()
}

/// Every delivery and event that a replay finds, page by page.
async fn all(ledger: &Arc<dyn Ledger>, scope: ReplayScope, rows_max: u32) -> Vec<ReplayFound> {
    let (mut cursor, mut found) = (ReplayCursor::start_of(scope.first_stage()), Vec::new());
    while cursor.stage != ReplayStage::Done {
        let page = ledger.replay_page(scope, cursor, rows_max).await.unwrap();
        assert!(page.found.len() <= rows_max as usize && page.next > cursor, "{page:?}");
        assert!(page.found.iter().all(|found| found.place() > cursor && found.place() <= page.next));
        cursor = page.next;
        found.extend(page.found);
    }
    found
}

async fn deliveries(ledger: &Arc<dyn Ledger>, scope: ReplayScope) -> Vec<DeliveryId> {
    all(ledger, scope, 100).await.iter().map(|found| DeliveryId(found.place().after)).collect()
}

fn step(record: &ReplayRecord, again: &[(DeliveryId, u32)], missing: &[(EventId, Vec<Target>)]) -> ReplayStep {
    ReplayStep {
        replay: record.replay,
        tenant: shop(),
        after_step: record.step,
        cursor: ReplayCursor::start_of(ReplayStage::Done),
        matched: again.len() as u64,
        again: again.to_vec(),
        missing: missing.to_vec(),
    }
}

async fn advance(ledger: &Arc<dyn Ledger>, step: ReplayStep) -> ReplayRecord {
    ledger.advance_replay(step, None).await.unwrap().expect("it has begun")
}

async fn settle(ledger: &Arc<dyn Ledger>, replay: ReplayId) -> ReplayRecord {
    ledger.settle_replay(shop(), replay, None, 100, None).await.unwrap().expect("it has begun").record
}

pub(crate) async fn a_replay_finds_what_is_finished_in_its_scope(ledger: &Arc<dyn Ledger>) {
    publish(ledger).await;
    let cancelled = (None, Next::Cancelled(EndReason::Requested));
    let given_up = ended(ledger, &["a", "b"], &dead()).await;
    let arrived = ended(ledger, &["a"], &delivered(1)).await;
    ended(ledger, &["a"], &cancelled).await;
    waiting(ledger, "a", HOUR).await;
    accept(ledger, &new_event(&["a", "b"], HOUR)).await;

    let (a, b) = (delivery(&given_up, "a"), delivery(&given_up, "b"));
    let both = if a < b { vec![a, b] } else { vec![b, a] };
    let late = delivery(&arrived, "a");
    let other = SubscriptionId::derive(shop(), "others");
    let orders = Some(target("a").subscription);
    for (scope, expected) in [
        (scope(), both.clone()),
        (ReplayScope { dead: false, delivered: true, ..scope() }, vec![late]),
        (ReplayScope { delivered: true, ..scope() }, [both.clone(), vec![late]].concat()),
        (ReplayScope { endpoint: Some(endpoint("b")), ..scope() }, vec![b]),
        (ReplayScope { endpoint: Some(endpoint("a")), delivered: true, ..scope() }, vec![a, late]),
        (ReplayScope { endpoint: Some(endpoint("a")), delivered: true, dead: false, ..scope() }, vec![late]),
        (ReplayScope { subscription: orders, ..scope() }, both.clone()),
        (ReplayScope { subscription: Some(other), ..scope() }, vec![]),
    ] {
        assert_eq!(deliveries(ledger, scope).await, expected, "{scope:?}");
    }
    let found = all(ledger, ReplayScope { with_events: true, ..scope() }, 100).await;
    let ReplayFound::Delivery { key, run: 1, event_type, event: Some(event) } = &found[0] else {
        panic!("{found:?}");
    };
    assert_eq!((key.event, event_type.as_str(), &**event), (event.id, "order.created", &*given_up.event));
    let found = all(ledger, scope(), 100).await;
    assert!(matches!(&found[0], ReplayFound::Delivery { event: None, .. }), "bodies are not read in vain");
}

pub(crate) async fn a_replay_finds_nothing_outside_its_time(ledger: &Arc<dyn Ledger>) {
    publish(ledger).await;
    let new = ended(ledger, &["a"], &dead()).await;
    let at = new.event.id.unix_ms();
    for (since_unix_ms, until_unix_ms, count) in
        [(at, at + 1, 1), (at + 1, u64::MAX, 0), (0, at, 0), (at - 5, at + 5, 1), (at, at, 0)]
    {
        for missing in [false, true] {
            let scope = ReplayScope { since_unix_ms, until_unix_ms, dead: !missing, missing, ..scope() };
            assert_eq!(all(ledger, scope, 100).await.len(), count, "{scope:?}");
        }
    }
}

pub(crate) async fn pages_of_a_replay_come_to_the_whole(ledger: &Arc<dyn Ledger>) {
    publish(ledger).await;
    for number in 0..7 {
        let what = if number % 2 == 0 { dead() } else { delivered(1) };
        ended(ledger, &["a", "b"], &what).await;
    }
    let everything = ReplayScope { delivered: true, missing: true, ..scope() };
    for scope in [scope(), everything, ReplayScope { with_events: true, ..everything }] {
        let whole: Vec<_> = all(ledger, scope, 1000).await.iter().map(ReplayFound::place).collect();
        assert_eq!(whole.len(), if scope.missing { 14 + 7 } else { 8 });
        for rows_max in [1, 2, 3, 7] {
            let pages: Vec<_> = all(ledger, scope, rows_max).await.iter().map(ReplayFound::place).collect();
            assert_eq!(pages, whole, "{rows_max}");
        }
    }
}

pub(crate) async fn what_has_left_the_table_is_not_found(ledger: &Arc<dyn Ledger>) {
    publish(ledger).await;
    let new = ended(ledger, &["a", "b"], &dead()).await;
    let drop =
        async |key: RowKey| ledger.publish_table(TableChange { put: vec![], drop: vec![key] }, None).await.unwrap();
    drop(RowKey::Endpoint(endpoint("b"))).await;
    assert_eq!(deliveries(ledger, scope()).await, [delivery(&new, "a")]);
    drop(RowKey::Subscription(target("a").subscription)).await;
    assert_eq!(deliveries(ledger, scope()).await, []);
    publish(ledger).await;
    assert_eq!(deliveries(ledger, scope()).await.len(), 2);
}

pub(crate) async fn events_come_with_their_targets(ledger: &Arc<dyn Ledger>) {
    let (none, two) = (new_event(&[], HOUR), new_event(&["a", "b"], HOUR));
    for new in [&none, &two] {
        accept(ledger, new).await;
    }
    let found = all(ledger, ReplayScope { dead: false, missing: true, ..scope() }, 100).await;
    let found: Vec<_> = found
        .into_iter()
        .map(|found| match found {
            ReplayFound::Event { event, targets } => ((*event).clone(), targets),
            ReplayFound::Delivery { .. } => panic!("only events were asked for"),
        })
        .collect();
    let expected = [&none, &two].map(|new| {
        let targets = new.parts.iter().flat_map(|part| part.targets.clone()).collect();
        ((*new.event).clone(), targets)
    });
    assert_eq!(found, expected);
}

pub(crate) async fn a_step_starts_each_delivery_once(ledger: &Arc<dyn Ledger>) {
    let new = ended(ledger, &["a", "b"], &dead()).await;
    let (a, b) = (delivery(&new, "a"), delivery(&new, "b"));
    let begun = begin(ledger, "x").await;
    assert_eq!((begun.step, begun.queued, begun.finished_at_unix_ms), (0, 0, None));
    let first = ReplayStep {
        cursor: ReplayCursor { stage: ReplayStage::Deliveries, after: a.0 },
        ..step(&begun, &[(a, 1)], &[])
    };
    let after_first = advance(ledger, first.clone()).await;
    assert_eq!((after_first.step, after_first.matched, after_first.queued), (1, 1, 1));
    assert_eq!(after_first.cursor, first.cursor);
    // Its commit was unclear, and it is tried again.
    assert_eq!(advance(ledger, first).await, after_first);
    let last = advance(ledger, step(&after_first, &[(b, 1)], &[])).await;
    assert_eq!((last.step, last.queued, last.open(), last.finished_at_unix_ms), (2, 2, 2, None));
    let mut claimed = due(&claim(ledger, 10, HOUR).await);
    claimed.sort_unstable_by_key(|due| due.target);
    assert_eq!(claimed.iter().map(|due| (due.run, due.r#gen, due.attempts)).collect::<Vec<_>>(), [(2, 1, 0); 2]);
    assert!(claimed.iter().all(|due| due.run_age < HOUR), "the age is that of the run");
    // Nothing follows the end.
    assert_eq!(advance(ledger, step(&last, &[(a, 2)], &[])).await, last);
}

pub(crate) async fn a_step_that_others_were_faster_than_does_nothing(ledger: &Arc<dyn Ledger>) {
    let new = ended(ledger, &["a", "b"], &dead()).await;
    let begun = begin(ledger, "x").await;
    let place = ReplayCursor { stage: ReplayStage::Deliveries, after: delivery(&new, "a").0 };
    let faster = ReplayStep { cursor: place, ..step(&begun, &[(delivery(&new, "a"), 1)], &[]) };
    let present = advance(ledger, faster).await;
    let slower = step(&begun, &[(delivery(&new, "b"), 1)], &[(new.event.id, vec![target("c")])]);
    assert_eq!(advance(ledger, slower).await, present);
    assert_eq!(state(ledger, delivery(&new, "b")).await, Some(DeliveryState::Dead));
    assert_eq!(state(ledger, delivery(&new, "c")).await, None);
}

pub(crate) async fn a_step_leaves_alone_what_has_changed_since(ledger: &Arc<dyn Ledger>) {
    let opened = ended(ledger, &["a"], &dead()).await;
    let ended_again = ended(ledger, &["a"], &dead()).await;
    let begun = begin(ledger, "x").await;
    for new in [&opened, &ended_again] {
        assert_eq!(ledger.replay(shop(), delivery(new, "a")).await.unwrap(), Replayed::Started { run: 2 });
    }
    claim(ledger, 10, HOUR).await;
    record(ledger, delivery_change(key(&ended_again, target("a")), 2, 1, dead())).await;
    let asked = [(delivery(&opened, "a"), 1), (delivery(&ended_again, "a"), 1)];
    let present = advance(ledger, step(&begun, &asked, &[])).await;
    assert_eq!((present.matched, present.queued), (2, 0));
    assert!(present.finished_at_unix_ms.is_some());
    assert_eq!(show(ledger, delivery(&opened, "a")).await.run, 2);
    assert_eq!(state(ledger, delivery(&ended_again, "a")).await, Some(DeliveryState::Dead));
}

pub(crate) async fn what_is_missing_becomes_a_target_of_its_event(ledger: &Arc<dyn Ledger>) {
    publish(ledger).await;
    let (none, one) = (new_event(&[], HOUR), ended(ledger, &["a"], &delivered(1)).await);
    accept(ledger, &none).await;
    let begun = begin(ledger, "x").await;
    let missing = [(none.event.id, vec![target("a"), target("b")]), (one.event.id, vec![target("a"), target("b")])];
    let record_of_step = advance(ledger, step(&begun, &[], &missing)).await;
    assert_eq!(record_of_step.queued, 3, "one of them was there");
    assert_balanced(ledger).await;
    for (new, count) in [(&none, 2), (&one, 2)] {
        let event = ledger.event(shop(), new.event.id).await.unwrap().unwrap();
        assert_eq!((event.fanout_count, &event.event), (count, &*new.event));
        let query = DeliveryQuery { event: Some(new.event.id), rows_max: 10, ..DeliveryQuery::default() };
        assert_eq!(all_deliveries(ledger, query).await.len(), 2);
    }
    let shown = show(ledger, delivery(&one, "b")).await;
    assert_eq!((shown.state, shown.run, shown.attempts), (DeliveryState::Open, 1, 0));
    let claimed = claim(ledger, 10, HOUR).await;
    assert_eq!((due(&claimed).len(), parts(&claimed).len()), (3, 0));
    assert!(due(&claimed).iter().all(|due| (due.run, due.r#gen) == (1, 1) && due.run_age < HOUR));
    let change = delivery_change(key(&one, target("b")), 1, 1, delivered(1));
    assert_eq!(record(ledger, change).await, Recorded::Applied);
    // The producer's retry of the accept brings nothing back.
    accept(ledger, &one).await;
    assert_eq!(ledger.event(shop(), one.event.id).await.unwrap().unwrap().fanout_count, 2);
    let again = begin(ledger, "again").await;
    assert_eq!(advance(ledger, step(&again, &[], &missing)).await.queued, 0);
}

pub(crate) async fn a_target_added_beside_a_held_part_is_apart_from_it(ledger: &Arc<dyn Ledger>) {
    let new = new_event(&["a"], NOW);
    accept(ledger, &new).await;
    let begun = begin(ledger, "x").await;
    let record_of_step = advance(ledger, step(&begun, &[], &[(new.event.id, vec![target("b")])])).await;
    assert_eq!(record_of_step.queued, 1);
    let claimed = claim(ledger, 10, HOUR).await;
    assert_eq!((parts(&claimed).len(), due(&claimed).len()), (1, 1));
    assert_eq!(record(ledger, part_change(&new, 0, 2, &delivered(1))).await, Recorded::Applied);
    assert_eq!(state(ledger, delivery(&new, "a")).await, Some(DeliveryState::Delivered));
    assert_eq!(state(ledger, delivery(&new, "b")).await, Some(DeliveryState::Open));
    let gone = (EventId::from_parts(1, [0; 10]), vec![target("b")]);
    let other = begin(ledger, "y").await;
    assert_eq!(advance(ledger, step(&other, &[], &[gone])).await.queued, 0, "an event that is gone");
}

pub(crate) async fn runs_are_counted_as_they_end(ledger: &Arc<dyn Ledger>) {
    let new = ended(ledger, &["a", "b", "c"], &dead()).await;
    let names = ["a", "b", "c"];
    let begun = begin(ledger, "x").await;
    let asked = names.map(|name| (delivery(&new, name), 1));
    let started = advance(ledger, step(&begun, &asked, &[])).await;
    assert_eq!(settle(ledger, started.replay).await, started, "none is over");
    claim(ledger, 10, HOUR).await;
    record(ledger, delivery_change(key(&new, target("a")), 2, 1, delivered(1))).await;
    record(ledger, delivery_change(key(&new, target("b")), 2, 1, dead())).await;
    let two = settle(ledger, started.replay).await;
    assert_eq!((two.delivered, two.failed, two.open(), two.finished_at_unix_ms), (1, 1, 1, None));
    record(ledger, delivery_change(key(&new, target("c")), 2, 1, delivered(1))).await;
    // In pages of one.
    let mut after = None;
    let mut ended = 0;
    for _ in 0..2 {
        let settled = ledger.settle_replay(shop(), started.replay, after, 1, None).await.unwrap().unwrap();
        (after, ended) = (settled.next, ended + settled.ended);
    }
    let last = settle(ledger, started.replay).await;
    assert_eq!((ended, last.delivered, last.failed, last.open()), (1, 2, 1, 0));
    assert!(last.finished_at_unix_ms.is_some_and(|at| at >= last.started_at_unix_ms));
    assert_eq!(settle(ledger, started.replay).await, last);
}

pub(crate) async fn a_run_that_gave_way_to_a_later_one_is_counted_too(ledger: &Arc<dyn Ledger>) {
    let (arrived, failed) = (ended(ledger, &["a"], &dead()).await, ended(ledger, &["a"], &dead()).await);
    let begun = begin(ledger, "x").await;
    let asked = [(delivery(&arrived, "a"), 1), (delivery(&failed, "a"), 1)];
    let started = advance(ledger, step(&begun, &asked, &[])).await;
    claim(ledger, 10, HOUR).await;
    record(ledger, delivery_change(key(&arrived, target("a")), 2, 1, delivered(1))).await;
    record(ledger, delivery_change(key(&failed, target("a")), 2, 1, dead())).await;
    for new in [&arrived, &failed] {
        assert_eq!(ledger.replay(shop(), delivery(new, "a")).await.unwrap(), Replayed::Started { run: 3 });
    }
    let settled = settle(ledger, started.replay).await;
    assert_eq!((settled.delivered, settled.failed, settled.open()), (1, 1, 0));
}

pub(crate) async fn a_replay_that_started_nothing_is_finished_at_its_end(ledger: &Arc<dyn Ledger>) {
    let begun = begin(ledger, "x").await;
    let counted = ReplayStep { matched: 12, ..step(&begun, &[], &[]) };
    let record = advance(ledger, counted).await;
    assert_eq!((record.matched, record.queued, record.cursor.stage), (12, 0, ReplayStage::Done));
    assert!(record.finished_at_unix_ms.is_some());
    assert_eq!(begin(ledger, "x").await, record);
}

pub(crate) async fn the_same_replay_begins_once(ledger: &Arc<dyn Ledger>) {
    let soon = now_unix_ms() + 3_600_000;
    let first = ledger
        .begin_replay(NewReplay { asked_until_unix_ms: 5_000, ..new_replay("x", ReplayStage::Events) }, None)
        .await
        .unwrap();
    assert_eq!((first.until_unix_ms, first.cursor.stage), (5_000, ReplayStage::Events));
    assert!(first.started_at_unix_ms > soon - 2 * 3_600_000);
    assert_eq!(begin(ledger, "x").await, first, "what it was told first counts");
    let later = ledger
        .begin_replay(NewReplay { asked_until_unix_ms: soon, ..new_replay("y", ReplayStage::Deliveries) }, None)
        .await
        .unwrap();
    assert_eq!(later.until_unix_ms, later.started_at_unix_ms, "what comes after its beginning is left alone");
    let unknown = ReplayStep { replay: replay_id("z"), ..step(&first, &[], &[]) };
    assert_eq!(ledger.advance_replay(unknown, None).await.unwrap(), None);
    assert_eq!(ledger.settle_replay(shop(), replay_id("z"), None, 10, None).await.unwrap(), None);
}

pub(crate) async fn what_others_own_is_never_touched(ledger: &Arc<dyn Ledger>) {
    publish(ledger).await;
    let new = ended(ledger, &["a"], &dead()).await;
    let asked = [(delivery(&new, "a"), 1)];
    let missing = [(new.event.id, vec![target("b")])];
    let foreign = tenant("foreign");
    let replay = ReplayId::derive(foreign, "x", &[7; 32]);
    let theirs = NewReplay { replay, tenant: foreign, ..new_replay("x", ReplayStage::Deliveries) };
    let begun = ledger.begin_replay(theirs, None).await.unwrap();
    let theirs = ReplayStep { tenant: foreign, ..step(&begun, &asked, &missing) };
    assert_eq!(ledger.advance_replay(theirs, None).await.unwrap().unwrap().queued, 0);
    assert_eq!(state(ledger, delivery(&new, "a")).await, Some(DeliveryState::Dead));
    assert_eq!(state(ledger, delivery(&new, "b")).await, None);
    let everything = ReplayScope { delivered: true, missing: true, tenant: foreign, ..scope() };
    for scope in [everything, ReplayScope { endpoint: Some(endpoint("a")), ..everything }] {
        assert!(all(ledger, scope, 10).await.is_empty());
    }
    // Nor is their replay ours.
    let ours = begin(ledger, "x").await;
    assert_eq!(ledger.settle_replay(shop(), replay, None, 10, None).await.unwrap(), None);
    assert_eq!(ledger.advance_replay(ReplayStep { replay, ..step(&ours, &asked, &[]) }, None).await.unwrap(), None);
    let nobody = EndpointId(Uuid::nil());
    assert!(all(ledger, ReplayScope { endpoint: Some(nobody), ..scope() }, 10).await.is_empty());
}

pub(crate) async fn a_replay_is_forgotten_with_the_time_that_it_asked_for(ledger: &Arc<dyn Ledger>) {
    let day = Duration::from_hours(24);
    let days_ago = |days: u64| now_unix_ms() - days * 24 * 3_600_000;
    let finished = async |name: &str, asked_until_unix_ms: u64| {
        let new = NewReplay { asked_until_unix_ms, ..new_replay(name, ReplayStage::Deliveries) };
        let record = ledger.begin_replay(new, None).await.unwrap();
        if record.step == 0 { advance(ledger, step(&record, &[], &[])).await } else { record }
    };
    let (old, young) = (finished("old", days_ago(40)).await, finished("young", days_ago(20)).await);
    ledger.maintain(30 * day).await.unwrap();
    assert_eq!(begin(ledger, "young").await, young);
    assert_ne!(begin(ledger, "old").await, old, "it begins anew, and finds nothing");
}

pub(crate) async fn a_leader_that_was_replaced_starts_nothing(ledger: &Arc<dyn Ledger>) {
    let new = ended(ledger, &["a"], &dead()).await;
    let begun = ledger.begin_replay(new_replay("x", ReplayStage::Deliveries), Some(3)).await.unwrap();
    let asked = [(delivery(&new, "a"), 1)];
    let other = ReplayStep { cursor: ReplayCursor::start_of(ReplayStage::Events), ..step(&begun, &asked, &[]) };
    let started = ledger.advance_replay(other, Some(3)).await.unwrap().unwrap();
    assert_eq!(started.queued, 1);
    claim(ledger, 10, HOUR).await;
    record(ledger, delivery_change(key(&new, target("a")), 2, 1, dead())).await;
    ledger.publish_table(TableChange::default(), Some(4)).await.unwrap();
    let superseded = |error: LedgerError| matches!(error, LedgerError::Superseded { asked: 3, present: 4 });
    let again = step(&started, &[(delivery(&new, "a"), 2)], &[]);
    assert!(ledger.advance_replay(again.clone(), Some(3)).await.is_err_and(superseded));
    assert!(ledger.settle_replay(shop(), begun.replay, None, 10, Some(3)).await.is_err_and(superseded));
    let late = ledger.begin_replay(new_replay("y", ReplayStage::Deliveries), Some(3)).await;
    assert!(late.is_err_and(superseded));
    assert_eq!(state(ledger, delivery(&new, "a")).await, Some(DeliveryState::Dead));
    assert_eq!(settle(ledger, begun.replay).await.failed, 1, "it was not counted before");
    assert_eq!(ledger.advance_replay(again, Some(4)).await.unwrap().unwrap().queued, 2);
}
