//! All that a plan is made from, as plain values.

mod document;
pub mod files;
mod named;
pub mod problem;
pub mod resource;
mod secrets;
pub mod store;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crds::{DispatcherPool, Endpoint, Kind, Replay, Subscription};
use dispatcher::ledger::{Disabled, DispatcherRecord, EndpointFacts, TableLoad};
use dispatcher_core::id::{ReplayId, TenantId};
use dispatcher_core::table::{DEFAULT_POOL, IssuerRow, Row, RowKey, TableChange, TableVersion};

pub use self::named::{generated_secret, named_secrets, referenced_secrets};
pub use self::secrets::{SecretData, SecretState, Secrets, Unmade};
use crate::plan::replay::ReplayProgress;
use crate::plan::{ObjectStatus, Plan, StatusBody};

/// What is wanted, what is there, and what is known about it.
#[derive(Clone, Debug)]
pub struct World {
    /// Namespaces that are known, each with its identity in the ledger. Resources of others are not planned.
    pub tenants: Vec<(TenantId, String)>,
    /// Endpoints, with their present statuses.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Subscriptions, with their present statuses.
    pub subscriptions: Vec<Arc<Subscription>>,
    /// Replays, with their present statuses.
    pub replays: Vec<Arc<Replay>>,
    /// How far replays have come that this process works on.
    pub replay_progress: HashMap<ReplayId, ReplayProgress>,
    /// Pools of dispatchers, with their present statuses.
    pub dispatcher_pools: Vec<Arc<DispatcherPool>>,
    /// Those of the resources above of which only the place is known: what they say is not understood.
    pub malformed: Vec<Malformed>,
    /// Secrets that endpoints may name.
    pub secrets: Secrets,
    /// Pools that exist, by name, with what their dispatchers have loaded.
    pub pools: BTreeMap<String, Pool>,
    /// The processes that accept events: they decide which endpoints an event is for.
    pub ingest: Pool,
    /// Whose tokens are to be accepted; `None` while that is not known, and then those that are published stay.
    pub issuers: Option<Vec<IssuerRow>>,
    /// The routing table as it stands in the ledger.
    pub published: Vec<Row>,
    /// The version of the table that last changed a row of it. A row that is missing here was there from the beginning.
    pub row_versions: HashMap<RowKey, TableVersion>,
    /// What endpoints' deliveries did in the last [`dispatcher_core::limits::FACTS_WINDOW`].
    pub facts: Vec<EndpointFacts>,
    /// Endpoints that are disabled.
    pub disabled: Vec<Disabled>,
}

/// A resource that is there and not understood, as one that was written before a rule existed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What is wrong, in words for its owner.
    pub message: String,
}

/// Processes that work with the routing table: a pool's dispatchers, or those that accept events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// The version that each of them has loaded.
    pub loaded: Vec<TableVersion>,
}

impl Pool {
    /// How many there are.
    pub fn running(&self) -> usize {
        self.loaded.len()
    }

    /// How many of them have loaded a version, or a later one.
    pub fn up_to_date(&self, version: TableVersion) -> usize {
        self.loaded.iter().filter(|loaded| **loaded >= version).count()
    }
}

impl Default for World {
    /// Nothing but the default pool, with one process that loads every table at once.
    fn default() -> Self {
        let always = Pool { loaded: vec![TableVersion(u64::MAX)] };
        Self {
            tenants: Vec::new(),
            endpoints: Vec::new(),
            subscriptions: Vec::new(),
            replays: Vec::new(),
            replay_progress: HashMap::new(),
            dispatcher_pools: Vec::new(),
            malformed: Vec::new(),
            secrets: Secrets::default(),
            pools: BTreeMap::from([(DEFAULT_POOL.to_owned(), always.clone())]),
            ingest: always,
            issuers: None,
            published: Vec::new(),
            row_versions: HashMap::new(),
            facts: Vec::new(),
            disabled: Vec::new(),
        }
    }
}

