//! What is there of pools: the resources, and the objects that are made of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crds::{DispatcherPool, Kind};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::PoolsConfig;
use crate::cluster::metrics::Watched;
use crate::cluster::watch::{Arrived, Store, Watch, WatchStates, WatchedResource, config as watch_config, follow};
use crate::plan::pool::{POOL_LABEL, PoolWorld};

/// All stores.
pub(super) struct PoolSources {
    pub(super) pools: Arc<Store<DispatcherPool>>,
    deployments: Arc<Children<Deployment>>,
    disruption_budgets: Arc<Children<PodDisruptionBudget>>,
    services: Arc<Children<Service>>,
    changed: Arc<Notify>,
}

/// Objects of one kind that carry the label of pools, by name; none until they have been listed once.
struct Children<K>(Mutex<Option<BTreeMap<String, K>>>);

impl PoolSources {
    /// Begins to follow.
    pub(super) fn start(
        config: &PoolsConfig,
        states: &Arc<WatchStates>,
        tasks: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) -> Self {
        let sources = Self {
            pools: Arc::default(),
            deployments: Arc::default(),
            disruption_budgets: Arc::default(),
            services: Arc::default(),
            changed: Arc::default(),
        };
        let watch = Watch {
            client: config.client.clone(),
            namespace: Some(config.namespace.clone()),
            store: Arc::clone(&sources.pools),
            changed: Arc::clone(&sources.changed),
            states: Arc::clone(states),
            resync: config.resync,
        };
        tasks.spawn(watch.run(shutdown.clone()));
        if config.default.is_some() {
            let mut follower = Follower { config, states, changed: &sources.changed, tasks, shutdown };
            follower.follow(Watched::Deployments, &sources.deployments);
            follower.follow(Watched::PodDisruptionBudgets, &sources.disruption_budgets);
            follower.follow(Watched::Services, &sources.services);
        } else {
            // Nothing is made, so nothing is to be followed, and the permission may be missing.
            sources.deployments.take(Arrived::List(Vec::new()));
            sources.disruption_budgets.take(Arrived::List(Vec::new()));
            sources.services.take(Arrived::List(Vec::new()));
        }
        sources
    }

    /// Waits for a change of the objects.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether everything has been listed once.
    pub(super) fn is_synced(&self) -> bool {
        self.pools.is_synced()
            && self.deployments.is_synced()
            && self.disruption_budgets.is_synced()
            && self.services.is_synced()
    }

    /// The resources.
    pub(super) fn pools(&self) -> Vec<Arc<DispatcherPool>> {
        let (mut pools, mut malformed) = (Vec::new(), Vec::new());
        self.pools.add_to(&mut pools, &mut malformed);
        pools
    }

    /// What is there.
    pub(super) fn world(&self) -> PoolWorld {
        PoolWorld {
            pools: self.pools().iter().map(|pool| (**pool).clone()).collect(),
            deployments: self.deployments.all(),
            disruption_budgets: self.disruption_budgets.all(),
            services: self.services.all(),
            ..PoolWorld::default()
        }
    }
}

/// Starts the watches of what is made of pools.
struct Follower<'a> {
    config: &'a PoolsConfig,
    states: &'a Arc<WatchStates>,
    changed: &'a Arc<Notify>,
    tasks: &'a mut JoinSet<()>,
    shutdown: &'a CancellationToken,
}

impl Follower<'_> {
    fn follow<K>(&mut self, watched: Watched, children: &Arc<Children<K>>)
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let api: Api<K> = Api::namespaced(self.config.client.clone(), &self.config.namespace);
        let (children, changed, states) = (Arc::clone(children), Arc::clone(self.changed), Arc::clone(self.states));
        let (resync, shutdown, namespace) = (self.config.resync, self.shutdown.clone(), self.config.namespace.clone());
        self.tasks.spawn(async move {
            let name = states.register(watched, Some(&namespace));
            let take = |event| {
                children.take(event);
                changed.notify_one();
            };
            let begin = || watcher::watcher(api.clone(), watch_config().labels(POOL_LABEL));
            shutdown.run_until_cancelled(follow(begin, take, (&states, &name), resync)).await;
        });
    }
}

impl<K> Default for Children<K> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<K: kube::Resource + Clone> Children<K> {
    fn take(&self, event: Arrived<K>) {
        let mut content = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Arrived::Put(object) => drop(content.get_or_insert_default().insert(object.name_any(), object)),
            Arrived::Gone(object) => drop(content.get_or_insert_default().remove(&object.name_any())),
            Arrived::List(objects) => {
                *content = Some(objects.into_iter().map(|object| (object.name_any(), object)).collect());
            }
        }
    }

    fn is_synced(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn all(&self) -> BTreeMap<String, K> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }
}

impl WatchedResource for DispatcherPool {
    const KIND: Kind = Kind::DispatcherPool;

    fn least_spec() -> Value {
        json!({})
    }
}
