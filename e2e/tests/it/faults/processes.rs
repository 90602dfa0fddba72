//! Processes that are killed, stopped, and restarted one after another.

use std::time::Duration;

use e2e::distributed::{Answer, Arrivals, Bounds, Broker, Load, Producer, Recovery, Routes, Row, Sees, until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sqlx::{Connection, Executor, PgConnection};

use super::support::{Bed, HELD, IN_FLIGHT, SEED, bounds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingest_is_killed_in_mid_batch() {
    const KILLS: usize = 4;
    let Some(bed) = Bed::shared().await else { return };
    let system = &bed.system;
    let bounds = Bounds { producer: Sees::BrokenConnections, ..bounds(IN_FLIGHT, Recovery::AfterLease) };
    let mut row = Row::begin("ingest_is_killed_in_mid_batch", system, bounds).unwrap();
    let _deliver = system.deliver().await.unwrap();
    let mut ingest = system.ingest().await.unwrap();
    let producer = Producer::start(&[ingest.api()], Load::BURST);
    let mut random = StdRng::seed_from_u64(SEED);
    for _ in 0..KILLS {
        producer.further_acknowledged(random.random_range(100..400)).await.unwrap();
        ingest.kill().await.unwrap();
        // Those that it was working on.
        producer.further_failures(1).await.unwrap();
        ingest = system.ingest().await.unwrap();
        producer.aim_at(&[ingest.api()]);
        row.recovers(&producer.acknowledged()).await.unwrap();
    }
    row.conclude(&producer.stop().await.unwrap()).await.unwrap();
}

/// The commit is held by a lock on the table that it writes: readers, and so the balance, are not.
async fn hold_commits(database_url: &str) -> PgConnection {
    let mut connection = PgConnection::connect(database_url).await.unwrap();
    connection.execute("BEGIN; LOCK TABLE deliveries IN SHARE ROW EXCLUSIVE MODE").await.unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_is_killed_after_the_answer_and_before_the_commit() {
    let Some(bed) = Bed::shared().await else { return };
    let system = &bed.system;
    let bounds = bounds(HELD, Recovery::AfterLease);
    let mut row = Row::begin("a_dispatcher_is_killed_after_the_answer_and_before_the_commit", system, bounds).unwrap();
    let (ingest, deliver) = (system.ingest().await.unwrap(), system.deliver().await.unwrap());
    let mut lock = hold_commits(system.database_url()).await;
    let producer = Producer::start(&[ingest.api()], Load::STEADY);
    system.receiver.until("some are answered", |arrivals| arrivals.taken.len() >= 100).await.unwrap();
    until("a commit waits", async || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'deliveries'::regclass";
        Ok(sqlx::query_scalar::<_, i64>(waiting).fetch_one(row.pool()).await? > 0)
    })
    .await
    .unwrap();
    let published = producer.stop().await.unwrap();
    deliver.kill().await.unwrap();
    // Whoever still waits works for a process that is gone.
    let orphans =
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation = 'deliveries'::regclass";
    lock.execute(orphans).await.unwrap();
    lock.execute("ROLLBACK").await.unwrap();
    assert_eq!(row.balance().await.unwrap().delivered, 0, "something was committed");
    let answered = system.receiver.taken();
    let broker = Broker::connect(system.queue_url()).await.unwrap();
    let [fresh, _] = Broker::queues();
    until("what was not acknowledged is back in the queue", async || Ok(broker.waiting(&fresh).await? > 0))
        .await
        .unwrap();
    let _deliver = system.deliver().await.unwrap();
    row.recovers(&published.acknowledged).await.unwrap();
    row.conclude(&published).await.unwrap();
    let copies = system.receiver.look(Arrivals::copies);
    assert!(copies >= answered, "{answered} were answered and not committed, and only {copies} came again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_is_stopped_past_its_lease_and_goes_on() {
    const IN_FLIGHT_EACH: u32 = 4;
    let narrow = |routes| Routes { max_in_flight: IN_FLIGHT_EACH, ..routes };
    let Some(bed) = Bed::with_routes(narrow).await else { return };
    let system = &bed.system;
    let bounds = bounds(IN_FLIGHT, Recovery::AfterHeartbeats);
    let mut row = Row::begin("a_dispatcher_is_stopped_past_its_lease_and_goes_on", system, bounds).unwrap();
    let ingest = system.ingest().await.unwrap();
    let (stopped, _other) = (system.deliver().await.unwrap(), system.deliver().await.unwrap());
    // Slower than events come, so that both hold work that they have not sent.
    system.receiver.answers(Answer::late(Duration::from_millis(60)));
    let producer = Producer::start(&[ingest.api()], Load::BURST);
    until("much waits", async || Ok(row.balance().await?.open > 1500)).await.unwrap();
    stopped.pause().unwrap();
    system.receiver.answers(Answer::ok());
    row.recovers(&producer.acknowledged()).await.unwrap();
    stopped.go_on().unwrap();
    producer.further_acknowledged(300).await.unwrap();
    row.conclude(&producer.stop().await.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_is_restarted_in_turn_under_load() {
    let Some(bed) = Bed::shared().await else { return };
    let system = &bed.system;
    let bounds = Bounds { producer: Sees::BrokenConnections, ..bounds(IN_FLIGHT, Recovery::AtOnce) };
    let mut row = Row::begin("every_process_is_restarted_in_turn_under_load", system, bounds).unwrap();
    let mut ingests = vec![system.ingest().await.unwrap(), system.ingest().await.unwrap()];
    let mut delivers = vec![system.deliver().await.unwrap(), system.deliver().await.unwrap()];
    // Late enough that something is in flight whenever a process is told to stop.
    system.receiver.answers(Answer::late(Duration::from_millis(100)));
    let producer = Producer::start(&[ingests[0].api(), ingests[1].api()], Load::STEADY);
    for _ in 0..2 {
        producer.further_acknowledged(100).await.unwrap();
        // The new one first, then the old one, as a rolling update does it.
        ingests.push(system.ingest().await.unwrap());
        delivers.push(system.deliver().await.unwrap());
        producer.aim_at(&[ingests[1].api(), ingests[2].api()]);
        assert!(ingests.remove(0).terminate().await.unwrap().success());
        assert!(delivers.remove(0).terminate().await.unwrap().success());
        row.recovers(&producer.acknowledged()).await.unwrap();
    }
    row.conclude(&producer.stop().await.unwrap()).await.unwrap();
    let unanswered = system.receiver.look(Arrivals::unanswered);
    assert_eq!(unanswered, 0, "a process that was told to stop left requests before they were answered");
}
