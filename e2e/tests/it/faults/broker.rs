//! The broker fails: events are still accepted, and are delivered when it is back.

use e2e::distributed::{Bounds, Broker, Distributed, Load, Process, Producer, Recovery, Role, Row, Sees, until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use testbed::{Proxy, RabbitServer};

use super::support::{Bed, HELD, Own, SEED, bounds};

/// Returns when the broker would come back with its queues if it was killed.
async fn registered(server: &RabbitServer) {
    let registry = server.quorum_queue_registry();
    until("the queues are registered on disk", async || {
        let bytes = std::fs::read(&registry)?;
        Ok(Broker::queues().iter().all(|name| bytes.windows(name.len()).any(|window| window == name.as_bytes())))
    })
    .await
    .unwrap();
}

async fn begin(system: &Distributed) -> (Process, Process, Producer) {
    let (ingest, deliver) = (system.ingest().await.unwrap(), system.deliver().await.unwrap());
    let producer = Producer::start(&[ingest.api()], Load::STEADY);
    (ingest, deliver, producer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_is_killed_with_confirmed_and_unconfirmed_messages() {
    let Some(mut bed) = Bed::own_rabbitmq().await else { return };
    let (system, server) = (&bed.system, bed.rabbitmq.as_mut().unwrap());
    let bounds = bounds(HELD, Recovery::AfterLease);
    let mut row = Row::begin("rabbitmq_is_killed_with_confirmed_and_unconfirmed_messages", system, bounds).unwrap();
    let ingest = system.ingest().await.unwrap();
    registered(server).await;
    let broker = Broker::connect(system.queue_url()).await.unwrap();
    let producer = Producer::start(&[ingest.api()], Load::STEADY);
    let [fresh, _] = Broker::queues();
    // Nobody consumes yet: these are confirmed, and the next ones are on their way.
    until("messages wait", async || Ok(broker.waiting(&fresh).await? > 50)).await.unwrap();
    server.kill().unwrap();
    producer.further_acknowledged(200).await.unwrap();
    server.restart().await.unwrap();
    let _deliver = system.deliver().await.unwrap();
    row.recovers(&producer.acknowledged()).await.unwrap();
    // And once more with messages that a dispatcher holds.
    server.kill().unwrap();
    producer.further_acknowledged(200).await.unwrap();
    server.restart().await.unwrap();
    row.recovers(&producer.acknowledged()).await.unwrap();
    row.conclude(&producer.stop().await.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_raises_its_memory_alarm() {
    let Some(bed) = Bed::own_rabbitmq().await else { return };
    let (system, server) = (&bed.system, bed.rabbitmq.as_ref().unwrap());
    let bounds = bounds(HELD, Recovery::AfterLease);
    let mut row = Row::begin("rabbitmq_raises_its_memory_alarm", system, bounds).unwrap();
    let (_ingest, _deliver, producer) = begin(system).await;
    producer.further_acknowledged(100).await.unwrap();
    server.control(&["set_vm_memory_high_watermark", "absolute", "1000000"]).await.unwrap();
    until("work waits for the broker", async || Ok(row.balance().await?.open > 400)).await.unwrap();
    server.control(&["set_vm_memory_high_watermark", "0.6"]).await.unwrap();
    row.recovers(&producer.acknowledged()).await.unwrap();
    row.conclude(&producer.stop().await.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queues_are_deleted_under_load() {
    let Some(bed) = Bed::shared().await else { return };
    let system = &bed.system;
    let bounds = bounds(HELD, Recovery::AfterLease);
    let mut row = Row::begin("the_queues_are_deleted_under_load", system, bounds).unwrap();
    let broker = Broker::connect(system.queue_url()).await.unwrap();
    let (_ingest, _deliver, producer) = begin(system).await;
    for _ in 0..3 {
        producer.further_acknowledged(100).await.unwrap();
        for queue in Broker::queues() {
            broker.delete(&queue).await.unwrap();
        }
        row.recovers(&producer.acknowledged()).await.unwrap();
    }
    row.conclude(&producer.stop().await.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_vhost_is_wiped_under_load() {
    let Some(bed) = Bed::shared().await else { return };
    let system = &bed.system;
    let bounds = bounds(HELD, Recovery::AfterLease);
    let mut row = Row::begin("the_vhost_is_wiped_under_load", system, bounds).unwrap();
    let (_ingest, _deliver, producer) = begin(system).await;
    for _ in 0..2 {
        producer.further_acknowledged(100).await.unwrap();
        bed.vhost.wipe().await.unwrap();
        row.recovers(&producer.acknowledged()).await.unwrap();
    }
    row.conclude(&producer.stop().await.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_the_broker_are_reset_in_mid_publish() {
    const RESETS: usize = 5;
    let Some(bed) = Bed::shared().await else { return };
    let system = &bed.system;
    let bounds = bounds(HELD, Recovery::AfterLease);
    let mut row = Row::begin("connections_to_the_broker_are_reset_in_mid_publish", system, bounds).unwrap();
    let proxy = Proxy::to(system.queue_url()).await.unwrap();
    let through = proxy.through(system.queue_url()).unwrap();
    let ingest = system.start(Role::Ingest, system.database_url(), &through).await.unwrap();
    let _deliver = system.start(Role::Deliver, system.database_url(), &through).await.unwrap();
    let producer = Producer::start(&[ingest.api()], Load::STEADY);
    let mut random = StdRng::seed_from_u64(SEED);
    for reset in 1..=RESETS {
        producer.further_acknowledged(50).await.unwrap();
        proxy.reset_after(random.random_range(1_000..20_000));
        until("the connection is reset", async || Ok(proxy.resets() == reset)).await.unwrap();
        row.recovers(&producer.acknowledged()).await.unwrap();
    }
    row.conclude(&producer.stop().await.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_servers_go_down_and_come_up_in_every_order() {
    let both = async || {
        let (postgres, rabbitmq) = (testbed::postgres(&[]).await.unwrap()?, testbed::rabbitmq(&[]).await.unwrap()?);
        Some(Own { postgres: Some(postgres), rabbitmq: Some(rabbitmq) })
    };
    let Some(mut bed) = Bed::own(both).await else { return };
    let (system, postgres, rabbitmq) = (&bed.system, bed.postgres.as_mut().unwrap(), bed.rabbitmq.as_mut().unwrap());
    let bounds = Bounds { producer: Sees::Unavailable, ..bounds(4 * HELD, Recovery::AfterLease) };
    let mut row = Row::begin("both_servers_go_down_and_come_up_in_every_order", system, bounds).unwrap();
    let (_ingest, _deliver, producer) = begin(system).await;
    registered(rabbitmq).await;
    for (postgres_falls_first, postgres_rises_first) in [(true, true), (true, false), (false, true), (false, false)] {
        producer.further_acknowledged(100).await.unwrap();
        if postgres_falls_first {
            postgres.kill().unwrap();
            producer.further_failures(1).await.unwrap();
            rabbitmq.kill().unwrap();
        } else {
            rabbitmq.kill().unwrap();
            producer.further_acknowledged(20).await.unwrap();
            postgres.kill().unwrap();
        }
        producer.further_failures(1).await.unwrap();
        if postgres_rises_first {
            postgres.restart().await.unwrap();
            producer.further_acknowledged(20).await.unwrap();
            rabbitmq.restart().await.unwrap();
        } else {
            rabbitmq.restart().await.unwrap();
            producer.further_failures(1).await.unwrap();
            postgres.restart().await.unwrap();
        }
        row.recovers(&producer.acknowledged()).await.unwrap();
    }
    row.conclude(&producer.stop().await.unwrap()).await.unwrap();
}
