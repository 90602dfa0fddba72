//! The outbound client against receivers that do everything wrong, on loopback.

#![expect(clippy::unwrap_used, reason = "helpers are functions of tests")]

mod identity;
mod unread;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dispatcher::http::{Client, ClientConfig, Exchange, Request, ResolverConfig};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::delivery::Outcome;
use dispatcher_core::limits::RESPONSE_EXCERPT_BYTES_MAX;
use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// Longer than any receiver here takes by itself, and what those that never end are cut off by.
const DEADLINE: Duration = Duration::from_millis(1_500);

fn client() -> Client {
    let resolver = ResolverConfig { fixed_hosts: HashMap::new() };
    // Names below `invalid` never resolve (RFC 6761), and the guard would refuse them before they are looked up.
    let mut address_policy = AddressPolicy::development();
    address_policy.allow_hosts.push("invalid".to_owned());
    Client::new(ClientConfig { address_policy, resolver }).unwrap()
}

async fn post(client: &Client, url: &str) -> Exchange {
    let url = Url::parse(url).unwrap();
    let body = Bytes::from_static(b"{\"a\":1}");
    let exchange =
        client.exchange(Request { url: &url, identity: None, headers: HeaderMap::new(), body, deadline: DEADLINE });
    tokio::time::timeout(DEADLINE * 4, exchange).await.expect("an exchange ends at its deadline").unwrap()
}

/// A receiver that reads a request's head and then does with each connection what it is told.
async fn receiver<F>(scheme: &str, act: impl Fn(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("{scheme}://{}/hook?token=hunter2", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(act(stream));
        }
    });
    url
}

/// Reads up to the end of a request's body, which is the seven bytes of `post`.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !seen.ends_with(b"{\"a\":1}") {
        match stream.read(&mut buffer).await {
            Ok(length) if length > 0 => seen.extend_from_slice(&buffer[..length]),
            _ => return false,
        }
    }
    true
}

/// Answers with these bytes and keeps the connection open.
async fn answering(bytes: impl Into<Vec<u8>>) -> String {
    let bytes = Arc::new(bytes.into());
    receiver("http", move |mut stream| {
        let bytes = Arc::clone(&bytes);
        async move { while read_request(&mut stream).await && stream.write_all(&bytes).await.is_ok() {} }
    })
    .await
}

