use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dispatcher::ledger::{Cursor, DeliveryQuery, EventQuery, Ledger, NewEvent};
use dispatcher_core::delivery::{DeliveryState, EndReason, Next, Outcome, split_into_parts};
use dispatcher_core::id::{DeliveryId, EventId};
use dispatcher_core::limits::ATTEMPTS_READ_MAX;
use dispatcher_core::table::{EndpointState, TableChange};

use crate::ledger::support::*;

pub(crate) async fn pages_of_deliveries_are_stable_under_inserts(ledger: &Arc<dyn Ledger>) {
    let mut expected = BTreeSet::new();
    for number in 0..40_u8 {
        // Five events to a millisecond: their deliveries interleave.
        let id = EventId::from_parts(1_800_000_000_000 + u64::from(number / 5), [number; 10]);
        let targets = ["a", "b", "c"].map(|name| (POOL.to_owned(), target(name)));
        let new = event_of(shop(), id, split_into_parts(targets.to_vec()), HOUR);
        accept(ledger, &new).await;
        expected.extend(["a", "b", "c"].map(|name| delivery(&new, name)));
        if number % 3 == 0 {
            record(ledger, part_change(&new, 0, 1, &delivered(1))).await;
        }
    }
    let query = DeliveryQuery { rows_max: 7, ..DeliveryQuery::default() };
    let first = ledger.deliveries(shop(), query.clone()).await.unwrap();
    // Newer than everything, so it belongs to no page that comes after the first.
    let newer = event_of(shop(), EventId::from_parts(1_900_000_000_000, [0; 10]), Vec::new(), HOUR);
    let newer = NewEvent { parts: split_into_parts(vec![(POOL.to_owned(), target("a"))]), ..newer };
    accept(ledger, &newer).await;
    let rest = all_deliveries(ledger, DeliveryQuery { after: first.next, ..query }).await;
    let seen: Vec<DeliveryId> = first.rows.iter().chain(&rest).map(|record| record.key.delivery).collect();
    let newest_first: Vec<DeliveryId> = expected.into_iter().rev().collect();
    assert_eq!(seen, newest_first);
}

pub(crate) async fn deliveries_are_filtered_by_event_endpoint_and_state(ledger: &Arc<dyn Ledger>) {
    let events: Vec<_> = (0..4).map(|_| new_event(&["a", "b"], HOUR)).collect();
    ledger.accept(events.clone()).await.unwrap();
    let dead = (Some(attempt(1, Outcome::Http410)), Next::Dead(EndReason::Gone));
    for (new, what) in events.iter().zip([delivered(1), dead, failed(1, HOUR)]) {
        record(ledger, part_change(new, 0, 1, &what)).await;
    }
    let open = Some(DeliveryState::Open);
    for (event, endpoint_name, state, count) in [
        (None, None, None, 8),
        (None, Some("a"), None, 4),
        (None, None, Some(DeliveryState::Delivered), 2),
        (None, None, Some(DeliveryState::Dead), 2),
        (None, None, Some(DeliveryState::Cancelled), 0),
        (None, None, open, 4),
        (None, Some("b"), open, 2),
        (None, Some("b"), Some(DeliveryState::Dead), 1),
        (Some(&events[1]), None, None, 2),
        (Some(&events[1]), Some("a"), Some(DeliveryState::Dead), 1),
        (Some(&events[1]), None, open, 0),
        (Some(&events[3]), None, None, 2),
        (Some(&events[3]), Some("a"), open, 1),
        (Some(&events[3]), None, Some(DeliveryState::Delivered), 0),
    ] {
        let event = event.map(|new: &NewEvent| new.event.id);
        let query = DeliveryQuery { event, endpoint: endpoint_name.map(endpoint), state, after: None, rows_max: 1 };
        let found = all_deliveries(ledger, query).await;
        assert_eq!(found.len(), count, "{event:?} {endpoint_name:?} {state:?}");
        for record in found {
            assert!(event.is_none_or(|event| record.key.event == event));
            assert!(endpoint_name.is_none_or(|name| record.key.target.endpoint == endpoint(name)));
            assert!(state.is_none_or(|state| record.state == state));
        }
    }
}

pub(crate) async fn pages_of_events_are_filtered_by_type(ledger: &Arc<dyn Ledger>) {
    let mut ids = Vec::new();
    for number in 0..9 {
        let mut new = new_event(&["a"], HOUR);
        if number % 3 == 0 {
            Arc::make_mut(&mut new.event).event_type = "order.paid".into();
            ids.push(new.event.id);
        }
        accept(ledger, &new).await;
    }
    let query = |after| EventQuery { event_type: Some("order.paid".into()), after, rows_max: 2 };
    let first = ledger.events(shop(), query(None)).await.unwrap();
    let second = ledger.events(shop(), query(first.next)).await.unwrap();
    assert_eq!(second.next, None);
    let seen: Vec<_> = first.rows.iter().chain(&second.rows).map(|record| record.event.id).collect();
    ids.reverse();
    assert_eq!(seen, ids);
    assert!(first.rows[0].event.body.is_empty() && first.rows[0].body_bytes > 0);
    let all = ledger.events(shop(), EventQuery { rows_max: 100, ..EventQuery::default() }).await.unwrap();
    assert_eq!((all.rows.len(), all.next), (9, None));
}

