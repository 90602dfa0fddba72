use std::sync::Arc;

use dispatcher::ledger::{Ledger, LedgerError, PoolLoad, PoolMetric};
use dispatcher_core::delivery::split_into_parts;
use dispatcher_core::id::EventId;
use dispatcher_core::limits::LEASE;
use dispatcher_core::table::{EndpointState, Row, TableChange};

use crate::ledger::support::*;

const OTHER: &str = "large";

/// The load of the default pool.
async fn load(ledger: &Arc<dyn Ledger>) -> PoolLoad {
    ledger.pool_loads(&[POOL.to_owned()]).await.unwrap().remove(0)
}

async fn publish(ledger: &Arc<dyn Ledger>, put: Vec<Row>) {
    ledger.publish_table(TableChange { put, drop: vec![] }, None).await.unwrap();
}

fn counts(load: &PoolLoad) -> (u64, u64, u64) {
    (load.due, load.held, load.open)
}

pub(crate) async fn what_is_late_is_told_from_what_is_held_and_what_waits(ledger: &Arc<dyn Ledger>) {
    publish(ledger, vec![endpoint_row("a", "1", EndpointState::Active)]).await;
    assert_eq!(counts(&load(ledger).await), (0, 0, 0));
    accept(ledger, &new_event(&["a", "b"], HOUR)).await;
    accept(ledger, &new_event(&["a", "b", "c"], NOW)).await;
    assert_eq!(counts(&load(ledger).await), (3, 2, 5), "a part in hand, and one that nobody has");
    waiting(ledger, "a", HOUR).await;
    waiting(ledger, "a", NOW).await;
    waiting(ledger, "a", NOW).await;
    assert_eq!(counts(&load(ledger).await), (5, 2, 8), "a retry of later is open and not late");
    assert!(!load(ledger).await.is_more);
}

pub(crate) async fn what_waits_behind_a_gate_is_open_and_not_late(ledger: &Arc<dyn Ledger>) {
    publish(ledger, ["a", "b", "c"].map(|name| endpoint_row(name, "1", EndpointState::Active)).into()).await;
    for name in ["a", "a", "b", "b", "b", "c"] {
        waiting(ledger, name, NOW).await;
    }
    assert_eq!(counts(&load(ledger).await), (6, 0, 6));
    ledger.set_gates(vec![gate("a", HOUR, None), gate("b", NOW, Some(1))]).await.unwrap();
    assert_eq!(counts(&load(ledger).await), (2, 0, 6), "one gate is closed, another lets one through");
    publish(ledger, vec![endpoint_row("c", "2", EndpointState::Suspended)]).await;
    assert_eq!(counts(&load(ledger).await), (1, 0, 6));
}

pub(crate) async fn what_was_late_is_so_on_the_queue_too(ledger: &Arc<dyn Ledger>) {
    publish(ledger, vec![endpoint_row("a", "1", EndpointState::Active)]).await;
    for _ in 0..3 {
        waiting(ledger, "a", NOW).await;
    }
    waiting(ledger, "a", HOUR).await;
    assert_eq!(due(&claim(ledger, 2, LEASE).await).len(), 2);
    assert_eq!(counts(&load(ledger).await), (3, 0, 4));
}

pub(crate) async fn loads_of_pools_are_apart_and_in_the_order_asked(ledger: &Arc<dyn Ledger>) {
    let targets = ["a", "b"].map(|name| (OTHER.to_owned(), target(name))).into();
    let id = EventId::from_parts(1_600_000_000_000, [9; 10]);
    accept(ledger, &event_of(shop(), id, split_into_parts(targets), NOW)).await;
    accept(ledger, &new_event(&["a"], NOW)).await;
    let asked = ["nobody", OTHER, POOL].map(str::to_owned);
    let loads = ledger.pool_loads(&asked).await.unwrap();
    let found: Vec<_> = loads.iter().map(|load| (load.pool.as_str(), load.due)).collect();
    assert_eq!(found, [("nobody", 0), (OTHER, 2), (POOL, 1)]);
}

pub(crate) async fn rates_count_what_was_accepted_attempted_and_delivered(ledger: &Arc<dyn Ledger>) {
    publish(ledger, vec![endpoint_row("a", "1", EndpointState::Active)]).await;
    let quiet = load(ledger).await;
    assert_eq!((quiet.accepted_per_second, quiet.attempts_per_second, quiet.delivered_per_second), (0.0, 0.0, 0.0));
    for _ in 0..3 {
        waiting(ledger, "a", HOUR).await;
    }
    let (good, twice) = (new_event(&["a"], HOUR), new_event(&["a"], HOUR));
    accept(ledger, &good).await;
    record(ledger, part_change(&good, 0, 1, &delivered(1))).await;
    let again = keyed(twice, "key", 1, HOUR);
    accept(ledger, &again).await;
    accept(ledger, &keyed(new_event(&["a"], HOUR), "key", 1, HOUR)).await;
    let load = load(ledger).await;
    let share = |part: f64, whole: f64| (part / whole * 100.0).round();
    assert!(load.accepted_per_second > 0.0, "{load:?}");
    assert!((share(load.attempts_per_second, load.accepted_per_second) - 80.0).abs() < 1.0, "4 of 5: {load:?}");
    assert!((share(load.delivered_per_second, load.attempts_per_second) - 25.0).abs() < 1.0, "1 of 4: {load:?}");
}

pub(crate) async fn metrics_of_pools_can_be_published_again_and_again(ledger: &Arc<dyn Ledger>) {
    let metric = |pool: &str, wanted_replicas| PoolMetric {
        pool: pool.to_owned(),
        backlog: 5,
        arrival_per_second: 1.5,
        delivery_per_second: 0.5,
        wanted_replicas,
    };
    for metrics in [vec![metric(POOL, 1), metric(OTHER, 2)], vec![metric(OTHER, 3)], vec![]] {
        ledger.publish_pool_metrics(&metrics, None).await.unwrap();
    }
}

pub(crate) async fn metrics_of_pools_of_a_replaced_leader_are_refused(ledger: &Arc<dyn Ledger>) {
    let metrics = [PoolMetric {
        pool: POOL.to_owned(),
        backlog: 5,
        arrival_per_second: 1.5,
        delivery_per_second: 0.5,
        wanted_replicas: 1,
    }];
    ledger.publish_table(TableChange::default(), Some(2)).await.unwrap();
    ledger.publish_pool_metrics(&metrics, Some(2)).await.unwrap();
    // The next leader has only looked so far; that is enough.
    ledger.publish_table(TableChange::default(), Some(3)).await.unwrap();
    let refused = ledger.publish_pool_metrics(&[], Some(2)).await.unwrap_err();
    assert!(matches!(refused, LedgerError::Superseded { asked: 2, present: 3 }), "{refused}");
    ledger.publish_pool_metrics(&[], Some(3)).await.unwrap();
}
