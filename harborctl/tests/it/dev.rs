//! `harborctl dev` from start to end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use serde_json::Value;

use crate::support::{Running, endpoint, run, run_with_input, subscription, told, write};

const QUICKSTART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/quickstart");

fn once<'a>(folder: &'a Path, data: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let (folder, data) = (folder.to_str().unwrap(), data.to_str().unwrap());
    [&["dev", folder, "--data", data, "--listen", "127.0.0.1:0", "--once"], more].concat()
}

#[test]
fn the_quickstart_delivers_every_sample_event_verified() {
    let data = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = told(&run(&once(Path::new(QUICKSTART), data.path(), &["--output", "json"])));
    assert_eq!(code, 0, "{stdout}{stderr}");
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["kind"], "listening", "{stdout}");
    assert!(lines[0]["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{stdout}");
    let deliveries: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "delivery").collect();
    assert_eq!(deliveries.len(), 5, "{stdout}");
    for delivery in &deliveries {
        assert_eq!((&delivery["outcome"], &delivery["status_code"]), (&"delivered".into(), &200.into()), "{delivery}");
        assert_eq!((&delivery["attempt"], &delivery["verified"]), (&1.into(), &true.into()), "{delivery}");
        assert!(delivery["duration_ms"].is_number() && delivery["event"].is_string(), "{delivery}");
    }
    assert_eq!(deliveries.iter().filter(|delivery| delivery["endpoint"] == "acme").count(), 1, "{stdout}");
    assert!(stderr.contains("loopback"), "what only `dev` allows is not said: {stderr}");
}

#[test]
fn the_example_of_transforms_delivers_verified() {
    let (data, folder) = (tempfile::tempdir().unwrap(), Path::new(QUICKSTART).join("../transform"));
    let (code, stdout, stderr) = told(&run(&once(&folder, data.path(), &["--output", "json"])));
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!(stdout.matches("\"verified\":true").count(), 5, "{stdout}");
}

#[test]
fn people_see_the_resources_and_the_attempts() {
    let data = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = told(&run(&once(Path::new(QUICKSTART), data.path(), &[])));
    assert_eq!(code, 0, "{stdout}{stderr}");
    for text in ["hookendpoint.harborhook.dev/orders", "hooksubscription.harborhook.dev/acme", "True    Programmed"] {
        assert!(stdout.contains(text), "{text}: {stdout}");
    }
    assert_eq!(stdout.lines().filter(|line| line.ends_with("delivered, verified")).count(), 5, "{stdout}");
}

#[test]
fn once_ends_with_1_if_a_delivery_is_given_up() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let receiver = Running::start(&["receiver", "--listen", "127.0.0.1:0", "--status", "500", "--output", "json"]);
    let endpoint = endpoint("target", &format!("http://{}/", receiver.address)) + "    maxAttempts: 1\n";
    let event = "{\"event_type\":\"a.b\",\"payload\":{}}";
    let files = [
        ("endpoint.yaml", endpoint.as_str()),
        ("subscription.yaml", &subscription("all", "target", "**")),
        ("events.jsonl", event),
    ];
    write(folder.path(), &files);
    let (code, stdout, stderr) = told(&run(&once(folder.path(), data.path(), &["--output", "json"])));
    assert_eq!(code, 1, "{stdout}{stderr}");
    let last: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&last["outcome"], &last["state"]), (&"http_5xx".into(), &"dead".into()), "{last}");
}

#[test]
fn once_does_not_wait_for_what_is_held() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = [
        ("endpoint.yaml", &*(endpoint("target", "http://receiver.localhost/") + "  suspend: true\n")),
        ("subscription.yaml", &subscription("all", "target", "**")),
        ("events.jsonl", "{\"event_type\":\"a.b\",\"payload\":{}}"),
    ];
    write(folder.path(), &files);
    let (code, stdout, stderr) = told(&run(&once(folder.path(), data.path(), &["--output", "json"])));
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert!(stderr.contains("target"), "{stderr}");
}

#[test]
fn a_wrong_file_at_the_start_is_refused_with_every_problem() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wrong = subscription("some", "target", "a..b").replace("endpointRef", "endpointReff");
    write(
        folder.path(),
        &[("endpoint.yaml", &endpoint("target", "http://user:pass@example.com/")), ("wrong.yaml", &wrong)],
    );
    let (code, stdout, stderr) = told(&run(&once(folder.path(), data.path(), &[])));
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    for text in
        ["endpoint.yaml:6: ", "spec.url", "wrong.yaml:6: ", "spec.endpointReff", "wrong.yaml:8: ", "spec.eventTypes[0]"]
    {
        assert!(stderr.contains(text), "{text}: {stderr}");
    }
    assert!(!stderr.contains("pass@"), "{stderr}");
}

#[test]
fn there_must_be_something_to_run() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (code, stdout, stderr) = told(&run(&once(folder.path(), data.path(), &[])));
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    let (code, _, stderr) = told(&run(&once(Path::new("/nowhere"), data.path(), &[])));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("/nowhere"), "{stderr}");
}

#[test]
fn foreign_kinds_are_skipped_aloud_and_resources_may_come_from_standard_input() {
    let data = tempfile::tempdir().unwrap();
    let documents = [
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: foreign\n",
        &endpoint("target", "http://receiver.localhost/"),
        &subscription("all", "target", "**"),
    ];
    let command = once(Path::new("-"), data.path(), &["--output", "json"]);
    let (code, stdout, stderr) = told(&run_with_input(&command, &documents.join("---\n")));
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stderr.contains("ConfigMap"), "{stderr}");
}

#[test]
fn a_taken_port_and_a_taken_folder_are_told_with_what_to_do() {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let command = ["dev", QUICKSTART, "--data", other.path().to_str().unwrap(), "--listen", &address];
    let (code, stdout, stderr) = told(&run(&command));
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    assert!(stderr.contains("--listen 127.0.0.1:0"), "{stderr}");

    let _dev = Running::dev(Path::new(QUICKSTART), data.path());
    let (code, stdout, stderr) = told(&run(&once(Path::new(QUICKSTART), data.path(), &[])));
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    assert!(stderr.contains("--data"), "{stderr}");
}

#[test]
fn health_and_metrics_are_served_where_they_are_asked_for() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    let arguments = ["dev", QUICKSTART, "--data", data, "--listen", "127.0.0.1:0", "--output", "json"];
    let (dev, first) = Running::started(&[&arguments[..], &["--admin", "127.0.0.1:0"]].concat());
    let address = first["admin_address"].as_str().unwrap();
    assert_ne!(address, dev.address);
    for (path, expected) in [("/healthz", "ok"), ("/readyz", "\"ready\":true"), ("/metrics", "harborhook_")] {
        let (status, body) = get(address, path);
        assert_eq!(status, 200, "{path}: {body}");
        assert!(body.contains(expected), "{path}: {body}");
    }
    dev.stop();
}

#[test]
fn there_is_no_admin_listener_unless_it_is_asked_for_and_it_serves_only_loopback() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    let arguments = ["dev", QUICKSTART, "--data", data, "--listen", "127.0.0.1:0", "--output", "json"];
    let (dev, first) = Running::started(&arguments);
    assert!(first["admin_address"].is_null(), "{first}");
    dev.stop();
    let (code, _, stderr) = told(&run(&[&arguments[..], &["--admin", "0.0.0.0:0"]].concat()));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("--admin 0.0.0.0:0: only loopback"), "{stderr}");
}

/// Status and body of what is served at a path.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
