//! What the ways to write a status cost an API server.

use std::time::{Duration, Instant};

use crds::Kind;
use crds::condition::Reason;
use http::header::{ACCEPT, CONTENT_TYPE};
use operator::plan::ObjectStatus;
use serde_json::{Value, json};

use super::status::status;
use super::support::{Cluster, say};

/// Writes of each way.
const ROUNDS: usize = 200;

/// The ways: name, content type, query.
const WAYS: [(&str, &str, &str); 3] = [
    ("json patch", "application/json-patch+json", "fieldManager=harborhook"),
    ("merge patch", "application/merge-patch+json", "fieldManager=harborhook"),
    ("apply", "application/apply-patch+yaml", "fieldManager=harborhook&force=true"),
];

#[tokio::test]
#[ignore = "a measurement: run it by name with a cluster"]
async fn ways_to_write_a_status() {
    let Some(cluster) = Cluster::with_kinds("measure").await else { return };
    for (way, _, _) in WAYS {
        cluster.endpoint(&way.replace(' ', "-")).await;
    }
    let mut times: [Vec<Duration>; 3] = Default::default();
    for round in 0..ROUNDS {
        for (index, (way, content_type, query)) in WAYS.into_iter().enumerate() {
            let success = format!("{round}%");
            let status = status(cluster.namespace(), &way.replace(' ', "-"), Reason::Programmed, Some(&success));
            let started = Instant::now();
            send(&cluster.client, &status, content_type, query).await;
            times[index].push(started.elapsed());
        }
    }
    for (index, (way, content_type, query)) in WAYS.into_iter().enumerate() {
        let name = way.replace(' ', "-");
        let before = cluster.read_endpoint(&name).await;
        let status = status(cluster.namespace(), &name, Reason::Programmed, Some(&format!("{}%", ROUNDS - 1)));
        send(&cluster.client, &status, content_type, query).await;
        let after = cluster.read_endpoint(&name).await;
        times[index].sort();
        let is_free = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"];
        say(&format!(
            "{way}: median {:?}, 95th percentile {:?}, object of {} bytes, the same again is {}",
            times[index][ROUNDS / 2],
            times[index][ROUNDS * 95 / 100],
            after.to_string().len(),
            if is_free { "free" } else { "written" },
        ));
    }
}

async fn send(client: &kube::Client, status: &ObjectStatus, content_type: &str, query: &str) {
    let ObjectStatus { namespace, name, body, .. } = status;
    let (version, plural) = (crds::API_VERSION, Kind::Endpoint.plural());
    let body: Value = match content_type {
        "application/json-patch+json" => json!([{"op": "add", "path": "/status", "value": body}]),
        "application/merge-patch+json" => json!({"status": body}),
        _ => json!({"apiVersion": version, "kind": "Endpoint", "metadata": {"name": name}, "status": body}),
    };
    let request =
        http::Request::patch(format!("/apis/{version}/namespaces/{namespace}/{plural}/{name}/status?{query}"))
            .header(ACCEPT, "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
            .header(CONTENT_TYPE, content_type)
            .body(serde_json::to_vec(&body).unwrap())
            .unwrap();
    client.request_text(request).await.unwrap();
}
