//! Messages that are copied, come late or in another order, or that nobody here can read.

use std::collections::BTreeMap;

use dispatcher::queue::envelope::VERSION;
use dispatcher_core::limits::LEASE;
use e2e::distributed::{Acknowledged, Broker, Distributed, Load, Producer, Recovery, Row, until};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::support::{Bed, IN_FLIGHT, SEED, bounds};

/// Events that are accepted and published while nobody delivers: all of them wait in the queue.
async fn wait_in_the_queue(system: &Distributed, broker: &Broker, events: usize) -> Acknowledged {
    let ingest = system.ingest().await.unwrap();
    let producer = Producer::start(&[ingest.api()], Load::BURST);
    producer.further_acknowledged(events).await.unwrap();
    let acknowledged = producer.stop().await.unwrap();
    // A process that ends in order has published what it accepted.
    assert!(ingest.terminate().await.unwrap().success());
    let [fresh, _] = Broker::queues();
    assert!(broker.waiting(&fresh).await.unwrap() > 0, "nothing waits in the queue");
    acknowledged
}

/// Returns when the lease of everything in the outbox is over.
async fn leases_are_over(row: &Row<'_>) {
    until("all leases are over", async || {
        let leased = "SELECT count(*) FROM outbox WHERE lease_until > clock_timestamp()";
        Ok(sqlx::query_scalar::<_, i64>(leased).fetch_one(row.pool()).await? == 0)
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_come_twice_and_in_another_order() {
    let Some(bed) = Bed::shared().await else { return };
    let system = &bed.system;
    let bounds = bounds(0, Recovery::AfterLease);
    let mut row = Row::begin("messages_come_twice_and_in_another_order", system, bounds).unwrap();
    let broker = Broker::connect(system.queue_url()).await.unwrap();
    let acknowledged = wait_in_the_queue(system, &broker, 300).await;
    leases_are_over(&row).await;
    let [fresh, due] = Broker::queues();
    let mut bodies = broker.take_all(&fresh).await.unwrap();
    bodies.extend(bodies.clone());
    bodies.extend(bodies.clone());
    bodies.shuffle(&mut StdRng::seed_from_u64(SEED));
    let (here, there) = bodies.split_at(bodies.len() / 2);
    broker.publish(&fresh, here).await.unwrap();
    broker.publish(&due, there).await.unwrap();
    let _delivers = [system.deliver().await.unwrap(), system.deliver().await.unwrap()];
    row.recovers(&acknowledged).await.unwrap();
    until("the queues are empty", async || Ok(broker.waiting(&fresh).await? == 0 && broker.waiting(&due).await? == 0))
        .await
        .unwrap();
    row.conclude(&acknowledged).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dispatchers_of_two_releases_work_side_by_side() {
    const EVENTS: u64 = 200;
    let Some(bed) = Bed::shared().await else { return };
    let system = &bed.system;
    let bounds = bounds(IN_FLIGHT, Recovery::AfterLease);
    let mut row = Row::begin("dispatchers_of_two_releases_work_side_by_side", system, bounds).unwrap();
    let broker = Broker::connect(system.queue_url()).await.unwrap();
    let (ingest, _deliver) = (system.ingest().await.unwrap(), system.deliver().await.unwrap());
    // An older and a newer release publish what they accept in envelopes that this one does not read.
    let others: BTreeMap<u8, String> =
        [VERSION - 1, VERSION + 1].into_iter().map(|version| (version, Broker::queue_of_version(version))).collect();
    let first = u64::MAX / 2;
    let mut acknowledged = system.accept(first..first + EVENTS, LEASE).await.unwrap();
    for (version, queue) in &others {
        broker.make(queue).await.unwrap();
        broker.publish(queue, &vec![vec![*version; 100]; 50]).await.unwrap();
    }
    let producer = Producer::start(&[ingest.api()], Load::STEADY);
    row.recovers(&acknowledged).await.unwrap();
    acknowledged.extend(producer.stop().await.unwrap());
    for queue in others.values() {
        assert_eq!(broker.waiting(queue).await.unwrap(), 50, "{queue} is for another release");
    }
    row.conclude(&acknowledged).await.unwrap();
}
