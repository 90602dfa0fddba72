//! Makes the Secrets that plans ask for, a few at once, and tries again later what does not work.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dispatcher_core::limits::{SECRET_MAKES_MAX, SECRET_RETRY_PAUSES};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::Client;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::failure::{ApiFailure, FailureClass};
use super::secret::{Made, make_secret};
use super::secrets::SecretReader;
use crate::plan::GenerateSecret;
use crate::world::{SecretState, Secrets};

/// Namespace and name.
type Place = (String, String);

/// Makes Secrets. Clones share what is wanted; one of them runs.
#[derive(Clone)]
pub struct SecretMaker {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    wishes: Mutex<Wishes>,
    wanted: Notify,
}

#[derive(Default)]
struct Wishes {
    /// What was asked for last and is not begun, each with the identity of the endpoint that will own it.
    waiting: VecDeque<(GenerateSecret, String)>,
    places: HashMap<Place, Attempt>,
}

/// What became of the last attempt to make a Secret.
struct Attempt {
    /// When it may be tried again; `None` while it is tried.
    again: Option<Instant>,
    failures: usize,
    is_forbidden: bool,
}

impl SecretMaker {
    /// Makes once it runs.
    pub fn new(client: Client) -> Self {
        Self { shared: Arc::new(Shared { client, wishes: Mutex::default(), wanted: Notify::new() }) }
    }

    /// Makes these, each with the identity of the endpoint that will own it, and forgets what was asked for before. What
    /// failed lately is to be asked for again later.
    pub fn want(&self, wanted: Vec<(GenerateSecret, String)>) {
        let mut wishes = self.shared.wishes();
        let places: HashSet<Place> = wanted.iter().map(|(secret, _)| place(secret)).collect();
        wishes.places.retain(|place, attempt| attempt.again.is_none() || places.contains(place));
        wishes.waiting = wanted.into();
        drop(wishes);
        self.shared.wanted.notify_one();
    }

    /// Makes nothing more: this process no longer leads.
    pub fn clear(&self) {
        self.shared.wishes().waiting.clear();
    }

    /// Makes until it is told to stop; then it waits for what it has begun. What was made, or could not be, is to be read
    /// again.
    pub async fn run(self, secrets: Arc<SecretReader>, shutdown: CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < SECRET_MAKES_MAX {
                let Some((secret, owner_uid)) = self.shared.wishes().next(Instant::now()) else { break };
                let client = &self.shared.client;
                under_way.push(async move { (place(&secret), make_secret(client, &secret, &owner_uid).await) });
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some((place, result)) = under_way.next() => {
                    self.shared.wishes().record(&place, &result, Instant::now());
                    secrets.look_again(&place.0, &place.1);
                }
                () = self.shared.wanted.notified() => {}
            }
        }
        while under_way.next().await.is_some() {}
    }

    /// Whether a Secret may not be made.
    pub(super) fn is_forbidden(&self) -> bool {
        self.shared.wishes().places.values().any(|attempt| attempt.is_forbidden)
    }

    /// Marks in a world the Secrets that may not be made, so that their endpoints say so.
    pub(super) fn mark(&self, secrets: &mut Secrets) {
        for ((namespace, name), attempt) in &self.shared.wishes().places {
            if attempt.is_forbidden && secrets.get(namespace, name).is_none() {
                secrets.insert(namespace, name, SecretState::Unmade);
            }
        }
    }
}

impl Shared {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wishes {
    /// The next Secret to make. One that is being made, or failed lately, is passed over.
    fn next(&mut self, now: Instant) -> Option<(GenerateSecret, String)> {
        while let Some((secret, owner_uid)) = self.waiting.pop_front() {
            let fresh = Attempt { again: Some(now), failures: 0, is_forbidden: false };
            let attempt = self.places.entry(place(&secret)).or_insert(fresh);
            if attempt.again.is_some_and(|again| again <= now) {
                attempt.again = None;
                return Some((secret, owner_uid));
            }
        }
        None
    }

    fn record(&mut self, place: &Place, result: &Result<Made, ApiFailure>, now: Instant) {
        let Some(attempt) = self.places.get_mut(place) else { return };
        let was_forbidden = attempt.is_forbidden;
        attempt.is_forbidden = matches!(result, Err(failure) if failure.class == FailureClass::Forbidden);
        let pause = match result {
            Ok(_) => SECRET_RETRY_PAUSES[0],
            Err(error) => {
                attempt.failures += 1;
                if attempt.failures == 1 || was_forbidden != attempt.is_forbidden {
                    let (namespace, name) = place;
                    tracing::warn!(namespace, secret = name, %error, "a signing key cannot be made; trying again");
                }
                retry_pause(attempt.failures)
            }
        };
        attempt.again = Some(now + pause);
    }
}

fn place(secret: &GenerateSecret) -> Place {
    (secret.namespace.clone(), secret.name.clone())
}

fn retry_pause(failures: usize) -> Duration {
    SECRET_RETRY_PAUSES[failures.saturating_sub(1).min(SECRET_RETRY_PAUSES.len() - 1)]
}

#[cfg(test)]
mod tests {
    use dispatcher_core::table::SigningScheme;

    use super::*;

    fn wanted(names: &[&str]) -> VecDeque<(GenerateSecret, String)> {
        let secret = |name: &&str| GenerateSecret {
            namespace: "shop".to_owned(),
            name: (*name).to_owned(),
            endpoint: "e".to_owned(),
            scheme: SigningScheme::StandardWebhooks,
        };
        names.iter().map(|name| (secret(name), "uid".to_owned())).collect()
    }

    fn next(wishes: &mut Wishes, now: Instant) -> Option<Place> {
        wishes.next(now).map(|(secret, _)| place(&secret))
    }

    #[tokio::test]
    async fn each_is_made_once_and_what_failed_is_passed_over_for_a_while() {
        let (mut wishes, now) = (Wishes { waiting: wanted(&["a", "b"]), ..Wishes::default() }, Instant::now());
        let (a, b) = (("shop".to_owned(), "a".to_owned()), ("shop".to_owned(), "b".to_owned()));
        assert_eq!(next(&mut wishes, now).as_ref(), Some(&a));
        wishes.waiting = wanted(&["a", "b"]);
        assert_eq!(next(&mut wishes, now).as_ref(), Some(&b), "the first one is being made");
        let failure = || ApiFailure { class: FailureClass::Forbidden, message: "no".to_owned() };
        wishes.record(&a, &Ok(Made::Created), now);
        wishes.record(&b, &Err(failure()), now);
        wishes.waiting = wanted(&["a", "b"]);
        assert_eq!(next(&mut wishes, now), None, "the world does not know of the first one yet");
        wishes.waiting = wanted(&["b"]);
        assert_eq!(next(&mut wishes, now + SECRET_RETRY_PAUSES[0]).as_ref(), Some(&b));
        wishes.record(&b, &Err(failure()), now);
        wishes.waiting = wanted(&["b"]);
        assert_eq!(next(&mut wishes, now + SECRET_RETRY_PAUSES[0]), None, "pauses grow");
    }
}
