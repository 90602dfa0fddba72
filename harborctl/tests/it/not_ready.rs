//! Resources that the schema allows and that cannot be in effect: they are told with file, line, field and reason.

use std::path::Path;

use serde_json::Value;

use crate::support::{Running, endpoint, run, subscription, told, write};

const EVENT: &str = "{\"event_type\":\"a.b\",\"payload\":{}}";

fn good(folder: &Path) {
    write(
        folder,
        &[
            ("endpoint.yaml", &endpoint("target", "http://receiver.localhost/in")),
            ("subscription.yaml", &subscription("all", "target", "**")),
            ("events.jsonl", EVENT),
        ],
    );
}

#[test]
fn once_ends_with_1_if_a_resource_is_not_ready_although_all_is_delivered() {
    let other = |url: &str, more: &str| endpoint("other", url) + more;
    let secret = "  signing:\n    secretKeyRef:\n      name: absent\n      key: key\n";
    let pool = "  poolRef:\n    name: absent\n";
    let filter = subscription("other", "target", "c.d") + "  filter: event.data ===\n";
    let receiver = "http://receiver.localhost/other";
    for (content, line, reason, field) in [
        (filter, 9, "InvalidFilter", "spec.filter"),
        (other(receiver, secret), 13, "SecretNotFound", "spec.signing.secretKeyRef"),
        (other("http://192.168.1.1/", ""), 6, "AddressBlocked", "spec.url"),
        (subscription("other", "absent", "c.d"), 7, "EndpointNotFound", "spec.endpointRef"),
        (other(receiver, pool), 12, "PoolNotFound", "spec.poolRef"),
    ] {
        let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        good(folder.path());
        write(folder.path(), &[("other.yaml", &content)]);
        let (path, data) = (folder.path().to_str().unwrap(), data.path().to_str().unwrap());
        let command = ["dev", path, "--data", data, "--listen", "127.0.0.1:0", "--once", "--output", "json"];
        let (code, stdout, stderr) = told(&run(&command));
        assert_eq!(code, 1, "{reason}: {stdout}{stderr}");
        let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let delivered = lines.iter().filter(|line| line["outcome"] == "delivered").count();
        assert_eq!(delivered, 1, "{reason}: {stdout}");
        let not_ready = lines.iter().find(|line| line["kind"] == "not_ready").unwrap_or_else(|| panic!("{stdout}"));
        assert_eq!(not_ready["reason"], reason, "{not_ready}");
        assert!(not_ready["file"].as_str().unwrap().ends_with("other.yaml"), "{not_ready}");
        assert!(not_ready["object"].as_str().unwrap().ends_with(" default/other"), "{not_ready}");
        assert!(not_ready["field"].as_str().unwrap().starts_with(field), "{not_ready}");
        assert_eq!(not_ready["line"], line, "{not_ready}");
        assert!(stderr.contains(&format!("other.yaml:{line}: ")) && stderr.contains(reason), "{stderr}");
    }
}

#[test]
fn a_suspended_resource_is_as_it_was_asked_to_be() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    good(folder.path());
    let suspended = endpoint("other", "http://receiver.localhost/other") + "  suspend: true\n";
    write(folder.path(), &[("other.yaml", &suspended)]);
    let (path, data) = (folder.path().to_str().unwrap(), data.path().to_str().unwrap());
    let (code, stdout, stderr) = told(&run(&["dev", path, "--data", data, "--listen", "127.0.0.1:0", "--once"]));
    assert_eq!(code, 0, "{stdout}{stderr}");
}

#[test]
fn an_edit_that_breaks_a_resource_is_told_and_so_is_the_one_that_heals_it() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    good(folder.path());
    let mut dev = Running::dev(folder.path(), data.path());
    let file = "subscription.yaml";
    let right = subscription("all", "target", "**");

    write(folder.path(), &[(file, &format!("{right}  filter: event.data ===\n"))]);
    let broken = dev.line_where(|line| line["kind"] == "not_ready");
    assert!(broken["file"].as_str().unwrap().ends_with(file), "{broken}");
    assert_eq!((&broken["line"], &broken["reason"]), (&9.into(), &"InvalidFilter".into()), "{broken}");
    let notice = dev.notice("not ready");
    assert!(notice.contains("subscription.yaml:9: Subscription default/all: InvalidFilter: spec.filter"), "{notice}");
    dev.ask(&["route", "--type", "a.b", "--data", "{}"], 0);

    write(folder.path(), &[(file, &right)]);
    let healed = dev.line_where(|line| line["kind"] == "healed");
    assert!(healed["file"].as_str().unwrap().ends_with(file), "{healed}");
    assert_eq!(healed["object"], "Subscription default/all", "{healed}");
    dev.notice("subscription.yaml: Subscription default/all is right again");

    write(folder.path(), &[(file, &right.replace("eventTypes", "eventTipes"))]);
    dev.line_where(|line| line["kind"] == "refused");
    write(folder.path(), &[(file, &right)]);
    let healed = dev.line_where(|line| line["kind"] == "healed");
    assert!(healed["file"].as_str().unwrap().ends_with(file) && healed["object"].is_null(), "{healed}");
    dev.notice("subscription.yaml is right again");
    dev.stop();
}

#[test]
fn once_that_is_interrupted_before_all_is_finished_does_not_look_like_a_success() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    good(folder.path());
    // Nobody listens there, and the endpoint tries again each second.
    write(folder.path(), &[("endpoint.yaml", &endpoint("target", "http://127.0.0.1:1/in"))]);
    let (path, data) = (folder.path().to_str().unwrap(), data.path().to_str().unwrap());
    let mut dev =
        Running::start(&["dev", path, "--data", data, "--listen", "127.0.0.1:0", "--once", "--output", "json"]);
    dev.line_where(|line| line["outcome"] == "connection_refused");
    dev.terminate();
    assert_eq!(dev.wait().code(), Some(130));
}
