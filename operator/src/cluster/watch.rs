//! One kind of resource, watched: a store that is as the API server says it is, however often the watch breaks.

mod object;
mod state;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::Kind;
use dispatcher_core::limits::{
    WATCH_PAGE_OBJECTS_MAX, WATCH_RETRY_PAUSE_MAX, WATCH_RETRY_PAUSE_MIN, WATCH_SECONDS_MAX,
};
use futures::{Stream, StreamExt};
use kube::core::{DynamicObject, ObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use self::object::Understood;
pub use self::state::{WatchFailure, WatchState, WatchStates};
use super::metrics;
use crate::world::Malformed;

/// A kind of resource that is watched.
pub trait WatchedResource: kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + Send + Sync + 'static {
    /// The kind.
    const KIND: Kind;

    /// The least `spec` that there can be. It stands for one that is not understood.
    fn least_spec() -> Value;
}

/// The objects of one kind in one namespace or in all, by namespace and name.
pub struct Store<K> {
    content: Mutex<Content<K>>,
    changes: AtomicU64,
}

struct Content<K> {
    objects: HashMap<(String, String), Kept<K>>,
    is_synced: bool,
}

/// An object of a store.
struct Kept<K> {
    object: Arc<K>,
    /// What is wrong with it, if it is not understood.
    malformed: Option<String>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        let content = Content { objects: HashMap::new(), is_synced: false };
        Self { content: Mutex::new(content), changes: AtomicU64::new(0) }
    }
}

impl<K: WatchedResource> Store<K> {
    /// Whether all objects have been listed once.
    pub fn is_synced(&self) -> bool {
        self.content().is_synced
    }

    /// Rises with every change.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Adds all objects to those of a world.
    pub fn add_to(&self, objects: &mut Vec<Arc<K>>, malformed: &mut Vec<Malformed>) {
        for ((namespace, name), kept) in &self.content().objects {
            objects.push(Arc::clone(&kept.object));
            malformed.extend(kept.malformed.as_ref().map(|message| Malformed {
                kind: K::KIND,
                namespace: namespace.clone(),
                name: name.clone(),
                message: message.clone(),
            }));
        }
    }

    fn content(&self) -> std::sync::MutexGuard<'_, Content<K>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    fn put(&self, object: DynamicObject) {
        let Some((place, kept)) = understand(object) else { return };
        keep(&mut self.content().objects, place, kept);
        self.changed();
    }

    fn remove(&self, metadata: ObjectMeta) {
        if let Some(place) = place(metadata) {
            self.content().objects.remove(&place);
            self.changed();
        }
    }

    /// Takes a whole list. What has not changed stays the very same object.
    fn replace(&self, listed: HashMap<(String, String), Kept<K>>) {
        let mut content = self.content();
        content.objects.retain(|place, _| listed.contains_key(place));
        for (place, kept) in listed {
            keep(&mut content.objects, place, kept);
        }
        content.is_synced = true;
        drop(content);
        self.changed();
    }
}

fn keep<K: WatchedResource>(objects: &mut HashMap<(String, String), Kept<K>>, place: (String, String), kept: Kept<K>) {
    match objects.entry(place) {
        Entry::Occupied(mut before) => {
            let version = |kept: &Kept<K>| kept.object.meta().resource_version.clone();
            let is_same = version(before.get()).is_some() && version(before.get()) == version(&kept);
            if !is_same {
                before.insert(kept);
            }
        }
        Entry::Vacant(free) => drop(free.insert(kept)),
    }
}

fn understand<K: WatchedResource>(object: DynamicObject) -> Option<((String, String), Kept<K>)> {
    let Understood { object, malformed } = object::understand::<K>(object)?;
    let meta = object.meta();
    let place = (meta.namespace.clone()?, meta.name.clone()?);
    Some((place, Kept { object: Arc::new(object), malformed }))
}

fn place(metadata: ObjectMeta) -> Option<(String, String)> {
    Some((metadata.namespace?, metadata.name?))
}