impl World {
    /// The world after a plan has been applied: its rows are published and its statuses written. Secrets that it asks
    /// for are not there yet.
    pub fn apply(&mut self, plan: &Plan) {
        let latest = self.row_versions.values().max().copied().unwrap_or_default();
        self.publish(&plan.table, TableVersion(latest.0 + 1));
        self.set_statuses(&plan.statuses);
    }

    /// The world after a change of the table, which made this version of it.
    pub fn publish(&mut self, change: &TableChange, version: TableVersion) {
        let mut put: HashMap<RowKey, &Row> = change.put.iter().map(|row| (row.key(), row)).collect();
        let drop: BTreeSet<RowKey> = change.drop.iter().copied().collect();
        self.row_versions.extend(put.keys().map(|key| (*key, version)));
        self.row_versions.retain(|key, _| !drop.contains(key));
        self.published.retain_mut(|row| {
            let key = row.key();
            if let Some(new) = put.remove(&key) {
                *row = new.clone();
            }
            !drop.contains(&key)
        });
        self.published.extend(change.put.iter().filter(|row| put.contains_key(&row.key())).cloned());
    }

    /// The world with what was loaded of the table: all of it, or what changed since the version that was known.
    pub fn load(&mut self, load: TableLoad) {
        if load.complete {
            self.published.clear();
            self.row_versions.clear();
        }
        let keys: Vec<RowKey> = load.rows.iter().map(Row::key).collect();
        self.publish(&TableChange { put: load.rows, drop: load.dropped }, load.version);
        self.row_versions.extend(keys.into_iter().zip(load.row_versions));
    }

    /// The world with the processes that were heard of lately. `pools` are the pools that exist, whether or not anybody
    /// works for them.
    pub fn set_dispatchers(&mut self, pools: impl IntoIterator<Item = String>, dispatchers: &[DispatcherRecord]) {
        self.pools = pools.into_iter().map(|name| (name, Pool::default())).collect();
        self.pools.entry(DEFAULT_POOL.to_owned()).or_default();
        self.ingest = Pool::default();
        for dispatcher in dispatchers {
            if dispatcher.role.ingests() {
                self.ingest.loaded.push(dispatcher.table_version);
            }
            let pool = dispatcher.pool.as_deref().filter(|_| dispatcher.role.delivers());
            if let Some(pool) = pool.and_then(|name| self.pools.get_mut(name)) {
                pool.loaded.push(dispatcher.table_version);
            }
        }
    }

    /// Gives resources the statuses that were written for them: resources read from files have none of their own.
    pub fn set_statuses(&mut self, statuses: &[ObjectStatus]) {
        let by_name: BTreeMap<_, _> = statuses
            .iter()
            .map(|status| ((status.body.kind(), status.namespace.as_str(), status.name.as_str()), &status.body))
            .collect();
        if by_name.is_empty() {
            return;
        }
        let find = |kind, metadata: &kube::core::ObjectMeta| {
            let namespace = metadata.namespace.as_deref().unwrap_or_default();
            by_name.get(&(kind, namespace, metadata.name.as_deref().unwrap_or_default())).copied()
        };
        for endpoint in &mut self.endpoints {
            if let Some(StatusBody::Endpoint(status)) = find(Kind::Endpoint, &endpoint.metadata) {
                Arc::make_mut(endpoint).status = Some(status.clone());
            }
        }
        for replay in &mut self.replays {
            if let Some(StatusBody::Replay(status)) = find(Kind::Replay, &replay.metadata) {
                Arc::make_mut(replay).status = Some(status.clone());
            }
        }
        for subscription in &mut self.subscriptions {
            if let Some(StatusBody::Subscription(status)) = find(Kind::Subscription, &subscription.metadata) {
                Arc::make_mut(subscription).status = Some(status.clone());
            }
        }
        for pool in &mut self.dispatcher_pools {
            if let Some(StatusBody::DispatcherPool(status)) = find(Kind::DispatcherPool, &pool.metadata) {
                Arc::make_mut(pool).status = Some(status.clone());
            }
        }
    }
}
