//! Definitions that are missing, of another version, laxer than ours, changed and deleted, under an operator that runs; and
//! objects that were written while they were so.

use crds::Kind;
use crds::condition::Reason;
use crds::definition::definition;
use dispatcher_core::table::EndpointState;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceValidation, JSONSchemaProps,
};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use testbed::Proxy;

use super::instance::Operator;
use super::run::{KEY, signed};
use super::support::{Cluster, condition_of, eventually};

/// Endpoints beside the bad one: so many that they do not go unasked.
const GOOD: usize = 120;

/// The definition of a kind that serves another version and not ours.
fn of_another_version(kind: Kind) -> CustomResourceDefinition {
    let mut definition = definition(kind);
    "v1alpha9".clone_into(&mut definition.spec.versions[0].name);
    definition
}

/// The definition of endpoints before it had any rule.
fn without_rules() -> CustomResourceDefinition {
    let mut definition = definition(Kind::Endpoint);
    let anything = JSONSchemaProps {
        type_: Some("object".to_owned()),
        x_kubernetes_preserve_unknown_fields: Some(true),
        ..JSONSchemaProps::default()
    };
    // Fields that are selected must be in the schema.
    definition.spec.versions[0].selectable_fields = None;
    definition.spec.versions[0].schema = Some(CustomResourceValidation { open_api_v3_schema: Some(anything) });
    definition
}

/// Puts all good endpoints at once.
async fn put_good(cluster: &Cluster) {
    let objects = (0..GOOD).map(|number| {
        json!({
            "apiVersion": crds::API_VERSION, "kind": "Endpoint", "metadata": {"name": format!("e{number}")},
            "spec": signed(),
        })
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects.collect::<Vec<_>>()});
    eventually("they are taken", || async { cluster.kubectl().apply(&list.to_string()).await.is_ok() }).await;
}

async fn says_that_it_is_missing(operator: &Operator, kind: Kind) -> bool {
    let words =
        format!("the CustomResourceDefinition {}.harborhook.dev is missing or does not serve v1alpha1", kind.plural());
    operator.reasons().await.contains(&words)
}

#[tokio::test(flavor = "multi_thread")]
async fn routing_outlives_whatever_is_done_to_the_definitions() {
    let Some(cluster) = Cluster::private("definitions").await else { return };
    cluster.put_secret("keys", &[("key", KEY)]).await;
    let url = cluster.config.cluster_url.to_string();
    let proxy = Proxy::to(&url).await.unwrap();
    let client = cluster.client_at(&proxy.through(&url).unwrap());
    let mut operator = Operator::start(client, cluster.namespace()).await;
    for kind in Kind::ALL {
        eventually("it says which are missing", || says_that_it_is_missing(&operator, kind)).await;
    }
    eventually("an Event about the Lease tells it", || async {
        let events = cluster.events_about("Lease").await;
        events.iter().any(|(reason, note)| reason == "CannotWatch" && note.contains("install the definitions"))
    })
    .await;
    for kind in Kind::ALL {
        cluster.install(&of_another_version(kind)).await;
    }
    assert!(!operator.is_ready().await && says_that_it_is_missing(&operator, Kind::Endpoint).await);
    cluster.remove_kinds(&Kind::ALL).await;

    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Endpoint) {
        cluster.install(&definition(kind)).await;
    }
    cluster.install(&without_rules()).await;
    put_good(&cluster).await;
    cluster.put(Kind::Endpoint, "bad", &json!({"url": "https://example.com/", "timeoutSeconds": "soon"})).await;
    eventually("it heals by itself", || async { operator.active().await == GOOD && operator.is_ready().await }).await;
    let bad = async || condition_of(&cluster.read_endpoint("bad").await, "Ready");
    eventually("the bad one says what is wrong", || async { bad().await["reason"] == "InvalidSpec" }).await;
    assert!(bad().await["message"].as_str().unwrap().contains("spec.timeoutSeconds"), "{}", bad().await);
    eventually("in an Event too", || async {
        let events = cluster.events_about("Endpoint").await;
        events.iter().any(|(reason, note)| reason == Reason::InvalidSpec.as_str() && note.contains("timeoutSeconds"))
    })
    .await;

    rules_come(&cluster, &operator, &proxy).await;
    // The object is still as it was, and its status is written all the same.
    let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
    cluster.objects(Kind::Endpoint).patch("bad", &PatchParams::default(), &suspend).await.unwrap();
    eventually("it is told about the new generation", || async { bad().await["observedGeneration"] == 2 }).await;
    assert_eq!(bad().await["reason"], "InvalidSpec");

    cluster.remove_kinds(&[Kind::Endpoint]).await;
    eventually("what went with the definition waits", || async { !operator.waiting().await.is_empty() }).await;
    eventually("and it is missed", || says_that_it_is_missing(&operator, Kind::Endpoint)).await;
    let left = operator.active().await;
    assert!(left >= GOOD - 50, "{left} are left");
    cluster.install(&definition(Kind::Endpoint)).await;
    put_good(&cluster).await;
    eventually("all are back", || async { operator.active().await == GOOD }).await;
    assert!(matches!(operator.endpoint("e7").await.unwrap().state, EndpointState::Active));
    operator.running.stop().await;
}

/// The rules come, under objects that do not keep them: the API server keeps the objects anew, and a watch that breaks
/// cannot go on from where it was. No route changes by that.
async fn rules_come(cluster: &Cluster, operator: &Operator, proxy: &Proxy) {
    let before = operator.version().await;
    let counted = "harborhook_operator_watch_restarts_total{resource=\"hookendpoints\",reason=\"expired\"}";
    let is_counted = || operator.metrics().contains(counted);
    assert!(!is_counted());
    cluster.install(&definition(Kind::Endpoint)).await;
    // What the server remembers begins with the first question, and after this.
    cluster.put_secret("later", &[("key", KEY)]).await;
    let listed: Value = cluster.kubectl().get("hookendpoints").await.unwrap();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(GOOD + 1));
    proxy.cut().await;
    eventually("the watch expires", || async { is_counted() }).await;
    // What is new since is seen.
    cluster.put(Kind::Subscription, "s", &json!({"endpointRef": {"name": "e0"}, "eventTypes": ["**"]})).await;
    eventually("it goes on", || async { operator.version().await == before + 1 && operator.is_ready().await }).await;
}
