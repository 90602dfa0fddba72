//! Pools on a real API server with its controllers and its scheduler.

use std::sync::Arc;
use std::time::Duration;

use crds::Kind;
use crds::pool::ScalingMode;
use dispatcher::ledger::sqlite::SqliteLedger;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use operator::cluster::FIELD_MANAGER;
use operator::cluster::lease::Lead;
use operator::cluster::metrics::OperatorMetrics;
use operator::cluster::pools::{PoolWriters, Pools, PoolsConfig};
use operator::cluster::status::StatusWriter;
use operator::cluster::watch::WatchStates;
use operator::plan::pool::{DefaultPool, PoolSettings, pool_objects};
use operator::plan::scale::ScalePolicy;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::support::{Cluster, eventually};

const DEFAULT: &str = "r-dispatcher-default";

/// The loop that looks after pools, on a namespace.
struct Running {
    cluster: Cluster,
    declared: operator::cluster::pools::DeclaredPools,
    _tasks: JoinSet<()>,
    _folder: TempDir,
}

impl Running {
    async fn start(cluster: Cluster) -> Self {
        let deployments = cluster.api::<Deployment>();
        deployments.create(&PostParams::default(), &default_deployment()).await.unwrap();
        let policy = ScalePolicy {
            replicas_min: 0,
            replicas_max: 1,
            drain_target: Duration::from_mins(1),
            stabilization: Duration::from_mins(5),
        };
        let settings = PoolSettings { mode: ScalingMode::External, policy };
        let config = PoolsConfig {
            client: cluster.client.clone(),
            namespace: cluster.namespace().to_owned(),
            default: Some(DefaultPool { deployment: DEFAULT.to_owned(), settings }),
            resync: Duration::from_mins(10),
            changed: Arc::new(Notify::new()),
        };
        let folder = tempfile::tempdir().unwrap();
        let ledger = Arc::new(SqliteLedger::open_in(folder.path()).await.unwrap());
        let (metrics, shutdown) = (Arc::new(OperatorMetrics::new()), CancellationToken::new());
        let statuses = StatusWriter::new(cluster.client.clone(), Arc::clone(&metrics));
        let mut tasks = JoinSet::new();
        let states = Arc::new(WatchStates::new(Arc::clone(&metrics)));
        let pools = Pools::start(config, &states, &mut tasks, &shutdown);
        let declared = pools.declared();
        tasks.spawn(statuses.clone().run(shutdown.clone()));
        tasks.spawn(pools.run(PoolWriters { ledger, lead: Lead::for_ever(1), statuses, metrics }, shutdown));
        Self { cluster, declared, _tasks: tasks, _folder: folder }
    }

    async fn make_pool(&self, name: &str, spec: Value) -> DynamicObject {
        let object = json!({
            "apiVersion": crds::API_VERSION, "kind": "DispatcherPool", "metadata": {"name": name}, "spec": spec,
        });
        let object = serde_json::from_value(object).unwrap();
        self.cluster.objects(Kind::DispatcherPool).create(&PostParams::default(), &object).await.unwrap()
    }

    /// The status, reason and message of a condition of a pool.
    async fn condition(&self, pool: &str, type_: &str) -> (String, String, String) {
        let pool = self.cluster.objects(Kind::DispatcherPool).get(pool).await.unwrap();
        let conditions = pool.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default();
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    async fn await_reason(&self, pool: &str, type_: &str, reason: &str) {
        eventually(&format!("{pool} says {reason}"), || async { self.condition(pool, type_).await.1 == reason }).await;
    }

    async fn replicas(&self, deployment: &str) -> Option<i32> {
        self.cluster.api::<Deployment>().get_opt(deployment).await.unwrap()?.spec?.replicas
    }
}

fn default_deployment() -> Deployment {
    let labels = json!({
        "app.kubernetes.io/name": "harborhook", "app.kubernetes.io/instance": "r",
        "app.kubernetes.io/component": "dispatcher", "harborhook.dev/pool": "default",
    });
    serde_json::from_value(json!({
        "metadata": {"name": DEFAULT, "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeSelector": {"example.com/nowhere": "true"},
                    "containers": [{
                        "name": "dispatcher", "image": "harborhook.invalid/none:1", "args": ["deliver"],
                        "ports": [{"name": "admin", "containerPort": 8081}],
                    }],
                },
            },
        },
    }))
    .unwrap()
}

#[tokio::test]
async fn a_real_cluster_gets_what_a_pool_asks_for_and_loses_it_with_the_pool() {
    let Some(cluster) = Cluster::with_kinds("pools").await else { return };
    let running = Running::start(cluster).await;
    let cluster = &running.cluster;
    running.make_pool("slow", json!({"minReplicas": 2, "maxInFlight": 64})).await;
    eventually("it is made and scaled", || async { running.replicas("r-dispatcher-slow").await == Some(2) }).await;
    assert!(running.declared.is_synced() && running.declared.names().contains("slow"));
    let made = cluster.api::<Deployment>().get("r-dispatcher-slow").await.unwrap();
    let applied =
        made.metadata.managed_fields.clone().unwrap().into_iter().find(|entry| {
            entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
        });
    let fields = serde_json::to_string(&applied.unwrap().fields_v1).unwrap();
    assert!(fields.contains("f:template") && !fields.contains("f:replicas"), "{fields}");
    let budget = cluster.api::<PodDisruptionBudget>().get_opt("r-dispatcher-slow").await.unwrap();
    let service = cluster.api::<Service>().get_opt("r-dispatcher-slow").await.unwrap();
    assert!(budget.is_some() && service.is_some());

    running.await_reason("slow", "Ready", "Unschedulable").await;
    let (status, _, message) = running.condition("slow", "Ready").await;
    assert_eq!(status, "False");
    let words = "0 of 2 dispatchers are ready; no node takes the others, so add nodes or change template: ";
    assert!(message.starts_with(words) && message.len() > words.len(), "{message}");

    cluster.objects(Kind::DispatcherPool).delete("slow", &DeleteParams::default()).await.unwrap();
    eventually("all of it is gone", || async {
        cluster.api::<Deployment>().get_opt("r-dispatcher-slow").await.unwrap().is_none()
            && cluster.api::<PodDisruptionBudget>().get_opt("r-dispatcher-slow").await.unwrap().is_none()
            && cluster.api::<Service>().get_opt("r-dispatcher-slow").await.unwrap().is_none()
    })
    .await;
    assert!(running.replicas(DEFAULT).await.is_some(), "the default pool is not ours to remove");
}

