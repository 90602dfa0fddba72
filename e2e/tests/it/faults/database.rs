//! The database fails: nothing is acknowledged while it does, and nothing that was is lost.

use std::time::Duration;

use e2e::distributed::{Answer, Bounds, Distributed, Load, Producer, Recovery, Routes, Row, Sees};
use sqlx::{Connection, Executor, PgConnection};
use testbed::PostgresServer;

use super::support::{Bed, HELD, IN_FLIGHT, Own, bounds};

/// What happens to the database.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Breaks,
    IsMended,
}

/// Whether some requests may still be stored while it lasts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Acceptance {
    Ends,
    Falters,
}

/// A system on a database of its own that may break, whose dispatchers hold more than they may send at once.
async fn begin(start: impl AsyncFnOnce() -> Option<PostgresServer>) -> Option<Bed> {
    const IN_FLIGHT_EACH: u32 = 4;
    let narrow = |routes| Routes { max_in_flight: IN_FLIGHT_EACH, ..routes };
    Bed::with(async || Some(Own { postgres: Some(start().await?), rabbitmq: None }), narrow).await
}

/// A database that fails and comes back, under load.
async fn database_fails(
    name: &'static str,
    system: &Distributed,
    acceptance: Acceptance,
    mut happens: impl AsyncFnMut(Part),
) {
    let bounds = Bounds { producer: Sees::Unavailable, ..bounds(HELD, Recovery::AtOnce) };
    let mut row = Row::begin(name, system, bounds).unwrap();
    let ingest = system.ingest().await.unwrap();
    let _delivers = [system.deliver().await.unwrap(), system.deliver().await.unwrap()];
    // Slower than events come, so that work is held that is not sent.
    system.receiver.answers(Answer::late(Duration::from_millis(60)));
    let producer = Producer::start(&[ingest.api()], Load::STEADY);
    producer.further_acknowledged(600).await.unwrap();
    happens(Part::Breaks).await;
    let begun = system.receiver.look(|arrivals| arrivals.begun);
    // One more than the producer has at once: answers from before are all in.
    producer.further_failures(u64::from(Load::STEADY.workers) + 1).await.unwrap();
    let before = producer.acknowledged_count();
    producer.further_failures(u64::from(Load::STEADY.workers) * 10).await.unwrap();
    if acceptance == Acceptance::Ends {
        let meanwhile = producer.acknowledged_count() - before;
        assert_eq!(meanwhile, 0, "events were acknowledged without a database");
        let begun = system.receiver.look(|arrivals| arrivals.begun) - begun;
        assert!(begun <= IN_FLIGHT, "{begun} attempts were begun that could not be recorded");
    }
    happens(Part::IsMended).await;
    system.receiver.answers(Answer::ok());
    row.recovers(&producer.acknowledged()).await.unwrap();
    producer.further_acknowledged(200).await.unwrap();
    row.conclude(&producer.stop().await.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_killed_and_restarted() {
    let Some(mut bed) = begin(async || testbed::postgres(&[]).await.unwrap()).await else { return };
    let postgres = bed.postgres.as_mut().unwrap();
    let happens = async |part| match part {
        Part::Breaks => postgres.kill().unwrap(),
        Part::IsMended => postgres.restart().await.unwrap(),
    };
    database_fails("postgres_is_killed_and_restarted", &bed.system, Acceptance::Ends, happens).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_becomes_read_only() {
    let Some(bed) = begin(async || testbed::postgres(&[]).await.unwrap()).await else { return };
    let happens = async |part| {
        let statement = match part {
            Part::Breaks => "ALTER SYSTEM SET default_transaction_read_only = on",
            Part::IsMended => "ALTER SYSTEM RESET default_transaction_read_only",
        };
        let mut connection = PgConnection::connect(bed.database.url()).await.unwrap();
        connection.execute(statement).await.unwrap();
        connection.execute("SELECT pg_reload_conf()").await.unwrap();
    };
    database_fails("postgres_becomes_read_only", &bed.system, Acceptance::Ends, happens).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_has_no_space_left() {
    const DISK_MEBIBYTES: u32 = 300;
    let on_small_disk = async || testbed::postgres_on_disk_of(DISK_MEBIBYTES, &[]).await.unwrap();
    let Some(bed) = begin(on_small_disk).await else { return };
    let postgres = bed.postgres.as_ref().unwrap();
    let happens = async |part| match part {
        Part::Breaks => postgres.fill_disk().unwrap(),
        Part::IsMended => postgres.free_disk().unwrap(),
    };
    // Pages that are there already still take some rows.
    database_fails("postgres_has_no_space_left", &bed.system, Acceptance::Falters, happens).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_connections_of_postgres_are_taken() {
    let few_connections = async || testbed::postgres(&[("max_connections", "60")]).await.unwrap();
    let Some(bed) = begin(few_connections).await else { return };
    let mut taken = Vec::new();
    let happens = async |part| match part {
        Part::Breaks => take_all_connections(bed.database.url(), &mut taken).await,
        Part::IsMended => {
            for connection in taken.drain(..) {
                connection.close().await.unwrap();
            }
        }
    };
    database_fails("all_connections_of_postgres_are_taken", &bed.system, Acceptance::Ends, happens).await;
}

/// Ends everybody else's connections and takes them, until nobody else has one.
async fn take_all_connections(url: &str, taken: &mut Vec<PgConnection>) {
    taken.push(PgConnection::connect(url).await.unwrap());
    loop {
        while let Ok(connection) = PgConnection::connect(url).await {
            taken.push(connection);
        }
        let mut ours = Vec::new();
        for connection in taken.iter_mut() {
            let id: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await.unwrap();
            ours.push(id);
        }
        let ended: Vec<bool> = sqlx::query_scalar(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> ALL($1)",
        )
        .bind(ours)
        .fetch_all(&mut taken[0])
        .await
        .unwrap();
        if ended.is_empty() {
            return;
        }
    }
}
