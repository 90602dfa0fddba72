//! Replays at work on both ledgers. Time is a number that the tests raise: nothing sleeps.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use dispatcher::ledger::ReplayStage;
use dispatcher_core::delivery::DeliveryState;
use dispatcher_core::id::DeliveryId;

use self::support::{Stage, job_of, on_both_ledgers};

const DEAD: &str = "endpointRef: {name: e0}";

on_both_ledgers! {
    ten_thousand_deliveries_are_started_at_their_rate,
    a_worker_that_ends_after_any_step_repeats_nothing,
    a_worker_that_ends_within_any_step_repeats_nothing,
    the_same_asked_again_is_done_already_and_something_else_is_not,
    a_dry_run_counts_and_starts_nothing,
    a_replay_rests_goes_on_and_changes_its_pace,
    filters_and_types_choose,
    what_a_new_subscription_missed_is_delivered,
    an_event_with_many_missing_targets_is_started_bit_by_bit,
    other_namespaces_are_left_alone,
    replays_take_turns,
}

async fn ten_thousand_deliveries_are_started_at_their_rate(stage: Stage) {
    let deliveries = stage.dead_events(1250, 8).await;
    let mut play = stage.play();
    play.order(&["eventTypes: ['order.**']\nperSecond: 1000"]);
    let mut now = Duration::ZERO;
    while play.only().is_none_or(|record| record.cursor.stage != ReplayStage::Done) {
        now = play.turn(now).await;
        let allowed = now.as_secs_f64() * 1000.0;
        let queued = play.exact(0).await.map_or(0, |record| record.queued);
        assert!(f64::from(u32::try_from(queued).unwrap()) <= allowed, "{queued} after {now:?}");
    }
    assert!((Duration::from_secs(10)..Duration::from_secs(12)).contains(&now), "{now:?}");
    let started = stage.deliver_all().await;
    assert_eq!(started, deliveries.iter().map(|delivery| (*delivery, vec![2])).collect());
    play.finish(now).await;
    let record = play.only().unwrap();
    assert_eq!((record.matched, record.queued, record.delivered, record.failed), (10_000, 10_000, 10_000, 0));
    stage.assert_balanced().await;
}

async fn a_worker_that_ends_after_any_step_repeats_nothing(stage: Stage) {
    let deliveries = stage.dead_events(60, 2).await;
    let (mut now, mut started) = (Duration::ZERO, BTreeMap::new());
    let mut steps = 0;
    for turns in [1, 2, 3, 4].into_iter().cycle() {
        let mut play = stage.play();
        play.order(&["eventTypes: ['order.**']\nperSecond: 40"]);
        for _ in 0..turns {
            now = play.turn(now).await;
        }
        steps += turns;
        stage.deliver_into(&mut started).await;
        if play.only().is_some_and(|record| record.finished_at_unix_ms.is_some()) {
            break;
        }
        assert!(steps < 1000, "it comes to its end");
    }
    assert_eq!(started, deliveries.iter().map(|delivery| (*delivery, vec![2])).collect());
}

async fn a_worker_that_ends_within_any_step_repeats_nothing(stage: Stage) {
    let deliveries = stage.dead_events(40, 1).await;
    let (mut now, mut started) = (Duration::ZERO, BTreeMap::new());
    for polls in [1, 2, 3, 5, 8, 13, 21, 34].into_iter().cycle().take(160) {
        let mut play = stage.play();
        play.order(&["eventTypes: ['order.**']\nperSecond: 30"]);
        now += Duration::from_millis(300);
        let begun = play.turn(now).await;
        play.turn(begun).await;
        now += Duration::from_millis(300);
        play.break_off(now, polls).await;
        stage.deliver_into(&mut started).await;
    }
    let mut play = stage.play();
    play.order(&["eventTypes: ['order.**']\nperSecond: 30"]);
    while play.only().is_none_or(|record| record.finished_at_unix_ms.is_none()) {
        now = play.turn(now).await;
        stage.deliver_into(&mut started).await;
    }
    assert_eq!(started, deliveries.iter().map(|delivery| (*delivery, vec![2])).collect());
}

async fn the_same_asked_again_is_done_already_and_something_else_is_not(stage: Stage) {
    let deliveries = stage.dead_events(5, 1).await;
    let once: BTreeMap<DeliveryId, Vec<u32>> = deliveries.iter().map(|delivery| (*delivery, vec![2])).collect();
    assert_eq!(stage.replay(DEAD).await, once);
    // Deleted, and made again as it was; everything that arrived could be made again, if it were asked for.
    assert_eq!(stage.replay(&format!("{DEAD}\nperSecond: 9")).await, BTreeMap::new());
    let other = stage.replay(&format!("{DEAD}\nstates: [Delivered]")).await;
    assert_eq!(other, deliveries.iter().map(|delivery| (*delivery, vec![3])).collect());
    for done in [DEAD.to_owned(), format!("{DEAD}\nstates: [Delivered]")] {
        assert_eq!(stage.replay(&done).await, BTreeMap::new(), "{done}");
    }
}

async fn a_dry_run_counts_and_starts_nothing(stage: Stage) {
    stage.dead_events(1500, 1).await;
    let mut play = stage.play();
    play.order(&[&format!("{DEAD}\ndryRun: true")]);
    play.finish(Duration::ZERO).await;
    let record = play.only().unwrap();
    assert_eq!((record.matched, record.queued), (1500, 0));
    assert!(record.finished_at_unix_ms.is_some());
    assert_eq!(stage.deliver_all().await, BTreeMap::new());
}

