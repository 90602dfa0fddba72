//! Events as `kubectl describe` finds them.

use std::sync::Arc;

use crds::Kind;
use crds::condition::Reason;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ListParams};
use operator::cluster::events::EventWriter;
use operator::cluster::metrics::OperatorMetrics;
use operator::plan::events::{EventType, PlannedEvent};
use tokio_util::sync::CancellationToken;

use super::server::{client, refusal};
use super::support::{Cluster, eventually};

fn event(namespace: &str, uid: &str, note: &str) -> PlannedEvent {
    PlannedEvent {
        kind: Kind::Endpoint,
        namespace: namespace.to_owned(),
        name: "e".into(),
        uid: uid.to_owned(),
        type_: EventType::Warning,
        reason: Reason::SecretNotFound,
        note: note.into(),
    }
}

#[tokio::test]
async fn a_refused_event_is_counted_and_the_next_one_is_told() {
    let metrics = Arc::new(OperatorMetrics::new());
    let client = client(|asked| {
        let is_first = asked.body["note"] == "first";
        if is_first {
            refusal(403, "Forbidden")
        } else {
            super::server::Answer::Reply(201, serde_json::json!({"metadata": {}}))
        }
    });
    let writer = EventWriter::new(client, "pod-a".to_owned(), metrics.clone());
    let stop = CancellationToken::new();
    let task = tokio::spawn(writer.clone().run(stop.clone()));
    writer.tell(vec![event("shop", "u", "first"), event("shop", "u", "second")]);
    eventually("both are counted", || async {
        let text = metrics.render().unwrap();
        ["refused", "told"].iter().all(|result| text.contains(&format!("events_total{{result=\"{result}\"}} 1")))
    })
    .await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_real_api_server_shows_an_event_with_its_object_and_counts_it_when_it_comes_again() {
    let Some(cluster) = Cluster::with_kinds("events").await else { return };
    let endpoint = cluster.endpoint("e").await;
    let uid = endpoint["metadata"]["uid"].as_str().unwrap().to_owned();
    let metrics = Arc::new(OperatorMetrics::new());
    let writer = EventWriter::new(cluster.client.clone(), "pod-a".to_owned(), metrics.clone());
    let stop = CancellationToken::new();
    let task = tokio::spawn(writer.clone().run(stop.clone()));
    let tell = || writer.tell(vec![event(cluster.namespace(), &uid, "spec.url: no such Secret")]);

    // What `kubectl describe` asks for: the old API, by the object's UID.
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), cluster.namespace());
    let of_object = ListParams::default().fields(&format!("involvedObject.uid={uid},involvedObject.kind=Endpoint"));
    let list = || async { events.list(&of_object).await.unwrap().items };
    tell();
    eventually("the Event is there", || async { list().await.len() == 1 }).await;
    let found = list().await.remove(0);
    assert_eq!(found.reason.as_deref(), Some("SecretNotFound"));
    assert_eq!(found.type_.as_deref(), Some("Warning"));
    assert_eq!(found.message.as_deref(), Some("spec.url: no such Secret"));
    assert_eq!(found.reporting_component.as_deref(), Some("harborhook.dev/operator"));
    assert_eq!(found.involved_object.name.as_deref(), Some("e"));
    tell();
    tell();
    eventually("the series is counted", || async {
        list().await[0].series.as_ref().is_some_and(|series| series.count == Some(3))
    })
    .await;
    assert_eq!(list().await.len(), 1);
    let described = cluster.kubectl().run(["describe", "hep", "e"]).await.unwrap();
    let line = described.lines().find(|line| line.contains("SecretNotFound")).unwrap_or(&described);
    let words: Vec<&str> = line.split_whitespace().collect();
    // Warning  SecretNotFound  0s (x3 over 2s)  harborhook.dev/operator, pod-a  spec.url: no such Secret
    assert_eq!(words[..2], ["Warning", "SecretNotFound"], "{described}");
    assert!(line.contains("(x3 over ") && line.contains("harborhook.dev/operator"), "{line}");
    assert!(line.ends_with("spec.url: no such Secret"), "{line}");
    stop.cancel();
    task.await.unwrap();
}
