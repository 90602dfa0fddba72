//! The whole operator on a real API server.

use crds::Kind;
use dispatcher_core::table::EndpointState;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::instance::{Operator, Setup};
use super::support::{Cluster, condition, eventually};

pub(crate) const KEY: &str = "first-key-first-key-first-key";

/// Endpoints whose keys are made.
const MANY: usize = 200;

pub(crate) fn signed() -> Value {
    json!({"url": "https://example.com/", "signing": {"secretKeyRef": {"name": "keys", "key": "key"}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_become_routes_and_say_so() {
    let Some(cluster) = Cluster::with_kinds("routes").await else { return };
    let mut operator = Operator::start(cluster.client.clone(), cluster.namespace()).await;
    cluster.put(Kind::Endpoint, "e", &signed()).await;
    cluster.put(Kind::Subscription, "s", &json!({"endpointRef": {"name": "e"}, "eventTypes": ["order.*"]})).await;
    let ready = async || condition(&cluster.read_endpoint("e").await, "Ready");
    eventually("the Secret is missing", || async { ready().await.1 == "SecretNotFound" }).await;
    cluster.put_secret("keys", &[("key", KEY), ("other", "x")]).await;
    eventually("it heals, and is in effect while no dispatcher runs", || async {
        ready().await == ("True".to_owned(), "Programmed".to_owned())
    })
    .await;
    assert_eq!(operator.endpoint_state().await, Some(EndpointState::Active));
    assert_eq!(operator.rows().await.len(), 4, "tenant, endpoint, subscription, issuer: {:?}", operator.rows().await);
    eventually("the operator is ready", || operator.is_ready()).await;

    // A dispatcher that has loaded the table until now has not loaded the next change.
    operator.beat().await;
    let endpoints = cluster.objects(Kind::Endpoint);
    let edit = async |patch: Value| {
        endpoints.patch("e", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    edit(json!({"spec": {"timeoutSeconds": 7}})).await;
    let programmed = async || condition(&cluster.read_endpoint("e").await, "Programmed");
    eventually("one dispatcher is behind", || async { programmed().await.1 == "Waiting" }).await;
    eventually("it has caught up", || async {
        operator.beat().await;
        programmed().await == ("True".to_owned(), "Programmed".to_owned())
    })
    .await;

    edit(json!({"spec": {"url": "http://example.com/"}})).await;
    eventually("what is not allowed holds", || async {
        matches!(operator.endpoint_state().await, Some(EndpointState::Held { .. }))
            && ready().await.1 == "AddressBlocked"
    })
    .await;
    edit(json!({"spec": {"suspend": true}})).await;
    eventually("to suspend takes effect", || async {
        operator.endpoint_state().await == Some(EndpointState::Suspended)
    })
    .await;
    endpoints.delete("e", &DeleteParams::default()).await.unwrap();
    eventually("its row is gone", || async { operator.endpoint_state().await.is_none() }).await;
    operator.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_endpoints_without_a_key_costs_one_secret_and_one_status() {
    let Some(cluster) = Cluster::with_kinds("many-keys").await else { return };
    let objects = (0..MANY).map(|number| {
        json!({
            "apiVersion": crds::API_VERSION, "kind": "Endpoint", "metadata": {"name": format!("e{number}")},
            "spec": {"url": "https://example.com/"},
        })
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects.collect::<Vec<_>>()});
    cluster.kubectl().apply(&list.to_string()).await.unwrap();
    let mut operator = Operator::start(cluster.client.clone(), cluster.namespace()).await;
    eventually("all are routed", || async { operator.active().await == MANY }).await;
    eventually("all say so", || async {
        let all = cluster.objects(Kind::Endpoint).list(&ListParams::default()).await.unwrap().items;
        let is_ready =
            |object: &DynamicObject| condition(&serde_json::to_value(object).unwrap(), "Ready").1 == "Programmed";
        all.into_iter().filter(|object| is_ready(object)).count() == MANY
    })
    .await;
    // One that was made twice would be found to be there, and be read once more.
    let lines = [
        ("secret_requests", "result=\"made\""),
        ("secret_requests", "result=\"present\""),
        ("status_writes", "change=\"conditions\""),
    ]
    .map(|(metric, labels)| format!("harborhook_operator_{metric}_total{{{labels}}} {MANY}"));
    for line in &lines {
        eventually(line, || async { operator.measures(line) }).await;
    }
    assert!(lines.iter().all(|line| operator.measures(line)), "it was more in the end than {lines:?}");
    operator.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_without_a_key_gets_one_and_the_next_leader_goes_on() {
    let Some(cluster) = Cluster::with_kinds("next-leader").await else { return };
    let mut first = Operator::start(cluster.client.clone(), cluster.namespace()).await;
    cluster.put(Kind::Endpoint, "e", &json!({"url": "https://example.com/"})).await;
    eventually("a key was made for it", || async { first.endpoint_state().await == Some(EndpointState::Active) }).await;
    let setup = Setup { identity: "two", ..Setup::new(cluster.client.clone(), cluster.namespace()) };
    let mut second = first.start_beside(setup).await;
    eventually("the second one follows and is ready", || second.is_ready()).await;
    let version = first.ledger.load_table(None).await.unwrap().version;
    first.running.stop().await;
    let endpoints = cluster.objects(Kind::Endpoint);
    let patch = Patch::Merge(json!({"spec": {"suspend": true}}));
    endpoints.patch("e", &PatchParams::default(), &patch).await.unwrap();
    eventually("the second one publishes", || async {
        second.endpoint_state().await == Some(EndpointState::Suspended)
    })
    .await;
    let after = second.ledger.load_table(None).await.unwrap().version;
    assert_eq!(after.0, version.0 + 1, "it changed nothing else");
    second.running.stop().await;
}
