//! Addresses and brokers that will not do.

use dispatcher::queue::rabbitmq::{RabbitConfig, RabbitQueue};
use dispatcher::queue::{PublishError, Queue, QueueError, Track};
use tokio::net::TcpListener;

use super::support::{config, vhost};
use crate::queue::support::{POOL, messages};

async fn refusal(url: &str) -> String {
    match RabbitQueue::connect(config(url)).await {
        Err(error @ QueueError::Misconfigured(_)) => error.to_string(),
        Err(QueueError::Unavailable(message)) => panic!("{url}: only unavailable: {message}"),
        Ok(_) => panic!("{url}: taken for good"),
    }
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_with_what_to_do_and_without_its_password() {
    for (url, said) in [
        ("", "amqp://USER:PASSWORD@HOST/VHOST"),
        ("hunter2", "amqp://USER:PASSWORD@HOST/VHOST"),
        ("http://user:hunter2@localhost/", "begins with amqp://"),
        ("amqp://user:hunter2@localhost:99999/", "not a URL"),
        ("amqp:user:hunter2", "not an AMQP URL"),
        ("amqp:///hunter2", "names no host"),
    ] {
        let message = refusal(url).await;
        assert!(message.contains(said), "{url}: {message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[cfg(not(feature = "amqps"))]
#[tokio::test]
async fn tls_that_is_not_built_in_is_named() {
    assert!(refusal("amqps://localhost/").await.contains("feature `amqps`"));
}

#[tokio::test]
async fn a_pool_whose_name_is_too_long_is_refused() {
    let config = RabbitConfig { pools: vec!["x".repeat(300)], ..RabbitConfig::new("amqp://localhost/") };
    assert!(matches!(RabbitQueue::connect(config).await, Err(QueueError::Misconfigured(_))));
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_no_error_and_takes_nothing() {
    let closed = {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        listener.local_addr().unwrap()
    };
    let queue = RabbitQueue::connect(config(&format!("amqp://{closed}/"))).await.unwrap();
    assert!(!queue.is_connected());
    assert_eq!(queue.room(POOL, Track::Fresh), 0);
    assert_eq!(queue.publish(POOL, Track::Fresh, messages(0..2)).await, [Err(PublishError::Unavailable); 2]);
    queue.close().await;
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_vhost_are_misconfigurations() {
    let Some(vhost) = vhost().await else { return };
    let url = url::Url::parse(vhost.url()).unwrap();
    let mut wrong_password = url.clone();
    wrong_password.set_password(Some("hunter2")).unwrap();
    let mut missing_vhost = url.clone();
    missing_vhost.set_path("/never_made");
    for wrong in [wrong_password, missing_vhost] {
        let message = refusal(wrong.as_str()).await;
        assert!(message.contains("check user, password and vhost"), "{message}");
        assert!(!message.contains(wrong.password().unwrap()), "{message}");
    }
}
