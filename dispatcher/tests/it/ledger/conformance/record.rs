use std::sync::Arc;

use bytes::Bytes;
use dispatcher::ledger::{Hold, Ledger, LedgerError, NewEvent, Recorded, Replayed};
use dispatcher_core::delivery::{Attempt, DeliveryState, EndReason, Next, Outcome};
use dispatcher_core::limits::ATTEMPTS_READ_MAX;

use crate::ledger::support::*;

pub(crate) async fn a_part_becomes_deliveries_with_their_attempts(ledger: &Arc<dyn Ledger>) {
    let new = new_event(&["a", "b"], HOUR);
    accept(ledger, &new).await;
    assert_eq!(record(ledger, part_change(&new, 0, 1, &delivered(1))).await, Recorded::Applied);
    for name in ["a", "b"] {
        let shown = show(ledger, delivery(&new, name)).await;
        assert_eq!((shown.state, shown.run, shown.attempts), (DeliveryState::Delivered, 1, 1));
        assert_eq!((shown.last_outcome, shown.last_status_code), (Some(Outcome::Delivered), Some(204)));
        assert_eq!((shown.due_at_unix_ms, shown.event_type.as_str()), (None, "order.created"));
        let attempts = ledger.attempts(shop(), delivery(&new, name), ATTEMPTS_READ_MAX).await.unwrap();
        assert_eq!(attempts.len(), 1);
        assert_eq!(attempts[0].attempt, attempt(1, Outcome::Delivered));
        assert!(!attempts[0].superseded);
    }
}

pub(crate) async fn a_stale_part_is_superseded_and_its_attempts_kept(ledger: &Arc<dyn Ledger>) {
    let new = new_event(&["a"], NOW);
    accept(ledger, &new).await;
    claim(ledger, 10, HOUR).await;
    assert_eq!(record(ledger, part_change(&new, 0, 1, &failed(1, HOUR))).await, Recorded::Superseded);
    assert_eq!(show(ledger, delivery(&new, "a")).await.attempts, 0);
    assert_eq!(record(ledger, part_change(&new, 0, 2, &failed(1, HOUR))).await, Recorded::Applied);
    let attempts = ledger.attempts(shop(), delivery(&new, "a"), ATTEMPTS_READ_MAX).await.unwrap();
    assert_eq!(attempts.iter().filter(|attempt| attempt.superseded).count(), 1);
    assert_eq!((attempts.len(), show(ledger, delivery(&new, "a")).await.attempts), (2, 1));
}

pub(crate) async fn a_late_success_of_a_stale_part_finishes_an_open_delivery(ledger: &Arc<dyn Ledger>) {
    let new = new_event(&["a"], NOW);
    accept(ledger, &new).await;
    claim(ledger, 10, HOUR).await;
    record(ledger, part_change(&new, 0, 2, &failed(1, NOW))).await;
    assert_eq!(record(ledger, part_change(&new, 0, 1, &delivered(1))).await, Recorded::Superseded);
    assert_eq!(state(ledger, delivery(&new, "a")).await, Some(DeliveryState::Delivered));
    assert!(claim(ledger, 10, HOUR).await.items.is_empty());
}

pub(crate) async fn a_late_success_before_the_new_holder_reports_counts(ledger: &Arc<dyn Ledger>) {
    let new = new_event(&["a"], NOW);
    accept(ledger, &new).await;
    claim(ledger, 10, HOUR).await;
    record(ledger, part_change(&new, 0, 1, &delivered(1))).await;
    record(ledger, part_change(&new, 0, 2, &failed(1, NOW))).await;
    assert_eq!(state(ledger, delivery(&new, "a")).await, Some(DeliveryState::Delivered));
    assert!(claim(ledger, 10, HOUR).await.items.is_empty());
}

