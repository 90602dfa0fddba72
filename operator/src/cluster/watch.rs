//! One kind of resource, watched: a store that is as the API server says it is, however often the watch breaks.

mod object;
mod state;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::Kind;
use dispatcher_core::limits::{
    WATCH_PAGE_OBJECTS_MAX, WATCH_RETRY_PAUSE_MAX, WATCH_RETRY_PAUSE_MIN, WATCH_SECONDS_MAX,
};
use futures::{Stream, StreamExt, TryStreamExt};
use kube::core::DynamicObject;
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
    objects: HashMap<Place, Kept<K>>,
    is_synced: bool,
}

/// Namespace and name.
type Place = (String, String);

/// An object of a store.
struct Kept<K> {
    object: Arc<K>,
    /// What is wrong with it, if it is not understood.
    malformed: Option<String>,
}

/// What an API server sent, read.
struct Placed<K> {
    place: Option<Place>,
    kept: Option<Kept<K>>,
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

    /// Reads an object. One that is here already stays the very same.
    fn read(&self, object: DynamicObject) -> Placed<K> {
        let place = object.metadata.namespace.clone().zip(object.metadata.name.clone());
        let version = &object.metadata.resource_version;
        let known = place.as_ref().and_then(|place| {
            let content = self.content();
            let known = content.objects.get(place)?;
            (version.is_some() && known.object.meta().resource_version == *version).then(|| known.clone())
        });
        let kept = known.or_else(|| {
            let Understood { object, malformed } = object::understand::<K>(object)?;
            Some(Kept { object: Arc::new(object), malformed })
        });
        Placed { place, kept }
    }

    /// Takes an object; answers whether more of it is new than its status.
    fn put(&self, place: Place, kept: &Kept<K>) -> bool {
        let before = self.content().objects.insert(place, kept.clone());
        let is_news = before.is_none_or(|before| !kept.differs_in_status_only(&before));
        if is_news {
            self.changed();
        }
        is_news
    }

    fn remove(&self, place: &Place) {
        self.content().objects.remove(place);
        self.changed();
    }

    /// Takes a whole list.
    fn replace(&self, listed: HashMap<Place, Kept<K>>) {
        let mut content = self.content();
        content.objects = listed;
        content.is_synced = true;
        drop(content);
        self.changed();
    }
}

impl<K> Clone for Kept<K> {
    fn clone(&self) -> Self {
        Self { object: Arc::clone(&self.object), malformed: self.malformed.clone() }
    }
}

impl<K: WatchedResource> Kept<K> {
    /// Whether nothing that is planned from differs. An API server counts the generations of all but status and metadata.
    fn differs_in_status_only(&self, before: &Self) -> bool {
        let (now, before_meta) = (self.object.meta(), before.object.meta());
        now.generation.is_some()
            && now.generation == before_meta.generation
            && now.uid == before_meta.uid
            && now.labels == before_meta.labels
            && now.annotations == before_meta.annotations
            && now.deletion_timestamp == before_meta.deletion_timestamp
            && self.malformed == before.malformed
    }
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
        // Read as it comes: what an API server sends is many times as large as what is kept of it.
        let read = |event| read(event, |object| self.store.read(object));
        let follow = follow(
            || watcher::watcher(api.clone(), config()).map_ok(read),
            |event| self.take(event),
            (&self.states, &name),
            self.resync,
        );
        shutdown.run_until_cancelled(follow).await;
    }

    /// A status alone makes nobody plan: most are what the last plan asked for.
    fn take(&self, event: Arrived<Placed<K>>) {
        let is_news = match event {
            Arrived::Put(Placed { place, kept }) => {
                place.zip(kept).is_some_and(|(place, kept)| self.store.put(place, &kept))
            }
            Arrived::Gone(Placed { place, .. }) => place.inspect(|place| self.store.remove(place)).is_some(),
            Arrived::List(objects) => {
                let listed = objects.into_iter().filter_map(|placed| placed.place.zip(placed.kept));
                self.store.replace(listed.collect());
                true
            }
        };
        if is_news {
            self.changed.notify_one();
        }
    }
}

fn read<A, B>(event: Event<A>, mut read: impl FnMut(A) -> B) -> Event<B> {
    match event {
        Event::Apply(object) => Event::Apply(read(object)),
        Event::Delete(object) => Event::Delete(read(object)),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(read(object)),
        Event::InitDone => Event::InitDone,
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

#[cfg(test)]
mod tests {
    use crds::Endpoint;

    use super::*;

    fn placed(store: &Store<Endpoint>, version: &str, metadata: &Value, status: &Value) -> (Place, Kept<Endpoint>) {
        let mut object = json!({
            "apiVersion": crds::API_VERSION, "kind": "Endpoint", "spec": {"url": "https://example.com/"},
            "metadata": {"name": "e", "namespace": "shop", "uid": "u", "generation": 1}, "status": status,
        });
        for (field, value) in metadata.as_object().unwrap() {
            object["metadata"][field] = value.clone();
        }
        object["metadata"]["resourceVersion"] = version.into();
        let Placed { place, kept } = store.read(serde_json::from_value(object).unwrap());
        (place.unwrap(), kept.unwrap())
    }

    #[test]
    fn a_status_alone_is_kept_and_is_no_news() {
        let store = Store::<Endpoint>::default();
        let put = |version: &str, metadata: Value, status: Value| {
            let (place, kept) = placed(&store, version, &metadata, &status);
            store.put(place, &kept)
        };
        assert!(put("1", json!({}), json!({})), "it is new");
        assert!(!put("2", json!({"managedFields": [{"manager": "x"}]}), json!({"host": "example.com"})));
        for (version, metadata) in [
            ("3", json!({"generation": 2})),
            ("4", json!({"generation": 2, "labels": {"team": "a"}})),
            ("5", json!({"generation": 2, "labels": {"team": "a"}, "annotations": {"note": "x"}})),
            ("6", json!({"generation": 2, "uid": "v"})),
        ] {
            assert!(put(version, metadata, json!({"host": "example.com"})), "{version}");
        }
        let (mut objects, mut malformed) = (Vec::new(), Vec::new());
        store.add_to(&mut objects, &mut malformed);
        assert_eq!(objects[0].status.as_ref().unwrap().host.as_deref(), Some("example.com"));
        assert_eq!((objects.len(), malformed.len()), (1, 0));
    }

    #[test]
    fn what_is_listed_anew_and_has_not_changed_stays_the_very_same_object() {
        let store = Store::<Endpoint>::default();
        let (place, first) = placed(&store, "1", &json!({}), &json!({}));
        store.replace(HashMap::from([(place, first.clone())]));
        let (_, again) = placed(&store, "1", &json!({}), &json!({}));
        assert!(store.is_synced() && Arc::ptr_eq(&first.object, &again.object));
        let (_, other) = placed(&store, "2", &json!({}), &json!({}));
        assert!(!Arc::ptr_eq(&first.object, &other.object));
        store.replace(HashMap::new());
        let (mut objects, mut malformed) = (Vec::new(), Vec::new());
        store.add_to(&mut objects, &mut malformed);
        assert!(objects.is_empty());
    }
}
