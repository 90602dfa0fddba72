//! A receiver that answers at once and reads next to nothing of what it is sent.

use std::time::Duration;

use bytes::Bytes;
use dispatcher::http::Request;
use dispatcher_core::delivery::Outcome;
use dispatcher_core::limits::{EVENT_BODY_BYTES_MAX, UNACKNOWLEDGED_MAX};
use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep};
use url::Url;

use super::client;

const POLL: Duration = Duration::from_millis(100);

/// Connections of this network namespace to a port, established or about to end, as proc_pid_net(5) lists them.
fn connections_to(port: u16) -> usize {
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    sockets
        .lines()
        .filter(|line| line.split_whitespace().nth(2).is_some_and(|address| address.ends_with(&remote)))
        .count()
}

#[tokio::test]
#[cfg_attr(not(target_os = "linux"), ignore = "the kernel has no such option")]
async fn a_receiver_that_answers_and_never_reads_does_not_hold_its_connection_for_ever() {
    let socket = TcpSocket::new_v4().unwrap();
    // Far less than the body, so that it stays with the sender.
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let receiver = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Its first bytes say that the request has begun.
        stream.read_u8().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream
    });

    let url = Url::parse(&format!("http://{address}/hook")).unwrap();
    let body = Bytes::from(vec![b'1'; EVENT_BODY_BYTES_MAX]);
    let (headers, deadline) = (HeaderMap::new(), Duration::from_secs(20));
    let exchange = client().exchange(Request { url: &url, identity: None, headers, body, deadline }).await.unwrap();
    assert_eq!((exchange.outcome, exchange.status_code), (Outcome::Delivered, Some(200)));
    let unread = receiver.await.unwrap();
    assert_eq!(connections_to(address.port()), 1, "the body is not sent yet");

    let deadline = Instant::now() + 3 * UNACKNOWLEDGED_MAX;
    while connections_to(address.port()) > 0 {
        assert!(Instant::now() < deadline, "the connection is still held");
        sleep(POLL).await;
    }
    drop(unread);
}
