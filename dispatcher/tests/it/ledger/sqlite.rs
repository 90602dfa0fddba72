//! The embedded ledger: the shared suites, and what only a file can do.

use std::sync::Arc;
use std::time::Duration;

use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::ledger::{Ledger, LedgerError};
use dispatcher::metrics::Metrics;
use dispatcher::snapshot::SnapshotLoader;
use dispatcher_core::delivery::DeliveryState;
use dispatcher_core::limits::SNAPSHOT_POLL_INTERVAL_EMBEDDED;
use dispatcher_core::table::{EndpointState, RowKey, TableChange};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::conformance::dispatchers::heartbeat;
use super::support::{
    HOUR, accept, assert_balanced, delivered, delivery, endpoint, endpoint_row, new_event, part_change, record, state,
};
use crate::deliver::harness::sealing_key;

async fn open() -> (Arc<dyn Ledger>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open_in(folder.path()).await.unwrap();
    (Arc::new(ledger), folder)
}

super::conformance::conformance_suite!(open);
super::model::model_suite!(open);

#[tokio::test]
async fn what_was_committed_is_there_after_the_file_is_opened_again() {
    let (ledger, folder) = open().await;
    let (done, open_one) = (new_event(&["a"], HOUR), new_event(&["a", "b"], HOUR));
    accept(&ledger, &done).await;
    accept(&ledger, &open_one).await;
    record(&ledger, part_change(&done, 0, 1, &delivered(1))).await;
    drop(ledger);
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(folder.path()).await.unwrap());
    assert_eq!(state(&ledger, delivery(&done, "a")).await, Some(DeliveryState::Delivered));
    assert_eq!(state(&ledger, delivery(&open_one, "b")).await, Some(DeliveryState::Open));
    assert_balanced(&ledger).await;
}

#[tokio::test]
async fn two_processes_may_share_the_file() {
    let (first, folder) = open().await;
    let second: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(folder.path()).await.unwrap());
    let events: Vec<_> = (0..20).map(|_| new_event(&["a"], HOUR)).collect();
    let (ours, theirs) = events.split_at(10);
    let write = async |ledger: &Arc<dyn Ledger>, events: &[_]| {
        for new in events {
            accept(ledger, new).await;
        }
    };
    tokio::join!(write(&first, ours), write(&second, theirs));
    assert_eq!(first.balance().await.unwrap()[0].accepted, 20);
    assert_eq!(second.balance().await.unwrap()[0].accepted, 20);
}

#[tokio::test]
async fn what_one_process_publishes_while_another_works_is_loaded_there_without_a_word() {
    let (working, folder) = open().await;
    let control: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(folder.path()).await.unwrap());
    let metrics = Arc::new(Metrics::new());
    let start = SnapshotLoader::start(Arc::clone(&working), Arc::new(sealing_key()), Arc::default(), metrics);
    let (loader, mut snapshot) = start.await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(loader.polling_each(SNAPSHOT_POLL_INTERVAL_EMBEDDED).run(stop.clone()));
    let accepting = async {
        loop {
            accept(&working, &new_event(&["a"], HOUR)).await;
        }
    };
    let publishing = async {
        for epoch in 1..=20 {
            let name = format!("e{epoch}");
            let put = vec![endpoint_row(&name, "1", EndpointState::Active)];
            control.publish_table(TableChange { put, drop: vec![] }, Some(epoch)).await.unwrap();
            let arrived = snapshot.wait_for(|snapshot| snapshot.index.endpoint(endpoint(&name)).is_some());
            drop(tokio::time::timeout(Duration::from_mins(1), arrived).await.expect("it is loaded").unwrap());
        }
    };
    tokio::select! {
        () = accepting => {}
        () = publishing => {}
    }
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_file_of_a_newer_release_is_refused_with_a_hint() {
    let (ledger, folder) = open().await;
    drop(ledger);
    let path = folder.path().join("ledger.sqlite");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (999, 'newer', true, x'00', 0)";
    sqlx::query(newer).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let error = SqliteLedger::open(&path).await.err();
    assert!(matches!(error, Some(LedgerError::Schema { found: 999, .. })), "{error:?}");
}

