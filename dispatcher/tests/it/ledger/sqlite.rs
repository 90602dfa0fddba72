//! The embedded ledger: the shared suites, and what only a file can do.

use std::sync::Arc;

use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::ledger::{Ledger, LedgerError};
use dispatcher_core::delivery::DeliveryState;
use tempfile::TempDir;

use super::support::{HOUR, accept, assert_balanced, delivered, delivery, new_event, part_change, record, state};

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
