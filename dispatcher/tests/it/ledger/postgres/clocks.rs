//! Processes whose clocks are wrong.

use std::sync::Arc;

use dispatcher::clock::now_unix_ms;
use dispatcher::ledger::Ledger;
use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher_core::delivery::DeliveryState;
use dispatcher_core::id::EventId;
use testbed::TestDatabase;

use super::{config, database, raw};
use crate::api::harness::{Options, World};
use crate::deliver::harness::{self, Process, Receiver, eventually};
use crate::ledger::conformance::dispatchers::heartbeat;

const HOUR_MS: u64 = 60 * 60 * 1000;

/// An hour wrong, and by more than there are partitions.
const WRONG_CLOCKS: [fn() -> u64; 4] = [
    || now_unix_ms() + HOUR_MS,
    || now_unix_ms() - HOUR_MS,
    || now_unix_ms() + 10 * 24 * HOUR_MS,
    || now_unix_ms() - 10 * 24 * HOUR_MS,
];

/// One process accepts and another delivers, both by the same wrong clock. Answers the database that they worked on.
async fn assert_works_by(wall_clock: fn() -> u64) -> Option<TestDatabase> {
    let database = database().await?;
    let config = PostgresConfig { wall_clock, ..config(&database) };
    let ledger: Arc<dyn Ledger> = Arc::new(PostgresLedger::connect(config).await.unwrap());
    let receiver = Receiver::start(204).await;
    let accepting = World::start_with(Options::default(), |_| Arc::clone(&ledger)).await;
    let delivering = Process::start_before(Vec::new(), harness::config(), |_| Arc::clone(&ledger)).await;
    delivering.put(vec![harness::endpoint("billing", &receiver.url, harness::policy())]).await;
    delivering.subscribe("orders", None).await;

    let event: EventId = accepting.publish("order.created", "{}").await.parse().unwrap();
    assert!(event.unix_ms().abs_diff(now_unix_ms()) < 60_000, "the identity carries the ledger's time");
    let billed = |page: &dispatcher::ledger::Page<dispatcher::ledger::DeliveryRecord>| {
        page.rows.iter().any(|row| row.state == DeliveryState::Delivered)
    };
    eventually("it is delivered", async || {
        let query = dispatcher::ledger::DeliveryQuery { rows_max: 10, ..Default::default() };
        billed(&ledger.deliveries(harness::tenant(), query).await.unwrap())
    })
    .await;
    assert_eq!(receiver.count(), 1);

    let mut beside = raw(&database).await;
    for outside in [
        "SELECT count(*) FROM events_default",
        "SELECT count(*) FROM deliveries_default",
        "SELECT count(*) FROM attempts_default",
    ] {
        let rows: i64 = sqlx::query_scalar(outside).fetch_one(&mut beside).await.unwrap();
        assert_eq!(rows, 0, "{outside}");
    }
    let beat = ledger.beat(heartbeat(1)).await.unwrap();
    let really_ms = now_unix_ms().checked_signed_diff(wall_clock()).unwrap();
    assert!(beat.clock_offset_ms.abs_diff(really_ms) < 60_000, "and the process is told: {beat:?}");
    Some(database)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_clock_is_wrong_accepts_and_delivers_by_the_ledgers_clock() {
    // Dropped when all are done: that blocks until the server has dropped it, and with this thread whoever of the others
    // is about to connect.
    let databases = futures::future::join_all(WRONG_CLOCKS.map(assert_works_by)).await;
    drop(databases);
}
