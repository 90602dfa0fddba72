//! Everything that a world is gathered from, but the ledger.

use std::sync::Arc;
use std::time::Duration;

use crds::{Endpoint, Kind, Replay, Subscription};
use kube::Client;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::metrics::OperatorMetrics;
use super::namespaces::{NamespaceWatch, Namespaces};
use super::secrets::{SecretReader, SecretWatch};
use super::watch::{Store, Watch, WatchStates, WatchedResource};
use crate::world::{Malformed, World};

/// What to follow.
#[derive(Clone)]
pub struct SourcesConfig {
    /// The API server.
    pub client: Client,
    /// The namespaces; none stands for all.
    pub namespaces: Vec<String>,
    /// Whether Secrets may be listed and watched there, so that a change is noticed at once.
    pub watch_secrets: bool,
    /// How often everything is listed anew.
    pub resync: Duration,
}

/// The stores of one kind: one, or one for each namespace.
pub struct Stores<K>(Vec<Arc<Store<K>>>);

/// All stores, and what keeps them up to date.
pub struct Sources {
    endpoints: Stores<Endpoint>,
    subscriptions: Stores<Subscription>,
    replays: Stores<Replay>,
    namespaces: Arc<Namespaces>,
    secrets: Arc<SecretReader>,
    states: Arc<WatchStates>,
    changed: Arc<Notify>,
    metrics: Arc<OperatorMetrics>,
    seen: Seen,
}

/// Which changes are in the world already.
#[derive(Debug, Default)]
struct Seen {
    endpoints: u64,
    secrets: u64,
}

impl Sources {
    /// Begins to follow.
    pub fn start(
        config: &SourcesConfig,
        metrics: Arc<OperatorMetrics>,
        tasks: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) -> Self {
        let (changed, states) = (Arc::new(Notify::new()), Arc::new(WatchStates::new(Arc::clone(&metrics))));
        let mut starting = Starting { config, changed: &changed, states: &states, tasks, shutdown };
        let (endpoints, subscriptions, replays) = (starting.watch(), starting.watch(), starting.watch());
        let namespaces = starting.namespaces();
        let secrets = starting.secrets(&metrics);
        Self { endpoints, subscriptions, replays, namespaces, secrets, states, changed, metrics, seen: Seen::default() }
    }

    /// Waits for a change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Who is told of every change.
    pub fn notifier(&self) -> &Arc<Notify> {
        &self.changed
    }

    /// Whether everything that routes follow from has been listed once, and every Secret that is named has been asked
    /// for. A replay that is not listed yet only begins later.
    pub fn is_synced(&self) -> bool {
        self.endpoints.is_synced()
            && self.subscriptions.is_synced()
            && self.namespaces.is_synced()
            && self.secrets.is_synced()
    }

    /// How the watches do.
    pub fn states(&self) -> &Arc<WatchStates> {
        &self.states
    }

    /// Who reads Secrets.
    pub fn secrets(&self) -> &Arc<SecretReader> {
        &self.secrets
    }

    /// How many changes of the Secrets are in the world at least.
    pub fn secrets_seen(&self) -> u64 {
        self.seen.secrets
    }

    /// Brings a world up to date, and asks for the Secrets that are named in it now.
    pub fn gather(&mut self, world: &mut World) {
        let endpoints = self.endpoints.changes();
        world.malformed.clear();
        self.endpoints.gather(&mut world.endpoints, &mut world.malformed);
        self.subscriptions.gather(&mut world.subscriptions, &mut world.malformed);
        self.replays.gather(&mut world.replays, &mut world.malformed);
        world.tenants = self.namespaces.tenants();
        if self.endpoints.is_synced() && endpoints != self.seen.endpoints {
            self.seen.endpoints = endpoints;
            let is_understood = |endpoint: &&Endpoint| {
                !world.malformed.iter().any(|malformed| {
                    malformed.kind == Kind::Endpoint
                        && Some(&malformed.name) == endpoint.metadata.name.as_ref()
                        && Some(&malformed.namespace) == endpoint.metadata.namespace.as_ref()
                })
            };
            self.secrets.want(world.endpoints.iter().map(|endpoint| &**endpoint).filter(is_understood));
        }
        let secrets = self.secrets.changes();
        if secrets != self.seen.secrets {
            self.seen.secrets = secrets;
            world.secrets = self.secrets.secrets();
        }
        self.metrics.set_objects(Kind::Endpoint, world.endpoints.len());
        self.metrics.set_objects(Kind::Subscription, world.subscriptions.len());
        self.metrics.set_objects(Kind::Replay, world.replays.len());
    }
}

impl<K: WatchedResource> Stores<K> {
    fn is_synced(&self) -> bool {
        self.0.iter().all(|store| store.is_synced())
    }

    fn changes(&self) -> u64 {
        self.0.iter().map(|store| store.changes()).sum()
    }

    fn gather(&self, objects: &mut Vec<Arc<K>>, malformed: &mut Vec<Malformed>) {
        objects.clear();
        for store in &self.0 {
            store.add_to(objects, malformed);
        }
    }
}

/// What watches are started with.
struct Starting<'a> {
    config: &'a SourcesConfig,
    changed: &'a Arc<Notify>,
    states: &'a Arc<WatchStates>,
    tasks: &'a mut JoinSet<()>,
    shutdown: &'a CancellationToken,
}

impl Starting<'_> {
    /// The namespaces that are watched one by one; `None` stands for all.
    fn scopes(&self) -> Vec<Option<String>> {
        if self.config.namespaces.is_empty() {
            return vec![None];
        }
        self.config.namespaces.iter().cloned().map(Some).collect()
    }

    /// Watches a kind: all that another kind takes.
    fn watch<K: WatchedResource>(&mut self) -> Stores<K> {
        let mut stores = Vec::new();
        for namespace in self.scopes() {
            let store = Arc::new(Store::default());
            let watch = Watch {
                client: self.config.client.clone(),
                namespace,
                store: Arc::clone(&store),
                changed: Arc::clone(self.changed),
                states: Arc::clone(self.states),
                resync: self.config.resync,
            };
            self.tasks.spawn(watch.run(self.shutdown.clone()));
            stores.push(store);
        }
        Stores(stores)
    }

    fn namespaces(&mut self) -> Arc<Namespaces> {
        let namespaces = Arc::new(Namespaces::default());
        let watch = NamespaceWatch {
            client: self.config.client.clone(),
            namespaces: Arc::clone(&namespaces),
            changed: Arc::clone(self.changed),
            states: Arc::clone(self.states),
            resync: self.config.resync,
        };
        let (names, shutdown) = (self.config.namespaces.clone(), self.shutdown.clone());
        if names.is_empty() {
            self.tasks.spawn(watch.run_for_all(shutdown));
        } else {
            self.tasks.spawn(watch.run_for(names, shutdown));
        }
        namespaces
    }

    fn secrets(&mut self, metrics: &Arc<OperatorMetrics>) -> Arc<SecretReader> {
        let client = self.config.client.clone();
        let reader = Arc::new(SecretReader::new(client, Arc::clone(self.changed), Arc::clone(metrics)));
        let (reading, shutdown) = (Arc::clone(&reader), self.shutdown.clone());
        self.tasks.spawn(async move { reading.run(shutdown).await });
        if self.config.watch_secrets {
            for namespace in self.scopes() {
                let watch = SecretWatch {
                    client: self.config.client.clone(),
                    namespace,
                    reader: Arc::clone(&reader),
                    states: Arc::clone(self.states),
                    resync: self.config.resync,
                };
                self.tasks.spawn(watch.run(self.shutdown.clone()));
            }
        }
        reader
    }
}