#[tokio::test]
async fn a_real_cluster_sees_no_change_when_the_same_is_applied_again() {
    let Some(cluster) = Cluster::with_kinds("again").await else { return };
    let deployments = cluster.api::<Deployment>();
    let default = deployments.create(&PostParams::default(), &default_deployment()).await.unwrap();
    let spec =
        json!({"template": {"resources": {"requests": {"cpu": "1000m"}}, "tolerations": [{"operator": "Exists"}]}});
    let object = json!({
        "apiVersion": crds::API_VERSION, "kind": "DispatcherPool", "metadata": {"name": "p"}, "spec": spec,
    });
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let made = cluster.objects(Kind::DispatcherPool).create(&PostParams::default(), &object).await.unwrap();
    let pool = serde_json::from_value(serde_json::to_value(made).unwrap()).unwrap();
    let objects = pool_objects(&pool, &default).unwrap();
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(&objects.deployment);
    let apply = || deployments.patch("r-dispatcher-p", &parameters, &patch);
    // Its controller writes beside us.
    eventually("two in a row change nothing", || async {
        let version = |object: Deployment| object.metadata.resource_version;
        version(apply().await.unwrap()) == version(apply().await.unwrap())
    })
    .await;
    let present = deployments.get("r-dispatcher-p").await.unwrap();
    assert!(!operator::plan::pool::compare::differs(&objects.deployment, &present), "and that is known beforehand");
    let requests =
        serde_json::to_value(&present).unwrap()["spec"]["template"]["spec"]["containers"][0]["resources"].clone();
    assert_eq!(requests, json!({"requests": {"cpu": "1"}}), "the server writes the quantity in its own way");
}

#[tokio::test]
async fn a_real_cluster_keeps_what_is_not_ours() {
    let Some(cluster) = Cluster::with_kinds("theirs").await else { return };
    let running = Running::start(cluster).await;
    let deployments = running.cluster.api::<Deployment>();
    let mut theirs = default_deployment();
    theirs.metadata.name = Some("r-dispatcher-taken".to_owned());
    theirs.metadata.labels = None;
    deployments.create(&PostParams::default(), &theirs).await.unwrap();
    running.make_pool("taken", json!({})).await;
    running.await_reason("taken", "Ready", "ApplyFailed").await;
    let (_, _, message) = running.condition("taken", "Ready").await;
    let words = "there is a Deployment named r-dispatcher-taken that does not belong to this pool; remove it, or give \
                 the pool another name";
    assert_eq!(message, words);
    let present = deployments.get("r-dispatcher-taken").await.unwrap();
    assert_eq!((present.metadata.labels, present.metadata.owner_references), (None, None));

    running.make_pool("scaled", json!({"scaling": {"mode": "External"}})).await;
    running.await_reason("scaled", "Scaling", "External").await;
    let patch = Patch::Merge(json!({"spec": {"replicas": 7}}));
    deployments.patch_scale("r-dispatcher-scaled", &PatchParams::default(), &patch).await.unwrap();
    // Two looks later it would have been taken back.
    for later in ["one", "two"] {
        running.make_pool(later, json!({"minReplicas": 0})).await;
        running.await_reason(later, "ResolvedRefs", "Resolved").await;
    }
    assert_eq!(running.replicas("r-dispatcher-scaled").await, Some(7));
}

#[tokio::test]
async fn a_real_cluster_gets_back_what_somebody_else_has_changed_of_ours() {
    let Some(cluster) = Cluster::with_kinds("taken").await else { return };
    let running = Running::start(cluster).await;
    let deployments = running.cluster.api::<Deployment>();
    running.make_pool("mine", json!({"minReplicas": 0})).await;
    running.await_reason("mine", "ResolvedRefs", "Resolved").await;
    let name = "r-dispatcher-mine";
    eventually("it is made", || async { deployments.get_opt(name).await.unwrap().is_some() }).await;
    let image = async || {
        let deployment = deployments.get(name).await.unwrap();
        deployment.spec.unwrap().template.spec.unwrap().containers[0].image.clone().unwrap()
    };
    let ours = image().await;
    let theirs = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "annotations": {"example.com/note": "theirs"}},
        "spec": {"template": {"spec": {"containers": [{"name": "dispatcher", "image": "example.invalid/theirs:1"}]}}},
    });
    let apply = PatchParams::apply("somebody-else");
    let refused = deployments.patch(name, &apply, &Patch::Apply(&theirs)).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 409), "{refused}");
    assert!(refused.to_string().contains("conflict with \"harborhook\""), "{refused}");
    deployments.patch(name, &apply.clone().force(), &Patch::Apply(&theirs)).await.unwrap();
    eventually("it is as it was", || async { image().await == ours }).await;
    let note = deployments.get(name).await.unwrap().metadata.annotations.unwrap().remove("example.com/note");
    assert_eq!(note.as_deref(), Some("theirs"), "what is not ours stays");
}
