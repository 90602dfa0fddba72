//! All that a plan is made from, as plain values.

mod document;
pub mod files;
pub mod problem;
pub mod resource;
pub mod store;

use std::collections::BTreeMap;

use crds::{DispatcherPool, Endpoint, Subscription};
use dispatcher::ledger::{Disabled, EndpointFacts};
use dispatcher_core::id::TenantId;
use dispatcher_core::redacted::Redacted;
use dispatcher_core::table::{DEFAULT_POOL, Row};

use crate::plan::{ObjectStatus, Plan, StatusBody};

/// What is wanted, what is there, and what is known about it.
#[derive(Clone, Debug)]
pub struct World {
    /// Namespaces that are known, each with its identity in the ledger. Resources of others are not planned.
    pub tenants: Vec<(TenantId, String)>,
    /// Endpoints, with their present statuses.
    pub endpoints: Vec<Endpoint>,
    /// Subscriptions, with their present statuses.
    pub subscriptions: Vec<Subscription>,
    /// Pools of dispatchers, with their present statuses.
    pub dispatcher_pools: Vec<DispatcherPool>,
    /// Secrets that endpoints may name.
    pub secrets: Secrets,
    /// Pools that exist, by name, with what their dispatchers have loaded.
    pub pools: BTreeMap<String, Pool>,
    /// The routing table as it stands in the ledger.
    pub published: Vec<Row>,
    /// What endpoints' deliveries did in the last [`dispatcher_core::limits::FACTS_WINDOW`].
    pub facts: Vec<EndpointFacts>,
    /// Endpoints that are disabled.
    pub disabled: Vec<Disabled>,
}

/// The dispatchers of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Dispatchers that consume.
    pub running: u32,
    /// Of these, the ones that have loaded the published table.
    pub up_to_date: u32,
}

/// Secrets by namespace and name.
#[derive(Clone, Debug, Default)]
pub struct Secrets(BTreeMap<String, BTreeMap<String, SecretState>>);

/// What is known of a Secret that exists.
#[derive(Clone, Debug)]
pub enum SecretState {
    /// Its values by key.
    Present(SecretData),
    /// It may not be read.
    Forbidden,
}

/// A Secret's values by key.
pub type SecretData = BTreeMap<String, Redacted<Vec<u8>>>;

impl Secrets {
    /// Adds a Secret, or replaces it.
    pub fn insert(&mut self, namespace: &str, name: &str, state: SecretState) {
        self.0.entry(namespace.to_owned()).or_default().insert(name.to_owned(), state);
    }

    /// What is known of a Secret; `None` if it does not exist.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&SecretState> {
        self.0.get(namespace)?.get(name)
    }
}

impl Default for World {
    /// Nothing but the default pool, with one dispatcher that is up to date: a single process.
    fn default() -> Self {
        Self {
            tenants: Vec::new(),
            endpoints: Vec::new(),
            subscriptions: Vec::new(),
            dispatcher_pools: Vec::new(),
            secrets: Secrets::default(),
            pools: BTreeMap::from([(DEFAULT_POOL.to_owned(), Pool { running: 1, up_to_date: 1 })]),
            published: Vec::new(),
            facts: Vec::new(),
            disabled: Vec::new(),
        }
    }
}

impl World {
    /// The world after a plan has been applied: its rows are published and its statuses written. Secrets that it asks
    /// for are not there yet.
    pub fn apply(&mut self, plan: &Plan) {
        let mut rows: BTreeMap<_, _> =
            std::mem::take(&mut self.published).into_iter().map(|row| (row.key(), row)).collect();
        rows.extend(plan.table.put.iter().map(|row| (row.key(), row.clone())));
        for key in &plan.table.drop {
            rows.remove(key);
        }
        self.published = rows.into_values().collect();
        self.set_statuses(&plan.statuses);
    }

    /// Gives resources the statuses that were written for them: resources read from files have none of their own.
    pub fn set_statuses(&mut self, statuses: &[ObjectStatus]) {
        let by_name: BTreeMap<_, _> = statuses
            .iter()
            .map(|status| ((status.body.kind(), status.namespace.as_str(), status.name.as_str()), &status.body))
            .collect();
        let find = |kind, metadata: &kube::core::ObjectMeta| {
            let namespace = metadata.namespace.as_deref().unwrap_or_default();
            by_name.get(&(kind, namespace, metadata.name.as_deref().unwrap_or_default())).copied()
        };
        for endpoint in &mut self.endpoints {
            if let Some(StatusBody::Endpoint(status)) = find(crds::Kind::Endpoint, &endpoint.metadata) {
                endpoint.status = Some(status.clone());
            }
        }
        for subscription in &mut self.subscriptions {
            if let Some(StatusBody::Subscription(status)) = find(crds::Kind::Subscription, &subscription.metadata) {
                subscription.status = Some(status.clone());
            }
        }
        for pool in &mut self.dispatcher_pools {
            if let Some(StatusBody::DispatcherPool(status)) = find(crds::Kind::DispatcherPool, &pool.metadata) {
                pool.status = Some(status.clone());
            }
        }
    }
}