/// Watches one kind into a store.
pub struct Watch<K> {
    /// The API server.
    pub client: Client,
    /// The namespace, or all.
    pub namespace: Option<String>,
    /// Where the objects go.
    pub store: Arc<Store<K>>,
    /// Notified of every change.
    pub changed: Arc<Notify>,
    /// Where the watch tells how it does.
    pub states: Arc<WatchStates>,
    /// How often everything is listed anew.
    pub resync: Duration,
}

impl<K: WatchedResource> Watch<K> {
    /// Watches until it is told to stop.
    pub async fn run(self, shutdown: CancellationToken) {
        let resource = kube::discovery::ApiResource::erase::<K>(&());
        let name = self.states.register(metrics::Watched::Resources(K::KIND), self.namespace.as_deref());
        let api: Api<DynamicObject> = match &self.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let follow = follow(
            || watcher::watcher(api.clone(), config()),
            |event| self.take(event),
            (&self.states, &name),
            self.resync,
        );
        shutdown.run_until_cancelled(follow).await;
    }

    fn take(&self, event: Arrived<DynamicObject>) {
        match event {
            Arrived::Put(object) => self.store.put(object),
            Arrived::Gone(object) => self.store.remove(object.metadata),
            Arrived::List(objects) => self.store.replace(objects.into_iter().filter_map(understand).collect()),
        }
        self.changed.notify_one();
    }
}

/// How lists and watches are asked for.
pub(super) fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS_MAX).page_size(WATCH_PAGE_OBJECTS_MAX)
}

/// What a watch brings.
pub(super) enum Arrived<K> {
    /// An object that is new or has changed.
    Put(K),
    /// An object that is gone.
    Gone(K),
    /// All that there are.
    List(Vec<K>),
}

impl<K> Arrived<K> {
    pub(super) fn map<M>(self, mut convert: impl FnMut(K) -> M) -> Arrived<M> {
        match self {
            Self::Put(object) => Arrived::Put(convert(object)),
            Self::Gone(object) => Arrived::Gone(convert(object)),
            Self::List(objects) => Arrived::List(objects.into_iter().map(convert).collect()),
        }
    }
}

/// Follows a watch, and begins anew with growing pauses when it fails; all the while the store stays as it was.
pub(super) async fn follow<K, S: Stream<Item = watcher::Result<Event<K>>>>(
    mut begin: impl FnMut() -> S,
    mut take: impl FnMut(Arrived<K>),
    (states, name): (&WatchStates, &str),
    resync: Duration,
) {
    let mut pause = WATCH_RETRY_PAUSE_MIN;
    loop {
        let (mut stream, ends) = (pin!(begin()), Instant::now() + resync);
        let mut listing: Option<Vec<K>> = None;
        while let Ok(Some(next)) = timeout_at(ends, stream.next()).await {
            match next {
                Err(error) => {
                    states.failed(name, &error);
                    sleep(pause).await;
                    pause = (pause * 2).min(WATCH_RETRY_PAUSE_MAX);
                    // A watch that only went on would say that it works when something happens, and not before.
                    break;
                }
                Ok(Event::Init) => {
                    listing = Some(Vec::new());
                    continue;
                }
                Ok(Event::InitApply(object)) => {
                    listing.get_or_insert_default().push(object);
                    continue;
                }
                Ok(Event::InitDone) => take(Arrived::List(listing.take().unwrap_or_default())),
                Ok(Event::Apply(object)) => take(Arrived::Put(object)),
                Ok(Event::Delete(object)) => take(Arrived::Gone(object)),
            }
            states.works(name);
            pause = WATCH_RETRY_PAUSE_MIN;
        }
    }
}

impl WatchedResource for crds::Endpoint {
    const KIND: Kind = Kind::Endpoint;

    fn least_spec() -> Value {
        json!({})
    }
}

impl WatchedResource for crds::Replay {
    const KIND: Kind = Kind::Replay;

    fn least_spec() -> Value {
        json!({"sinceTime": "1970-01-01T00:00:00Z", "untilTime": "1970-01-01T00:00:00Z"})
    }
}

impl WatchedResource for crds::Subscription {
    const KIND: Kind = Kind::Subscription;

    fn least_spec() -> Value {
        json!({"eventTypes": []})
    }
}
