//! What GitOps tools make of resources: Argo CD's health check and kstatus, run by their own libraries on statuses that the
//! operator plans.

mod pools;
mod replays;
mod routes;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crds::Kind;
use crds::condition::ConditionType;
use dispatcher_core::address::AddressPolicy;
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

/// An object as the API server would answer it, and what tools have to make of it.
struct Case {
    what: &'static str,
    object: Value,
    health: Health,
    /// How the message begins that Argo CD shows.
    says: &'static str,
}

#[derive(Clone, Copy)]
enum Health {
    Progressing,
    Healthy,
    Suspended,
    Degraded,
}

impl Health {
    fn in_argo_cd(self) -> &'static str {
        match self {
            Self::Progressing => "Progressing",
            Self::Healthy => "Healthy",
            Self::Suspended => "Suspended",
            Self::Degraded => "Degraded",
        }
    }

    fn in_flux(self) -> &'static str {
        match self {
            Self::Progressing => "InProgress",
            Self::Healthy | Self::Suspended => "Current",
            Self::Degraded => "Failed",
        }
    }
}

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

fn object(kind: Kind, name: &str, spec: &str) -> String {
    let (version, kind) = (crds::API_VERSION, kind.as_str());
    format!("---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n")
}

/// A resource with the number of its generation.
fn numbered(resource: &impl serde::Serialize, generation: i64) -> Value {
    let mut value = serde_json::to_value(resource).unwrap();
    value["metadata"]["generation"] = json!(generation);
    value
}

/// Runs both tools' libraries.
fn judge(programs: &Path, cases: &[Case]) -> Vec<Value> {
    let mut child = Command::new(programs.join("gitops"))
        .arg(repository().join("docs/gitops/health.lua"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<String> = cases.iter().map(|case| case.object.to_string()).collect();
    child.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
    let text = succeeded(&child.wait_with_output().unwrap());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn cases() -> Vec<Case> {
    [routes::cases(), replays::cases(), pools::cases()].into_iter().flatten().collect()
}

#[tokio::test]
async fn argo_cd_and_flux_understand_every_status_that_the_operator_plans() {
    let Some(programs) = testbed::go_programs("gitops").await.unwrap() else { return };
    let cases = cases();
    let verdicts = judge(&programs, &cases);
    assert_eq!(verdicts.len(), cases.len());
    for (Case { what, object, health, says }, verdict) in cases.iter().zip(verdicts) {
        assert_eq!(verdict["argo"]["status"], health.in_argo_cd(), "{what}: {verdict} {object}");
        assert_eq!(verdict["kstatus"]["status"], health.in_flux(), "{what}: {verdict} {object}");
        let message = verdict["argo"]["message"].as_str().unwrap();
        assert!(message.starts_with(says), "{what}: {message}");
    }
}

#[test]
fn there_is_a_case_for_every_reason_that_a_kind_may_give() {
    let cases = cases();
    for kind in Kind::ALL {
        let of_kind = cases.iter().filter(|case| case.object["kind"] == kind.as_str());
        let conditions = of_kind.flat_map(|case| case.object["status"]["conditions"].as_array().unwrap());
        let ready = conditions.filter(|condition| condition["type"] == ConditionType::Ready.as_str());
        let seen: BTreeSet<&str> = ready.map(|condition| condition["reason"].as_str().unwrap()).collect();
        let known: BTreeSet<&str> = ConditionType::Ready.reasons(kind).iter().map(|reason| reason.as_str()).collect();
        assert_eq!(seen, known, "{kind:?}");
    }
}

fn health_script() -> String {
    fs::read_to_string(repository().join("docs/gitops/health.lua")).unwrap()
}

#[test]
fn the_config_map_has_the_script_for_every_kind_and_leaves_the_facts_out() {
    let text = fs::read_to_string(repository().join("docs/gitops/argocd-cm.yaml")).unwrap();
    let document: Value = serde_saphyr::from_str(&text).unwrap();
    let data = document["data"].as_object().unwrap();
    for kind in Kind::ALL {
        let key = format!("resource.customizations.health.{}_{}", crds::GROUP, kind.as_str());
        assert_eq!(data[&key].as_str().unwrap().trim_end(), health_script().trim_end(), "{key}");
    }
    // What something follows from, or what changes with a condition; all else is left out.
    for (kind, place, told) in [
        (Kind::Endpoint, "/delivery", &["state"][..]),
        (Kind::Endpoint, "", &["conditions", "delivery", "host", "observedGeneration"]),
        (
            Kind::DispatcherPool,
            "",
            &["conditions", "deployment", "maxReplicas", "minReplicas", "mode", "observedGeneration"],
        ),
        (Kind::Replay, "", &["conditions", "finishedTime", "observedGeneration", "startedTime"]),
    ] {
        let key = format!("resource.customizations.ignoreResourceUpdates.{}_{}", crds::GROUP, kind.as_str());
        let ignored: Value = serde_saphyr::from_str(data[&key].as_str().unwrap()).unwrap();
        let ignored = ignored["jsonPointers"].as_array().unwrap().iter().filter_map(Value::as_str);
        let prefix = format!("/status{place}/");
        let ignored: BTreeSet<&str> =
            ignored.filter_map(|pointer| pointer.strip_prefix(&prefix)).filter(|fact| !fact.contains('/')).collect();
        let schema = crds::definition::openapi_schema(kind);
        let status = &schema["properties"]["status"]["properties"];
        let facts = if place.is_empty() { status } else { &status[&place[1..]]["properties"] };
        let facts: BTreeSet<&str> = facts.as_object().unwrap().keys().map(String::as_str).collect();
        let told: BTreeSet<&str> = told.iter().copied().collect();
        assert_eq!(ignored, &facts - &told, "{kind:?} {place}");
    }
}
