//! `harborctl receiver`, and how deliveries to it end.

use std::path::Path;

use crate::support::{Running, endpoint, run, subscription, told, write};

fn dev_towards(receiver: &Running, folder: &Path, data: &Path) -> Running {
    write(
        folder,
        &[
            ("endpoint.yaml", &endpoint("target", &format!("http://{}/in", receiver.address))),
            ("subscription.yaml", &subscription("all", "target", "**")),
        ],
    );
    Running::dev(folder, data)
}

#[test]
fn it_fails_the_first_requests_and_a_retry_arrives() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let flags = ["--listen", "127.0.0.1:0", "--fail-first", "2", "--status", "503", "--output", "json"];
    let mut receiver = Running::start(&[&["receiver"], &flags[..]].concat());
    let mut dev = dev_towards(&receiver, folder.path(), data.path());

    let event = dev.publish("a.b", "{\"n\": 1}");
    for (attempt, outcome, status) in [(1, "http_5xx", 503), (2, "http_5xx", 503), (3, "delivered", 200)] {
        let line = dev.attempt_of(&event);
        assert_eq!((&line["attempt"], &line["outcome"]), (&attempt.into(), &outcome.into()), "{line}");
        let request = receiver.line();
        assert_eq!(request["status_code"], status, "{request}");
        assert_eq!(request["id"], line["delivery"], "the identity is the same over retries");
        assert_eq!(request["body"], "{\"n\": 1}");
    }
    dev.stop();
    receiver.stop();
}

#[test]
fn a_reset_is_an_attempt_of_its_own_class() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let flags = ["--listen", "127.0.0.1:0", "--fail-first", "1", "--reset", "--output", "json"];
    let mut receiver = Running::start(&[&["receiver"], &flags[..]].concat());
    let mut dev = dev_towards(&receiver, folder.path(), data.path());
    let event = dev.publish("a.b", "{}");
    assert_eq!(dev.attempt_of(&event)["outcome"], "network");
    assert_eq!(dev.attempt_of(&event)["outcome"], "delivered");
    assert!(receiver.line()["status_code"].is_null());
    dev.stop();
}

#[test]
fn a_signature_that_does_not_verify_is_refused() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let secret = folder.path().join("secret.txt");
    std::fs::write(&secret, "another key than the endpoint's\n").unwrap();
    let flags = ["--listen", "127.0.0.1:0", "--secret-file", secret.to_str().unwrap(), "--output", "json"];
    let mut receiver = Running::start(&[&["receiver"], &flags[..]].concat());
    let mut dev = dev_towards(&receiver, folder.path(), data.path());
    let event = dev.publish("a.b", "{}");
    assert_eq!(dev.attempt_of(&event)["status_code"], 401);
    let request = receiver.line();
    assert_eq!(request["verified"], false, "{request}");
    dev.stop();
}

#[test]
fn only_loopback_is_served() {
    for command in [&["receiver", "--listen", "0.0.0.0:0"][..], &["dev", ".", "--listen", "0.0.0.0:0"]] {
        let (code, stdout, stderr) = told(&run(command));
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        assert!(stderr.contains("only loopback"), "{stderr}");
    }
}
