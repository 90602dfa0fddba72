//! The objects of a pool, made from the Deployment of the default pool and what the resource says.
//!
//! Labels and annotations of the resource are never copied: they are for whoever manages the resource, such as a GitOps
//! tool, which would take the copies for its own.

use std::collections::BTreeMap;

use crds::pool::{DispatcherTemplate, Resources, TaintEffect, Toleration, TolerationOperator};
use crds::{API_VERSION, DispatcherPool, Kind};
use dispatcher_core::limits::OBJECT_LABEL_BYTES_MAX;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerPort, EnvVar, PodSpec, PodTemplateSpec, ResourceRequirements, Service, ServicePort,
    ServiceSpec, Toleration as PodToleration, TopologySpreadConstraint,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Label of the pods and objects of a pool, with the pool's name.
pub const POOL_LABEL: &str = "harborhook.dev/pool";
/// Annotation with a digest of what was applied: a field that is no longer applied leaves no other trace.
pub const APPLIED_ANNOTATION: &str = "harborhook.dev/applied";
/// Variable with the name of a dispatcher's pool.
const POOL_VARIABLE: &str = "HARBORHOOK_POOL";
/// Variable with the most requests that a dispatcher has in flight.
const MAX_IN_FLIGHT_VARIABLE: &str = "HARBORHOOK_MAX_IN_FLIGHT";
/// Name of the container that delivers.
const CONTAINER: &str = "dispatcher";
/// Name of the port that health and metrics are served on.
const ADMIN_PORT: &str = "admin";
/// End of the name of the default pool's Deployment, in whose place other pools have their name.
const DEFAULT_SUFFIX: &str = "-default";
/// Labels that are taken over from the default pool's pods.
const RELEASE_LABELS: [&str; 4] = [
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app.kubernetes.io/version",
];
/// Of these, the ones that tell pods apart, and never change.
const SELECTOR_LABELS: [&str; 3] =
    ["app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"];
/// Annotations of pods with this beginning are of kubectl, such as that of a restart.
const KUBECTL_PREFIX: &str = "kubectl.kubernetes.io/";
/// Hexadecimal digits of a digest that are kept.
const DIGEST_LENGTH: usize = 16;

/// What a pool is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolObjects {
    /// Its dispatchers, without a number of replicas.
    pub deployment: Deployment,
    /// How many of them may be away.
    pub disruption_budget: PodDisruptionBudget,
    /// The way to their health and metrics; none if the default pool's pods have no such port.
    pub service: Option<Service>,
}

/// The name of a pool's objects, of that of the default pool's Deployment: `release-dispatcher-default` and `slow` make
/// `release-dispatcher-slow`. What is too long for a label is cut, and told apart by a digest.
pub fn object_name(default_deployment: &str, pool: &str) -> String {
    let base = default_deployment.strip_suffix(DEFAULT_SUFFIX).unwrap_or(default_deployment);
    let name = format!("{base}-{pool}");
    if name.len() <= OBJECT_LABEL_BYTES_MAX {
        return name;
    }
    let digest = &hex::encode(Sha256::digest(name.as_bytes()))[..8];
    let kept = name.floor_char_boundary(OBJECT_LABEL_BYTES_MAX - digest.len() - 1);
    format!("{}-{digest}", name[..kept].trim_end_matches(['-', '.']))
}

