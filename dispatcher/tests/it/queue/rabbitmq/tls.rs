//! A real broker over TLS that demands a certificate of ours.

use dispatcher::queue::rabbitmq::{RabbitConfig, RabbitQueue};
use dispatcher::queue::{Queue, QueueError, Track};
use dispatcher_core::redacted::Redacted;
use testbed::{RabbitServer, TestVhost};

use super::support::config;
use crate::authority::{Authority, Pair, certificate};
use crate::queue::support::{POOL, messages, next, number};

/// A broker whose certificate is of this authority, and that asks for one of it.
struct Broker {
    url: String,
    vhost: TestVhost,
    _server: RabbitServer,
}

impl Broker {
    async fn start(authority: &Authority) -> Option<Self> {
        let own = authority.issue(&certificate(&["127.0.0.1"]));
        let port = testbed::free_port().unwrap();
        let settings = [
            ("listeners.ssl.1", &*format!("127.0.0.1:{port}")),
            ("ssl_options.cacertfile", "/srv/authority.pem"),
            ("ssl_options.certfile", "/srv/certificate.pem"),
            ("ssl_options.keyfile", "/srv/key.pem"),
            ("ssl_options.verify", "verify_peer"),
            ("ssl_options.fail_if_no_peer_cert", "true"),
        ];
        let files =
            [("authority.pem", &*authority.pem()), ("certificate.pem", &own.chain_pem), ("key.pem", &own.key_pem())];
        let server = testbed::rabbitmq_with_files(&settings, &files).await.unwrap()?;
        let vhost = TestVhost::create(server.url(), server.management_url()).await.unwrap();
        let mut url: url::Url = vhost.url().replacen("amqp:", "amqps:", 1).parse().unwrap();
        url.set_port(Some(port)).unwrap();
        Some(Self { url: url.into(), vhost, _server: server })
    }

    fn config(&self, trusted: &Authority, client: Option<&Pair>) -> RabbitConfig {
        RabbitConfig {
            ca_certificates_pem: Some(trusted.pem()),
            client_certificate_pem: client.map(|client| client.chain_pem.clone()),
            client_key_pem: client.map(|client| Redacted::new(client.key_pem())).unwrap_or_default(),
            ..config(&self.url)
        }
    }
}

async fn refusal(config: RabbitConfig) -> String {
    match RabbitQueue::connect(config).await {
        Err(error @ QueueError::Misconfigured(_)) => error.to_string(),
        Err(QueueError::Unavailable(message)) => panic!("only unavailable: {message}"),
        Ok(queue) => panic!("taken; connected: {}", queue.is_connected()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_go_over_tls_between_those_who_trust_each_other_and_nobody_else() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let (authority, stranger) = (Authority::new("ours"), Authority::new("a stranger's"));
    let Some(broker) = Broker::start(&authority).await else { return };
    let client = authority.issue(&certificate(&["harborhook"]));

    let queue = RabbitQueue::connect(broker.config(&authority, Some(&client))).await.unwrap();
    assert!(queue.is_connected());
    assert_eq!(queue.publish(POOL, Track::Fresh, messages(7..8)).await, [Ok(())]);
    let mut consumer = queue.consume(POOL, 10).await.unwrap();
    let received = next(&mut consumer).await;
    assert_eq!(number(&received), 7);
    received.ack.acknowledge();
    queue.close().await;

    let elsewhere = |config: RabbitConfig| RabbitConfig {
        url: Redacted::new(broker.url.replacen("127.0.0.1", "localhost", 1)),
        ..config
    };
    for (case, config) in [
        ("the broker's certificate is not trusted", broker.config(&stranger, Some(&client))),
        ("the broker's certificate is of another host", elsewhere(broker.config(&authority, Some(&client)))),
        ("we show no certificate", broker.config(&authority, None)),
        ("ours is not trusted", broker.config(&authority, Some(&stranger.issue(&certificate(&["harborhook"]))))),
    ] {
        let message = refusal(config).await;
        assert!(message.contains("no trusted TLS connection"), "{case}: {message}");
        assert!(!message.contains(url::Url::parse(broker.vhost.url()).unwrap().password().unwrap()), "{message}");
    }
}
