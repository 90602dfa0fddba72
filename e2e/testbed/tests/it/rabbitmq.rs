//! RabbitMQ.

use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use testbed::TestVhost;

use crate::{DEADLINE, eventually, exists, listens, port_of};

const QUEUE: &str = "events";

async fn connect(url: &str) -> lapin::Result<Connection> {
    Connection::connect(url, ConnectionProperties::default()).await
}

/// A channel with confirms on a durable quorum queue.
async fn channel(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(QUEUE.into(), options, arguments).await.unwrap();
    channel
}

/// Publishes a persistent message and waits until the broker has it.
async fn publish(channel: &Channel, body: &[u8]) {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let confirmation = channel
        .basic_publish("".into(), QUEUE.into(), BasicPublishOptions::default(), body, properties)
        .await
        .unwrap()
        .await
        .unwrap();
    assert!(matches!(confirmation, Confirmation::Ack(None)), "{confirmation:?}");
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The next message, acknowledged.
async fn consume(channel: &Channel) -> Vec<u8> {
    let mut consumer = channel
        .basic_consume(QUEUE.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .unwrap();
    let delivery = tokio::time::timeout(DEADLINE, consumer.next()).await.unwrap().unwrap().unwrap();
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    delivery.data
}

#[tokio::test]
async fn tests_share_a_server_and_see_nothing_of_each_other() {
    let Some(one) = testbed::vhost().await.unwrap() else { return };
    let two = testbed::vhost().await.unwrap().unwrap();
    assert_eq!(port_of(one.url()), port_of(two.url()));

    let (in_one, in_two) = (connect(one.url()).await.unwrap(), connect(two.url()).await.unwrap());
    let (in_one, in_two) = (channel(&in_one).await, channel(&in_two).await);
    publish(&in_one, b"of one").await;
    publish(&in_two, b"of two").await;
    assert_eq!(consume(&in_two).await, b"of two");
    assert_eq!(consume(&in_one).await, b"of one");
}

#[tokio::test]
async fn confirmed_messages_survive_a_kill_and_nothing_survives_the_server() {
    let Some(mut server) = testbed::rabbitmq(&[("channel_max", "7")]).await.unwrap() else { return };
    let vhost = TestVhost::create(server.url(), server.management_url()).await.unwrap();
    let connection = connect(vhost.url()).await.unwrap();
    assert_eq!(connection.configuration().channel_max(), 7, "the caller's setting holds");
    publish(&channel(&connection).await, b"confirmed").await;
    let name = vhost.url().rsplit('/').next().unwrap().to_owned();
    let registry = server.quorum_queue_registry();
    eventually("the queue is registered on disk", || contains(&std::fs::read(&registry).unwrap(), name.as_bytes()))
        .await;

    let (port, first) = (port_of(server.url()), server.process_id().unwrap());
    server.kill().unwrap();
    assert!(!exists(first) && !listens(port));

    server.restart().await.unwrap();
    let connection = connect(vhost.url()).await.unwrap();
    assert_eq!(consume(&channel(&connection).await).await, b"confirmed");

    let url = vhost.url().to_owned();
    drop(vhost);
    connect(&url).await.expect_err("the vhost is gone");

    let (second, management_port) = (server.process_id().unwrap(), port_of(server.management_url()));
    drop(server);
    assert!(!exists(second) && !listens(port) && !listens(management_port));
}
