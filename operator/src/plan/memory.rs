//! What earlier plans found out, so that a plan of ten thousand resources of which one has changed judges one.
//!
//! Nothing depends on it but time: with an empty memory the same world yields the same plan.

use std::collections::HashMap;
use std::sync::Arc;

use crds::{Endpoint, Subscription};
use dispatcher_core::id::{EndpointId, SubscriptionId};
use dispatcher_core::table::{EndpointRow, TableVersion};
use kube::core::ObjectMeta;

use crate::validate::Problem;
use crate::world::{SecretState, Secrets};

/// What earlier plans found out about resources. Belongs to one sealing key and one address policy.
#[derive(Debug, Default)]
pub struct Memory {
    pub(super) endpoints: HashMap<EndpointId, JudgedEndpoint>,
    pub(super) subscriptions: HashMap<SubscriptionId, JudgedSubscription>,
    /// Counts plans, to find what none of the last ones has asked for.
    plan: u64,
}

/// An endpoint that was judged.
#[derive(Debug)]
pub(super) struct JudgedEndpoint {
    resource: Arc<Endpoint>,
    /// The Secrets that it names, as they were: `None` is one that did not exist.
    secrets: Vec<(String, Option<Arc<SecretState>>)>,
    pool_exists: bool,
    /// What is wrong with it.
    pub(super) problems: Vec<Problem>,
    /// The row that it deserved, until it is known to be published.
    deserved: Option<Box<(EndpointRow, Option<u64>)>>,
    /// The published row that was found to be what it deserves.
    settled: Option<Settled>,
    plan: u64,
}

/// A row that needs no change while it stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// The version that made it.
    version: TableVersion,
    /// When a signing key in it retires, in milliseconds since the Unix epoch.
    pub(super) retires_at_unix_ms: Option<u64>,
}

impl JudgedEndpoint {
    /// The published row, which this version made, if it is what the endpoint deserves.
    pub(super) fn settled(
        &mut self,
        published: Option<&EndpointRow>,
        version: TableVersion,
        now_unix_ms: u64,
    ) -> Option<Settled> {
        let published = published?;
        if let Some((_, retires_at_unix_ms)) = self.deserved.as_deref().filter(|(row, _)| row == published) {
            self.settled = Some(Settled { version, retires_at_unix_ms: *retires_at_unix_ms });
            self.deserved = None;
        }
        let settled = self.settled.filter(|settled| settled.version == version)?;
        let is_over = settled.retires_at_unix_ms.is_some_and(|at| at <= now_unix_ms);
        (!is_over).then_some(settled)
    }
}

/// A subscription that was judged, by itself.
#[derive(Debug)]
pub(super) struct JudgedSubscription {
    resource: Arc<Subscription>,
    /// What is wrong with it.
    pub(super) problems: Vec<Problem>,
    plan: u64,
}

impl Memory {
    /// A plan begins.
    pub(super) fn begin(&mut self) {
        self.plan += 1;
    }

    /// A plan ends: whatever it did not ask for is forgotten.
    pub(super) fn end(&mut self) {
        let plan = self.plan;
        self.endpoints.retain(|_, judged| judged.plan == plan);
        self.subscriptions.retain(|_, judged| judged.plan == plan);
    }

    /// What was found out about an endpoint that has not changed since, nor what it names.
    pub(super) fn endpoint(
        &mut self,
        id: EndpointId,
        resource: &Arc<Endpoint>,
        (namespace, secrets): (&str, &Secrets),
        pool_exists: bool,
    ) -> Option<&mut JudgedEndpoint> {
        let judged = self.endpoints.get_mut(&id)?;
        let is_same_secret =
            |(name, before): &(String, Option<Arc<SecretState>>)| match (before, secrets.shared(namespace, name)) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now) || before == now,
                (before, now) => before.is_none() && now.is_none(),
            };
        let is_same = pool_exists == judged.pool_exists
            && (Arc::ptr_eq(&judged.resource, resource)
                || judged.resource.spec == resource.spec
                    && is_same_metadata(&judged.resource.metadata, &resource.metadata))
            && judged.secrets.iter().all(is_same_secret);
        if !is_same {
            return None;
        }
        judged.resource = Arc::clone(resource);
        judged.plan = self.plan;
        Some(judged)
    }

    /// Remembers what was found out about an endpoint that names these Secrets: the row that it deserves, and when a key
    /// in it retires; or what is wrong.
    pub(super) fn judge_endpoint(
        &mut self,
        id: EndpointId,
        resource: &Arc<Endpoint>,
        (namespace, secrets, named): (&str, &Secrets, Vec<String>),
        pool_exists: bool,
        verdict: Result<(EndpointRow, Option<u64>), Vec<Problem>>,
    ) {
        let secrets = named.into_iter().map(|name| {
            let state = secrets.shared(namespace, &name).cloned();
            (name, state)
        });
        let secrets = secrets.collect();
        let (deserved, problems) = match verdict {
            Ok(row) => (Some(Box::new(row)), Vec::new()),
            Err(problems) => (None, problems),
        };
        let (resource, plan) = (Arc::clone(resource), self.plan);
        let judged = JudgedEndpoint { resource, secrets, pool_exists, problems, deserved, settled: None, plan };
        self.endpoints.insert(id, judged);
    }

    /// What is wrong with a subscription by itself; `judge` finds it out if it has changed since.
    pub(super) fn subscription(
        &mut self,
        id: SubscriptionId,
        resource: &Arc<Subscription>,
        judge: impl FnOnce(&Subscription) -> Vec<Problem>,
    ) -> Vec<Problem> {
        if let Some(judged) = self.subscriptions.get_mut(&id)
            && (Arc::ptr_eq(&judged.resource, resource)
                || judged.resource.spec == resource.spec
                    && is_same_metadata(&judged.resource.metadata, &resource.metadata))
        {
            judged.resource = Arc::clone(resource);
            judged.plan = self.plan;
            return judged.problems.clone();
        }
        let problems = judge(resource);
        let judged = JudgedSubscription { resource: Arc::clone(resource), problems: problems.clone(), plan: self.plan };
        self.subscriptions.insert(id, judged);
        problems
    }
}

/// Whether metadata agree in all that is judged.
fn is_same_metadata(before: &ObjectMeta, now: &ObjectMeta) -> bool {
    before.name == now.name
        && before.namespace == now.namespace
        && before.labels == now.labels
        && before.annotations == now.annotations
}