/// Makes the objects of a pool. `None` if the default Deployment has no pod template with a container, or the resource no
/// identity that could own anything.
pub fn pool_objects(pool: &DispatcherPool, default: &Deployment) -> Option<PoolObjects> {
    let name = pool.metadata.name.as_deref()?;
    let default_spec = default.spec.as_ref()?;
    let labels = labels(name, default_spec);
    let selector: BTreeMap<String, String> = labels
        .iter()
        .filter(|(label, _)| SELECTOR_LABELS.contains(&label.as_str()) || *label == POOL_LABEL)
        .map(|(label, value)| (label.clone(), value.clone()))
        .collect();
    let metadata = ObjectMeta {
        name: Some(object_name(default.metadata.name.as_deref()?, name)),
        namespace: pool.metadata.namespace.clone(),
        labels: Some(labels.clone()),
        owner_references: Some(vec![owner(pool)?]),
        ..ObjectMeta::default()
    };
    let pod = pod_spec(pool, name, default_spec.template.spec.as_ref()?, &selector)?;
    let admin = admin_port(&pod);
    let deployment = Deployment {
        metadata: metadata.clone(),
        spec: Some(DeploymentSpec {
            replicas: None,
            selector: LabelSelector { match_labels: Some(selector.clone()), ..LabelSelector::default() },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: pod_annotations(default_spec),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod),
            },
            strategy: default_spec.strategy.clone(),
            min_ready_seconds: default_spec.min_ready_seconds,
            revision_history_limit: default_spec.revision_history_limit,
            progress_deadline_seconds: default_spec.progress_deadline_seconds,
            ..DeploymentSpec::default()
        }),
        status: None,
    };
    let disruption_budget = PodDisruptionBudget {
        metadata: metadata.clone(),
        spec: Some(PodDisruptionBudgetSpec {
            // Rounded up: of a single dispatcher that one may go too, or a node could never be emptied.
            max_unavailable: Some(IntOrString::String("25%".to_owned())),
            selector: Some(LabelSelector { match_labels: Some(selector.clone()), ..LabelSelector::default() }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    };
    let service = admin.map(|port| service(metadata, selector, &port));
    Some(PoolObjects {
        deployment: marked(deployment, |object| &mut object.metadata),
        disruption_budget: marked(disruption_budget, |object| &mut object.metadata),
        service: service.map(|service| marked(service, |object| &mut object.metadata)),
    })
}

fn owner(pool: &DispatcherPool) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: API_VERSION.to_owned(),
        kind: Kind::DispatcherPool.as_str().to_owned(),
        name: pool.metadata.name.clone()?,
        uid: pool.metadata.uid.clone()?,
        controller: Some(true),
        // It would need the right to change finalizers, and delay the deletion of the pool for nothing.
        block_owner_deletion: None,
    })
}

fn labels(pool: &str, default: &DeploymentSpec) -> BTreeMap<String, String> {
    let of_pods = default.template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    let release = of_pods.into_iter().flatten().filter(|(label, _)| RELEASE_LABELS.contains(&label.as_str()));
    let mut labels: BTreeMap<String, String> = release.map(|(label, value)| (label.clone(), value.clone())).collect();
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "harborhook".to_owned());
    labels.insert(POOL_LABEL.to_owned(), pool.to_owned());
    labels
}

/// The installation's own annotations of pods, such as a digest of their configuration.
fn pod_annotations(default: &DeploymentSpec) -> Option<BTreeMap<String, String>> {
    let annotations = default.template.metadata.as_ref()?.annotations.clone()?;
    let kept: BTreeMap<_, _> =
        annotations.into_iter().filter(|(annotation, _)| !annotation.starts_with(KUBECTL_PREFIX)).collect();
    (!kept.is_empty()).then_some(kept)
}

fn pod_spec(
    pool: &DispatcherPool,
    name: &str,
    default: &PodSpec,
    selector: &BTreeMap<String, String>,
) -> Option<PodSpec> {
    let mut pod = default.clone();
    let place = pod.containers.iter().position(|container| container.name == CONTAINER).unwrap_or(0);
    let container = pod.containers.get_mut(place)?;
    set_argument(container, "--pool", POOL_VARIABLE, name.to_owned());
    if let Some(max_in_flight) = pool.spec.max_in_flight {
        set_argument(container, "--max-in-flight", MAX_IN_FLIGHT_VARIABLE, max_in_flight.to_string());
    }
    let template = pool.spec.template.clone().unwrap_or_default();
    let DispatcherTemplate { resources, node_selector, tolerations } = template;
    if let Some(resources) = resources {
        container.resources = Some(resource_requirements(resources));
    }
    if let Some(node_selector) = node_selector {
        pod.node_selector = (!node_selector.is_empty()).then_some(node_selector);
    }
    if let Some(tolerations) = tolerations {
        pod.tolerations = (!tolerations.is_empty()).then(|| tolerations.into_iter().map(pod_toleration).collect());
    }
    pod.topology_spread_constraints = Some(spread(default.topology_spread_constraints.as_deref(), selector));
    // What is said there of other pods is said of those of the default pool.
    pod.affinity = pod
        .affinity
        .and_then(|affinity| affinity.node_affinity)
        .map(|node_affinity| Affinity { node_affinity: Some(node_affinity), ..Affinity::default() });
    Some(pod)
}

