//! Secrets by name: only those that endpoints name are read, and of them only the keys that are named are kept.

mod book;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use crds::Endpoint;
use dispatcher_core::limits::{SECRET_READ_DEADLINE, SECRET_READS_MAX};
use dispatcher_core::redacted::Redacted;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Secret;
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
use crate::world::{SecretData, Secrets, generated_secret, referenced_secrets};

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
                wanted.entry((namespace.clone(), name)).or_default().keys.insert(GENERATED_KEY.to_owned());
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
                let Some((place, keys)) = self.book().next(Instant::now()) else { break };
                reads.push(self.read(place, keys));
            }
            let next_due = if reads.len() < SECRET_READS_MAX { self.book().next_due() } else { None };
            tokio::select! {
                Some((place, read)) = reads.next() => {
                    self.metrics.secret_asked(match &read {
                        Read::Present(_) => SecretResult::Present,
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

    async fn read(&self, place: Place, keys: BTreeSet<String>) -> (Place, Read) {
        let path = format!("/api/v1/namespaces/{}/secrets/{}", place.0, place.1);
        let read = match http::Request::get(path).body(Vec::new()) {
            // As text: of what it cannot read, the client would log all.
            Ok(request) => match timeout(SECRET_READ_DEADLINE, self.client.request_text(request)).await {
                Ok(Ok(text)) => parse(&Zeroizing::new(text), &keys).map_or(Read::Failed, Read::Present),
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

/// The values of these keys in the JSON of a Secret. A value that is no base64 counts as absent.
fn parse(text: &str, keys: &BTreeSet<String>) -> Option<SecretData> {
    #[derive(Deserialize)]
    struct Stored {
        #[serde(default)]
        data: Option<BTreeMap<String, Redacted<String>>>,
    }
    let stored: Stored = serde_json::from_str(text).ok()?;
    let named = stored.data.unwrap_or_default().into_iter().filter(|(key, _)| keys.contains(key));
    Some(named.filter_map(|(key, value)| Some((key, Redacted::new(BASE64.decode(value.expose()).ok()?)))).collect())
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
    use super::*;

    #[test]
    fn only_named_keys_are_read_and_a_secret_of_the_wrong_shape_is_none() {
        let keys = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        let text = r#"{"data": {"a": "eA==", "b": "not base64", "c": "eQ=="}}"#;
        let data = parse(text, &keys).unwrap();
        assert_eq!(
            data.into_iter().map(|(key, value)| (key, value.expose().clone())).collect::<Vec<_>>(),
            [("a".to_owned(), b"x".to_vec())]
        );
        assert!(parse("{}", &keys).unwrap().is_empty());
        assert!(parse(r#"{"data": {"a": 7}}"#, &keys).is_none());
    }
}
