//! Makes the Secrets that plans ask for, a few at once, and tries again later what does not work.
//!
//! Among thousands of endpoints a plan takes longer than a Secret takes to be made: what it asks for may be there already. One
//! that was made counts as unread until it is read, and is made again only for a plan that knew as much.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dispatcher_core::limits::{SECRET_MAKES_MAX, SECRET_RETRY_PAUSES};
use dispatcher_core::table::SigningScheme;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::Client;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::failure::{ApiFailure, FailureClass};
use super::metrics::{OperatorMetrics, SecretResult};
use super::secret::{Made, make_secret};
use super::secrets::SecretReader;
use crate::generate::holds_other_kind;
use crate::plan::GenerateSecret;
use crate::world::{SecretState, Secrets, Unmade};

/// Namespace and name.
type Place = (String, String);

/// Makes Secrets. Clones share what is wanted; one of them runs.
#[derive(Clone)]
pub struct SecretMaker {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    metrics: Arc<OperatorMetrics>,
    wishes: Mutex<Wishes>,
    wanted: Notify,
}

#[derive(Default)]
struct Wishes {
    /// What was asked for last and is not begun, each with the identity of the endpoint that will own it.
    waiting: VecDeque<(GenerateSecret, String)>,
    /// How many changes of the Secrets were known to whoever asked.
    known: u64,
    places: HashMap<Place, Attempt>,
}

/// What became of the attempts to make a Secret.
struct Attempt {
    /// Identity of the endpoint that will own it.
    owner_uid: String,
    /// What the key is for.
    scheme: SigningScheme,
    /// When it may be tried again; `None` while it is tried.
    again: Option<Instant>,
    tries: usize,
    /// The change from which on it is known that it is there, and is to be read.
    made: Option<u64>,
    /// Whether it was there already when it was to be made last.
    is_kept: bool,
    /// How often it was made.
    creations: usize,
    /// Why the last one failed.
    failure: Option<FailureClass>,
}

impl SecretMaker {
    /// Makes once it runs.
    pub fn new(client: Client, metrics: Arc<OperatorMetrics>) -> Self {
        Self { shared: Arc::new(Shared { client, metrics, wishes: Mutex::default(), wanted: Notify::new() }) }
    }

    /// Makes these, each with the identity of the endpoint that will own it, and forgets what was asked for before. Whoever
    /// asks knew so many changes of the Secrets, as the reader counts them. What failed lately is to be asked for again later.
    pub fn want(&self, wanted: Vec<(GenerateSecret, String)>, known: u64) {
        self.shared.wishes().want(wanted, known, Instant::now());
        self.shared.wanted.notify_one();
    }

    /// Makes nothing more: this process no longer leads, and what it could not make somebody else may have made.
    pub fn clear(&self) {
        self.shared.wishes().clear();
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
                Some((place, result)) = under_way.next() => self.shared.end(&place, result, &secrets),
                () = self.shared.wanted.notified() => {}
            }
        }
        while under_way.next().await.is_some() {}
    }

    /// Marks in a world the Secrets that could not be made, so that their endpoints say so. Answers whether there are any.
    pub(super) fn mark(&self, secrets: &mut Secrets) -> bool {
        let mut is_any = false;
        for ((namespace, name), attempt) in &self.shared.wishes().places {
            let present = secrets.shared(namespace, name).cloned();
            if let Some(why) = attempt.unmade(present.as_deref()) {
                secrets.insert(namespace, name, SecretState::Unmade { why, present });
                is_any = true;
            }
        }
        is_any
    }
}

impl Attempt {
    fn new(owner_uid: &str, scheme: SigningScheme, now: Instant) -> Self {
        Self {
            owner_uid: owner_uid.to_owned(),
            scheme,
            again: Some(now),
            tries: 0,
            made: None,
            is_kept: false,
            creations: 0,
            failure: None,
        }
    }

    /// Why a Secret of which this is known is not as it should be; `None` if it is, or may be in a moment.
    fn unmade(&self, present: Option<&SecretState>) -> Option<Unmade> {
        let is_absent = present.is_none();
        let is_other = matches!(present, Some(SecretState::Present(data)) if holds_other_kind(data, self.scheme));
        if !is_absent && !is_other {
            return None;
        }
        match self.failure {
            Some(FailureClass::Forbidden) => Some(Unmade::Forbidden),
            Some(_) => Some(Unmade::Failed),
            // What was read may be older than what was made, but not twice.
            None if self.is_kept && self.tries > 1 => Some(if is_other { Unmade::Foreign } else { Unmade::Failed }),
            None if is_absent && self.creations > 1 => Some(Unmade::Removed),
            None => None,
        }
    }
}

