//! Who is dead is told by those who live, and not by a clock alone.

use std::sync::Arc;

use dispatcher::ledger::Ledger;
use sqlx::Executor;
use uuid::Uuid;

use super::{connect, database, raw};
use crate::ledger::conformance::dispatchers::{heartbeat, in_flight};
use crate::ledger::support::*;

#[tokio::test]
async fn after_a_failure_of_the_ledger_nobody_is_dead() {
    let Some(database) = database().await else { return };
    let (ledger, mut beside): (Arc<dyn Ledger>, _) = (Arc::new(connect(&database).await), raw(&database).await);
    ledger.beat(heartbeat(1)).await.unwrap();
    let flying = in_flight(&ledger, "a").await;
    ledger.beat(heartbeat(2)).await.unwrap();
    // Nobody has been heard of for an hour.
    let silence = "UPDATE dispatchers SET last_seen = last_seen - interval '1 hour',
                                          beating_since = beating_since - interval '1 hour'";
    beside.execute(silence).await.unwrap();
    assert!(claim(&ledger, 10, HOUR).await.items.is_empty(), "nobody knows");
    ledger.beat(heartbeat(2)).await.unwrap();
    assert!(claim(&ledger, 10, HOUR).await.items.is_empty(), "the first to be heard of again does not know either");
    let all_the_time = "UPDATE dispatchers SET beating_since = now() - interval '1 hour'
                        WHERE instance = '00000000-0000-0000-0000-000000000002'";
    beside.execute(all_the_time).await.unwrap();
    assert_eq!(due(&claim(&ledger, 10, HOUR).await)[0].delivery, delivery(&flying, "a"));
}

#[tokio::test]
async fn the_long_silent_are_forgotten_and_hold_what_they_held_until_its_lease_is_over() {
    let Some(database) = database().await else { return };
    let (ledger, mut beside): (Arc<dyn Ledger>, _) = (Arc::new(connect(&database).await), raw(&database).await);
    ledger.beat(heartbeat(1)).await.unwrap();
    in_flight(&ledger, "a").await;
    ledger.beat(heartbeat(2)).await.unwrap();
    let silence = "UPDATE dispatchers SET last_seen = now() - interval '1 hour'
                   WHERE instance = '00000000-0000-0000-0000-000000000001'";
    beside.execute(silence).await.unwrap();
    ledger.maintain(30 * 24 * HOUR).await.unwrap();
    let all = ledger.dispatchers(2 * HOUR).await.unwrap();
    assert_eq!(all.iter().map(|record| record.instance).collect::<Vec<_>>(), [Uuid::from_u128(2)]);
    assert!(claim(&ledger, 10, HOUR).await.items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_connections_are_all_busy_goes_on_beating() {
    let Some(database) = database().await else { return };
    let ledger: Arc<dyn Ledger> = Arc::new(connect(&database).await);
    let (mut beside, mut watching) = (raw(&database).await, raw(&database).await);
    beside.execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let reads: Vec<_> = (0..8)
        .map(|_| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move { ledger.event(shop(), new_event(&["a"], HOUR).event.id).await })
        })
        .collect();
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut watching).await.unwrap() < 3 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    ledger.beat(heartbeat(1)).await.unwrap();
    beside.execute("ROLLBACK").await.unwrap();
    futures::future::join_all(reads).await;
    assert_eq!(ledger.dispatchers(HOUR).await.unwrap().len(), 1);
}
