//! The clock of some processes jumps, and those beside them go by another one.

use dispatcher::clock::now_unix_ms;
use e2e::distributed::{Answer, Load, Process, Producer, Recovery, Role, Row, until};
use testbed::WallClock;

use super::support::{Bed, IN_FLIGHT, bounds};

const HOUR_SECONDS: i32 = 3_600;
/// How far the time of an event may lie from ours.
const MINUTE_MS: u64 = 60_000;

/// By how many seconds the ledger's clock is ahead, as the process sees it.
const OFFSET: &str = "harborhook_clock_offset_seconds";
/// Answers of receivers that want to be left alone for a while.
const REFUSED: &str = "harborhook_attempts_total{outcome=\"http_5xx\"}";

/// Returns when a process has found out that its clock is so many seconds ahead.
async fn has_jumped(process: &Process, ahead_seconds: i32) {
    until("the process's clock has jumped", async || {
        let offset = process.metric(OFFSET).await?;
        Ok(offset.is_some_and(|offset| (offset + f64::from(ahead_seconds)).abs() < 1.0))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_of_one_process_jumps_an_hour_and_back() {
    let Some(bed) = Bed::shared().await else { return };
    let system = &bed.system;
    let bounds = bounds(IN_FLIGHT, Recovery::AfterLease);
    let mut row = Row::begin("the_clock_of_one_process_jumps_an_hour_and_back", system, bounds).unwrap();
    let clock = WallClock::new().unwrap();
    let start_by_clock = async |role| {
        let mut command = system.command(role, system.database_url(), system.queue_url()).unwrap();
        command.envs(clock.environment());
        system.start_command(command, role).await.unwrap()
    };
    let (ingest, _deliver) = (system.ingest().await.unwrap(), system.deliver().await.unwrap());
    let (jumping_ingest, jumping_deliver) = (start_by_clock(Role::Ingest).await, start_by_clock(Role::Deliver).await);
    let producer = Producer::start(&[ingest.api(), jumping_ingest.api()], Load::STEADY);
    for ahead_seconds in [HOUR_SECONDS, 0, -HOUR_SECONDS, 0] {
        producer.further_acknowledged(150).await.unwrap();
        // A pause that somebody asks for is over when it is, whatever the clock says by then.
        let refused = jumping_deliver.metric(REFUSED).await.unwrap();
        system.receiver.answers(Answer::busy());
        until("a pause is asked for", async || Ok(jumping_deliver.metric(REFUSED).await? > refused)).await.unwrap();
        system.receiver.answers(Answer::ok());
        clock.set_ahead(ahead_seconds.into()).unwrap();
        for process in [&jumping_ingest, &jumping_deliver] {
            has_jumped(process, ahead_seconds).await;
        }
        producer.further_acknowledged(150).await.unwrap();
        row.recovers(&producer.acknowledged()).await.unwrap();
    }
    let published = producer.stop().await.unwrap();
    let is_of_another_time = |at_unix_ms: u64| at_unix_ms.abs_diff(now_unix_ms()) > 10 * MINUTE_MS;
    let wrong = published.acknowledged.values().filter(|event| is_of_another_time(event.unix_ms())).count();
    assert_eq!(wrong, 0, "events have the time of a clock that was wrong");
    row.conclude(&published).await.unwrap();
}
