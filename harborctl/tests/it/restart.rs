//! Stopping and starting again: nothing is lost.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::support::{Running, endpoint, subscription, write};

#[test]
fn what_was_not_delivered_is_delivered_after_a_restart() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let receiver = Running::start(&["receiver", "--listen", "127.0.0.1:0", "--output", "json"]);
    let address = receiver.address.clone();
    receiver.stop();
    write(
        folder.path(),
        &[
            ("endpoint.yaml", &endpoint("target", &format!("http://{address}/in"))),
            ("subscription.yaml", &subscription("all", "target", "**")),
        ],
    );
    let mut dev = Running::dev(folder.path(), data.path());
    let event = dev.publish("a.b", "{}");
    let attempt = dev.attempt_of(&event);
    assert_eq!((&attempt["outcome"], &attempt["state"]), (&"connection_refused".into(), &"open".into()), "{attempt}");
    dev.stop();

    let _receiver = Running::start(&["receiver", "--listen", &address, "--output", "json"]);
    let mut dev = Running::dev(folder.path(), data.path());
    let attempt = dev.line_where(|line| line["event"] == event.as_str() && line["outcome"] == "delivered");
    assert!(attempt["attempt"].as_u64() > Some(1), "attempts are counted over the restart: {attempt}");
    dev.stop();
}

#[test]
fn a_stop_waits_for_the_exchange_in_flight() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    write(
        folder.path(),
        &[("endpoint.yaml", &endpoint("slow", &url)), ("subscription.yaml", &subscription("all", "slow", "**"))],
    );
    let mut dev = Running::dev(folder.path(), data.path());
    let event = dev.publish("a.b", "{}");
    let (mut stream, _) = listener.accept().unwrap();
    let mut request = [0; 4096];
    assert!(stream.read(&mut request).unwrap() > 0);

    dev.terminate();
    dev.notice("draining");
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    let attempt = dev.attempt_of(&event);
    assert_eq!(attempt["outcome"], "delivered", "{attempt}");
    assert_eq!(dev.wait().code(), Some(0));
}

#[test]
fn a_second_signal_stops_at_once() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    write(
        folder.path(),
        &[("endpoint.yaml", &endpoint("hanging", &url)), ("subscription.yaml", &subscription("all", "hanging", "**"))],
    );
    let mut dev = Running::dev(folder.path(), data.path());
    dev.publish("a.b", "{}");
    let _held = listener.accept().unwrap();
    dev.terminate();
    dev.notice("draining");
    dev.terminate();
    assert_eq!(dev.wait().code(), Some(130));
}
