//! The clock of one process jumps. Time is an argument of the ledger's client, so this one process is the library in the
//! test's own process: no process has a wall clock for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use dispatcher::clock::now_unix_ms;
use dispatcher::ledger::DispatcherRole;
use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher::queue::rabbitmq::{RabbitConfig, RabbitQueue};
use dispatcher::service::{RunningService, Service, ServiceConfig, Tenure};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::table::DEFAULT_POOL;
use e2e::distributed::{Distributed, Load, Producer, Recovery, Row};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::support::{Bed, IN_FLIGHT, bounds};

const HOUR_MS: i64 = 3_600_000;
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

fn wrong_clock() -> u64 {
    now_unix_ms().saturating_add_signed(AHEAD_MS.load(Ordering::Relaxed))
}

/// A process of both roles whose clock is [`wrong_clock`].
async fn start(system: &Distributed, shutdown: CancellationToken) -> (RunningService, Arc<RabbitQueue>) {
    let config = PostgresConfig { wall_clock: wrong_clock, ..PostgresConfig::new(system.database_url()) };
    let ledger = Arc::new(PostgresLedger::connect(config).await.unwrap());
    let config = RabbitConfig { pools: vec![DEFAULT_POOL.to_owned()], ..RabbitConfig::new(system.queue_url()) };
    let queue = Arc::new(RabbitQueue::connect(config).await.unwrap());
    let config = ServiceConfig {
        role: DispatcherRole::All,
        tenure: Tenure::Shared(Arc::clone(&ledger)),
        ..ServiceConfig::new(ledger, Arc::clone(&queue) as _, system.sealing_key(), AddressPolicy::development())
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    (Service::start(config, listener, None, shutdown).await.unwrap(), queue)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_of_one_process_jumps_an_hour_and_back() {
    let Some(bed) = Bed::shared().await else { return };
    let system = &bed.system;
    let bounds = bounds(IN_FLIGHT, Recovery::AfterLease);
    let mut row = Row::begin("the_clock_of_one_process_jumps_an_hour_and_back", system, bounds).unwrap();
    let (ingest, _deliver) = (system.ingest().await.unwrap(), system.deliver().await.unwrap());
    let shutdown = CancellationToken::new();
    let (service, queue) = start(system, shutdown.clone()).await;
    let producer = Producer::start(&[ingest.api(), service.address], Load::STEADY);
    for ahead_ms in [HOUR_MS, 0, -HOUR_MS, 0] {
        producer.further_acknowledged(150).await.unwrap();
        AHEAD_MS.store(ahead_ms, Ordering::Relaxed);
        producer.further_acknowledged(150).await.unwrap();
        row.recovers(&producer.acknowledged()).await.unwrap();
    }
    let acknowledged = producer.stop().await.unwrap();
    shutdown.cancel();
    service.join.await.unwrap().unwrap();
    queue.close().await;
    row.conclude(&acknowledged).await.unwrap();
}
