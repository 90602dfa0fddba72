//! Messages that are copied, come late or in another order, or that only another release can read.

use dispatcher::queue::envelope::VERSION;
use e2e::distributed::{Broker, Distributed, Load, Producer, Published, Recovery, Role, Row, until};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use testbed::Proxy;

use super::support::{Bed, IN_FLIGHT, SEED, bounds};

/// Events that are accepted and published while nobody delivers: all of them wait in the queue.
async fn wait_in_the_queue(system: &Distributed, broker: &Broker, events: usize) -> Published {
    let ingest = system.ingest().await.unwrap();
    let producer = Producer::start(&[ingest.api()], Load::BURST);
    producer.further_acknowledged(events).await.unwrap();
    let published = producer.stop().await.unwrap();
    // A process that ends in order has published what it accepted.
    assert!(ingest.terminate().await.unwrap().success());
    let [fresh, _] = Broker::queues();
    assert!(broker.waiting(&fresh).await.unwrap() > 0, "nothing waits in the queue");
    published
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
    let published = wait_in_the_queue(system, &broker, 300).await;
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
    row.recovers(&published.acknowledged).await.unwrap();
    until("the queues are empty", async || Ok(broker.waiting(&fresh).await? == 0 && broker.waiting(&due).await? == 0))
        .await
        .unwrap();
    row.conclude(&published).await.unwrap();
}

/// The other release is this very binary, behind a proxy on whose far side its queues are those of another version of the
/// envelope.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dispatchers_of_two_releases_work_side_by_side() {
    const UNREAD: u32 = 20;
    let Some(bed) = Bed::shared().await else { return };
    let system = &bed.system;
    let bounds = bounds(IN_FLIGHT, Recovery::AfterLease);
    let mut row = Row::begin("dispatchers_of_two_releases_work_side_by_side", system, bounds).unwrap();
    let [ours, theirs] = [VERSION, VERSION + 1].map(Broker::queue_prefix);
    let proxy = Proxy::renaming(system.queue_url(), &ours, &theirs).await.unwrap();
    let through = proxy.through(system.queue_url()).unwrap();
    let start_other = async |role| system.start(role, system.database_url(), &through).await.unwrap();
    let broker = Broker::connect(system.queue_url()).await.unwrap();
    let is_left_unread = async |queue: &str| {
        let what = format!("messages wait in {queue}, which nobody reads");
        until(&what, async || Ok(broker.waiting(queue).await? >= UNREAD)).await.unwrap();
    };
    let [our_queue, their_queue] = [&ours, &theirs].map(|prefix| format!("{prefix}default.fresh"));

    let (ingest, deliver) = (system.ingest().await.unwrap(), system.deliver().await.unwrap());
    let (other_ingest, other_deliver) = (start_other(Role::Ingest).await, start_other(Role::Deliver).await);
    let producer = Producer::start(&[ingest.api(), other_ingest.api()], Load::STEADY);
    producer.further_acknowledged(200).await.unwrap();
    row.recovers(&producer.acknowledged()).await.unwrap();

    // One of the two goes, as in a rolling update; what it would have read is delivered all the same, by its lease.
    assert!(other_deliver.terminate().await.unwrap().success());
    is_left_unread(&their_queue).await;
    row.recovers(&producer.acknowledged()).await.unwrap();
    assert!(broker.waiting(&their_queue).await.unwrap() >= UNREAD, "the other release's messages were read");
    let _other_deliver = start_other(Role::Deliver).await;
    assert!(deliver.terminate().await.unwrap().success());
    is_left_unread(&our_queue).await;
    row.recovers(&producer.acknowledged()).await.unwrap();
    assert!(broker.waiting(&our_queue).await.unwrap() >= UNREAD, "this release's messages were read");
    row.conclude(&producer.stop().await.unwrap()).await.unwrap();
}
