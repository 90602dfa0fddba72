//! Editing files while `harborctl dev` runs.

use crate::support::{Running, endpoint, subscription, write};

#[test]
fn an_edit_changes_routing_at_once_and_a_wrong_file_changes_nothing() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = "subscription.yaml";
    write(
        folder.path(),
        &[
            ("endpoint.yaml", &endpoint("target", "http://receiver.localhost/in")),
            (file, &subscription("some", "target", "order.created")),
        ],
    );
    let mut dev = Running::dev(folder.path(), data.path());
    dev.ask(&["route", "--type", "order.created", "--data", "{}"], 0);
    dev.ask(&["route", "--type", "refund.created", "--data", "{}"], 1);

    write(folder.path(), &[(file, &subscription("some", "target", "refund.created"))]);
    dev.line_where(|line| line["kind"] == "applied");
    dev.ask(&["route", "--type", "order.created", "--data", "{}"], 1);
    dev.ask(&["route", "--type", "refund.created", "--data", "{}"], 0);

    let wrong = subscription("some", "target", "order.*").replace("eventTypes", "eventTipes");
    write(folder.path(), &[(file, &wrong)]);
    let refused = dev.line_where(|line| line["kind"] == "refused" && line["field"] == "spec.eventTipes");
    assert!(refused["file"].as_str().unwrap().ends_with(file), "{refused}");
    let notice = dev.notice("eventTipes");
    assert!(notice.contains("subscription.yaml:8") && notice.contains("Subscription"), "{notice}");
    dev.ask(&["route", "--type", "refund.created", "--data", "{}"], 0);
    let event = dev.publish("refund.created", "{}");
    assert_eq!(dev.attempt_of(&event)["outcome"], "delivered");

    write(folder.path(), &[(file, &subscription("some", "target", "order.*"))]);
    dev.line_where(|line| line["kind"] == "applied");
    dev.ask(&["route", "--type", "order.created", "--data", "{}"], 0);
    dev.stop();
}

#[test]
fn a_removed_file_removes_its_route() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(
        folder.path(),
        &[
            ("endpoint.yaml", &endpoint("target", "http://receiver.localhost/in")),
            ("one.yaml", &subscription("one", "target", "a.b")),
            ("two.yaml", &subscription("two", "target", "c.d")),
        ],
    );
    let mut dev = Running::dev(folder.path(), data.path());
    std::fs::remove_file(folder.path().join("two.yaml")).unwrap();
    dev.line_where(|line| line["kind"] == "applied");
    dev.ask(&["route", "--type", "c.d", "--data", "{}"], 1);
    dev.ask(&["route", "--type", "a.b", "--data", "{}"], 0);
    dev.stop();
}
