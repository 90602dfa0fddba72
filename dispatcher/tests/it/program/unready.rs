//! A process that has work and gets nothing done says so, whatever its connections say.

use sqlx::{Connection, Executor, PgConnection};

use super::harness::{World, delivered, publish};

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_record_what_it_does_is_not_ready_until_it_can() {
    let Some((world, ledger, _receiver)) = World::with_receiver(200).await else { return };
    let (mut ingest, mut deliver) = (world.start("ingest", &[]), world.start("deliver", &[]));
    let address = ingest.address("api").await;
    ingest.ready().await;
    deliver.ready().await;

    let mut beside = PgConnection::connect(world.database.url()).await.unwrap();
    let mut lock = beside.begin().await.unwrap();
    // The ledger answers, and yet no outcome can be written.
    lock.execute("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE").await.unwrap();
    assert_eq!(publish(address, "order.created", 1).await.0, 202);
    let answer = deliver.finds("recording", "stalled").await;
    assert_eq!((&answer["ready"], &answer["checks"]["ledger"]), (&false.into(), &"ok".into()), "{answer}");
    assert_eq!(deliver.admin("/healthz").await.0, 200);

    lock.rollback().await.unwrap();
    deliver.ready().await;
    delivered(&ledger, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_store_what_it_receives_is_not_ready_until_it_can() {
    let Some((world, _ledger, _receiver)) = World::with_receiver(200).await else { return };
    let mut ingest = world.start("ingest", &[]);
    let address = ingest.address("api").await;
    ingest.ready().await;
    let mut beside = PgConnection::connect(world.database.url()).await.unwrap();
    let mut lock = beside.begin().await.unwrap();
    lock.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    // As producers do: what gets no answer in time, or a 503, is sent again.
    let producer = tokio::spawn(async move { while publish(address, "order.created", 1).await.0 != 202 {} });
    ingest.finds("accepting", "stalled").await;
    lock.rollback().await.unwrap();
    producer.await.unwrap();
    ingest.ready().await;
}
