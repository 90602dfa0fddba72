//! Messages that are copied, come late, early or in another order, or that nobody here can read.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatcher::queue::envelope::{self, VERSION};
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
    until("the queues are empty", async || {
        Ok(broker.waiting(&fresh).await? == 0 && broker.waiting(&due).await? == 0)
    })
    .await
    .unwrap();
    row.conclude(&acknowledged).await.unwrap();
}

/// A process compares its clock with the ledger's in one place: the lease that a message carries. So a process whose clock
/// has jumped sees exactly what a process with a right clock sees of messages whose leases are shifted the other way.
async fn shift_leases(broker: &Broker, by: i64) {
    let [fresh, _] = Broker::queues();
    let bodies = broker.take_all(&fresh).await.unwrap();
    let shifted = bodies.into_iter().map(|body| {
        let mut message = envelope::decode(&body.into()).unwrap();
        for item in &mut message.items {
            item.lease_until_unix_ms = item.lease_until_unix_ms.checked_add_signed(by).unwrap();
        }
        envelope::encode(&message).unwrap().to_vec()
    });
    broker.publish(&fresh, &shifted.collect::<Vec<_>>()).await.unwrap();
}

const HOUR_MS: i64 = 3_600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_of_a_dispatcher_jumps_ahead_an_hour() {
    let Some(bed) = Bed::shared().await else { return };
    let system = &bed.system;
    let mut row =
        Row::begin("the_clock_of_a_dispatcher_jumps_ahead_an_hour", system, bounds(0, Recovery::AfterLease)).unwrap();
    let broker = Broker::connect(system.queue_url()).await.unwrap();
    let mut acknowledged = wait_in_the_queue(system, &broker, 200).await;
    shift_leases(&broker, -HOUR_MS).await;
    // And what an ingest with such a clock accepts.
    let begun = acknowledged.keys().max().unwrap() + 1;
    acknowledged.extend(system.accept(begun..begun + 100, Duration::ZERO, 1).await.unwrap());
    let _delivers = [system.deliver().await.unwrap(), system.deliver().await.unwrap()];
    row.recovers(&acknowledged).await.unwrap();
    row.conclude(&acknowledged).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_of_a_dispatcher_falls_behind_an_hour() {
    let Some(bed) = Bed::shared().await else { return };
    let system = &bed.system;
    let broker = Broker::connect(system.queue_url()).await.unwrap();
    let mut acknowledged = wait_in_the_queue(system, &broker, 200).await;
    // It takes a lease for good that is over: what it holds of the queue it may send beside the one who took it over.
    let held = acknowledged.len() * system.routes.fanout();
    let bounds = bounds(held, Recovery::AfterLease);
    let mut row = Row::begin("the_clock_of_a_dispatcher_falls_behind_an_hour", system, bounds).unwrap();
    shift_leases(&broker, HOUR_MS).await;
    leases_are_over(&row).await;
    let begun = acknowledged.keys().max().unwrap() + 1;
    acknowledged.extend(system.accept(begun..begun + 100, Duration::ZERO, -1).await.unwrap());
    let _delivers = [system.deliver().await.unwrap(), system.deliver().await.unwrap()];
    row.recovers(&acknowledged).await.unwrap();
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
    let mut acknowledged = system.accept(first..first + EVENTS, LEASE, 0).await.unwrap();
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