pub(crate) async fn a_stale_hold_that_reports_twice_keeps_its_success(ledger: &Arc<dyn Ledger>) {
    let new = new_event(&["a"], NOW);
    accept(ledger, &new).await;
    claim(ledger, 10, HOUR).await;
    let dead = (Some(attempt(1, Outcome::Http410)), Next::Dead(EndReason::Gone));
    record(ledger, part_change(&new, 0, 1, &dead)).await;
    record(ledger, part_change(&new, 0, 1, &delivered(1))).await;
    record(ledger, part_change(&new, 0, 2, &dead)).await;
    assert_eq!(state(ledger, delivery(&new, "a")).await, Some(DeliveryState::Delivered));
}

/// A part whose first holder stalled with its deliveries in flight, and was taken over with `gen` 2.
async fn taken_over_in_flight(ledger: &Arc<dyn Ledger>) -> NewEvent {
    let new = new_event(&["a"], NOW);
    accept(ledger, &new).await;
    assert_eq!(parts(&claim(ledger, 10, HOUR).await), [Hold::Part { event: new.event.id, part: 0, r#gen: 2 }]);
    assert_eq!(record(ledger, part_change(&new, 0, 1, &in_flight())).await, Recorded::Superseded);
    new
}

fn in_flight() -> (Option<Attempt>, Next) {
    (None, Next::InFlight { lease: HOUR })
}

pub(crate) async fn a_stale_follower_leaves_the_new_holders_work_alone(ledger: &Arc<dyn Ledger>) {
    let new = taken_over_in_flight(ledger).await;
    let key = key(&new, target("a"));
    assert_eq!(record(ledger, part_change(&new, 0, 2, &in_flight())).await, Recorded::Applied);
    assert_eq!(record(ledger, delivery_change(key, 1, 1, failed(1, NOW))).await, Recorded::Superseded);
    assert!(claim(ledger, 10, HOUR).await.items.is_empty(), "it is still in flight");
    let last = (Some(attempt(1, Outcome::Timeout)), Next::Waiting { delay: HOUR });
    assert_eq!(record(ledger, delivery_change(key, 1, 2, last)).await, Recorded::Applied);
    let attempts = ledger.attempts(shop(), key.delivery, ATTEMPTS_READ_MAX).await.unwrap();
    let mut outcomes: Vec<_> = attempts.iter().map(|kept| (kept.attempt.outcome.as_str(), kept.superseded)).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, [("http_5xx", true), ("timeout", false)], "neither takes the place of the other");
}

pub(crate) async fn a_stale_followers_success_before_the_new_holder_reports_counts(ledger: &Arc<dyn Ledger>) {
    for reported in [in_flight(), failed(1, NOW)] {
        let new = taken_over_in_flight(ledger).await;
        let key = key(&new, target("a"));
        assert_eq!(record(ledger, delivery_change(key, 1, 1, delivered(1))).await, Recorded::Superseded);
        assert_eq!(record(ledger, part_change(&new, 0, 2, &reported)).await, Recorded::Applied);
        let shown = show(ledger, key.delivery).await;
        assert_eq!((shown.state, shown.last_outcome), (DeliveryState::Delivered, Some(Outcome::Delivered)));
        assert_eq!(shown.attempts, 1 + u32::from(reported.0.is_some()), "as if it had come later");
        assert!(claim(ledger, 10, HOUR).await.items.is_empty());
    }
}

pub(crate) async fn a_stale_followers_success_finishes_what_the_new_holder_has_in_flight(ledger: &Arc<dyn Ledger>) {
    let new = taken_over_in_flight(ledger).await;
    let key = key(&new, target("a"));
    record(ledger, part_change(&new, 0, 2, &in_flight())).await;
    assert_eq!(record(ledger, delivery_change(key, 1, 1, delivered(1))).await, Recorded::Superseded);
    assert_eq!(state(ledger, key.delivery).await, Some(DeliveryState::Delivered));
    assert_eq!(record(ledger, delivery_change(key, 1, 2, failed(1, NOW))).await, Recorded::Superseded);
    assert_eq!(state(ledger, key.delivery).await, Some(DeliveryState::Delivered));
}

pub(crate) async fn results_must_cover_the_part(ledger: &Arc<dyn Ledger>) {
    let new = new_event(&["a", "b"], HOUR);
    accept(ledger, &new).await;
    let mut short = new.clone();
    short.parts[0].targets.pop();
    let error = ledger.record(vec![part_change(&short, 0, 1, &delivered(1))]).await;
    assert!(matches!(error, Err(LedgerError::Refused(_))), "{error:?}");
    assert_eq!(record(ledger, part_change(&new, 0, 1, &delivered(1))).await, Recorded::Applied);
}

pub(crate) async fn a_failed_delivery_goes_on_until_it_ends(ledger: &Arc<dyn Ledger>) {
    let new = waiting(ledger, "a", NOW).await;
    for number in 2..5 {
        let claimed = due(&claim(ledger, 10, HOUR).await);
        assert_eq!((claimed[0].run, claimed[0].r#gen, claimed[0].attempts), (1, number, number - 1));
        let change = delivery_change(key(&new, target("a")), 1, number, failed(number, NOW));
        assert_eq!(record(ledger, change).await, Recorded::Applied);
        assert_balanced(ledger).await;
    }
    claim(ledger, 10, HOUR).await;
    let last = (Some(attempt(5, Outcome::Timeout)), Next::Dead(EndReason::AttemptsExhausted));
    record(ledger, delivery_change(key(&new, target("a")), 1, 5, last)).await;
    let shown = show(ledger, delivery(&new, "a")).await;
    assert_eq!((shown.state, shown.reason), (DeliveryState::Dead, Some(EndReason::AttemptsExhausted)));
    assert_eq!((shown.attempts, shown.last_outcome, shown.last_status_code), (5, Some(Outcome::Timeout), None));
    let all = ledger.attempts(shop(), delivery(&new, "a"), ATTEMPTS_READ_MAX).await.unwrap();
    assert_eq!(all.len(), 5);
    let newest = ledger.attempts(shop(), delivery(&new, "a"), 2).await.unwrap();
    assert_eq!(newest, all[3..], "the newest, oldest first");
}

pub(crate) async fn a_repeated_record_counts_its_attempt_once(ledger: &Arc<dyn Ledger>) {
    let new = waiting(ledger, "a", NOW).await;
    claim(ledger, 10, HOUR).await;
    let change = delivery_change(key(&new, target("a")), 1, 2, failed(2, HOUR));
    assert_eq!(record(ledger, change.clone()).await, Recorded::Applied);
    assert_eq!(record(ledger, change).await, Recorded::Superseded);
    assert_eq!(record(ledger, part_change(&new, 0, 1, &failed(1, NOW))).await, Recorded::Superseded);
    assert_eq!(show(ledger, delivery(&new, "a")).await.attempts, 2);
    let attempts = ledger.attempts(shop(), delivery(&new, "a"), ATTEMPTS_READ_MAX).await.unwrap();
    assert!(attempts.len() == 2 && attempts.iter().all(|attempt| !attempt.superseded));
}

pub(crate) async fn waiting_without_an_attempt_counts_none(ledger: &Arc<dyn Ledger>) {
    let new = waiting(ledger, "a", NOW).await;
    claim(ledger, 10, HOUR).await;
    let change = delivery_change(key(&new, target("a")), 1, 2, waits(NOW));
    assert_eq!(record(ledger, change).await, Recorded::Applied);
    let claimed = due(&claim(ledger, 10, HOUR).await);
    assert_eq!((claimed[0].r#gen, claimed[0].attempts), (3, 1));
    assert_eq!(ledger.attempts(shop(), delivery(&new, "a"), ATTEMPTS_READ_MAX).await.unwrap().len(), 1);
}

pub(crate) async fn in_flight_keeps_the_hold_until_its_lease_ends(ledger: &Arc<dyn Ledger>) {
    let new = new_event(&["a"], HOUR);
    accept(ledger, &new).await;
    let key = key(&new, target("a"));
    record(ledger, part_change(&new, 0, 1, &(None, Next::InFlight { lease: HOUR }))).await;
    assert!(claim(ledger, 10, HOUR).await.items.is_empty());
    let hold = Hold::Delivery { delivery: key.delivery, run: 1, r#gen: 1 };
    assert_eq!(ledger.take(vec![hold], HOUR).await.unwrap(), [None], "in flight belongs to its holder");
    record(ledger, delivery_change(key, 1, 1, (None, Next::InFlight { lease: NOW }))).await;
    assert_eq!(due(&claim(ledger, 10, HOUR).await)[0].r#gen, 2);
    assert_eq!(record(ledger, delivery_change(key, 1, 1, failed(1, NOW))).await, Recorded::Superseded);
    assert_eq!(record(ledger, delivery_change(key, 1, 2, delivered(1))).await, Recorded::Applied);
}

pub(crate) async fn changes_of_one_delivery_in_one_batch_build_on_each_other(ledger: &Arc<dyn Ledger>) {
    let new = new_event(&["a"], HOUR);
    accept(ledger, &new).await;
    let key = key(&new, target("a"));
    let batch = vec![
        part_change(&new, 0, 1, &(None, Next::InFlight { lease: HOUR })),
        delivery_change(key, 1, 1, delivered(1)),
        delivery_change(key, 1, 1, failed(1, NOW)),
        part_change(&new, 0, 1, &delivered(1)),
    ];
    let answers = ledger.record(batch).await.unwrap();
    assert_eq!(answers, [Recorded::Applied, Recorded::Applied, Recorded::Superseded, Recorded::Superseded]);
    assert_eq!(show(ledger, key.delivery).await.state, DeliveryState::Delivered);
}

pub(crate) async fn a_late_success_finishes_and_a_late_failure_changes_nothing(ledger: &Arc<dyn Ledger>) {
    let new = waiting(ledger, "a", NOW).await;
    let key = key(&new, target("a"));
    claim(ledger, 10, NOW).await;
    claim(ledger, 10, HOUR).await;
    let dead = (Some(attempt(2, Outcome::Http410)), Next::Dead(EndReason::Gone));
    assert_eq!(record(ledger, delivery_change(key, 1, 2, dead)).await, Recorded::Superseded);
    assert_eq!(state(ledger, key.delivery).await, Some(DeliveryState::Open));
    // A claim that was never made, so that the attempts are told apart.
    assert_eq!(record(ledger, delivery_change(key, 1, 1, delivered(2))).await, Recorded::Superseded);
    let shown = show(ledger, key.delivery).await;
    assert_eq!((shown.state, shown.reason, shown.due_at_unix_ms), (DeliveryState::Delivered, None, None));
    let attempts = ledger.attempts(shop(), key.delivery, ATTEMPTS_READ_MAX).await.unwrap();
    assert_eq!(attempts.iter().filter(|attempt| attempt.superseded).count(), 2);
    assert_eq!(record(ledger, delivery_change(key, 1, 3, delivered(3))).await, Recorded::Superseded);
}

pub(crate) async fn take_raises_the_generation_once(ledger: &Arc<dyn Ledger>) {
    let part = new_event(&["a"], HOUR);
    accept(ledger, &part).await;
    let retry = waiting(ledger, "b", NOW).await;
    claim(ledger, 10, HOUR).await;
    let holds = vec![
        Hold::Part { event: part.event.id, part: 0, r#gen: 1 },
        Hold::Delivery { delivery: delivery(&retry, "b"), run: 1, r#gen: 2 },
        Hold::Part { event: part.event.id, part: 0, r#gen: 1 },
        Hold::Delivery { delivery: delivery(&retry, "b"), run: 2, r#gen: 2 },
        Hold::Part { event: part.event.id, part: 1, r#gen: 1 },
    ];
    assert_eq!(ledger.take(holds.clone(), NOW).await.unwrap(), [Some(2), Some(3), None, None, None]);
    assert_eq!(ledger.take(holds, HOUR).await.unwrap(), [None; 5]);
    // The new, shorter leases are over: both are due again.
    let claimed = claim(ledger, 10, HOUR).await;
    assert_eq!(parts(&claimed), [Hold::Part { event: part.event.id, part: 0, r#gen: 3 }]);
    assert_eq!(due(&claimed)[0].r#gen, 4);
}

pub(crate) async fn replay_starts_a_new_run_of_the_same_delivery(ledger: &Arc<dyn Ledger>) {
    let new = new_event(&["a"], HOUR);
    accept(ledger, &new).await;
    record(ledger, part_change(&new, 0, 1, &delivered(1))).await;
    let id = delivery(&new, "a");
    assert_eq!(ledger.replay(shop(), id).await.unwrap(), Replayed::Started { run: 2 });
    assert_balanced(ledger).await;
    let shown = show(ledger, id).await;
    assert_eq!((shown.state, shown.run, shown.attempts), (DeliveryState::Open, 2, 0));
    let claimed = due(&claim(ledger, 10, HOUR).await)[0];
    assert_eq!((claimed.delivery, claimed.run, claimed.r#gen, claimed.attempts), (id, 2, 1, 0));
    assert!(claimed.run_age < HOUR, "the age is that of the run, not of the event");
    record(ledger, delivery_change(key(&new, target("a")), 2, 1, delivered(1))).await;
    let runs = ledger.attempts(shop(), id, ATTEMPTS_READ_MAX).await.unwrap().into_iter().map(|attempt| attempt.run);
    assert_eq!(runs.collect::<Vec<_>>(), [1, 2]);
}

pub(crate) async fn a_late_success_of_an_old_run_does_not_finish_the_new_one(ledger: &Arc<dyn Ledger>) {
    let new = waiting(ledger, "a", NOW).await;
    let key = key(&new, target("a"));
    claim(ledger, 10, HOUR).await;
    let dead = (Some(attempt(2, Outcome::Http5xx)), Next::Dead(EndReason::AttemptsExhausted));
    record(ledger, delivery_change(key, 1, 2, dead)).await;
    ledger.replay(shop(), key.delivery).await.unwrap();
    assert_eq!(record(ledger, delivery_change(key, 1, 1, delivered(1))).await, Recorded::Superseded);
    assert_eq!(state(ledger, key.delivery).await, Some(DeliveryState::Open));
}

pub(crate) async fn replay_refuses_what_is_open_missing_or_foreign(ledger: &Arc<dyn Ledger>) {
    let new = new_event(&["a"], HOUR);
    let id = delivery(&new, "a");
    assert_eq!(ledger.replay(shop(), id).await.unwrap(), Replayed::NotFound);
    accept(ledger, &new).await;
    assert_eq!(ledger.replay(shop(), id).await.unwrap(), Replayed::StillOpen);
    record(ledger, part_change(&new, 0, 1, &failed(1, HOUR))).await;
    assert_eq!(ledger.replay(shop(), id).await.unwrap(), Replayed::StillOpen);
    record(ledger, part_change(&new, 0, 9, &delivered(1))).await;
    assert_eq!(ledger.replay(tenant("other"), id).await.unwrap(), Replayed::NotFound);
    assert_eq!(ledger.replay(shop(), id).await.unwrap(), Replayed::Started { run: 2 });
}

pub(crate) async fn an_empty_answer_is_kept(ledger: &Arc<dyn Ledger>) {
    let new = new_event(&["a"], HOUR);
    accept(ledger, &new).await;
    let attempt = Attempt { excerpt: Bytes::new(), ..attempt(1, Outcome::Delivered) };
    let change = part_change(&new, 0, 1, &(Some(attempt.clone()), Next::Delivered));
    assert_eq!(record(ledger, change).await, Recorded::Applied);
    assert_eq!(ledger.attempts(shop(), delivery(&new, "a"), 10).await.unwrap()[0].attempt, attempt);
}
