//! Whoever reads what `harborctl dev` prints may stop reading.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::support::{Running, endpoint, subscription, wait_until, write};

/// Far more lines than a pipe holds.
const EVENTS: usize = 900;

fn resources(folder: &Path) {
    let mut events = String::new();
    for number in 0..EVENTS {
        writeln!(events, "{{\"event_type\":\"a.b\",\"payload\":{number}}}").unwrap();
    }
    events.push_str("{\"event_type\":\"a.last\",\"payload\":{}}\n");
    write(
        folder,
        &[
            ("endpoint.yaml", &endpoint("target", "http://receiver.localhost/in")),
            ("subscription.yaml", &subscription("all", "target", "a.*")),
            ("events.jsonl", &events),
        ],
    );
}

/// Whether the last sample is published, and nothing is open any more.
fn all_is_delivered(dev: &Running) -> bool {
    let server = format!("http://{}", dev.address);
    let items = |arguments: &[&str]| {
        let output = crate::support::run(&[&["--server", &server, "--output", "json"], arguments].concat());
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["items"].as_array().unwrap().clone()
    };
    items(&["event", "list", "--type", "a.last"]).len() == 1
        && items(&["delivery", "list", "--state", "open"]).is_empty()
}

#[test]
fn nothing_waits_for_a_reader_that_reads_nothing() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    resources(folder.path());
    let arguments = ["dev", folder.path().to_str().unwrap(), "--data", data.path().to_str().unwrap()];
    let more = ["--listen", "127.0.0.1:0", "--output", "json"];
    let mut dev = Running::start_unread(&[&arguments[..], &more].concat());
    wait_until("deliveries stay open", || all_is_delivered(&dev));

    write(folder.path(), &[("subscription.yaml", &subscription("all", "target", "c.d"))]);
    let server = format!("http://{}", dev.address);
    let route = ["--server", &server, "route", "--type", "c.d", "--data", "{}"];
    wait_until("an edit does not count", || crate::support::run(&route).status.success());

    dev.terminate();
    assert_eq!(dev.wait().code(), Some(0));
}