impl Shared {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt has ended.
    fn end(&self, place: &Place, result: Result<Made, ApiFailure>, secrets: &SecretReader) {
        let (namespace, name) = place;
        self.metrics.secret_asked(match &result {
            Ok(Made::Created | Made::Renewed) => SecretResult::Made,
            Ok(Made::Kept) => SecretResult::Present,
            Err(failure) if failure.class == FailureClass::Forbidden => SecretResult::Forbidden,
            Err(_) => SecretResult::Failed,
        });
        let made = result.map(|made| (made, secrets.made(namespace, name, made != Made::Kept)));
        if made.is_err() {
            secrets.look_again(namespace, name);
        }
        self.wishes().record(place, made, Instant::now());
    }
}

impl Wishes {
    fn clear(&mut self) {
        self.waiting.clear();
        self.places.retain(|_, attempt| attempt.again.is_none());
        self.places.values_mut().for_each(|attempt| attempt.failure = None);
    }

    fn want(&mut self, mut wanted: Vec<(GenerateSecret, String)>, known: u64, now: Instant) {
        let places: HashSet<Place> = wanted.iter().map(|(secret, _)| place(secret)).collect();
        // One that was made and is not read yet is not asked for, and may be again at once if it is not what is needed.
        self.places.retain(|place, attempt| attempt.again.is_none_or(|again| now < again) || places.contains(place));
        for (secret, owner_uid) in &wanted {
            if let Some(attempt) = self.places.get_mut(&place(secret)) {
                // What became of the Secret of another endpoint of that name, or of a key of another kind, says nothing.
                let is_other = attempt.owner_uid != *owner_uid || attempt.scheme != secret.scheme;
                if is_other && attempt.again.is_some() {
                    *attempt = Attempt::new(owner_uid, secret.scheme, now);
                }
            }
        }
        // What was never tried comes first: what hangs, again and again, must not keep all others waiting.
        wanted.sort_by_key(|(secret, _)| self.places.get(&place(secret)).map_or(0, |attempt| attempt.tries));
        (self.waiting, self.known) = (wanted.into(), known);
    }

    /// The next Secret to make. One that is being made, was tried lately, or was made without the knowledge of whoever asks,
    /// is passed over.
    fn next(&mut self, now: Instant) -> Option<(GenerateSecret, String)> {
        while let Some((secret, owner_uid)) = self.waiting.pop_front() {
            let fresh = || Attempt::new(&owner_uid, secret.scheme, now);
            let attempt = self.places.entry(place(&secret)).or_insert_with(fresh);
            let is_known = attempt.made.is_none_or(|made| made <= self.known);
            if is_known && attempt.again.is_some_and(|again| again <= now) {
                attempt.again = None;
                return Some((secret, owner_uid));
            }
        }
        None
    }

    /// An attempt has ended: what became of it, and the change from which on that is known, or why it failed.
    fn record(&mut self, place: &Place, result: Result<(Made, u64), ApiFailure>, now: Instant) {
        let Some(attempt) = self.places.get_mut(place) else { return };
        let (namespace, name) = place;
        attempt.tries += 1;
        attempt.again = Some(now + retry_pause(attempt.tries));
        let before = attempt.failure.take();
        match result {
            Ok((made, change)) => {
                attempt.made = Some(change);
                attempt.is_kept = made == Made::Kept;
                attempt.creations += usize::from(made == Made::Created);
                if made == Made::Created && attempt.creations == 2 {
                    tracing::warn!(
                        namespace,
                        secret = name,
                        "a signing key was made and is gone again; making it anew"
                    );
                }
            }
            Err(error) => {
                attempt.failure = Some(error.class);
                let was_forbidden = before.map(|class| class == FailureClass::Forbidden);
                if was_forbidden != Some(error.class == FailureClass::Forbidden) {
                    tracing::warn!(namespace, secret = name, %error, "a signing key cannot be made; trying again");
                }
            }
        }
    }
}

fn place(secret: &GenerateSecret) -> Place {
    (secret.namespace.clone(), secret.name.clone())
}

fn retry_pause(tries: usize) -> Duration {
    SECRET_RETRY_PAUSES[tries.saturating_sub(1).min(SECRET_RETRY_PAUSES.len() - 1)]
}

#[cfg(test)]
mod tests;
