//! What must change so that pools are as they are wanted: objects to apply, numbers of replicas, what autoscalers are told,
//! statuses. Pure; empty once it is carried out.

pub mod build;
pub mod compare;
mod settings;
mod status;
pub mod trouble;

use std::collections::BTreeMap;
use std::time::Duration;

use crds::DispatcherPool;
use crds::admission::admit;
use dispatcher::ledger::{PoolLoad, PoolMetric};
use dispatcher_core::table::DEFAULT_POOL;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

pub use self::build::{APPLIED_ANNOTATION, POOL_LABEL, PoolObjects, object_name, pool_objects};
pub use self::settings::PoolSettings;
use self::status::Standing;
use super::ObjectStatus;
use super::scale::{Decision, Measured, Scaler};

/// All that pools are planned from.
#[derive(Clone, Debug, Default)]
pub struct PoolWorld {
    /// The namespace of the installation.
    pub namespace: String,
    /// The resources, with their present statuses.
    pub pools: Vec<DispatcherPool>,
    /// The Deployment of the default pool, and how that is scaled; `None` if the installation has none.
    pub default: Option<DefaultPool>,
    /// Deployments of the installation's namespace that belong to pools, by name; the default pool's too.
    pub deployments: BTreeMap<String, Deployment>,
    /// PodDisruptionBudgets that belong to pools, by name.
    pub disruption_budgets: BTreeMap<String, PodDisruptionBudget>,
    /// Services that belong to pools, by name.
    pub services: BTreeMap<String, Service>,
    /// What pools have to do, by name; without those whose load is not known.
    pub loads: BTreeMap<String, PoolLoad>,
    /// Dispatchers that deliver, by pool.
    pub running: BTreeMap<String, u32>,
    /// Why the objects of a pool could not be applied the last time.
    pub failures: BTreeMap<String, String>,
    /// Why pods of a pool do not start.
    pub troubles: BTreeMap<String, PodTrouble>,
}

/// The default pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultPool {
    /// Name of its Deployment.
    pub deployment: String,
    /// How it is scaled.
    pub settings: PoolSettings,
}

/// Why pods do not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodTrouble {
    /// No node takes them; what the scheduler says.
    Unschedulable(String),
    /// They run into an error; which one.
    Failing(String),
}

/// What is remembered of pools between plans.
#[derive(Clone, Debug, Default)]
pub struct PoolMemory {
    scalers: BTreeMap<String, Scaler>,
    /// When a number of replicas was last changed, in milliseconds since the Unix epoch.
    scaled_unix_ms: BTreeMap<String, u64>,
}

/// A number of replicas to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// The pool.
    pub pool: String,
    /// Its Deployment.
    pub deployment: String,
    /// What it has.
    pub from: u32,
    /// What it should have.
    pub replicas: u32,
}

/// What must change.
#[derive(Clone, Debug, Default)]
pub struct PoolPlan {
    /// Objects that are not as they should be, by pool; only those that differ.
    pub apply: Vec<(String, PoolChange)>,
    /// Numbers of replicas to set.
    pub scales: Vec<Scale>,
    /// What autoscalers are told.
    pub metrics: Vec<PoolMetric>,
    /// Statuses that differ from the present ones.
    pub statuses: Vec<ObjectStatus>,
    /// Pools of which pods are missing, so that it is worth asking why.
    pub incomplete: Vec<String>,
    /// When to plan again although nothing changes.
    pub next_look_in: Option<Duration>,
}

/// Objects of one pool to apply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolChange {
    /// Its Deployment.
    pub deployment: Option<Deployment>,
    /// Its PodDisruptionBudget.
    pub disruption_budget: Option<PodDisruptionBudget>,
    /// Its Service.
    pub service: Option<Service>,
}

impl PoolChange {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Names of the pools whose load is to be measured: those that are declared here, and the default pool if it has a
/// Deployment.
pub fn measured_pools(world: &PoolWorld) -> Vec<String> {
    let default = world.default.as_ref().map(|_| DEFAULT_POOL.to_owned());
    default.into_iter().chain(declared_pools(&world.namespace, &world.pools)).collect()
}

/// Names of the pools that resources declare in a namespace. One that is wrong is there too: endpoints name it.
pub fn declared_pools<'a>(namespace: &str, pools: impl IntoIterator<Item = &'a DispatcherPool>) -> Vec<String> {
    let here = pools.into_iter().filter(|pool| pool.metadata.namespace.as_deref() == Some(namespace));
    here.filter_map(|pool| pool.metadata.name.clone()).filter(|name| name != DEFAULT_POOL).collect()
}

/// Plans all pools. `now_unix_ms` is the time in milliseconds since the Unix epoch, `steady_ms` one that never runs
/// backwards.
pub fn plan_pools(world: &PoolWorld, memory: &mut PoolMemory, now_unix_ms: u64, steady_ms: u64) -> PoolPlan {
    let mut plan = PoolPlan::default();
    let names = measured_pools(world);
    memory.scalers.retain(|name, _| names.contains(name));
    memory.scaled_unix_ms.retain(|name, _| names.contains(name));
    let mut planner = Planner { world, memory, now_unix_ms, steady_ms };
    if let Some(default) = &world.default {
        let deployment = world.deployments.get(&default.deployment);
        planner.scale(DEFAULT_POOL, &default.settings, deployment, &mut plan);
    }
    let template = world.default.as_ref().and_then(|default| world.deployments.get(&default.deployment));
    for pool in &world.pools {
        if pool.metadata.deletion_timestamp.is_none() {
            planner.plan(pool, template, &mut plan);
        }
    }
    plan
}

