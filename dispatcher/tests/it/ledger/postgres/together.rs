//! Several processes at once: none waits for ever, none takes what another has, nothing is overlooked.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use dispatcher::ledger::isolate::commit_halving;
use dispatcher::ledger::{Accepted, Ledger, NewEvent, Recorded};
use dispatcher_core::delivery::{DeliveryState, Next};
use dispatcher_core::table::{EndpointState, TableChange};
use futures::future::join_all;
use tokio::sync::Notify;

use super::{connect, database};
use crate::ledger::support::*;

/// Longest wait for what must happen.
const DEADLINE: Duration = Duration::from_mins(2);

/// Several processes' ledgers in one database, and the database.
async fn several(count: usize) -> Option<(Vec<Arc<dyn Ledger>>, testbed::TestDatabase)> {
    let database = database().await?;
    let mut ledgers: Vec<Arc<dyn Ledger>> = Vec::new();
    for _ in 0..count {
        ledgers.push(Arc::new(connect(&database).await));
    }
    Some((ledgers, database))
}

#[tokio::test]
async fn of_several_uses_of_a_key_exactly_one_wins() {
    let Some((ledgers, _database)) = several(3).await else { return };
    for round in 0..10 {
        // The keys of a batch come in every order.
        let batches: Vec<Vec<NewEvent>> = (0..3)
            .map(|rotation| {
                let mut batch: Vec<_> =
                    (0..8).map(|key| keyed(new_event(&["a"], HOUR), &format!("{round} {key}"), 1, HOUR)).collect();
                batch.rotate_left(rotation * 3);
                batch
            })
            .collect();
        let accepting = ledgers.iter().zip(&batches).map(|(ledger, batch)| ledger.accept(batch.clone()));
        let answers = tokio::time::timeout(DEADLINE, join_all(accepting)).await.unwrap();
        let answers: Vec<Accepted> = answers.into_iter().flat_map(Result::unwrap).collect();
        let winners = answers.iter().filter(|answer| **answer == Accepted::New).count();
        assert_eq!(winners, 8, "{answers:?}");
        assert!(answers.iter().all(|answer| *answer != Accepted::Conflict));
    }
    assert_eq!(ledgers[0].balance().await.unwrap()[0].accepted, 80);
}

#[tokio::test]
async fn a_batch_that_is_tried_again_beside_itself_is_there_once() {
    let Some((ledgers, _database)) = several(2).await else { return };
    let batch: Vec<_> = (0..50).map(|_| new_event(&["a", "b"], HOUR)).collect();
    let reversed: Vec<_> = batch.iter().rev().cloned().collect();
    let (one, two) = tokio::join!(ledgers[0].accept(batch.clone()), ledgers[1].accept(reversed));
    assert!(one.unwrap().iter().chain(&two.unwrap()).all(|answer| *answer == Accepted::New));
    assert_eq!(ledgers[0].balance().await.unwrap()[0].accepted, 100);
    let recording = ledgers
        .iter()
        .map(|ledger| ledger.record(batch.iter().map(|new| part_change(new, 0, 1, &delivered(1))).collect()));
    let answers = join_all(recording).await;
    let applied = answers.into_iter().flat_map(Result::unwrap).filter(|answer| *answer == Recorded::Applied).count();
    assert_eq!(applied, 50);
    assert_balanced(&ledgers[0]).await;
}

