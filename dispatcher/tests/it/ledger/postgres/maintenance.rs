//! Partitions and retention.

use std::sync::Arc;
use std::time::Duration;

use dispatcher::ledger::Ledger;
use dispatcher_core::delivery::{DeliveryState, EndReason, split_into_parts};
use dispatcher_core::id::EventId;
use dispatcher_core::limits::ATTEMPTS_READ_MAX;
use dispatcher_core::table::{EndpointState, RowKey, TableChange};
use sqlx::{AssertSqlSafe, Executor, PgConnection};

use super::{connect, database, raw};
use crate::ledger::support::*;

const DAY: Duration = Duration::from_hours(24);

/// Makes a day's partitions, given by the day's first millisecond, as maintenance made them in its time.
async fn make_day(connection: &mut PgConnection, name: &str, first_ms: u64) {
    let bound = |ms: u64| uuid::Uuid::from_u128(u128::from(ms) << 80);
    let (first, end) = (bound(first_ms), bound(first_ms + 86_400_000));
    for table in ["events", "deliveries", "attempts"] {
        let statement =
            format!("CREATE TABLE {table}_{name} PARTITION OF {table} FOR VALUES FROM ('{first}') TO ('{end}')");
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
    }
}

async fn number(connection: &mut PgConnection, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement).fetch_one(connection).await.unwrap()
}

/// An event of this moment.
fn event_of_now(random: u8) -> dispatcher::ledger::NewEvent {
    let id = EventId::from_parts(dispatcher::clock::now_unix_ms(), [random; 10]);
    event_of(shop(), id, split_into_parts(vec![(POOL.to_owned(), target("a"))]), HOUR)
}

#[tokio::test]
async fn partitions_are_made_ahead_and_take_the_rows_of_their_days() {
    let Some(database) = database().await else { return };
    let (maintained, mut beside) = (connect(&database).await, raw(&database).await);
    assert_eq!(maintained.maintain(30 * DAY).await.unwrap().days_made, 0, "migration has made them");
    let ledger: Arc<dyn Ledger> = Arc::new(connect(&database).await);
    let new = event_of_now(1);
    accept(&ledger, &new).await;
    record(&ledger, part_change(&new, 0, 1, &delivered(1))).await;
    for statement in [
        "SELECT count(*) FROM events_default",
        "SELECT count(*) FROM deliveries_default",
        "SELECT count(*) FROM attempts_default",
    ] {
        assert_eq!(number(&mut beside, statement).await, 0);
    }
    let days = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'attempts'::regclass";
    assert_eq!(number(&mut beside, days).await, 1 + 9, "the default, yesterday, today, seven days ahead");
}

#[tokio::test]
async fn rows_that_came_before_their_partition_move_into_it() {
    let Some(database) = database().await else { return };
    let (maintained, mut beside) = (connect(&database).await, raw(&database).await);
    let drop_days = "DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhrelid::regclass::text ~ '_[0-9]{8}$'
            AND inhparent IN ('events'::regclass, 'deliveries'::regclass, 'attempts'::regclass)
        LOOP EXECUTE 'DROP TABLE ' || name; END LOOP; END $$";
    beside.execute(drop_days).await.unwrap();
    let ledger: Arc<dyn Ledger> = Arc::new(connect(&database).await);
    let (done, open_one) = (event_of_now(1), event_of_now(2));
    accept(&ledger, &done).await;
    accept(&ledger, &open_one).await;
    record(&ledger, part_change(&done, 0, 1, &delivered(1))).await;
    assert_eq!(number(&mut beside, "SELECT count(*) FROM events_default").await, 2);
    let made = maintained.maintain(30 * DAY).await.unwrap();
    assert_eq!((made.days_made, made.events_outside), (9, 0));
    assert_balanced(&ledger).await;
    assert_eq!(state(&ledger, delivery(&done, "a")).await, Some(DeliveryState::Delivered));
    assert_eq!(ledger.attempts(shop(), delivery(&done, "a"), ATTEMPTS_READ_MAX).await.unwrap().len(), 1);
    assert_eq!(
        record(&ledger, part_change(&open_one, 0, 1, &delivered(1))).await,
        dispatcher::ledger::Recorded::Applied
    );
}

#[tokio::test]
async fn an_old_day_is_ended_and_dropped_and_a_young_one_stays() {
    let Some(database) = database().await else { return };
    let (maintained, mut beside) = (connect(&database).await, raw(&database).await);
    // The events of these tests are of the evening of 2023-11-14.
    make_day(&mut beside, "20231114", 1_699_920_000_000).await;
    let ledger: Arc<dyn Ledger> = Arc::new(connect(&database).await);
    let delivered_one = new_event(&["a"], HOUR);
    accept(&ledger, &delivered_one).await;
    record(&ledger, part_change(&delivered_one, 0, 1, &delivered(1))).await;
    accept(&ledger, &new_event(&["a", "b"], HOUR)).await;
    waiting(&ledger, "c", HOUR).await;
    let young = event_of_now(3);
    accept(&ledger, &young).await;

    let kept = maintained.maintain(10_000 * DAY).await.unwrap();
    assert_eq!((kept.days_dropped, kept.deliveries_ended), (0, 0));
    let dropped = maintained.maintain(30 * DAY).await.unwrap();
    assert_eq!((dropped.days_dropped, dropped.deliveries_ended, dropped.events_outside), (1, 3, 0));
    assert_balanced(&ledger).await;
    assert_eq!(ledger.balance().await.unwrap()[0].accepted, 1);
    assert_eq!(state(&ledger, delivery(&young, "a")).await, Some(DeliveryState::Open));
    assert_eq!(state(&ledger, delivery(&delivered_one, "a")).await, None);
    assert_eq!(number(&mut beside, "SELECT count(*) FROM due").await, 0);
}

