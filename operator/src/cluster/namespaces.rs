//! The identities of namespaces: each is a tenant, by its UID, so that a name that is used again inherits nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dispatcher_core::id::TenantId;
use dispatcher_core::limits::{API_CALL_DEADLINE, NAMESPACE_LOOK_INTERVAL, WATCH_RETRY_PAUSE_MIN};
use k8s_openapi::api::core::v1::Namespace;
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::metrics::Watched;
use super::watch::{Arrived, WatchStates, config, follow};

/// The namespaces that are known.
#[derive(Debug, Default)]
pub struct Namespaces(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    tenants: BTreeMap<String, TenantId>,
    /// Namespaces that have not been looked at yet; `None` until it is known which there are.
    unknown: Option<Vec<String>>,
}

impl Namespaces {
    /// Each with its identity.
    pub fn tenants(&self) -> Vec<(TenantId, String)> {
        self.known().tenants.iter().map(|(name, tenant)| (*tenant, name.clone())).collect()
    }

    /// Whether every namespace has been looked at once.
    pub fn is_synced(&self) -> bool {
        self.known().unknown.as_ref().is_some_and(Vec::is_empty)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, event: Arrived<ObjectMeta>) {
        let mut known = self.known();
        match event {
            Arrived::Put(metadata) => known.tenants.extend(tenant(metadata)),
            Arrived::Gone(metadata) => {
                if let Some(name) = metadata.name {
                    known.tenants.remove(&name);
                }
            }
            Arrived::List(all) => {
                known.tenants = all.into_iter().filter_map(tenant).collect();
                known.unknown = Some(Vec::new());
            }
        }
    }
}

fn tenant(metadata: ObjectMeta) -> Option<(String, TenantId)> {
    Some((metadata.name?, TenantId(Uuid::parse_str(&metadata.uid?).ok()?)))
}

/// Keeps the identities up to date.
pub struct NamespaceWatch {
    /// The API server.
    pub client: Client,
    /// The identities.
    pub namespaces: Arc<Namespaces>,
    /// Notified of every change.
    pub changed: Arc<Notify>,
    /// Where the watch tells how it does.
    pub states: Arc<WatchStates>,
    /// How often everything is listed anew.
    pub resync: Duration,
}

impl NamespaceWatch {
    /// Watches all namespaces until it is told to stop: their metadata, nothing else.
    pub async fn run_for_all(self, shutdown: CancellationToken) {
        let name = self.states.register(Watched::Namespaces, None);
        let api = Api::<PartialObjectMeta<Namespace>>::all(self.client.clone());
        let follow = follow(
            || watcher::watcher(api.clone(), config()),
            |event| {
                self.namespaces.take(event.map(|object| object.metadata));
                self.changed.notify_one();
            },
            (&self.states, &name),
            self.resync,
        );
        shutdown.run_until_cancelled(follow).await;
    }

    /// Looks at these namespaces each minute until it is told to stop. To `get` each is all that it takes.
    pub async fn run_for(self, names: Vec<String>, shutdown: CancellationToken) {
        self.namespaces.known().unknown = Some(names.clone());
        let states: Vec<_> = names.iter().map(|name| self.states.register(Watched::Namespaces, Some(name))).collect();
        let look = async {
            loop {
                let mut all_known = true;
                for (name, state) in names.iter().zip(&states) {
                    all_known &= self.look_at(name, state).await;
                }
                sleep(if all_known { NAMESPACE_LOOK_INTERVAL } else { WATCH_RETRY_PAUSE_MIN * 4 }).await;
            }
        };
        shutdown.run_until_cancelled(look).await;
    }

    /// Looks at one namespace. Answers whether that worked; if not, it stays as it was.
    async fn look_at(&self, name: &str, state: &str) -> bool {
        let api = Api::<Namespace>::all(self.client.clone());
        let metadata = match timeout(API_CALL_DEADLINE, api.get_metadata(name)).await {
            Ok(Ok(object)) => Some(object.metadata),
            // It is gone, or was never there: it has no resources either.
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => None,
            Ok(Err(error)) => {
                self.states.failed(state, &watcher::Error::InitialListFailed(error));
                return false;
            }
            Err(_) => {
                self.states.late(state);
                return false;
            }
        };
        self.states.works(state);
        let mut known = self.namespaces.known();
        let found = metadata.and_then(tenant).map(|(_, tenant)| tenant);
        let before = match found {
            Some(tenant) => known.tenants.insert(name.to_owned(), tenant),
            None => known.tenants.remove(name),
        };
        if let Some(unknown) = &mut known.unknown {
            unknown.retain(|unknown| unknown != name);
        }
        drop(known);
        if before != found {
            self.changed.notify_one();
        }
        true
    }
}
