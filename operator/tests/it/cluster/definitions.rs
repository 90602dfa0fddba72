//! Definitions that are missing, of another version, laxer than ours and deleted, under an operator that runs; and objects
//! that were written while they were so, or went with them.

use crds::Kind;
use crds::condition::Reason;
use crds::definition::definition;
use dispatcher_core::limits::REMOVAL_ROUTES_MAX;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceValidation, JSONSchemaProps,
};
use serde_json::json;

use super::instance::Operator;
use super::run::{KEY, signed};
use super::support::{Cluster, condition, condition_of, eventually};

/// Endpoints beside the bad one.
const GOOD: usize = 120;
/// Endpoints that go with their definition.
const MANY: usize = 200;

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

/// Puts so many good endpoints at once.
async fn put_good(cluster: &Cluster, count: usize) {
    let objects = (0..count).map(|number| {
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
async fn definitions_are_waited_for_and_a_bad_object_is_told_so() {
    let Some(cluster) = Cluster::private("definitions").await else { return };
    cluster.put_secret("keys", &[("key", KEY)]).await;
    let mut operator = Operator::start(cluster.client.clone(), cluster.namespace()).await;
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
    put_good(&cluster, GOOD).await;
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

    // The rules come, under an object that does not keep them.
    cluster.install(&definition(Kind::Endpoint)).await;
    let listed = cluster.kubectl().get("hookendpoints").await.unwrap();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(GOOD + 1));
    assert_eq!(operator.active().await, GOOD, "every route stays");
    operator.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_is_deleted_takes_few_routes_with_it_and_all_are_back_with_their_objects() {
    let Some(cluster) = Cluster::private("deleted").await else { return };
    cluster.install_kinds().await;
    cluster.put_secret("keys", &[("key", KEY)]).await;
    put_good(&cluster, MANY).await;
    let last = format!("e{}", MANY - 1);
    cluster.put(Kind::Subscription, "s", &json!({"endpointRef": {"name": last}, "eventTypes": ["**"]})).await;
    let mut operator = Operator::start(cluster.client.clone(), cluster.namespace()).await;
    eventually("all are routed", || async { operator.active().await == MANY && operator.is_ready().await }).await;
    let subscription = async || {
        let read = cluster.objects(Kind::Subscription).get("s").await.unwrap();
        condition(&serde_json::to_value(read).unwrap(), "Ready")
    };
    eventually("the subscription is in effect", || async { subscription().await.1 == "Programmed" }).await;

    cluster.remove_kinds(&[Kind::Endpoint]).await;
    eventually("it says what is missing", || says_that_it_is_missing(&operator, Kind::Endpoint)).await;
    eventually("a removal waits", || async { !operator.waiting().await.is_empty() }).await;
    assert!(!operator.is_ready().await && operator.leads().await);
    eventually("the subscription says it", || async { subscription().await.1 == "EndpointNotFound" }).await;
    // What goes in small steps counts together: the steps before were few.
    let stayed = operator.active().await;
    assert!(stayed >= MANY - REMOVAL_ROUTES_MAX, "{stayed} of {MANY} routes stay");

    cluster.install(&definition(Kind::Endpoint)).await;
    eventually("it is ready again", || operator.is_ready()).await;
    assert_eq!(operator.active().await, stayed, "that there are no objects yet confirms nothing");
    put_good(&cluster, MANY).await;
    eventually("all are routed, and nothing waits", || async {
        operator.active().await == MANY && operator.waiting().await.is_empty()
    })
    .await;
    eventually("the subscription is in effect again", || async { subscription().await.1 == "Programmed" }).await;
    let ready = async || condition(&cluster.read_endpoint(&last).await, "Ready");
    eventually("and the endpoint", || async { ready().await == ("True".to_owned(), "Programmed".to_owned()) }).await;
    cluster.put(Kind::Endpoint, "new", &signed()).await;
    eventually("it goes on", || async { operator.active().await == MANY + 1 }).await;
    operator.running.stop().await;
}