struct Planner<'a> {
    world: &'a PoolWorld,
    memory: &'a mut PoolMemory,
    now_unix_ms: u64,
    steady_ms: u64,
}

impl Planner<'_> {
    fn plan(&mut self, pool: &DispatcherPool, template: Option<&Deployment>, plan: &mut PoolPlan) {
        let Some(name) = pool.metadata.name.as_deref() else { return };
        let settings = PoolSettings::of(&pool.spec);
        let problem = self.problem(pool);
        let objects = template.and_then(|template| pool_objects(pool, template));
        let deployment_name = self.world.default.as_ref().map(|default| object_name(&default.deployment, name));
        // What somebody else made under this name is left alone.
        let deployment = deployment_name
            .as_ref()
            .and_then(|deployment| self.world.deployments.get(deployment))
            .filter(|deployment| is_owned(*deployment, pool));
        let mut change = PoolChange::default();
        let mut decision = None;
        if problem.is_none() {
            change = objects.as_ref().map(|objects| self.change(objects)).unwrap_or_default();
            decision = self.scale(name, &settings, deployment, plan);
        }
        let standing = Standing {
            pool,
            settings,
            problem,
            has_template: objects.is_some(),
            is_applied: change.is_empty(),
            failure: self.world.failures.get(name).map(String::as_str),
            deployment,
            deployment_name,
            trouble: self.world.troubles.get(name),
            load: self.world.loads.get(name),
            rate_per_second: self.memory.scalers.get(name).and_then(Scaler::rate_per_second),
            decision,
            scaled_unix_ms: self.memory.scaled_unix_ms.get(name).copied(),
        };
        if standing.is_incomplete() {
            plan.incomplete.push(name.to_owned());
        }
        let (status, next_look_in) = standing.status(self.now_unix_ms);
        plan.statuses.extend(status);
        plan.next_look_in = [plan.next_look_in, next_look_in].into_iter().flatten().min();
        if !change.is_empty() {
            plan.apply.push((name.to_owned(), change));
        }
    }

    /// What is wrong with a resource that nothing but a change of it mends.
    fn problem(&self, pool: &DispatcherPool) -> Option<String> {
        let namespace = pool.metadata.namespace.as_deref().unwrap_or_default();
        if namespace != self.world.namespace {
            let here = &self.world.namespace;
            return Some(format!("a pool stands in the namespace of the installation: move it to {here}"));
        }
        // It may have been written before a rule was.
        let mut object = serde_json::to_value(pool).ok()?;
        object.as_object_mut()?.remove("status");
        let problems = admit(&object).err()?;
        Some(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    fn change(&self, objects: &PoolObjects) -> PoolChange {
        let PoolObjects { deployment, disruption_budget, service } = objects;
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let world = self.world;
        PoolChange {
            deployment: changed(deployment, world.deployments.get(name)),
            disruption_budget: changed(disruption_budget, world.disruption_budgets.get(name)),
            service: service.as_ref().and_then(|service| changed(service, world.services.get(name))),
        }
    }

    /// Decides the number of replicas, and what autoscalers are told. `None` without a Deployment to scale.
    fn scale(
        &mut self,
        name: &str,
        settings: &PoolSettings,
        deployment: Option<&Deployment>,
        plan: &mut PoolPlan,
    ) -> Option<Decision> {
        let deployment = deployment?;
        let replicas = replicas_of(deployment);
        let load = self.world.loads.get(name);
        let measured = load.map(|load| Measured {
            ready: self.world.running.get(name).copied().unwrap_or_default(),
            due: load.due,
            held: load.held,
            accepted_per_second: load.accepted_per_second,
            attempts_per_second: load.attempts_per_second,
            delivered_per_second: load.delivered_per_second,
        });
        let scaler = self.memory.scalers.entry(name.to_owned()).or_default();
        let (policy, now_ms) = (&settings.policy, self.steady_ms);
        let decision = if is_as_made(deployment) {
            scaler.decide_at_first(policy, replicas, measured.as_ref(), now_ms)
        } else {
            scaler.decide(policy, replicas, measured.as_ref(), now_ms)
        };
        if let Some(load) = load {
            plan.metrics.push(PoolMetric {
                pool: name.to_owned(),
                backlog: load.due,
                arrival_per_second: load.accepted_per_second,
                delivery_per_second: load.delivered_per_second,
                wanted_replicas: decision.wanted,
            });
        }
        if settings.is_ours() && decision.replicas != replicas {
            self.memory.scaled_unix_ms.insert(name.to_owned(), self.now_unix_ms);
            plan.scales.push(Scale {
                pool: name.to_owned(),
                deployment: deployment.metadata.name.clone()?,
                from: replicas,
                replicas: decision.replicas,
            });
        }
        Some(decision)
    }
}

/// Replicas that a Deployment asks for; an API server takes none for one.
fn replicas_of(deployment: &Deployment) -> u32 {
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    u32::try_from(replicas).unwrap_or_default()
}

/// Whether nobody has changed a Deployment since it was made, its number of replicas included.
fn is_as_made(deployment: &Deployment) -> bool {
    deployment.metadata.generation == Some(1)
}

fn is_owned<Object: kube::Resource>(object: &Object, pool: &DispatcherPool) -> bool {
    let owners = object.meta().owner_references.iter().flatten();
    owners.into_iter().any(|owner| Some(&owner.uid) == pool.metadata.uid.as_ref())
}

/// The object if it is not there as it should be.
fn changed<Object>(wanted: &Object, present: Option<&Object>) -> Option<Object>
where
    Object: serde::Serialize + Clone,
{
    present.is_none_or(|present| compare::differs(wanted, present)).then(|| wanted.clone())
}