#[tokio::test]
async fn what_was_dropped_long_ago_is_forgotten_and_older_readers_load_all() {
    let (ledger, folder) = open().await;
    let put = |name: &str| vec![endpoint_row(name, "1", EndpointState::Active)];
    ledger.publish_table(TableChange { put: put("a"), drop: vec![] }, None).await.unwrap();
    let before = ledger.publish_table(TableChange { put: put("b"), drop: vec![] }, None).await.unwrap();
    let drop = vec![RowKey::Endpoint(endpoint("a"))];
    let after = ledger.publish_table(TableChange { put: vec![], drop }, None).await.unwrap();
    ledger.maintain(30 * 24 * HOUR).await.unwrap();
    assert_eq!(ledger.load_table(Some(before)).await.unwrap().dropped, [RowKey::Endpoint(endpoint("a"))]);

    let mut beside = beside(&folder).await;
    for long_ago in
        ["UPDATE routes SET dropped_at = 1 WHERE row IS NULL", "UPDATE lanes SET dropped_at = 1 WHERE dropped_at > 0"]
    {
        sqlx::query(long_ago).execute(&mut beside).await.unwrap();
    }
    ledger.maintain(30 * 24 * HOUR).await.unwrap();
    for table in ["SELECT count(*) FROM routes", "SELECT count(*) FROM lanes"] {
        let left: i64 = sqlx::query_scalar(table).fetch_one(&mut beside).await.unwrap();
        assert_eq!(left, 1, "{table}");
    }
    let load = ledger.load_table(Some(before)).await.unwrap();
    assert!(load.complete && load.rows.len() == 1 && load.dropped.is_empty(), "{load:?}");
    assert!(!ledger.load_table(Some(after)).await.unwrap().complete, "nothing has changed since");
}

async fn beside(folder: &TempDir) -> sqlx::SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.path().join("ledger.sqlite"));
    sqlx::ConnectOptions::connect(&options).await.unwrap()
}

#[tokio::test]
async fn the_table_of_another_ledger_replaces_all_that_was_known() {
    let (ledger, folder) = open().await;
    let put = |name: &str| TableChange { put: vec![endpoint_row(name, "1", EndpointState::Active)], drop: vec![] };
    ledger.publish_table(put("a"), None).await.unwrap();
    let (changed, metrics) = (Arc::new(Notify::new()), Arc::new(Metrics::new()));
    let (loader, mut snapshot) =
        SnapshotLoader::start(Arc::clone(&ledger), Arc::new(sealing_key()), Arc::clone(&changed), metrics)
            .await
            .unwrap();
    assert!(snapshot.borrow().index.endpoint(endpoint("a")).is_some());

    // It never had the endpoint, and has come past the version that is known.
    let other = "DELETE FROM routes; UPDATE ledger SET id = randomblob(16), table_version = table_version + 2";
    sqlx::raw_sql(other).execute(&mut beside(&folder).await).await.unwrap();
    ledger.publish_table(put("b"), None).await.unwrap();
    let running = tokio::spawn(loader.run(CancellationToken::new()));
    changed.notify_one();
    let arrived = snapshot.wait_for(|snapshot| snapshot.index.endpoint(endpoint("b")).is_some());
    let table = tokio::time::timeout(Duration::from_mins(2), arrived).await.expect("it is loaded").unwrap();
    assert!(table.index.endpoint(endpoint("a")).is_none(), "no ghost is left");
    running.abort();
}

#[tokio::test]
async fn what_only_a_newer_release_knows_is_passed_over_and_counted() {
    let (ledger, folder) = open().await;
    let put = vec![endpoint_row("a", "1", EndpointState::Active)];
    let before = ledger.publish_table(TableChange { put, drop: vec![] }, None).await.unwrap();
    ledger.beat(heartbeat(1)).await.unwrap();
    let newer = "UPDATE ledger SET table_version = 2;
        INSERT INTO routes (kind, id, version, row) VALUES (9, randomblob(16), 2, '{}');
        INSERT INTO routes (kind, id, version, dropped_at) VALUES (9, randomblob(16), 2, 1);
        INSERT INTO dispatchers SELECT randomblob(16), 'archive', pool, table_version, beating_since, last_seen
            FROM dispatchers";
    sqlx::raw_sql(newer).execute(&mut beside(&folder).await).await.unwrap();
    for (since, rows) in [(None, 1), (Some(before), 0)] {
        let load = ledger.load_table(since).await.unwrap();
        assert_eq!((load.rows.len(), load.dropped.len(), load.unknown_count), (rows, 0, 1), "{load:?}");
    }
    assert_eq!(ledger.dispatchers(HOUR).await.unwrap().len(), 1);
    let metrics = Arc::new(Metrics::new());
    let (_, snapshot) = SnapshotLoader::start(ledger, Arc::new(sealing_key()), Arc::default(), metrics).await.unwrap();
    assert_eq!(snapshot.borrow().problems_count, 2, "beside an endpoint whose secrets do not open");
}

#[tokio::test]
async fn a_cancelled_write_leaves_nothing_behind_and_does_not_block() {
    let (ledger, _folder) = open().await;
    let cancelled = new_event(&["a"], HOUR);
    for polls in 1..12 {
        let mut write = ledger.accept(vec![cancelled.clone()]);
        for _ in 0..polls {
            // Each poll may bring it a statement further; then it is dropped wherever it stands.
            if futures::poll!(&mut write).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(write);
        let next = new_event(&["a"], HOUR);
        accept(&ledger, &next).await;
        assert_eq!(state(&ledger, delivery(&next, "a")).await, Some(DeliveryState::Open));
        assert_balanced(&ledger).await;
    }
}
