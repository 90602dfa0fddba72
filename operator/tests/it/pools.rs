//! Pools: the objects that are made of them, what is planned, and what their owners read.

mod build;
mod status;

use std::collections::BTreeMap;
use std::time::Duration;

use crds::DispatcherPool;
use crds::pool::ScalingMode;
use dispatcher::ledger::PoolLoad;
use k8s_openapi::api::apps::v1::Deployment;
use operator::plan::pool::{DefaultPool, PoolMemory, PoolObjects, PoolPlan, PoolSettings, PoolWorld, plan_pools};
use operator::plan::scale::ScalePolicy;
use serde_json::{Value, json};

use crate::fixtures::NOW;

const NAMESPACE: &str = "harborhook";
const DEFAULT: &str = "release-dispatcher-default";

/// The default pool's Deployment, as an API server gives it back.
fn default_deployment() -> Deployment {
    let pod_labels = json!({
        "app.kubernetes.io/name": "harborhook", "app.kubernetes.io/instance": "release",
        "app.kubernetes.io/component": "dispatcher", "app.kubernetes.io/version": "0.1.0",
        "harborhook.dev/pool": "default", "team": "platform",
    });
    serde_json::from_value(json!({
        "metadata": {"name": DEFAULT, "namespace": NAMESPACE, "generation": 3, "labels": {"helm.sh/chart": "harborhook"}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": pod_labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {
                    "labels": pod_labels,
                    "annotations": {"checksum/sealing": "abc", "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"},
                },
                "spec": {
                    "serviceAccountName": "release-dispatcher",
                    "automountServiceAccountToken": false,
                    "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "affinity": {
                        "nodeAffinity": {},
                        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": pod_labels}}
                        ]},
                    },
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                        "matchLabelKeys": ["pod-template-hash"],
                        "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "dispatcher"}},
                    }],
                    "containers": [
                        {"name": "proxy", "image": "proxy:1"},
                        {
                            "name": "dispatcher", "image": "harborhook:0.1.0", "command": ["dispatcher"],
                            "args": ["deliver", "--pool", "default", "--log=info", "--max-in-flight=64"],
                            "env": [
                                {"name": "HARBORHOOK_DATABASE", "valueFrom": {"secretKeyRef": {"name": "db", "key": "url"}}},
                                {"name": "HARBORHOOK_POOL", "value": "default"},
                            ],
                            "ports": [{"name": "admin", "containerPort": 8081, "protocol": "TCP"}],
                            "resources": {"requests": {"cpu": "100m"}},
                            "securityContext": {
                                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                                "capabilities": {"drop": ["ALL"]},
                            },
                        },
                    ],
                },
            },
        },
    }))
    .unwrap()
}

fn pool(spec: &Value) -> DispatcherPool {
    serde_json::from_value(json!({
        "apiVersion": crds::API_VERSION, "kind": "DispatcherPool",
        "metadata": {
            "name": "slow", "namespace": NAMESPACE, "uid": "5b4d9e0c-0000-4000-8000-000000000001", "generation": 2,
            "labels": {"argocd.argoproj.io/instance": "platform"}, "annotations": {"note": "private"},
        },
        "spec": spec,
    }))
    .unwrap()
}

/// The installation with one pool, of which nothing is made yet.
fn world(spec: &Value) -> PoolWorld {
    let policy = ScalePolicy {
        replicas_min: 1,
        replicas_max: 4,
        drain_target: Duration::from_mins(1),
        stabilization: Duration::from_mins(5),
    };
    let settings = PoolSettings { mode: ScalingMode::Backlog, policy };
    PoolWorld {
        namespace: NAMESPACE.to_owned(),
        pools: vec![pool(spec)],
        default: Some(DefaultPool { deployment: DEFAULT.to_owned(), settings }),
        deployments: BTreeMap::from([(DEFAULT.to_owned(), default_deployment())]),
        loads: ["default", "slow"].map(|name| (name.to_owned(), load(name))).into(),
        ..PoolWorld::default()
    }
}

fn load(name: &str) -> PoolLoad {
    PoolLoad { pool: name.to_owned(), ..PoolLoad::default() }
}

fn plan(world: &PoolWorld) -> PoolPlan {
    plan_pools(world, &mut PoolMemory::default(), NOW, 0)
}

/// The world after a plan has been carried out, with what an API server and its controllers add.
fn carry_out(world: &mut PoolWorld, plan: &PoolPlan) {
    for (_, change) in &plan.apply {
        if let Some(wanted) = &change.deployment {
            let name = wanted.metadata.name.clone().unwrap();
            let replicas = world.deployments.get(&name).and_then(|before| before.spec.as_ref()?.replicas).unwrap_or(1);
            let mut made = wanted.clone();
            made.metadata.generation = Some(1);
            made.metadata
                .annotations
                .get_or_insert_default()
                .insert("deployment.kubernetes.io/revision".into(), "1".into());
            let spec = made.spec.as_mut().unwrap();
            spec.replicas = Some(replicas);
            spec.template.spec.as_mut().unwrap().dns_policy = Some("ClusterFirst".to_owned());
            world.deployments.insert(name, made);
        }
        for budget in change.disruption_budget.iter().cloned() {
            world.disruption_budgets.insert(budget.metadata.name.clone().unwrap(), budget);
        }
        for service in change.service.iter().cloned() {
            world.services.insert(service.metadata.name.clone().unwrap(), service);
        }
    }
    for scale in &plan.scales {
        let deployment = world.deployments.get_mut(&scale.deployment).unwrap();
        deployment.spec.as_mut().unwrap().replicas = Some(i32::try_from(scale.replicas).unwrap());
    }
    for status in &plan.statuses {
        if let operator::plan::StatusBody::DispatcherPool(body) = &status.body {
            let pool = world.pools.iter_mut().find(|pool| pool.metadata.name.as_ref() == Some(&status.name));
            pool.unwrap().status = Some(body.clone());
        }
    }
}

/// Sets what the Deployment's controller reports.
fn report(world: &mut PoolWorld, status: Value) {
    let deployment = world.deployments.get_mut("release-dispatcher-slow").unwrap();
    deployment.status = Some(serde_json::from_value(status).unwrap());
}

fn objects(spec: &Value) -> PoolObjects {
    operator::plan::pool::pool_objects(&pool(spec), &default_deployment()).unwrap()
}