pub(crate) async fn foreign_tenants_see_nothing(ledger: &Arc<dyn Ledger>) {
    let (recorded, in_outbox) = (waiting(ledger, "a", HOUR).await, new_event(&["a"], HOUR));
    accept(ledger, &in_outbox).await;
    let other = tenant("other");
    for new in [&recorded, &in_outbox] {
        assert!(ledger.event(other, new.event.id).await.unwrap().is_none());
        assert!(ledger.delivery(other, delivery(new, "a")).await.unwrap().is_none());
        assert!(ledger.attempts(other, delivery(new, "a"), ATTEMPTS_READ_MAX).await.unwrap().is_empty());
        let query = DeliveryQuery { event: Some(new.event.id), rows_max: 9, ..DeliveryQuery::default() };
        assert!(ledger.deliveries(other, query).await.unwrap().rows.is_empty());
    }
    let query = DeliveryQuery { endpoint: Some(endpoint("a")), rows_max: 9, ..DeliveryQuery::default() };
    assert!(ledger.deliveries(other, query).await.unwrap().rows.is_empty());
    let after = Some(Cursor(in_outbox.event.id.0));
    let query = EventQuery { after, rows_max: 9, ..EventQuery::default() };
    assert!(ledger.events(other, query).await.unwrap().rows.is_empty());
}

pub(crate) async fn the_backlog_counts_gated_deliveries_apart(ledger: &Arc<dyn Ledger>) {
    let put = vec![endpoint_row("a", "1", EndpointState::Active)];
    ledger.publish_table(TableChange { put, drop: vec![] }, None).await.unwrap();
    accept(ledger, &new_event(&["a", "b"], HOUR)).await;
    for name in ["a", "a", "b"] {
        waiting(ledger, name, HOUR).await;
    }
    ledger.set_gates(vec![gate("a", HOUR, None)]).await.unwrap();
    let backlog = ledger.backlog().await.unwrap();
    assert_eq!((backlog.ungated, backlog.by_tenant), (3, vec![(shop(), 5)]));
}

pub(crate) async fn endpoint_facts_sum_the_attempts(ledger: &Arc<dyn Ledger>) {
    let put = vec![endpoint_row("a", "1", EndpointState::Active)];
    ledger.publish_table(TableChange { put, drop: vec![] }, None).await.unwrap();
    let oldest = waiting(ledger, "a", HOUR).await;
    waiting(ledger, "a", HOUR).await;
    let good = new_event(&["a"], HOUR);
    accept(ledger, &good).await;
    record(ledger, part_change(&good, 0, 1, &delivered(1))).await;
    ledger.set_gates(vec![gate("a", HOUR, None)]).await.unwrap();
    let facts = ledger.endpoint_facts(shop(), Duration::from_mins(5)).await.unwrap().remove(0);
    assert_eq!((facts.endpoint, facts.attempts, facts.succeeded, facts.pending), (endpoint("a"), 3, 1, 2));
    assert_eq!(facts.oldest_unix_ms, Some(oldest.event.id.unix_ms()));
    assert_eq!((facts.last_outcome, facts.last_status_code), (Some(Outcome::Delivered), Some(204)));
    let p95 = facts.p95.unwrap();
    assert!(p95 >= Duration::from_micros(1_234) && p95 < Duration::from_micros(1_234 * 3 / 2), "{p95:?}");
    assert!(facts.gate_closed_for.unwrap() > HOUR / 2);
    assert!(ledger.endpoint_facts(tenant("other"), HOUR).await.unwrap().is_empty());
}

pub(crate) async fn a_failed_transform_says_nothing_of_the_endpoint(ledger: &Arc<dyn Ledger>) {
    let put = vec![endpoint_row("a", "1", EndpointState::Active)];
    ledger.publish_table(TableChange { put, drop: vec![] }, None).await.unwrap();
    let new = new_event(&["a"], HOUR);
    accept(ledger, &new).await;
    let failed = (Some(attempt(1, Outcome::TransformFailed)), Next::Waiting { delay: HOUR });
    record(ledger, part_change(&new, 0, 1, &failed)).await;
    let facts = ledger.endpoint_facts(shop(), Duration::from_mins(5)).await.unwrap().remove(0);
    assert_eq!((facts.attempts, facts.pending, facts.last_outcome, facts.p95), (0, 1, None, None));
    let shown = show(ledger, delivery(&new, "a")).await;
    assert_eq!((shown.attempts, shown.last_outcome), (1, Some(Outcome::TransformFailed)));
}

pub(crate) async fn expired_keys_are_removed_in_bounded_steps(ledger: &Arc<dyn Ledger>) {
    for number in 0..5 {
        accept(ledger, &keyed(new_event(&[], HOUR), &format!("old {number}"), 1, NOW)).await;
    }
    let kept = keyed(new_event(&[], HOUR), "new", 1, HOUR);
    accept(ledger, &kept).await;
    assert_eq!(ledger.expire_idempotency_keys(3).await.unwrap(), 3);
    assert_eq!(ledger.expire_idempotency_keys(3).await.unwrap(), 2);
    assert_eq!(ledger.expire_idempotency_keys(3).await.unwrap(), 0);
    let again = keyed(new_event(&[], HOUR), "new", 1, HOUR);
    let repeated = dispatcher::ledger::Accepted::Repeated { event: kept.event.id, fanout_count: 0 };
    assert_eq!(accept(ledger, &again).await, repeated);
}
