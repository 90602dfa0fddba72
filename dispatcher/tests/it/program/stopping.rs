//! How a process stops: what is in flight ends or is given back, within the time that there is.

use std::net::SocketAddr;

use rustix::process::Signal;
use sqlx::{Connection, Executor, PgConnection};

use super::harness::{Program, World, delivered, publish};
use crate::deliver::harness::{Receiver, eventually};

/// One process that does all, and was told to stop while its one delivery is not answered.
async fn stopping_in_flight(world: &World, receiver: &Receiver, drain_seconds: &str) -> Program {
    let mut program = world.start("all", &["--drain-seconds", drain_seconds]);
    let address = program.address("api").await;
    program.ready().await;
    assert_eq!(publish(address, "order.created", 1).await.0, 202);
    eventually("it is sent", || async { receiver.count() == 1 }).await;
    program.signal(Signal::TERM);
    program.finds("serving", "stopping").await;
    program
}

/// A process that delivers, and beside it one that accepts events at this address.
async fn apart(world: &World, drain_seconds: &str) -> (Program, Program, SocketAddr) {
    let mut ingest = world.start("ingest", &[]);
    let mut deliver = world.start("deliver", &["--drain-seconds", drain_seconds]);
    let address = ingest.address("api").await;
    ingest.ready().await;
    deliver.ready().await;
    (deliver, ingest, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_may_end_before_the_process_does() {
    let Some((world, ledger, receiver)) = World::with_receiver(0).await else { return };
    let mut program = stopping_in_flight(&world, &receiver, "60").await;
    receiver.answer(200);
    let ended = program.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    delivered(&ledger, 1).await;
    assert_eq!(receiver.count(), 1, "it was not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_in_time_is_given_back_and_another_process_delivers_it() {
    let Some((world, ledger, receiver)) = World::with_receiver(0).await else { return };
    let (mut program, _ingest, address) = apart(&world, "8").await;
    for number in 0..3 {
        assert_eq!(publish(address, "order.created", number).await.0, 202);
    }
    eventually("they are sent", || async { receiver.count() == 3 }).await;
    program.signal(Signal::TERM);
    let ended = program.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    receiver.answer(200);
    let mut other = world.start("deliver", &[]);
    other.ready().await;
    delivered(&ledger, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_at_once() {
    let Some((world, _ledger, receiver)) = World::with_receiver(0).await else { return };
    let mut program = stopping_in_flight(&world, &receiver, "3600").await;
    program.signal(Signal::INT);
    let ended = program.end().await;
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(ended.stderr.contains("unfinished=1"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_does_not_answer_does_not_hold_a_stop_beyond_its_time() {
    let Some((world, ledger, receiver)) = World::with_receiver(200).await else { return };
    let (mut program, _ingest, address) = apart(&world, "3").await;
    let mut beside = PgConnection::connect(world.database.url()).await.unwrap();
    let mut lock = beside.begin().await.unwrap();
    lock.execute("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE").await.unwrap();
    assert_eq!(publish(address, "order.created", 1).await.0, 202);
    eventually("it is sent", || async { receiver.count() >= 1 }).await;
    program.signal(Signal::TERM);
    let ended = program.end().await;
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert!(ended.stderr.contains("unfinished=1"), "{}", ended.stderr);
    lock.rollback().await.unwrap();
    let mut other = world.start("deliver", &[]);
    other.ready().await;
    delivered(&ledger, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_received_is_still_answered() {
    let Some((world, ledger, _receiver)) = World::with_receiver(200).await else { return };
    let mut ingest = world.start("ingest", &["--drain-seconds", "60"]);
    let address = ingest.address("api").await;
    ingest.ready().await;
    let mut beside = PgConnection::connect(world.database.url()).await.unwrap();
    let mut lock = beside.begin().await.unwrap();
    lock.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let waiting = tokio::spawn(async move { publish(address, "order.created", 1).await.0 });
    eventually("the commit waits for the lock", || async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass";
        let mut third = PgConnection::connect(world.database.url()).await.unwrap();
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut third).await.unwrap() > 0
    })
    .await;
    ingest.signal(Signal::TERM);
    ingest.finds("serving", "stopping").await;
    lock.rollback().await.unwrap();
    assert_eq!(waiting.await.unwrap(), 202);
    let ended = ingest.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let balances = ledger.balance().await.unwrap();
    assert_eq!(balances.iter().map(|balance| balance.accepted).sum::<u64>(), 1);
}
