//! What other releases and other lives of the database leave in the tables.

use dispatcher::ledger::Ledger;
use dispatcher_core::table::{EndpointState, TableChange};
use sqlx::Executor;

use super::{connect, database, raw};
use crate::ledger::conformance::dispatchers::heartbeat;
use crate::ledger::support::*;

#[tokio::test]
async fn another_ledger_and_a_table_that_was_made_again_are_other_histories() {
    let Some(database) = database().await else { return };
    let (ledger, mut beside) = (connect(&database).await, raw(&database).await);
    let mut histories = vec![ledger.load_table(None).await.unwrap().history];
    for other in [
        "UPDATE ledger SET id = gen_random_uuid()",
        "BEGIN; ALTER TABLE ledger RENAME TO gone; CREATE TABLE ledger (LIKE gone INCLUDING ALL);
         INSERT INTO ledger SELECT * FROM gone; DROP TABLE gone; COMMIT",
    ] {
        beside.execute(other).await.unwrap();
        let load = connect(&database).await.load_table(None).await.unwrap();
        assert!(!histories.contains(&load.history), "{histories:?}, {load:?}");
        histories.push(load.history);
    }
}

#[tokio::test]
async fn what_only_a_newer_release_knows_is_passed_over_and_counted() {
    let Some(database) = database().await else { return };
    let (ledger, mut beside) = (connect(&database).await, raw(&database).await);
    let put = vec![endpoint_row("a", "1", EndpointState::Active)];
    let before = ledger.publish_table(TableChange { put, drop: vec![] }, None).await.unwrap();
    ledger.beat(heartbeat(1)).await.unwrap();
    let newer = "UPDATE ledger SET table_version = 2;
        INSERT INTO routes (kind, id, version, content) VALUES (9, gen_random_uuid(), 2, '{}');
        INSERT INTO routes (kind, id, version, dropped_at) VALUES (9, gen_random_uuid(), 2, now());
        INSERT INTO dispatchers (instance, table_version, beating_since, last_seen, role)
            VALUES (gen_random_uuid(), 2, now(), now(), 'archive')";
    beside.execute(newer).await.unwrap();
    for (since, rows) in [(None, 1), (Some(before), 0)] {
        let load = ledger.load_table(since).await.unwrap();
        assert_eq!((load.rows.len(), load.dropped.len(), load.unknown_count), (rows, 0, 1), "{load:?}");
    }
    assert_eq!(ledger.dispatchers(HOUR).await.unwrap().len(), 1);
}