/// Sets an option by its variable, and takes it from the command line, which would win.
fn set_argument(container: &mut Container, option: &str, variable: &str, value: String) {
    for arguments in [&mut container.command, &mut container.args].into_iter().flatten() {
        while let Some(place) = arguments.iter().position(|argument| argument == option) {
            arguments.drain(place..(place + 2).min(arguments.len()));
        }
        let with_value = format!("{option}=");
        arguments.retain(|argument| !argument.starts_with(&with_value));
    }
    let variables = container.env.get_or_insert_default();
    let new = EnvVar { name: variable.to_owned(), value: Some(value), value_from: None };
    match variables.iter_mut().find(|present| present.name == variable) {
        Some(present) => *present = new,
        None => variables.push(new),
    }
}

fn resource_requirements(resources: Resources) -> ResourceRequirements {
    let quantities = |list: Option<BTreeMap<String, String>>| {
        list.map(|list| list.into_iter().map(|(resource, quantity)| (resource, Quantity(quantity))).collect())
    };
    ResourceRequirements {
        claims: None,
        requests: quantities(resources.requests),
        limits: quantities(resources.limits),
    }
}

fn pod_toleration(toleration: Toleration) -> PodToleration {
    PodToleration {
        key: toleration.key,
        operator: toleration.operator.map(|operator| match operator {
            TolerationOperator::Equal => "Equal".to_owned(),
            TolerationOperator::Exists => "Exists".to_owned(),
        }),
        value: toleration.value,
        effect: toleration.effect.map(|effect| match effect {
            TaintEffect::NoSchedule => "NoSchedule".to_owned(),
            TaintEffect::PreferNoSchedule => "PreferNoSchedule".to_owned(),
            TaintEffect::NoExecute => "NoExecute".to_owned(),
        }),
        toleration_seconds: toleration.toleration_seconds.map(i64::from),
    }
}

/// The pool's own pods are spread as those of the default pool are, or over nodes and zones if nothing is said.
fn spread(
    default: Option<&[TopologySpreadConstraint]>,
    selector: &BTreeMap<String, String>,
) -> Vec<TopologySpreadConstraint> {
    let own = LabelSelector { match_labels: Some(selector.clone()), ..LabelSelector::default() };
    let usual = |topology_key: &str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: topology_key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        ..TopologySpreadConstraint::default()
    };
    let constraints = match default {
        Some(constraints) if !constraints.is_empty() => constraints.to_vec(),
        _ => vec![usual("topology.kubernetes.io/zone"), usual("kubernetes.io/hostname")],
    };
    constraints
        .into_iter()
        .map(|constraint| TopologySpreadConstraint { label_selector: Some(own.clone()), ..constraint })
        .collect()
}

fn admin_port(pod: &PodSpec) -> Option<ContainerPort> {
    let ports = pod.containers.iter().flat_map(|container| container.ports.iter().flatten());
    ports.into_iter().find(|port| port.name.as_deref() == Some(ADMIN_PORT)).cloned()
}

/// Headless: whoever scrapes wants each dispatcher, not one of them.
fn service(metadata: ObjectMeta, selector: BTreeMap<String, String>, admin: &ContainerPort) -> Service {
    Service {
        metadata,
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(selector),
            // One that is not ready says in its metrics why.
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![ServicePort {
                name: Some(ADMIN_PORT.to_owned()),
                port: admin.container_port,
                target_port: Some(IntOrString::String(ADMIN_PORT.to_owned())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Writes the digest of an object into it.
fn marked<Object: Serialize>(mut object: Object, metadata: impl Fn(&mut Object) -> &mut ObjectMeta) -> Object {
    // An object of plain maps and strings has a JSON form; the digest of none is one that never changes.
    let digest = hex::encode(Sha256::digest(serde_json::to_vec(&object).unwrap_or_default()));
    let annotations = metadata(&mut object).annotations.get_or_insert_default();
    annotations.insert(APPLIED_ANNOTATION.to_owned(), digest[..DIGEST_LENGTH].to_owned());
    object
}
