//! What GitOps tools make of resources: Argo CD's health check and kstatus, run by their own libraries on statuses that the
//! operator plans.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crds::definition::default_status;
use dispatcher::ledger::EndpointFacts;
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::delivery::Outcome;
use dispatcher_core::id::{EndpointId, TenantId};
use dispatcher_core::seal::SealingKey;
use operator::plan::{PlanContext, plan};
use operator::world::World;
use operator::world::files::Loaded;
use operator::world::resource::read_text;
use operator::world::store::FileStore;
use serde_json::{Value, json};

use crate::chart::support::{repository, succeeded};

const NOW_UNIX_MS: u64 = 1_700_000_000_000;
const SECRET: &str = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: keys, namespace: shop}\n\
    stringData: {key: first-key-first-key-first-key}\n";

/// A world of resources, in which every object has the generation that an API server would give it first.
fn world(text: &str) -> World {
    let mut store = FileStore::default();
    let file = read_text("test.yaml", &format!("{SECRET}{text}"));
    let problems = store.update(Loaded { files: vec![file], problems: Vec::new(), complete: true });
    assert!(problems.is_empty(), "{problems:?}");
    store.world()
}

/// Plans and applies so many times.
fn after(mut world: World, rounds: usize) -> World {
    let context =
        PlanContext { sealing_key: &SealingKey::from_bytes(&[7; 32]), address_policy: &AddressPolicy::public_https() };
    for _ in 0..rounds {
        let plan = plan(&world, &context, NOW_UNIX_MS);
        world.apply(&plan);
    }
    world
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: harborhook.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

fn endpoint(more: &str) -> String {
    object(
        "Endpoint",
        "e",
        &format!("url: \"https://example.com\", signing: {{secretKeyRef: {{name: keys, key: key}}}}{more}"),
    )
}

fn subscription(more: &str) -> String {
    object("Subscription", "s", &format!("eventTypes: [a.b], endpointRef: {{name: e}}{more}"))
}

/// The endpoint or subscription of a world as the API server would answer it.
fn first(world: &World, kind: &str) -> Value {
    let mut value = match kind {
        "Endpoint" => serde_json::to_value(&world.endpoints[0]),
        _ => serde_json::to_value(&world.subscriptions[0]),
    }
    .unwrap();
    value["metadata"]["generation"] = json!(1);
    value
}

/// Every attempt of the endpoint fails.
fn failing(mut world: World) -> World {
    world.facts.push(EndpointFacts {
        endpoint: EndpointId::derive(TenantId::of_namespace_name("shop"), "e"),
        attempts: 100,
        succeeded: 0,
        p95: None,
        pending: 100,
        oldest_unix_ms: None,
        last_status_code: Some(500),
        last_outcome: Some(Outcome::Http5xx),
        gate_closed_for: None,
    });
    world
}

/// What it is, the object, and what both tools have to make of it.
fn cases() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let settled = |text: &str| after(world(text), 2);
    let both = format!("{}{}", endpoint(""), subscription(""));
    let mut unseen = first(&world(&endpoint("")), "Endpoint");
    unseen["status"] = default_status();
    let mut edited = first(&settled(&endpoint("")), "Endpoint");
    edited["metadata"]["generation"] = json!(2);
    let without_secret = endpoint("").replace("name: keys", "name: other");
    let blocked = endpoint("").replace("example.com", "10.1.2.3");
    let broken = format!("{}{}", endpoint(""), subscription(", filter: \"event.data.a >\""));
    vec![
        ("nobody has seen it", unseen, "Progressing", "InProgress"),
        ("it was edited a moment ago", edited, "Progressing", "InProgress"),
        ("dispatchers load it", first(&after(world(&endpoint("")), 1), "Endpoint"), "Progressing", "InProgress"),
        ("an endpoint in effect", first(&settled(&both), "Endpoint"), "Healthy", "Current"),
        ("a subscription in effect", first(&settled(&both), "Subscription"), "Healthy", "Current"),
        ("a suspended endpoint", first(&settled(&endpoint(", suspend: true")), "Endpoint"), "Suspended", "Current"),
        ("a Secret is missing", first(&settled(&without_secret), "Endpoint"), "Progressing", "InProgress"),
        ("the endpoint is missing", first(&settled(&subscription("")), "Subscription"), "Progressing", "InProgress"),
        ("the address is forbidden", first(&settled(&blocked), "Endpoint"), "Degraded", "Failed"),
        ("the filter does not compile", first(&settled(&broken), "Subscription"), "Degraded", "Failed"),
        ("deliveries fail", first(&after(failing(settled(&both)), 1), "Endpoint"), "Healthy", "Current"),
    ]
}

fn health_script() -> String {
    fs::read_to_string(repository().join("docs/gitops/health.lua")).unwrap()
}

/// Runs both tools' libraries.
fn judge(programs: &Path, objects: &[&Value]) -> Vec<Value> {
    let mut child = Command::new(programs.join("gitops"))
        .arg(repository().join("docs/gitops/health.lua"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<String> = objects.iter().map(ToString::to_string).collect();
    child.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
    let text = succeeded(&child.wait_with_output().unwrap());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn argo_cd_and_flux_understand_every_status_that_the_operator_plans() {
    let Some(programs) = testbed::go_programs("gitops").await.unwrap() else { return };
    let cases = cases();
    let objects: Vec<&Value> = cases.iter().map(|(_, object, ..)| object).collect();
    let verdicts = judge(&programs, &objects);
    assert_eq!(verdicts.len(), cases.len());
    for ((what, object, argo, flux), verdict) in cases.iter().zip(verdicts) {
        assert_eq!(verdict["argo"]["status"], *argo, "{what}: {verdict} {object}");
        assert_eq!(verdict["kstatus"]["status"], *flux, "{what}: {verdict} {object}");
        let message = verdict["argo"]["message"].as_str().unwrap();
        assert!(!message.is_empty(), "{what}");
        // The message says what people need to know.
        assert_eq!(*what == "deliveries fail", message.starts_with("Failing: "), "{what}: {message}");
    }
}

#[test]
fn the_config_map_has_the_script_for_every_kind_and_leaves_the_facts_out() {
    let text = fs::read_to_string(repository().join("docs/gitops/argocd-cm.yaml")).unwrap();
    let document: Value = serde_saphyr::from_str(&text).unwrap();
    let data = document["data"].as_object().unwrap();
    for kind in crds::Kind::ALL {
        let key = format!("resource.customizations.health.{}_{}", crds::GROUP, kind.as_str());
        assert_eq!(data[&key].as_str().unwrap().trim_end(), health_script().trim_end(), "{key}");
    }
    let key = "resource.customizations.ignoreResourceUpdates.harborhook.dev_Endpoint";
    let ignored: Value = serde_saphyr::from_str(data[key].as_str().unwrap()).unwrap();
    let ignored: Vec<&str> = ignored["jsonPointers"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let schema = crds::definition::openapi_schema(crds::Kind::Endpoint);
    let facts = schema["properties"]["status"]["properties"]["delivery"]["properties"].as_object().unwrap();
    // All of them but the state, which changes with the conditions.
    let mut expected: Vec<String> =
        facts.keys().filter(|fact| *fact != "state").map(|fact| format!("/status/delivery/{fact}")).collect();
    expected.sort();
    let mut sorted = ignored.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
}
