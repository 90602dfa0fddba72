//! Pools of dispatchers.

use crds::definition::default_status;
use crds::{DispatcherPool, Kind};
use dispatcher::ledger::PoolLoad;
use operator::plan::StatusBody;
use operator::plan::pool::{
    DefaultPool, PodTrouble, PoolMemory, PoolPlan, PoolSettings, PoolWorld, object_name, plan_pools,
};
use serde_json::{Value, json};

use super::Health::{Degraded, Healthy, Progressing};
use super::{Case, NOW_UNIX_MS, numbered};

const NAMESPACE: &str = "harborhook";
const DEFAULT: &str = "harborhook-dispatcher-default";

/// An installation with one pool, of which nothing is made yet.
fn new(spec: &Value) -> PoolWorld {
    let pool = json!({
        "apiVersion": crds::API_VERSION, "kind": Kind::DispatcherPool.as_str(), "spec": spec,
        "metadata": {"name": "slow", "namespace": NAMESPACE, "uid": "5b4d9e0c-0000-4000-8000-000000000001", "generation": 1},
    });
    let pool: DispatcherPool = serde_json::from_value(pool).unwrap();
    let settings = PoolSettings::of(&pool.spec);
    let labels = json!({"app.kubernetes.io/name": "harborhook"});
    let deployment = json!({
        "metadata": {"name": DEFAULT, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "dispatcher"}]}},
        },
    });
    PoolWorld {
        namespace: NAMESPACE.to_owned(),
        pools: vec![pool],
        default: Some(DefaultPool { deployment: DEFAULT.to_owned(), settings }),
        deployments: [(DEFAULT.to_owned(), serde_json::from_value(deployment).unwrap())].into(),
        loads: [("slow".to_owned(), PoolLoad { pool: "slow".to_owned(), ..PoolLoad::default() })].into(),
        ..PoolWorld::default()
    }
}

/// Plans, and makes what is planned as an API server would; then the pool asks for so many dispatchers.
fn made(spec: &Value, replicas: i32) -> PoolWorld {
    let mut world = new(spec);
    for (_, change) in plan(&world).apply {
        if let Some(mut deployment) = change.deployment {
            deployment.metadata.generation = Some(1);
            deployment.spec.as_mut().unwrap().replicas = Some(replicas);
            world.deployments.insert(deployment.metadata.name.clone().unwrap(), deployment);
        }
        if let Some(budget) = change.disruption_budget {
            world.disruption_budgets.insert(budget.metadata.name.clone().unwrap(), budget);
        }
        if let Some(service) = change.service {
            world.services.insert(service.metadata.name.clone().unwrap(), service);
        }
    }
    world
}

/// The same, and the Deployment's controller reports so many that are ready.
fn running(replicas: i32, ready: i32) -> PoolWorld {
    reporting(
        made(&json!({"minReplicas": 0, "maxReplicas": 4}), replicas),
        json!({
            "observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": ready,
        }),
    )
}

fn reporting(mut world: PoolWorld, status: Value) -> PoolWorld {
    let deployment = world.deployments.get_mut(&object_name(DEFAULT, "slow")).unwrap();
    deployment.status = Some(serde_json::from_value(status).unwrap());
    world
}

fn troubled(trouble: PodTrouble) -> PoolWorld {
    let mut world = running(2, 1);
    world.troubles.insert("slow".to_owned(), trouble);
    world
}

fn refused() -> PoolWorld {
    let failure = json!({"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: cpu"});
    reporting(made(&json!({}), 2), json!({"observedGeneration": 1, "conditions": [failure]}))
}

/// More run than the bounds allow since they were lowered, and they have enough to do.
fn overloaded() -> PoolWorld {
    let all = json!({"observedGeneration": 1, "replicas": 5, "updatedReplicas": 5, "readyReplicas": 5});
    let mut world = reporting(made(&json!({"minReplicas": 1, "maxReplicas": 2}), 5), all);
    world.loads.get_mut("slow").unwrap().due = 1_000;
    world
}

fn plan(world: &PoolWorld) -> PoolPlan {
    plan_pools(world, &mut PoolMemory::default(), NOW_UNIX_MS, 0)
}

/// The pool with the status that is planned.
fn told(mut world: PoolWorld) -> Value {
    let [status] = &plan(&world).statuses[..] else { panic!("one status") };
    let StatusBody::DispatcherPool(status) = &status.body else { panic!("{status:?}") };
    world.pools[0].status = Some(status.clone());
    numbered(&world.pools[0], 1)
}

pub(super) fn cases() -> Vec<Case> {
    let mut unseen = numbered(&new(&json!({})).pools[0], 1);
    unseen["status"] = default_status();
    let mut not_applied = new(&json!({}));
    not_applied.failures.insert("slow".to_owned(), "deployments.apps is forbidden".to_owned());
    let mut embedded = new(&json!({}));
    embedded.default = None;
    let mut elsewhere = new(&json!({}));
    elsewhere.pools[0].metadata.namespace = Some("shop".to_owned());
    let invalid = new(&json!({"minReplicas": 5, "maxReplicas": 3}));
    let unschedulable = PodTrouble::Unschedulable("0/3 nodes are available".to_owned());
    let failing = PodTrouble::Failing("container dispatcher of pod a: CrashLoopBackOff: see its log".to_owned());
    let case = |what, object, health, says| Case { what, object, health, says };
    vec![
        case("a pool that nobody has seen", unseen, Progressing, "Waiting for the controller"),
        case(
            "a pool of which nothing is there",
            told(new(&json!({}))),
            Progressing,
            "The Deployment is about to be made",
        ),
        case("a pool whose pods start", told(running(2, 0)), Progressing, "0 of 2 dispatchers are ready; they are"),
        case("a pool that grows", told(running(3, 2)), Progressing, "2 of 3 dispatchers are ready; the others"),
        case("a pool that is there", told(running(2, 2)), Healthy, "2 of 2 dispatchers are ready"),
        case("an empty pool", told(running(0, 0)), Healthy, "Nothing is due"),
        case("a pool that may not grow", told(overloaded()), Healthy, "AtMaximum: The load asks for more"),
        case(
            "no node takes its pods",
            told(troubled(unschedulable)),
            Progressing,
            "1 of 2 dispatchers are ready; no node",
        ),
        case("its pods fail", told(troubled(failing)), Progressing, "1 of 2 dispatchers are ready; container"),
        case("a quota refuses its pods", told(refused()), Progressing, "The API server refuses pods: exceeded quota"),
        case("its objects are refused", told(not_applied), Progressing, "deployments.apps is forbidden"),
        case("an embedded installation", told(embedded), Progressing, "There is no Deployment of a default pool"),
        case("a pool elsewhere", told(elsewhere), Degraded, "a pool stands in the namespace of the installation"),
        case("impossible bounds", told(invalid), Degraded, "spec.maxReplicas: must not be smaller"),
    ]
}