/// Answers with a beginning and then with the same bytes again and again.
async fn endless(beginning: &'static str, again: &'static str, pause: Duration) -> String {
    receiver("http", move |mut stream| async move {
        read_request(&mut stream).await;
        let mut written = stream.write_all(beginning.as_bytes()).await;
        while written.is_ok() {
            tokio::time::sleep(pause).await;
            written = stream.write_all(again.as_bytes()).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_answer_has_the_class_of_its_status_and_redirects_are_not_followed() {
    let client = client();
    let redirect = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    for (answer, outcome, status_code, excerpt) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Outcome::Delivered, 200, "ok"),
        (redirect, Outcome::Http3xx, 302, ""),
        ("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", Outcome::Http4xx, 404, ""),
        ("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", Outcome::Http410, 410, ""),
        (
            "HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            Outcome::Http5xx,
            500,
            "abc",
        ),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n", Outcome::Delivered, 204, ""),
    ] {
        let exchange = post(&client, &answering(answer).await).await;
        assert_eq!((exchange.outcome, exchange.status_code), (outcome, Some(status_code)), "{answer}");
        assert_eq!(exchange.excerpt, excerpt.as_bytes(), "{answer}");
    }
}

#[tokio::test]
async fn retry_after_is_read() {
    let answer = "HTTP/1.1 429 Slow\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n";
    let exchange = post(&client(), &answering(answer).await).await;
    assert_eq!((exchange.outcome, exchange.retry_after), (Outcome::Http429, Some(Duration::from_mins(2))));
}

#[tokio::test]
async fn a_receiver_that_never_ends_is_cut_off_at_the_deadline() {
    let client = client();
    let second = Duration::from_millis(20);
    let silent = receiver("http", |stream| async move {
        // Held open, never read.
        std::future::pending::<()>().await;
        drop(stream);
    });
    for (name, url, status_code) in [
        ("before the head", silent.await, None),
        ("within the head", answering("HTTP/1.1 200 OK\r\nx: ").await, None),
        ("before the body", answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await, Some(200)),
        ("drip", endless("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n", "x", second).await, Some(200)),
        ("1xx", endless("", "HTTP/1.1 102 Processing\r\n\r\n", Duration::from_millis(1)).await, None),
        (
            "TLS",
            receiver("https", |stream| async move {
                std::future::pending::<()>().await;
                drop(stream);
            })
            .await,
            None,
        ),
    ] {
        let exchange = post(&client, &url).await;
        assert_eq!((exchange.outcome, exchange.status_code), (Outcome::Timeout, status_code), "{name}");
        assert!(exchange.duration >= DEADLINE, "{name}: {:?}", exchange.duration);
    }
}

#[tokio::test]
async fn an_endless_body_is_cut_off_and_its_status_counts() {
    let body = "a body that never ends; ";
    let url = endless(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "18\r\na body that never ends; \r\n",
        Duration::ZERO,
    );
    let exchange = post(&client(), &url.await).await;
    assert_eq!((exchange.outcome, exchange.status_code), (Outcome::Delivered, Some(200)));
    assert_eq!(exchange.excerpt.len(), RESPONSE_EXCERPT_BYTES_MAX);
    assert!(exchange.excerpt.starts_with(body.as_bytes()));
}

#[tokio::test]
async fn what_is_not_http_ends_as_a_network_failure() {
    let client = client();
    let (headers, filler) = (&*"x: y\r\n".repeat(4_096).leak(), &*"y".repeat(65_536).leak());
    for (name, url) in [
        ("endless headers", endless("HTTP/1.1 200 OK\r\n", headers, Duration::ZERO).await),
        ("one endless header", endless("HTTP/1.1 200 OK\r\nx: ", filler, Duration::ZERO).await),
        ("garbage", answering("I am no web server\r\n\r\n").await),
        ("chunked nonsense", answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n").await),
        ("two lengths", answering("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab").await),
        ("status beyond HTTP", answering("HTTP/1.1 999 What\r\ncontent-length: 0\r\n\r\n").await),
    ] {
        let exchange = post(&client, &url).await;
        assert_eq!(exchange.outcome, Outcome::Network, "{name}: {exchange:?}");
        assert!(!String::from_utf8_lossy(&exchange.excerpt).contains("hunter2"), "{name}: {exchange:?}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_ends_as_a_network_failure() {
    let client = client();
    let closing = |answer: &'static str, reset: bool| {
        receiver("http", move |mut stream| async move {
            read_request(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            if reset {
                stream.set_zero_linger().unwrap();
            }
        })
    };
    for (name, url) in [
        ("closed before the head", closing("", false).await),
        ("reset before the head", closing("", true).await),
        ("closed within the head", closing("HTTP/1.1 200 OK\r\nx:", false).await),
        ("closed within the body", closing("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort", false).await),
        ("closed within a chunk", closing("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nx", false).await),
    ] {
        let exchange = post(&client, &url).await;
        assert_eq!(exchange.outcome, Outcome::Network, "{name}: {exchange:?}");
    }
}

#[tokio::test]
async fn a_failed_handshake_is_a_tls_error() {
    let client = client();
    let speaking = |bytes: &'static [u8]| {
        receiver("https", move |mut stream| async move {
            let mut hello = [0; 1024];
            assert!(stream.read(&mut hello).await.unwrap() > 0);
            stream.write_all(bytes).await.unwrap();
        })
    };
    for (name, bytes) in [
        ("no TLS", &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]),
        // A record of type alert, TLS 1.2, two bytes: fatal, handshake_failure.
        ("alert", &[21, 3, 3, 0, 2, 2, 40][..]),
    ] {
        let exchange = post(&client, &speaking(bytes).await).await;
        assert_eq!(exchange.outcome, Outcome::TlsError, "{name}: {exchange:?}");
    }
}

#[tokio::test]
async fn who_cannot_be_reached_is_told_apart() {
    let client = client();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (url, outcome) in [
        (format!("http://{closed}/hook?token=hunter2"), Outcome::ConnectionRefused),
        ("http://no-such-host.invalid/hook?token=hunter2".to_owned(), Outcome::DnsError),
        ("http://10.0.0.1/hook?token=hunter2".to_owned(), Outcome::AddressBlocked),
        ("http://[::ffff:a9fe:a9fe]/hook?token=hunter2".to_owned(), Outcome::AddressBlocked),
        ("http://0xa.1/hook?token=hunter2".to_owned(), Outcome::AddressBlocked),
        ("http://user:hunter2@127.0.0.1/hook".to_owned(), Outcome::AddressBlocked),
        ("ftp://127.0.0.1/hook?token=hunter2".to_owned(), Outcome::AddressBlocked),
    ] {
        let exchange = post(&client, &url).await;
        assert_eq!((exchange.outcome, exchange.status_code), (outcome, None), "{url}: {exchange:?}");
        let excerpt = String::from_utf8_lossy(&exchange.excerpt);
        assert!(!excerpt.is_empty() && !excerpt.contains("hunter2"), "{url}: {excerpt}");
        assert!(!excerpt.contains("client error"), "whose client, the tenant would ask: {excerpt}");
    }
}

#[tokio::test]
async fn a_connection_whose_answer_was_read_is_used_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let url = receiver("http", move |mut stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            while read_request(&mut stream).await
                && stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_ok()
            {}
        }
    })
    .await;
    let client = client();
    for _ in 0..5 {
        assert_eq!(post(&client, &url).await.outcome, Outcome::Delivered);
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}