#[tokio::test]
async fn work_is_claimed_once_by_many_claimers_while_more_comes_due() {
    const EVENTS: usize = 60;
    let Some((ledgers, _database)) = several(3).await else { return };
    let names = ["a", "b", "c"];
    let produce = |ledger: Arc<dyn Ledger>| async move {
        for number in 0..EVENTS {
            waiting(&ledger, names[number % 3], NOW).await;
        }
    };
    let consume = async {
        let mut seen = HashSet::new();
        while seen.len() < 2 * EVENTS {
            let claims = join_all(ledgers.iter().map(|ledger| claim(ledger, 16, HOUR))).await;
            for delivery in claims.iter().flat_map(due) {
                assert!(seen.insert(delivery.delivery), "claimed twice");
                assert_eq!(delivery.r#gen, 2);
            }
        }
    };
    let all = async {
        tokio::join!(produce(Arc::clone(&ledgers[0])), produce(Arc::clone(&ledgers[1])), consume);
    };
    tokio::time::timeout(DEADLINE, all).await.expect("every delivery is claimed");
    assert_balanced(&ledgers[0]).await;
}

#[tokio::test]
async fn results_claims_gates_and_table_changes_never_deadlock() {
    const ROUNDS: usize = 40;
    let Some((ledgers, _database)) = several(4).await else { return };
    let names = ["a", "b", "c", "d"];
    let put = || names.iter().map(|name| endpoint_row(name, "1", EndpointState::Active)).collect();
    ledgers[0].publish_table(TableChange { put: put(), drop: vec![] }, None).await.unwrap();
    let produce = |ledger: &Arc<dyn Ledger>, backwards: bool| {
        let ledger = Arc::clone(ledger);
        async move {
            for _ in 0..ROUNDS {
                let mut batch: Vec<_> = names.iter().map(|name| new_event(&[*name], HOUR)).collect();
                if backwards {
                    batch.reverse();
                }
                ledger.accept(batch.clone()).await.unwrap();
                let changes = batch.iter().map(|new| part_change(new, 0, 1, &failed(1, NOW))).collect();
                ledger.record(changes).await.unwrap();
            }
        }
    };
    let consume = async {
        let mut finished = 0;
        while finished < 2 * ROUNDS * names.len() {
            let claimed = claim(&ledgers[2], 64, HOUR).await;
            let changes: Vec<_> = claimed
                .items
                .iter()
                .flat_map(|item| match &item.work {
                    dispatcher::queue::Work::Due(all) => all.iter().map(|due| (item.event.id, *due)).collect(),
                    dispatcher::queue::Work::Part { .. } => Vec::new(),
                })
                .map(|(event, due)| {
                    let key = dispatcher_core::delivery::DeliveryKey::new(shop(), event, due.target);
                    delivery_change(key, due.run, due.r#gen, delivered(due.attempts + 1))
                })
                .collect();
            finished += changes.len();
            ledgers[2].record(changes).await.unwrap();
        }
    };
    let disturb = async {
        for round in 0..ROUNDS {
            let mut put: Vec<_> = put();
            put.rotate_left(round % 4);
            ledgers[3].publish_table(TableChange { put, drop: vec![] }, None).await.unwrap();
            let gates = names.iter().rev().map(|name| dispatcher::ledger::GateChange {
                endpoint: endpoint(name),
                revision: "1".into(),
                closed_for: NOW,
                quota: None,
            });
            ledgers[3].set_gates(gates.collect()).await.unwrap();
        }
    };
    let all = async { tokio::join!(produce(&ledgers[0], false), produce(&ledgers[1], true), consume, disturb) };
    tokio::time::timeout(DEADLINE, all).await.expect("all of it ends");
    let balance = ledgers[0].balance().await.unwrap()[0];
    assert_eq!(balance.delivered, (2 * ROUNDS * names.len()) as u64);
    assert_balanced(&ledgers[0]).await;
}

#[tokio::test]
async fn results_that_build_on_each_other_never_deadlock() {
    const ROUNDS: usize = 60;
    let Some((ledgers, _database)) = several(2).await else { return };
    let names = ["a", "b", "c", "d"];
    let produce = |ledger: &Arc<dyn Ledger>, backwards: bool| {
        let ledger = Arc::clone(ledger);
        async move {
            for _ in 0..ROUNDS {
                let mut batch: Vec<_> = names.iter().map(|name| (new_event(&[*name], HOUR), *name)).collect();
                if backwards {
                    batch.reverse();
                }
                ledger.accept(batch.iter().map(|(new, _)| new.clone()).collect()).await.unwrap();
                // Each delivery fails while it is being told that it is in flight.
                let in_flight = (None, Next::InFlight { lease: HOUR });
                let changes = batch.iter().flat_map(|(new, name)| {
                    let follows = delivery_change(key(new, target(name)), 1, 1, failed(1, HOUR));
                    [part_change(new, 0, 1, &in_flight), follows]
                });
                let answers = ledger.record(changes.collect()).await.unwrap();
                assert!(answers.iter().all(|answer| *answer == Recorded::Applied), "{answers:?}");
            }
        }
    };
    let all = async { tokio::join!(produce(&ledgers[0], false), produce(&ledgers[1], true)) };
    tokio::time::timeout(DEADLINE, all).await.expect("all of it ends");
    assert_balanced(&ledgers[0]).await;
}

#[tokio::test]
async fn a_poison_row_in_a_batch_of_200_fails_alone() {
    let Some((ledgers, _database)) = several(1).await else { return };
    let mut batch: Vec<_> = (0..200).map(|_| new_event(&["a"], HOUR)).collect();
    Arc::make_mut(&mut batch[77].event).event_type = "order\0created".into();
    let answers = commit_halving(&batch, |slice| ledgers[0].accept(slice)).await.answers;
    let refused: Vec<usize> = (0..200).filter(|place| answers[*place].is_err()).collect();
    assert_eq!(refused, [77]);
    let message = answers[77].as_ref().unwrap_err().to_string();
    assert!(message.contains("22021") && !message.contains("created"), "{message}");
    assert_eq!(ledgers[0].balance().await.unwrap()[0].accepted, 199);
}

#[tokio::test]
async fn what_was_committed_before_a_refusal_is_counted_once_and_stale_when_it_is_tried_again() {
    let Some((ledgers, _database)) = several(1).await else { return };
    let ledger = &ledgers[0];
    let put = vec![endpoint_row("a", "1", EndpointState::Active)];
    ledger.publish_table(TableChange { put, drop: vec![] }, None).await.unwrap();
    let (good, mut bad) = (new_event(&["a"], HOUR), new_event(&["a", "b"], HOUR));
    accept(ledger, &good).await;
    accept(ledger, &bad).await;
    bad.parts[0].targets.pop();
    // The second change builds on the first, and comes with the refused one after it.
    let batch = [&good, &good, &bad].map(|new| part_change(new, 0, 1, &delivered(1)));
    let halved = commit_halving(&batch, |slice| ledger.record(slice)).await;
    let answers: Vec<_> = halved.answers.iter().map(|answer| answer.as_ref().ok().copied()).collect();
    assert_eq!(answers, [Some(Recorded::Superseded), Some(Recorded::Superseded), None]);
    assert_eq!(state(ledger, delivery(&good, "a")).await, Some(DeliveryState::Delivered));
    assert_eq!(ledger.endpoint_facts(shop(), HOUR).await.unwrap()[0].attempts, 1);
    assert_balanced(ledger).await;
}

#[tokio::test]
async fn a_published_table_is_told_to_whoever_watches() {
    let Some(database) = database().await else { return };
    let (watching, writing) = (connect(&database).await, connect(&database).await);
    let changed = Arc::new(Notify::new());
    let watch = watching.watch_table(Arc::clone(&changed));
    let publish = async {
        // The first notice says that watching has begun.
        changed.notified().await;
        let put = vec![endpoint_row("a", "1", EndpointState::Active)];
        let version = writing.publish_table(TableChange { put, drop: vec![] }, None).await.unwrap();
        changed.notified().await;
        assert_eq!(watching.load_table(None).await.unwrap().version, version);
    };
    tokio::select! {
        ended = watch => panic!("{ended:?}"),
        told = tokio::time::timeout(DEADLINE, publish) => told.expect("it is told"),
    }
}
