//! What a real API server says to replays.

use crds::Kind;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::support::Cluster;

const FIXED: &str = "Invalid value: cannot be changed; delete the replay and create another";

fn replay(name: &str, patch: &Value) -> DynamicObject {
    let mut spec = json!({
        "endpointRef": {"name": "e"},
        "sinceTime": "2026-01-31T09:00:00Z",
        "untilTime": "2026-01-31T10:00:00Z",
    });
    for (field, value) in patch.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    let object = json!({
        "apiVersion": crds::API_VERSION, "kind": "Replay", "metadata": {"name": name}, "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

/// The server's words about an object that it refuses, without the part that names it.
fn refusal<T: std::fmt::Debug>(answer: kube::Result<T>) -> String {
    match answer {
        Err(kube::Error::Api(status)) => {
            let message = status.message.clone();
            message.split_once(" is invalid: ").map_or(message.clone(), |(_, words)| words.to_owned())
        }
        other => panic!("it is refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_wrong_replay_is_refused_with_a_sentence_that_helps() {
    let Some(cluster) = Cluster::with_kinds("replay-refused").await else { return };
    let replays = cluster.objects(Kind::Replay);
    for (patch, words) in [
        (
            json!({"endpointRef": null}),
            "spec: Invalid value: set at least one of endpointRef, subscriptionRef and eventTypes; \
             eventTypes: [\"**\"] is everything",
        ),
        (
            json!({"untilTime": "2026-01-31T11:00:00+02:00"}),
            "spec.untilTime: Invalid value: must be later than sinceTime",
        ),
        (
            json!({"perSecond": 0}),
            "spec.perSecond: Invalid value: 0: spec.perSecond in body should be greater than or equal to 1",
        ),
    ] {
        let answer = replays.create(&PostParams::default(), &replay("r", &patch)).await;
        assert_eq!(refusal(answer), words, "{patch}");
    }
    let answer = replays.create(&PostParams::default(), &replay("r", &json!({"states": ["Cancelled"]}))).await;
    let words =
        "spec.states[0]: Unsupported value: \"Cancelled\": supported values: \"Dead\", \"Delivered\", \"Missing\"";
    assert!(refusal(answer).contains(words));
}

#[tokio::test]
async fn only_the_pace_of_a_replay_can_be_changed() {
    let Some(cluster) = Cluster::with_kinds("replay-fixed").await else { return };
    let replays = cluster.objects(Kind::Replay);
    let made = replays.create(&PostParams::default(), &replay("r", &json!({"states": ["Dead"]}))).await.unwrap();
    assert_eq!(made.data["status"]["observedGeneration"], -1, "nobody has seen it");
    let change =
        async |patch: Value| replays.patch("r", &PatchParams::default(), &Patch::Merge(json!({"spec": patch}))).await;
    for (patch, fields) in [
        (json!({"endpointRef": {"name": "f"}}), &["endpointRef"][..]),
        (json!({"subscriptionRef": {"name": "s"}}), &["subscriptionRef"]),
        (json!({"endpointRef": null, "eventTypes": ["a"]}), &["endpointRef", "eventTypes"]),
        (json!({"sinceTime": "2026-01-31T08:00:00Z"}), &["sinceTime"]),
        (json!({"untilTime": "2026-01-31T12:00:00Z"}), &["untilTime"]),
        (json!({"states": null}), &["states"]),
        (json!({"filter": "true"}), &["filter"]),
        (json!({"dryRun": true}), &["dryRun"]),
    ] {
        let words = refusal(change(patch.clone()).await);
        for field in fields {
            assert!(words.contains(&format!("spec.{field}: {FIXED}")), "{patch}: {words}");
        }
        assert_eq!(words.matches(FIXED).count(), fields.len(), "{patch}: {words}");
    }
    let changed = change(json!({"perSecond": 7, "suspend": true, "dryRun": false})).await.unwrap();
    assert_eq!(changed.metadata.generation, Some(2));
    let same_time = change(json!({"sinceTime": "2026-01-31T10:00:00+01:00"})).await;
    assert!(same_time.is_ok(), "the same moment in other words: {same_time:?}");
}