async fn a_replay_rests_goes_on_and_changes_its_pace(stage: Stage) {
    stage.dead_events(100, 1).await;
    let mut play = stage.play();
    let mut now = Duration::ZERO;
    let second = Duration::from_secs(1);
    play.order(&[&format!("{DEAD}\nperSecond: 10")]);
    now = play.run_until(now, now + 2 * second).await;
    let queued = play.exact(0).await.unwrap().queued;
    assert!((10..=20).contains(&queued), "{queued}");
    play.order(&[&format!("{DEAD}\nperSecond: 10\nsuspend: true")]);
    now = play.run_until(now, now + 60 * second).await;
    assert_eq!(play.exact(0).await.unwrap().queued, queued);
    stage.deliver_all().await;
    now = play.run_until(now, now + 60 * second).await;
    assert_eq!(play.exact(0).await.unwrap().delivered, queued, "what was started is counted all the same");
    assert_eq!(play.only().unwrap().delivered, queued, "and told, although nothing is left to do");
    play.order(&[&format!("{DEAD}\nperSecond: 1000")]);
    now = play.run_until(now, now + second).await;
    assert_eq!(play.exact(0).await.unwrap().queued, 100);
    stage.deliver_all().await;
    play.finish(now).await;
    assert_eq!(play.only().unwrap().delivered, 100);
}

async fn filters_and_types_choose(stage: Stage) {
    let deliveries = stage.dead_events(12, 1).await;
    // Events are numbered; every third one is of type `order.paid`.
    let picked =
        |numbers: &[usize]| numbers.iter().map(|number| (deliveries[*number], vec![2])).collect::<BTreeMap<_, _>>();
    let large = stage.replay(&format!("{DEAD}\nfilter: event.data.number >= 10")).await;
    assert_eq!(large, picked(&[10, 11]));
    assert_eq!(stage.replay(&format!("{DEAD}\nfilter: event.data.absent")).await, BTreeMap::new());
    let paid = stage.replay(&format!("{DEAD}\neventTypes: [a.b, order.paid]")).await;
    assert_eq!(paid, picked(&[0, 3, 6, 9]));
    let both =
        stage.replay("eventTypes: ['order.*']\nfilter: event.type == 'order.created' && event.data.number < 3").await;
    assert_eq!(both, picked(&[1, 2]));
}

async fn what_a_new_subscription_missed_is_delivered(stage: Stage) {
    stage.events_without_targets(30).await;
    let before = stage.replay("endpointRef: {name: e1}\nstates: [Missing]\nfilter: event.data.number >= 10").await;
    assert_eq!(before.len(), 20, "by the routes of now");
    assert!(before.values().all(|runs| *runs == [1]), "{before:?}");
    let rest = stage.replay("subscriptionRef: {name: s}\nstates: [Missing]\neventTypes: ['order.paid']").await;
    // Ten of type `order.paid` at two endpoints each, less the six that went to one of them before.
    assert_eq!(rest.len(), 20 - 6);
    let dead_or_missing = stage.replay("eventTypes: ['**']\nstates: [Dead, Missing]").await;
    assert_eq!(before.len() + rest.len() + dead_or_missing.len(), 60);
    assert!(stage.replay("eventTypes: ['order.**']\nstates: [Missing]").await.is_empty());
    stage.assert_balanced().await;
}

async fn an_event_with_many_missing_targets_is_started_bit_by_bit(stage: Stage) {
    stage.events_without_targets(3).await;
    let mut play = stage.play();
    play.order(&["eventTypes: ['**']\nstates: [Missing]\nperSecond: 1"]);
    let now = play.run_until(Duration::ZERO, Duration::from_millis(3_500)).await;
    assert_eq!(play.exact(0).await.unwrap().queued, 3, "an event and a half");
    // Another process goes on in the middle of an event.
    let mut play = stage.play();
    play.order(&["eventTypes: ['**']\nstates: [Missing]\nperSecond: 1000"]);
    let now = play.run_until(now, now + Duration::from_secs(1)).await;
    let record = play.exact(0).await.unwrap();
    assert_eq!((record.matched, record.queued, record.cursor.stage), (6, 6, ReplayStage::Done));
    assert_eq!(stage.deliver_all().await.len(), 6);
    play.finish(now).await;
}

async fn other_namespaces_are_left_alone(stage: Stage) {
    let ours = stage.dead_events(3, 1).await;
    let theirs = stage.dead_events_of_others(3).await;
    let started = stage.replay("eventTypes: ['**']\nstates: [Dead, Delivered, Missing]").await;
    assert!(ours.iter().all(|delivery| started.contains_key(delivery)));
    assert!(theirs.iter().all(|delivery| !started.contains_key(delivery)));
    for delivery in theirs {
        assert_eq!(stage.state_of_others(delivery).await, Some(DeliveryState::Dead));
    }
}

async fn replays_take_turns(stage: Stage) {
    stage.dead_events(400, 2).await;
    let mut play = stage.play();
    play.order(&["endpointRef: {name: e0}\nperSecond: 50", "endpointRef: {name: e1}\nperSecond: 50"]);
    play.run_until(Duration::ZERO, Duration::from_secs(4)).await;
    for place in 0..2 {
        let queued = play.exact(place).await.unwrap().queued;
        assert!((150..=200).contains(&queued), "{place}: {queued}");
    }
    assert_ne!(job_of(&stage, "r0", DEAD).replay, job_of(&stage, "r1", DEAD).replay);
}
