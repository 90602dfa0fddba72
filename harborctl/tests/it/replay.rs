//! Replays among the files of `harborctl dev`.

use crate::support::{Running, endpoint, subscription, write};

fn replay(states: &str) -> String {
    format!(
        "apiVersion: harborhook.dev/v1alpha1\nkind: Replay\nmetadata:\n  name: again\nspec:\n  eventTypes: [\"**\"]\n  \
         sinceTime: \"2020-01-01T00:00:00Z\"\n  untilTime: \"2100-01-01T00:00:00Z\"\n  states: [{states}]\n"
    )
}

#[test]
fn a_replay_that_is_added_delivers_again_and_what_was_missing() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(
        folder.path(),
        &[
            ("endpoint.yaml", &endpoint("target", "http://receiver.localhost/in")),
            ("one.yaml", &subscription("one", "target", "order.created")),
        ],
    );
    let mut dev = Running::dev(folder.path(), data.path());
    let event = dev.publish("order.created", "{}");
    let first = dev.attempt_of(&event);
    assert_eq!(first["outcome"], "delivered");

    write(folder.path(), &[("replay.yaml", &replay("Delivered"))]);
    let again = dev.attempt_of(&event);
    assert_eq!((&again["outcome"], &again["delivery"]), (&first["outcome"], &first["delivery"]), "{again}");

    // Another subscription comes, and the replay is edited to ask for something else.
    write(folder.path(), &[("two.yaml", &subscription("two", "target", "order.*"))]);
    dev.line_where(|line| line["kind"] == "applied");
    write(folder.path(), &[("replay.yaml", &replay("Missing"))]);
    let missing = dev.attempt_of(&event);
    assert_eq!(missing["outcome"], "delivered");
    assert_ne!(missing["delivery"], first["delivery"], "{missing}");
    dev.stop();
}