#[tokio::test]
async fn what_was_dropped_long_ago_is_forgotten_and_older_readers_load_all() {
    let Some(database) = database().await else { return };
    let (ledger, mut beside) = (connect(&database).await, raw(&database).await);
    let put = |name: &str| vec![endpoint_row(name, "1", EndpointState::Active)];
    ledger.publish_table(TableChange { put: put("a"), drop: vec![] }, None).await.unwrap();
    let before = ledger.publish_table(TableChange { put: put("b"), drop: vec![] }, None).await.unwrap();
    let drop = vec![RowKey::Endpoint(endpoint("a"))];
    let after = ledger.publish_table(TableChange { put: vec![], drop }, None).await.unwrap();
    ledger.maintain(30 * DAY).await.unwrap();
    assert_eq!(ledger.load_table(Some(before)).await.unwrap().dropped, [RowKey::Endpoint(endpoint("a"))]);

    for table in ["UPDATE routes", "UPDATE lanes"] {
        let long_ago = format!("{table} SET dropped_at = now() - interval '1 year' WHERE dropped_at IS NOT NULL");
        beside.execute(AssertSqlSafe(long_ago)).await.unwrap();
    }
    ledger.maintain(30 * DAY).await.unwrap();
    for table in ["SELECT count(*) FROM routes", "SELECT count(*) FROM lanes"] {
        assert_eq!(number(&mut beside, table).await, 1, "{table}");
    }
    let load = ledger.load_table(Some(before)).await.unwrap();
    assert!(load.complete && load.rows.len() == 1 && load.dropped.is_empty(), "{load:?}");
    assert!(!ledger.load_table(Some(after)).await.unwrap().complete, "nothing has changed since");
}

#[tokio::test]
async fn what_is_too_old_and_unfinished_is_dead_with_its_reason() {
    let Some(database) = database().await else { return };
    let (maintained, mut beside) = (connect(&database).await, raw(&database).await);
    make_day(&mut beside, "20231114", 1_699_920_000_000).await;
    let ledger: Arc<dyn Ledger> = Arc::new(connect(&database).await);
    let (in_outbox, retried) = (new_event(&["a"], HOUR), waiting(&ledger, "b", HOUR).await);
    accept(&ledger, &in_outbox).await;
    // A reader who is in the middle of the day keeps it from being dropped, not from being ended.
    beside.execute("BEGIN").await.unwrap();
    assert_eq!(number(&mut beside, "SELECT count(*) FROM deliveries_20231114").await, 1);
    let blocked = maintained.maintain(30 * DAY).await;
    assert!(matches!(blocked, Err(dispatcher::ledger::LedgerError::Unavailable(_))), "{blocked:?}");
    for (new, name) in [(&in_outbox, "a"), (&retried, "b")] {
        let shown = show(&ledger, delivery(new, name)).await;
        assert_eq!((shown.state, shown.reason), (DeliveryState::Dead, Some(EndReason::Retention)));
    }
    beside.execute("ROLLBACK").await.unwrap();
    assert_eq!(maintained.maintain(30 * DAY).await.unwrap().days_dropped, 1);
    assert!(ledger.balance().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_many_statements_keeps_a_day_without_harm_and_the_other_steps_are_taken() {
    let Some(database) = database().await else { return };
    let (maintained, mut reader, mut beside) = (connect(&database).await, raw(&database).await, raw(&database).await);
    make_day(&mut beside, "20231114", 1_699_920_000_000).await;
    let columns = "INSERT INTO endpoint_statistics (endpoint, minute, bucket, attempts, succeeded)
                   VALUES ('00000000-0000-0000-0000-000000000001', 1, 0, 1, 1)";
    beside.execute(columns).await.unwrap();
    reader.execute("BEGIN; LOCK TABLE ONLY deliveries, attempts, events IN ACCESS SHARE MODE").await.unwrap();
    let maintenance = tokio::spawn(async move { (maintained.maintain(30 * DAY).await, maintained) });
    while !maintenance.is_finished() {
        // Whoever is in a table must never wait for a partition of it: the day waits for the tables first.
        let days = "BEGIN; LOCK TABLE ONLY events_20231114, deliveries_20231114, attempts_20231114
                               IN ACCESS SHARE MODE NOWAIT; COMMIT";
        beside.execute(days).await.unwrap();
    }
    let (blocked, maintained) = maintenance.await.unwrap();
    let message = blocked.unwrap_err().to_string();
    assert!(message.contains("55P03"), "it gave way: {message}");
    assert_eq!(number(&mut beside, "SELECT count(*) FROM endpoint_statistics").await, 0, "the last step was taken");
    reader.execute("ROLLBACK").await.unwrap();
    assert_eq!(maintained.maintain(30 * DAY).await.unwrap().days_dropped, 1);
}
