//! What goes wrong with a broker, and that nothing is lost or stuck because of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dispatcher::queue::envelope;
use dispatcher::queue::rabbitmq::{RabbitConfig, RabbitQueue};
use dispatcher::queue::{PublishError, Queue, QueueError, Track};
use dispatcher_core::limits::BROKER_QUEUE_MESSAGES_MAX;
use testbed::{Proxy, RabbitServer};

use super::support::{Admin, RabbitTest, config, name, vhost};
use crate::queue::support::{POOL, drain, message, messages, next, number, publish, until};

async fn open() -> Option<RabbitTest> {
    RabbitTest::connect(vhost().await?, BROKER_QUEUE_MESSAGES_MAX).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_deleted_under_a_publisher_is_made_again_and_the_message_with_it() {
    let Some(test) = open().await else { return };
    // The task that looks at the depth may make the queue first, and then nothing is returned: it is deleted again.
    let mut number = 0;
    while test.queue.counts().returned == 0 {
        test.broker.delete(Track::Fresh).await;
        publish(&*test.queue, Track::Fresh, number..number + 1).await;
        until("the message waits", async || test.broker.waiting(Track::Fresh).await == 1).await;
        number += 1;
        assert!(number < 100, "no message was ever returned");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_deleted_under_a_consumer_is_made_again_and_consumed() {
    let Some(test) = open().await else { return };
    let mut consumer = test.queue.consume(POOL, 10).await.unwrap();
    publish(&*test.queue, Track::Fresh, 0..2).await;
    let lost_with_its_queue = next(&mut consumer).await;
    test.broker.delete(Track::Fresh).await;
    test.broker.delete(Track::Due).await;
    for (track, number) in [(Track::Due, 10), (Track::Fresh, 11)] {
        until("the queue is made again", async || {
            test.queue.publish(POOL, track, messages(number..number + 1)).await == [Ok(())]
        })
        .await;
    }
    let mut seen = Vec::new();
    while !seen.contains(&10) || !seen.contains(&11) {
        let received = next(&mut consumer).await;
        seen.push(number(&received));
        received.ack.acknowledge();
    }
    lost_with_its_queue.ack.acknowledge();
    publish(&*test.queue, Track::Fresh, 12..13).await;
    assert_eq!(drain(&mut consumer, 1).await, [(12, false)], "an old receipt harms nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_the_broker_closed_does_not_cost_the_connection() {
    let Some(vhost) = vhost().await else { return };
    let proxy = Proxy::to(vhost.url()).await.unwrap();
    let url = proxy.through(vhost.url()).unwrap().into();
    let queue = RabbitQueue::connect(RabbitConfig { url, ..config(vhost.url()) }).await.unwrap();
    let broker = Admin::connect(vhost.url()).await;
    for _ in 0..3 {
        publish(&queue, Track::Fresh, 0..1).await;
        broker.delete(Track::Fresh).await;
        // The task that looks at the depth asks for it, and has its channel closed.
        until("the queue is made again", async || broker.look(Track::Fresh).await == Some(0)).await;
    }
    assert_eq!(proxy.connections(), 2, "one to publish, one to consume");
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_other_arguments_is_a_misconfiguration_that_names_it() {
    let Some(vhost) = vhost().await else { return };
    Admin::connect(vhost.url()).await.declare_otherwise(Track::Fresh).await;
    let Err(QueueError::Misconfigured(message)) = RabbitQueue::connect(config(vhost.url())).await else {
        panic!("taken");
    };
    assert!(message.contains("harborhook.v1.default.fresh"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_means_nothing_is_counted_and_gone_and_the_next_message_comes() {
    let Some(test) = open().await else { return };
    let mut of_a_later_version = envelope::encode(&message(0, 1)).unwrap();
    of_a_later_version[0] += 1;
    test.broker.publish(Track::Fresh, &of_a_later_version).await;
    test.broker.publish(Track::Fresh, b"{\"json\": true}").await;
    test.broker.publish(Track::Due, b"").await;
    let mut consumer = test.queue.consume(POOL, 10).await.unwrap();
    until("all have arrived", async || {
        test.broker.waiting(Track::Fresh).await == 0 && test.broker.waiting(Track::Due).await == 0
    })
    .await;
    publish(&*test.queue, Track::Due, 7..8).await;
    assert_eq!(drain(&mut consumer, 1).await, [(7, false)]);
    assert_eq!(test.queue.counts().poisoned, 3);
    test.queue.close().await;
    assert_eq!((test.broker.waiting(Track::Fresh).await, test.broker.waiting(Track::Due).await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_in_the_middle_brings_back_what_was_not_acknowledged() {
    let Some(vhost) = vhost().await else { return };
    let proxy = Proxy::to(vhost.url()).await.unwrap();
    let url = proxy.through(vhost.url()).unwrap().into();
    let test = RabbitTest::with_config(RabbitConfig { url, ..config(vhost.url()) }).await;
    publish(&*test.queue, Track::Fresh, 0..3).await;
    let mut consumer = test.queue.consume(POOL, 10).await.unwrap();
    let held = next(&mut consumer).await;
    proxy.cut().await;
    // Void: the broker takes it back with the channel.
    held.ack.acknowledge();
    // What was on its way when the connection was cut may come twice.
    let mut seen = BTreeSet::new();
    while seen.len() < 3 {
        seen.extend(drain(&mut consumer, 1).await.into_iter().map(|(number, _)| number));
    }
    until("publishing works again", async || test.queue.publish(POOL, Track::Fresh, messages(3..4)).await == [Ok(())])
        .await;
    while drain(&mut consumer, 1).await[0].0 != 3 {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_come_once_and_are_all_acknowledged() {
    const MESSAGES: u64 = 3000;
    let Some(test) = open().await else { return };
    publish(&*test.queue, Track::Fresh, 0..MESSAGES).await;
    let mut consumer = test.queue.consume(POOL, 1000).await.unwrap();
    let mut seen = drain(&mut consumer, 3000).await;
    seen.sort_unstable();
    assert!(seen.into_iter().eq((0..MESSAGES).map(|number| (number, false))));
    test.queue.close().await;
    assert_eq!(test.broker.waiting(Track::Fresh).await, 0, "everything is acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_keeps_what_it_confirmed_and_takes_more_when_it_is_back() {
    const MESSAGES: u64 = 500;
    let Some(mut server) = testbed::rabbitmq(&[]).await.unwrap() else { return };
    let test = RabbitTest::with_config(config(&format!("{}%2f", server.url()))).await;
    publish(&*test.queue, Track::Fresh, 0..MESSAGES).await;
    let mut consumer = test.queue.consume(POOL, 10_000).await.unwrap();
    let first = next(&mut consumer).await;
    registered(&server).await;
    server.kill().unwrap();
    // Each of the two connections notices by itself.
    until("the loss is noticed", async || !test.queue.is_connected() && test.queue.room(POOL, Track::Fresh) == 0).await;
    assert_eq!(test.queue.publish(POOL, Track::Fresh, messages(0..1)).await, [Err(PublishError::Unavailable)]);
    first.ack.acknowledge();
    server.restart().await.unwrap();
    // All that was confirmed comes, even what was acknowledged in vain; what was on its way may come twice.
    let mut seen = BTreeSet::new();
    while seen.len() < 500 {
        seen.extend(drain(&mut consumer, 1).await.into_iter().map(|(number, _)| number));
    }
    until("publishing works again", async || {
        test.queue.publish(POOL, Track::Due, messages(900..901)).await == [Ok(())]
    })
    .await;
    while drain(&mut consumer, 1).await[0].0 != 900 {}
    assert!(test.queue.room(POOL, Track::Due) > 0);
    test.queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_without_a_leader_is_made_anew() {
    let Some(mut server) = testbed::rabbitmq(&[]).await.unwrap() else { return };
    let config = config(&format!("{}%2f", server.url()));
    let test = RabbitTest::with_config(config.clone()).await;
    publish(&*test.queue, Track::Fresh, 0..1).await;
    registered(&server).await;
    test.queue.close().await;
    test.broker.delete(Track::Due).await;
    server.kill().unwrap();
    // As if it had been killed before it wrote the queue down.
    std::fs::remove_file(server.quorum_queue_registry()).unwrap();
    server.restart().await.unwrap();
    let test = RabbitTest::with_config(config).await;
    let mut consumer = test.queue.consume(POOL, 10).await.unwrap();
    until("publishing works again", async || test.queue.publish(POOL, Track::Fresh, messages(1..2)).await == [Ok(())])
        .await;
    assert_eq!(number(&next(&mut consumer).await), 1, "what the broker lost does not come");
    test.queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_an_alarm_takes_nothing_and_says_so_in_time() {
    let settings = [("disk_free_limit.absolute", "900000GB")];
    let Some(server) = testbed::rabbitmq(&settings).await.unwrap() else { return };
    let test = RabbitTest::with_config(config(&format!("{}%2f", server.url()))).await;
    let mut consumer = test.queue.consume(POOL, 10).await.unwrap();
    let queue = Arc::clone(&test.queue);
    until("the broker has the alarm and tells us", async || {
        let results = queue.publish(POOL, Track::Fresh, messages(0..1)).await;
        results == [Err(PublishError::Unavailable)] && queue.room(POOL, Track::Fresh) == 0
    })
    .await;
    assert!(test.queue.is_connected(), "both connections are kept");
    assert_eq!(test.queue.publish(POOL, Track::Due, messages(1..2)).await, [Err(PublishError::Unavailable)]);
    // What came in before the alarm can still be worked off.
    while let Ok(received) = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await {
        received.unwrap().unwrap().ack.acknowledge();
    }
    test.queue.close().await;
}

/// Returns when the broker would come back with the queues of [`POOL`] if it was killed.
async fn registered(server: &RabbitServer) {
    let registry = server.quorum_queue_registry();
    until("the queues are registered on disk", async || {
        let bytes = std::fs::read(&registry).unwrap();
        [Track::Fresh, Track::Due].map(name).iter().all(|name| contains(&bytes, name.as_bytes()))
    })
    .await;
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
