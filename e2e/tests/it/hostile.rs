//! Receivers that misbehave: each ends as one recorded attempt with its class, and delays nobody else.

use std::net::SocketAddr;

use bytes::Bytes;
use e2e::http::{Client, serve};
use e2e::process::Dev;
use hyper::StatusCode;
use serde_json::Value;
use std::fmt::Write as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a receiver does with a connection once it has read the request's head.
#[derive(Clone, Copy, Debug)]
enum Behaviour {
    Redirects,
    Hangs,
    Drips,
    Resets,
    SendsEndlessHeaders,
    SendsGarbage,
    Fails,
    IsGone,
}

/// Each behaviour with the class that its attempt must have.
const BEHAVIOURS: [(Behaviour, &str); 8] = [
    (Behaviour::Redirects, "http_3xx"),
    (Behaviour::Hangs, "timeout"),
    (Behaviour::Drips, "timeout"),
    (Behaviour::Resets, "network"),
    (Behaviour::SendsEndlessHeaders, "network"),
    (Behaviour::SendsGarbage, "network"),
    (Behaviour::Fails, "http_5xx"),
    (Behaviour::IsGone, "http_410"),
];

impl Behaviour {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    async fn treat(self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await?;
        match self {
            Self::Redirects => {
                stream
                    .write_all(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n")
                    .await
            }
            Self::Hangs => std::future::pending().await,
            Self::Drips => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await?;
                loop {
                    stream.write_all(b".").await?;
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
            Self::Resets => stream.set_zero_linger(),
            Self::SendsEndlessHeaders => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
                loop {
                    stream.write_all(b"x-more: and more and more and more and more\r\n").await?;
                }
            }
            Self::SendsGarbage => stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\0\0\0\r\n\r\n").await,
            Self::Fails => stream.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 4\r\n\r\noops").await,
            Self::IsGone => stream.write_all(b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n").await,
        }
    }

    async fn listen(self) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // The sender may hang up first: that is its right.
                tokio::spawn(async move { drop(self.treat(stream).await) });
            }
        });
        address
    }
}

fn endpoint(name: &str, address: SocketAddr) -> String {
    format!(
        "apiVersion: harborhook.dev/v1alpha1\nkind: Endpoint\nmetadata: {{name: {name}}}\nspec:\n  \
         url: http://{address}/hook\n  timeoutSeconds: 1\n  retry: {{type: Fixed, delaySeconds: 1, maxAttempts: 1}}\n---\n\
         apiVersion: harborhook.dev/v1alpha1\nkind: Subscription\nmetadata: {{name: to-{name}}}\nspec:\n  \
         endpointRef: {{name: {name}}}\n  eventTypes: [\"**\"]\n---\n"
    )
}

async fn get(client: &Client, url: &str) -> Value {
    let (status, body) = client.get(url).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{url}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_hostile_receiver_ends_as_one_attempt_with_its_class() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut resources = String::new();
    for (behaviour, _) in BEHAVIOURS {
        write!(resources, "{}", endpoint(&behaviour.name(), behaviour.listen().await)).unwrap();
    }
    let healthy = serve(|_| StatusCode::NO_CONTENT).await.unwrap();
    resources.push_str(&endpoint("healthy", healthy));
    std::fs::write(folder.path().join("resources.yaml"), resources).unwrap();

    let mut dev = Dev::start(folder.path(), data.path()).await.unwrap();
    let client = Client::default();
    let event = Bytes::from_static(br#"{"event_type":"order.created","payload":{}}"#);
    let url = dev.url("/v1/tenants/default/events:publish");
    let (status, answer) = client.post_json(&url, event).await.unwrap();
    assert_eq!(status, StatusCode::ACCEPTED, "{}", String::from_utf8_lossy(&answer));

    let mut attempts = Vec::new();
    while attempts.len() <= BEHAVIOURS.len() {
        let line = dev.next_line().await.unwrap().expect("the process ended");
        if line["kind"] == "delivery" {
            attempts
                .push((line["endpoint"].as_str().unwrap().to_owned(), line["outcome"].as_str().unwrap().to_owned()));
        }
    }
    let mut expected: Vec<_> =
        BEHAVIOURS.iter().map(|(behaviour, outcome)| (behaviour.name(), (*outcome).to_owned())).collect();
    expected.push(("healthy".to_owned(), "delivered".to_owned()));
    expected.sort();
    let first = attempts.first().cloned();
    attempts.sort();
    assert_eq!(attempts, expected);
    assert_ne!(first.unwrap().1, "timeout", "a receiver that hangs must not be the first to be finished with");

    for (behaviour, outcome) in BEHAVIOURS {
        let deliveries =
            get(&client, &dev.url(&format!("/v1/tenants/default/deliveries?endpoint={}", behaviour.name()))).await;
        let delivery = &deliveries["items"][0];
        assert_eq!(delivery["state"], "dead", "{behaviour:?}: {delivery}");
        let id = delivery["delivery_id"].as_str().unwrap();
        let recorded = get(&client, &dev.url(&format!("/v1/tenants/default/deliveries/{id}/attempts"))).await;
        let recorded = recorded["items"].as_array().unwrap();
        assert_eq!(recorded.len(), 1, "{behaviour:?}: {recorded:?}");
        assert_eq!(recorded[0]["outcome"], outcome, "{behaviour:?}");
    }
}
