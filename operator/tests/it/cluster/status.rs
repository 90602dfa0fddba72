//! Statuses on their way to an API server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crds::Kind;
use crds::condition::{ConditionStatus, ConditionType, Reason};
use crds::endpoint::{DeliveryStatus, EndpointStatus};
use http::Method;
use kube::api::{Patch, PatchParams};
use operator::cluster::lease::Lead;
use operator::cluster::metrics::OperatorMetrics;
use operator::cluster::status::StatusWriter;
use operator::conditions::Conditions;
use operator::plan::{ObjectStatus, StatusBody, StatusChange};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::server::{Answer, client, refusal};
use super::support::{Cluster, eventually};

/// A status of an endpoint that is ready, or stalled; with facts, or without.
pub(crate) fn status(namespace: &str, name: &str, reason: Reason, success: Option<&str>) -> ObjectStatus {
    let mut conditions = Conditions::new(Kind::Endpoint, &[], 1, crate::fixtures::NOW);
    if reason == Reason::InvalidSpec {
        conditions.set(ConditionType::Ready, ConditionStatus::False, reason, "spec.url: wrong");
        conditions.set(ConditionType::Stalled, ConditionStatus::True, reason, "spec.url: wrong");
    } else {
        conditions.set(ConditionType::Ready, ConditionStatus::True, reason, "In effect");
    }
    let body = StatusBody::Endpoint(EndpointStatus {
        observed_generation: Some(1),
        conditions: conditions.finish(),
        delivery: success
            .map(|success| DeliveryStatus { success: Some(success.to_owned()), ..DeliveryStatus::default() }),
        host: success.map(|_| "example.com".to_owned()),
    });
    ObjectStatus {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        body,
        change: StatusChange::Conditions,
        events: Vec::new(),
    }
}

/// A writer that runs.
pub(crate) struct Writing {
    pub(crate) writer: StatusWriter,
    pub(crate) metrics: Arc<OperatorMetrics>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Writing {
    pub(crate) fn start(client: kube::Client) -> Self {
        let metrics = Arc::new(OperatorMetrics::new());
        let writer = StatusWriter::new(client, metrics.clone());
        let stop = CancellationToken::new();
        let task = tokio::spawn(writer.clone().run(stop.clone()));
        Self { writer, metrics, stop, task }
    }

    /// A metric's value by its whole name; zero if it was never counted.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.map_or(0, |value| value.parse().unwrap())
    }

    pub(crate) async fn written(&self, count: u64) {
        let name = "harborhook_operator_status_writes_total{change=\"conditions\"}";
        eventually("statuses are written", || async { self.metric(name) >= count }).await;
        assert_eq!(self.metric(name), count);
    }

