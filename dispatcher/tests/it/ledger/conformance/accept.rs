use std::sync::Arc;

use bytes::Bytes;
use dispatcher::ledger::{Accepted, Ledger};
use dispatcher_core::delivery::{DeliveryState, split_into_parts};
use dispatcher_core::id::{EventId, SubscriptionId};

use crate::ledger::support::*;

pub(crate) async fn an_event_is_committed_with_its_body_and_targets(ledger: &Arc<dyn Ledger>) {
    let new = new_event(&["a", "b"], HOUR);
    assert_eq!(accept(ledger, &new).await, Accepted::New);
    let record = ledger.event(shop(), new.event.id).await.unwrap().unwrap();
    assert_eq!(record.event, *new.event);
    assert_eq!((record.fanout_count, record.body_bytes), (2, new.event.body.len() as u64));
    assert_eq!(state(ledger, delivery(&new, "a")).await, Some(DeliveryState::Open));
}

pub(crate) async fn a_retried_accept_changes_nothing(ledger: &Arc<dyn Ledger>) {
    let new = keyed(new_event(&["a"], HOUR), "k", 1, HOUR);
    for _ in 0..2 {
        assert_eq!(accept(ledger, &new).await, Accepted::New);
    }
    let both = ledger.accept(vec![new.clone(), new.clone()]).await.unwrap();
    assert_eq!(both, [Accepted::New, Accepted::New]);
    assert_eq!(ledger.balance().await.unwrap()[0].accepted, 1);
}

pub(crate) async fn a_retried_accept_does_not_bring_back_finished_parts(ledger: &Arc<dyn Ledger>) {
    let new = new_event(&["a"], NOW);
    accept(ledger, &new).await;
    record(ledger, part_change(&new, 0, 1, &delivered(1))).await;
    accept(ledger, &new).await;
    assert!(claim(ledger, 100, HOUR).await.items.is_empty());
    assert_eq!(state(ledger, delivery(&new, "a")).await, Some(DeliveryState::Delivered));
}

pub(crate) async fn a_repeated_key_answers_the_first_event(ledger: &Arc<dyn Ledger>) {
    let first = keyed(new_event(&["a", "b"], HOUR), "k", 1, HOUR);
    let second = keyed(new_event(&["a", "b", "c"], HOUR), "k", 1, HOUR);
    accept(ledger, &first).await;
    let repeated = Accepted::Repeated { event: first.event.id, fanout_count: 2 };
    assert_eq!(accept(ledger, &second).await, repeated);
    assert!(ledger.event(shop(), second.event.id).await.unwrap().is_none());
}

pub(crate) async fn a_key_used_for_something_else_is_a_conflict(ledger: &Arc<dyn Ledger>) {
    let other = keyed(new_event(&["a"], HOUR), "k", 2, HOUR);
    accept(ledger, &keyed(new_event(&["a"], HOUR), "k", 1, HOUR)).await;
    assert_eq!(accept(ledger, &other).await, Accepted::Conflict);
    assert!(ledger.event(shop(), other.event.id).await.unwrap().is_none());
}

pub(crate) async fn two_uses_of_a_key_in_one_batch_accept_one(ledger: &Arc<dyn Ledger>) {
    let first = keyed(new_event(&["a"], HOUR), "k", 1, HOUR);
    let same = keyed(new_event(&["a"], HOUR), "k", 1, HOUR);
    let other = keyed(new_event(&["a"], HOUR), "k", 2, HOUR);
    let repeated = Accepted::Repeated { event: first.event.id, fanout_count: 1 };
    let answers = ledger.accept(vec![first, same, other]).await.unwrap();
    assert_eq!(answers, [Accepted::New, repeated, Accepted::Conflict]);
    assert_eq!(ledger.balance().await.unwrap()[0].accepted, 1);
}

pub(crate) async fn an_expired_key_is_free_again(ledger: &Arc<dyn Ledger>) {
    accept(ledger, &keyed(new_event(&["a"], HOUR), "k", 1, NOW)).await;
    let second = keyed(new_event(&["a"], HOUR), "k", 2, HOUR);
    assert_eq!(accept(ledger, &second).await, Accepted::New);
    let third = keyed(new_event(&["a"], HOUR), "k", 2, HOUR);
    let repeated = Accepted::Repeated { event: second.event.id, fanout_count: 1 };
    assert_eq!(accept(ledger, &third).await, repeated);
}

pub(crate) async fn keys_of_tenants_are_apart(ledger: &Arc<dyn Ledger>) {
    accept(ledger, &keyed(new_event(&["a"], HOUR), "k", 1, HOUR)).await;
    let id = EventId::from_parts(1_800_000_000_000, [1; 10]);
    let foreign = keyed(event_of(tenant("other"), id, Vec::new(), HOUR), "k", 2, HOUR);
    assert_eq!(accept(ledger, &foreign).await, Accepted::New);
}

pub(crate) async fn a_large_fanout_is_leased_in_parts(ledger: &Arc<dyn Ledger>) {
    let targets = (0..300).map(|number| {
        let mut target = target("a");
        target.subscription = SubscriptionId::derive(shop(), &number.to_string());
        (POOL.to_owned(), target)
    });
    let id = EventId::from_parts(1_800_000_000_000, [2; 10]);
    let new = event_of(shop(), id, split_into_parts(targets.collect()), HOUR);
    accept(ledger, &new).await;
    for part in 0..3 {
        let applied = record(ledger, part_change(&new, part, 1, &delivered(1))).await;
        assert_eq!(applied, dispatcher::ledger::Recorded::Applied);
        assert_balanced(ledger).await;
    }
    assert_eq!(ledger.balance().await.unwrap()[0].delivered, 300);
}

pub(crate) async fn an_event_without_targets_is_kept(ledger: &Arc<dyn Ledger>) {
    let new = new_event(&[], NOW);
    assert_eq!(accept(ledger, &new).await, Accepted::New);
    assert_eq!(ledger.event(shop(), new.event.id).await.unwrap().unwrap().fanout_count, 0);
    assert!(claim(ledger, 10, HOUR).await.items.is_empty());
}

pub(crate) async fn an_empty_body_is_kept(ledger: &Arc<dyn Ledger>) {
    let mut new = new_event(&[], HOUR);
    Arc::make_mut(&mut new.event).body = Bytes::new();
    assert_eq!(accept(ledger, &new).await, Accepted::New);
    assert_eq!(ledger.event(shop(), new.event.id).await.unwrap().unwrap().event, *new.event);
}
