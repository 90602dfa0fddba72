//! Secrets by name: only those that endpoints name are read, and of them only the keys that are named are kept.

mod book;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use crds::{Endpoint, GROUP, Kind};
use dispatcher_core::limits::{SECRET_READ_DEADLINE, SECRET_READS_MAX};
use dispatcher_core::redacted::Redacted;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::runtime::watcher;
use kube::{Api, Client};
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use self::book::{Book, Place, Read, Wanted};
use super::metrics::{OperatorMetrics, SecretResult, Watched};
use super::watch::{Arrived, WatchStates, config, follow};
use crate::generate::GENERATED_KEY;
use crate::world::{Secrets, generated_secret, referenced_secrets};

/// Reads the Secrets that are wanted, again and again.
pub struct SecretReader {
    client: Client,
    book: Mutex<Book>,
    changes: AtomicU64,
    /// Notified when more is wanted.
    wanted: Notify,
    /// Notified when something is known that was not.
    changed: Arc<Notify>,
    metrics: Arc<OperatorMetrics>,
}

impl SecretReader {
    /// Reads once it runs.
    pub fn new(client: Client, changed: Arc<Notify>, metrics: Arc<OperatorMetrics>) -> Self {
        let (book, wanted) = (Mutex::new(Book::default()), Notify::new());
        Self { client, book, changes: AtomicU64::new(0), wanted, changed, metrics }
    }