    pub(crate) fn failed(&self, class: &str) -> u64 {
        self.metric(&format!("harborhook_operator_status_failures_total{{class=\"{class}\"}}"))
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn no_object_holds_up_another_whatever_it_is_answered() {
    let asked: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let counts = asked.clone();
    let client = client(move |request| {
        assert_eq!(request.method, Method::PATCH);
        let name = request.path.split('/').nth_back(1).unwrap().to_owned();
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(name.clone()).or_default();
        *count += 1;
        match (name.as_str(), *count) {
            ("hangs", _) => Answer::Hang,
            ("gone", _) => refusal(404, "NotFound"),
            ("invalid", _) => refusal(422, "Invalid"),
            ("forbidden", _) => refusal(403, "Forbidden"),
            ("conflict", 1..3) => refusal(409, "Conflict"),
            ("fails", 1..3) => refusal(500, "InternalError"),
            _ => Answer::Reply(200, json!({})),
        }
    });
    let writing = Writing::start(client);
    let names = ["hangs", "gone", "invalid", "conflict", "fails"];
    let mut wanted: Vec<_> = names.map(|name| status("shop", name, Reason::Programmed, None)).into();
    wanted.push(status("other", "forbidden", Reason::Programmed, None));
    wanted.extend((0..50).map(|number| status("shop", &format!("e{number}"), Reason::Programmed, None)));
    writing.writer.want(wanted);
    // The fifty, and those that succeed when they are tried again.
    writing.written(52).await;
    for (class, count) in [("not_found", 1), ("invalid", 1), ("forbidden", 1), ("conflict", 2), ("unavailable", 2)] {
        assert_eq!(writing.failed(class), count, "{class}");
    }
    let asked = asked.lock().unwrap().clone();
    assert_eq!((asked["gone"], asked["invalid"], asked["forbidden"], asked["e7"]), (1, 1, 1, 1));
    writing.task.abort();
}

#[tokio::test]
async fn events_are_told_after_their_status_is_written_and_not_of_one_that_was_refused() {
    use operator::cluster::events::EventWriter;
    use operator::plan::events::{EventType, PlannedEvent};

    let log: Arc<Mutex<Vec<(Method, Value)>>> = Arc::default();
    let seen = log.clone();
    let client = client(move |request| {
        let name = request.body["regarding"]["name"].clone();
        seen.lock().unwrap().push((request.method.clone(), name));
        if request.path.contains("/refused/") {
            refusal(422, "Invalid")
        } else {
            Answer::Reply(200, json!({"metadata": {}}))
        }
    });
    let metrics = Arc::new(OperatorMetrics::new());
    let events = EventWriter::new(client.clone(), "pod-a".to_owned(), metrics.clone());
    let writer = StatusWriter::with_events(client, metrics.clone(), events.clone(), Lead::for_ever(1));
    let stop = CancellationToken::new();
    let tasks = (tokio::spawn(events.run(stop.clone())), tokio::spawn(writer.clone().run(stop.clone())));
    let with_event = |name: &str| {
        let event = PlannedEvent {
            kind: Kind::Endpoint,
            namespace: "shop".into(),
            name: name.into(),
            uid: name.into(),
            type_: EventType::Normal,
            reason: Reason::Programmed,
            note: "In effect".into(),
        };
        ObjectStatus { events: vec![event], ..status("shop", name, Reason::Programmed, None) }
    };
    writer.want(vec![with_event("refused"), with_event("good")]);
    let told = "harborhook_operator_events_total{result=\"told\"} 1";
    eventually("the Event is told", || async { metrics.render().unwrap().contains(told) }).await;
    stop.cancel();
    tasks.0.await.unwrap();
    tasks.1.await.unwrap();
    let log = log.lock().unwrap().clone();
    assert_eq!(log, [(Method::PATCH, Value::Null), (Method::PATCH, Value::Null), (Method::POST, json!("good"))]);
}

#[tokio::test]
async fn a_real_api_server_takes_a_status_as_a_whole_whoever_wrote_before() {
    let Some(cluster) = Cluster::with_kinds("status").await else { return };
    let before = cluster.endpoint("e").await;
    assert_eq!(before["status"]["observedGeneration"], -1);
    let writing = Writing::start(cluster.client.clone());
    let write = |reason, success| writing.writer.want(vec![status(cluster.namespace(), "e", reason, success)]);
    write(Reason::Programmed, Some("100%"));
    writing.written(1).await;
    let written = cluster.read_endpoint("e").await;
    assert_eq!(written["status"]["delivery"], json!({"success": "100%"}));
    assert_eq!(written["status"]["conditions"][0]["reason"], "Programmed");
    assert_eq!(written["metadata"]["generation"], 1);

    // Another field manager takes every field, and adds one.
    let mut taken = written["status"].clone();
    taken["conditions"].as_array_mut().unwrap().push(json!({
        "type": "Stalled", "status": "True", "reason": "InvalidSpec", "message": "by hand",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }));
    taken["host"] = json!("other.example.com");
    let patch = json!({"apiVersion": crds::API_VERSION, "kind": "Endpoint", "status": taken});
    let by_hand = PatchParams::apply("by-hand").force();
    cluster.objects(Kind::Endpoint).patch_status("e", &by_hand, &Patch::Apply(&patch)).await.unwrap();

    // What is written next is all there is: without the condition by hand, without the facts.
    write(Reason::Suspended, None);
    writing.written(2).await;
    let written = cluster.read_endpoint("e").await;
    let types: Vec<_> = written["status"]["conditions"].as_array().unwrap().iter().map(|one| &one["type"]).collect();
    assert_eq!(types, ["Ready"]);
    assert_eq!(written["status"]["conditions"][0]["reason"], "Suspended");
    assert_eq!((&written["status"]["delivery"], &written["status"]["host"]), (&Value::Null, &Value::Null));
    let managers: Vec<_> = written["metadata"]["managedFields"].as_array().unwrap().iter().collect();
    assert!(managers.iter().any(|one| one["manager"] == "harborhook" && one["subresource"] == "status"));

    // What the schema refuses is refused as invalid, and the object stays as it was.
    let mut wrong = status(cluster.namespace(), "e", Reason::Programmed, None);
    if let StatusBody::Endpoint(body) = &mut wrong.body {
        body.host = Some("h".repeat(crds::limits::HOST_LENGTH_MAX + 1));
    }
    writing.writer.want(vec![wrong, status(cluster.namespace(), "absent", Reason::Programmed, None)]);
    eventually("both are refused", || async { writing.failed("invalid") == 1 && writing.failed("not_found") == 1 })
        .await;
    assert_eq!(cluster.read_endpoint("e").await, written);
    writing.stop().await;

    // Nobody who may not write it does.
    let refused = Writing::start(cluster.client_of("stranger"));
    refused.writer.want(vec![status(cluster.namespace(), "e", Reason::Programmed, None)]);
    eventually("it is refused", || async { refused.failed("forbidden") == 1 }).await;
    assert_eq!(cluster.read_endpoint("e").await, written);
    refused.stop().await;
}
