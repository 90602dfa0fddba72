//! The servers of this crate, started for real. Each test says on the error stream when this machine cannot.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod cluster;
mod command;
mod postgres;
mod rabbitmq;

use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use url::Url;

/// Longest wait for what must happen.
const DEADLINE: Duration = Duration::from_mins(1);

/// Port of a server's URL.
fn port_of(url: &str) -> u16 {
    Url::parse(url).unwrap().port().unwrap()
}

/// Whether anything listens on a loopback port.
fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Whether a process exists, dead ones that wait for their parent included.
fn exists(process_id: u32) -> bool {
    PathBuf::from(format!("/proc/{process_id}")).exists()
}

/// Waits until `condition` holds.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "never so: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
