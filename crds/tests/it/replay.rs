//! What a replay may say, and what it may not say later.

use std::collections::BTreeSet;

use crds::Kind;
use crds::admission::admit_update;
use serde_json::{Value, json};

use crate::rules::{NAME_MESSAGE, Row};
use crate::support::{object, problems};

/// What every rule says that compares a replay with what it was.
pub(crate) const FIXED_MESSAGE: &str = "cannot be changed; delete the replay and create another";

fn replay(field: &str, message: &'static str, accepted: Value, refused: Value) -> Row {
    Row { kind: Kind::Replay, field: field.to_owned(), message, accepted, refused }
}

/// The rules that speak of one replay.
pub(crate) fn rows() -> Vec<Row> {
    vec![
        replay(
            "spec",
            "set at least one of endpointRef, subscriptionRef and eventTypes; eventTypes: [\"**\"] is everything",
            json!({"endpointRef": null, "eventTypes": ["**"]}),
            json!({"endpointRef": null}),
        ),
        replay(
            "spec.untilTime",
            "must be later than sinceTime",
            json!({"untilTime": "2026-01-31T11:00:01+02:00"}),
            json!({"untilTime": "2026-01-31T11:00:00+02:00"}),
        ),
        replay(
            "spec.endpointRef.name",
            NAME_MESSAGE,
            json!({"endpointRef": {"name": "a"}}),
            json!({"endpointRef": {"name": "A"}}),
        ),
        replay(
            "spec.subscriptionRef.name",
            NAME_MESSAGE,
            json!({"subscriptionRef": {"name": "a"}}),
            json!({"subscriptionRef": {"name": "A"}}),
        ),
        replay(
            "spec.eventTypes[0]",
            "must be an event type such as order.created, or a pattern: order.* (exactly one more segment), order.** \
             (one or more) or ** (all); at most 16 segments of letters, digits, _, -, / and :",
            json!({"eventTypes": ["order.*"]}),
            json!({"eventTypes": ["*"]}),
        ),
    ]
}

/// What cannot be changed: a patch that changes it, by its field.
fn fixed_fields() -> Vec<(&'static str, Value)> {
    vec![
        ("endpointRef", json!({"endpointRef": {"name": "others"}})),
        ("endpointRef", json!({"endpointRef": null, "subscriptionRef": {"name": "orders"}, "eventTypes": ["a.*"]})),
        ("subscriptionRef", json!({"subscriptionRef": null})),
        ("subscriptionRef", json!({"subscriptionRef": {"name": "others"}})),
        ("eventTypes", json!({"eventTypes": null})),
        ("eventTypes", json!({"eventTypes": ["a.*", "b.*"]})),
        ("sinceTime", json!({"sinceTime": "2026-01-31T09:00:01Z"})),
        ("untilTime", json!({"untilTime": "2026-01-31T09:59:59Z"})),
        ("states", json!({"states": null})),
        ("states", json!({"states": ["Delivered"]})),
        ("filter", json!({"filter": null})),
        ("filter", json!({"filter": "event.data.b"})),
        ("dryRun", json!({"dryRun": true})),
    ]
}

#[test]
fn a_replay_cannot_be_told_what_it_should_have_been() {
    let whole = json!({
        "subscriptionRef": {"name": "orders"}, "eventTypes": ["a.*"], "states": ["Dead"], "filter": "event.data.a",
    });
    let update = |old: &Value, patch: &Value| -> Vec<String> {
        let mut spec = whole.clone();
        for (field, value) in patch.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let new = object(Kind::Replay, &spec);
        admit_update(&new, old).err().into_iter().flatten().map(|problem| problem.to_string()).collect()
    };
    let old = object(Kind::Replay, &whole);
    for allowed in [json!({}), json!({"suspend": true}), json!({"perSecond": 7}), json!({"dryRun": false})] {
        assert_eq!(update(&old, &allowed), Vec::<String>::new(), "{allowed}");
    }
    for (field, patch) in fixed_fields() {
        let expected = format!("spec.{field}: {FIXED_MESSAGE}");
        assert_eq!(update(&old, &patch), [expected], "{patch}");
    }
    let short = object(Kind::Replay, &json!({}));
    let added: BTreeSet<String> = update(&short, &json!({"dryRun": true})).into_iter().collect();
    let fields = ["dryRun", "eventTypes", "filter", "states", "subscriptionRef"];
    assert_eq!(added, fields.map(|field| format!("spec.{field}: {FIXED_MESSAGE}")).into(), "added later");
}

#[test]
fn a_time_is_refused_with_an_example_of_one() {
    for time in ["yesterday", "2026-01-31", "2026-01-31T09:00:00", "2026-02-31T09:00:00Z", ""] {
        let found = problems(&object(Kind::Replay, &json!({"sinceTime": time})));
        assert_eq!(found, ["spec.sinceTime: must be a time in RFC 3339, such as 2026-01-31T09:00:00Z"], "{time}");
    }
}

#[test]
fn what_was_asked_of_the_past_must_be_told() {
    for (patch, expected) in [
        (json!({"sinceTime": null}), "spec.sinceTime: is required"),
        (json!({"untilTime": null}), "spec.untilTime: is required"),
        (json!({"states": ["Cancelled"]}), "spec.states[0]: must be one of Dead, Delivered, Missing"),
        (json!({"states": []}), "spec.states: must have at least 1 entry"),
        (json!({"states": ["Dead", "Dead"]}), "spec.states[1]: is a duplicate of an earlier item"),
        (json!({"perSecond": 0}), "spec.perSecond: must be from 1 to 10000"),
    ] {
        assert_eq!(problems(&object(Kind::Replay, &patch)), [expected], "{patch}");
    }
}