    /// Wants the Secrets that these endpoints name, and no others.
    pub fn want<'a>(&self, endpoints: impl Iterator<Item = &'a Endpoint>) {
        let mut wanted: HashMap<Place, Wanted> = HashMap::new();
        for endpoint in endpoints {
            let Some(namespace) = &endpoint.metadata.namespace else { continue };
            for (name, key) in referenced_secrets(endpoint) {
                let secret = wanted.entry((namespace.clone(), name)).or_default();
                secret.is_referenced = true;
                secret.keys.insert(key);
            }
            if let Some(name) = generated_secret(endpoint) {
                let secret = wanted.entry((namespace.clone(), name)).or_default();
                secret.keys.insert(GENERATED_KEY.to_owned());
                secret.owner.clone_from(&endpoint.metadata.uid);
            }
        }
        self.book().want(wanted, Instant::now());
        self.changes.fetch_add(1, Ordering::Release);
        self.wanted.notify_one();
    }

    /// A Secret has just changed: it is read at once.
    pub fn look_again(&self, namespace: &str, name: &str) {
        self.book().look_again(&(namespace.to_owned(), name.to_owned()), Instant::now());
        self.wanted.notify_one();
    }

    /// A Secret has just been made, or was there already if it is not new: it is read at once, and what was known of it before
    /// counts no more. Answers the number of changes from which on what is known says so.
    pub(super) fn made(&self, namespace: &str, name: &str, is_new: bool) -> u64 {
        self.book().made(&(namespace.to_owned(), name.to_owned()), is_new, Instant::now());
        let changes = self.changes.fetch_add(1, Ordering::AcqRel) + 1;
        self.wanted.notify_one();
        changes
    }

    /// Somebody else has made Secrets until now: those that were not there are read again, and count as unread until then.
    pub(super) fn doubt_absent(&self) {
        self.book().doubt_absent(Instant::now());
        self.changes.fetch_add(1, Ordering::Release);
        self.wanted.notify_one();
    }

    /// Whether every Secret that is wanted has been asked for once.
    pub fn is_synced(&self) -> bool {
        self.book().all_tried()
    }

    /// Rises with every change. What is known has at least so many, if it is asked for afterwards.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// What is known.
    pub fn secrets(&self) -> Secrets {
        self.book().secrets()
    }

    /// Reads until it is told to stop, so many at once.
    pub async fn run(&self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.read_for_ever()).await;
    }

    async fn read_for_ever(&self) {
        let mut reads = FuturesUnordered::new();
        loop {
            while reads.len() < SECRET_READS_MAX {
                let Some((place, wanted)) = self.book().next(Instant::now()) else { break };
                reads.push(self.read(place, wanted));
            }
            let next_due = if reads.len() < SECRET_READS_MAX { self.book().next_due() } else { None };
            tokio::select! {
                Some((place, read)) = reads.next() => {
                    self.metrics.secret_asked(match &read {
                        Read::Present(_) | Read::Former(_) => SecretResult::Present,
                        Read::Missing => SecretResult::Absent,
                        Read::Forbidden => SecretResult::Forbidden,
                        Read::Failed => SecretResult::Failed,
                    });
                    if self.book().record(&place, read, Instant::now()) {
                        self.changes.fetch_add(1, Ordering::Release);
                        self.changed.notify_one();
                    }
                }
                () = until(next_due) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    async fn read(&self, place: Place, wanted: Wanted) -> (Place, Read) {
        let path = format!("/api/v1/namespaces/{}/secrets/{}", place.0, place.1);
        let read = match http::Request::get(path).body(Vec::new()) {
            // As text: of what it cannot read, the client would log all.
            Ok(request) => match timeout(SECRET_READ_DEADLINE, self.client.request_text(request)).await {
                Ok(Ok(text)) => parse(&Zeroizing::new(text), &wanted),
                Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Read::Missing,
                Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => Read::Forbidden,
                Ok(Err(_)) | Err(_) => Read::Failed,
            },
            // A name that no Secret can have.
            Err(_) => Read::Missing,
        };
        (place, read)
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the JSON of a Secret says of what is wanted of it. A value that is no base64 counts as absent.
fn parse(text: &str, wanted: &Wanted) -> Read {
    // Of its metadata nothing else: annotations may repeat its values.
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Metadata {
        owner_references: Vec<OwnerReference>,
    }
    #[derive(Deserialize)]
    struct Stored {
        #[serde(default)]
        metadata: Metadata,
        #[serde(default)]
        data: Option<BTreeMap<String, Redacted<String>>>,
    }
    let Ok(stored) = serde_json::from_str::<Stored>(text) else { return Read::Failed };
    let named = stored.data.unwrap_or_default().into_iter().filter(|(key, _)| wanted.keys.contains(key));
    let decoded = named.filter_map(|(key, value)| Some((key, Redacted::new(BASE64.decode(value.expose()).ok()?))));
    let data = decoded.collect();
    let is_of_another = |uid: &String| stored.metadata.owner_references.iter().any(|owner| is_endpoint_but(owner, uid));
    if wanted.owner.as_ref().is_some_and(is_of_another) { Read::Former(data) } else { Read::Present(data) }
}

/// Whether an owner is an endpoint, and another one than that with this UID: one that is gone.
fn is_endpoint_but(owner: &OwnerReference, uid: &str) -> bool {
    let is_ours = owner.api_version.split('/').next() == Some(GROUP);
    is_ours && owner.controller == Some(true) && owner.kind == Kind::Endpoint.as_str() && owner.uid != uid
}

/// Watches that Secrets change, where that is granted. Only their metadata are asked for; the values are read by name.
pub struct SecretWatch {
    /// The API server.
    pub client: Client,
    /// The namespace, or all.
    pub namespace: Option<String>,
    /// Who reads.
    pub reader: Arc<SecretReader>,
    /// Where the watch tells how it does.
    pub states: Arc<WatchStates>,
    /// How often everything is listed anew.
    pub resync: Duration,
}

impl SecretWatch {
    /// Watches until it is told to stop.
    pub async fn run(self, shutdown: CancellationToken) {
        let name = self.states.register(Watched::Secrets, self.namespace.as_deref());
        let api: Api<PartialObjectMeta<Secret>> = match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let look_again = |metadata: ObjectMeta| {
            if let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) {
                self.reader.look_again(namespace, name);
            }
        };
        let follow = follow(
            || watcher::watcher(api.clone(), config()),
            |event| match event.map(|object| object.metadata) {
                Arrived::Put(metadata) | Arrived::Gone(metadata) => look_again(metadata),
                Arrived::List(all) => all.into_iter().for_each(look_again),
            },
            (&self.states, &name),
            self.resync,
        );
        shutdown.run_until_cancelled(follow).await;
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::world::SecretData;

    #[test]
    fn only_named_keys_are_read_and_a_secret_of_the_wrong_shape_is_none() {
        let wanted = Wanted { keys: ["a".to_owned(), "b".to_owned()].into(), ..Wanted::default() };
        let text = r#"{"data": {"a": "eA==", "b": "not base64", "c": "eQ=="}}"#;
        assert_eq!(parse(text, &wanted), Read::Present([value("a")].into()));
        assert_eq!(parse("{}", &wanted), Read::Present(SecretData::new()));
        assert_eq!(parse(r#"{"data": {"a": 7}}"#, &wanted), Read::Failed);
    }

    #[test]
    fn a_secret_that_goes_with_an_endpoint_before_is_told_apart() {
        let text = |api: &str, kind: &str, uid: &str| {
            let owner = json!({"apiVersion": api, "kind": kind, "name": "e", "uid": uid, "controller": true});
            json!({"metadata": {"ownerReferences": [owner]}, "data": {"key": "eA=="}}).to_string()
        };
        let wanted = |owner: Option<&str>| Wanted {
            keys: ["key".to_owned()].into(),
            owner: owner.map(ToOwned::to_owned),
            ..Wanted::default()
        };
        let (ours, others) = ("harborhook.dev/v1", "example.com/v1");
        assert_eq!(parse(&text(ours, "Endpoint", "before"), &wanted(Some("now"))), Read::Former([value("key")].into()));
        for (api, kind, uid, owner) in [
            (ours, "Endpoint", "now", Some("now")),
            (ours, "Endpoint", "before", None),
            (ours, "Subscription", "before", Some("now")),
            (others, "Endpoint", "before", Some("now")),
        ] {
            let read = parse(&text(api, kind, uid), &wanted(owner));
            assert_eq!(read, Read::Present([value("key")].into()), "{api} {kind} {uid} {owner:?}");
        }
    }

    fn value(key: &str) -> (String, Redacted<Vec<u8>>) {
        (key.to_owned(), Redacted::new(b"x".to_vec()))
    }
}
