//! Makes the Secrets that plans ask for, a few at once, and tries again later what does not work.
//!
//! Among thousands of endpoints a plan takes longer than a Secret takes to be made: what it asks for may be there already. One
//! that was made counts as unread until it is read, and is made again only for a plan that knew as much.

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
use super::metrics::{OperatorMetrics, SecretResult};
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
#[derive(Default)]
struct Attempt {
    /// When it may be tried again; `None` while it is tried.
    again: Option<Instant>,
    tries: usize,
    /// The change from which on it is known that it was made, and is to be read.
    made: Option<u64>,
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

    /// Whether a Secret could not be made.
    pub(super) fn has_failed(&self) -> bool {
        self.shared.wishes().places.values().any(Attempt::is_in_vain)
    }

    /// Marks in a world the Secrets that could not be made, so that their endpoints say so.
    pub(super) fn mark(&self, secrets: &mut Secrets) {
        for ((namespace, name), attempt) in &self.shared.wishes().places {
            if attempt.is_in_vain() && secrets.get(namespace, name).is_none() {
                let is_forbidden = attempt.failure == Some(FailureClass::Forbidden);
                secrets.insert(namespace, name, SecretState::Unmade { is_forbidden });
            }
        }
    }
}

impl Attempt {
    /// Whether it failed, or was made more than once: where it is not there all the same, somebody takes it away.
    fn is_in_vain(&self) -> bool {
        self.failure.is_some() || (self.made.is_some() && self.tries > 1)
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
        let made = result.map(|made| secrets.made(namespace, name, made != Made::Kept));
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
        // What was never tried comes first: what hangs, again and again, must not keep all others waiting.
        wanted.sort_by_key(|(secret, _)| self.places.get(&place(secret)).map_or(0, |attempt| attempt.tries));
        (self.waiting, self.known) = (wanted.into(), known);
    }

    /// The next Secret to make. One that is being made, was tried lately, or was made without the knowledge of whoever asks,
    /// is passed over.
    fn next(&mut self, now: Instant) -> Option<(GenerateSecret, String)> {
        while let Some((secret, owner_uid)) = self.waiting.pop_front() {
            let fresh = Attempt { again: Some(now), ..Attempt::default() };
            let attempt = self.places.entry(place(&secret)).or_insert(fresh);
            let is_known = attempt.made.is_none_or(|made| made <= self.known);
            if is_known && attempt.again.is_some_and(|again| again <= now) {
                attempt.again = None;
                return Some((secret, owner_uid));
            }
        }
        None
    }

    /// An attempt has ended: it is made from this change on, or was not.
    fn record(&mut self, place: &Place, result: Result<u64, ApiFailure>, now: Instant) {
        let Some(attempt) = self.places.get_mut(place) else { return };
        attempt.tries += 1;
        attempt.again = Some(now + retry_pause(attempt.tries));
        let before = attempt.failure.take();
        match result {
            Ok(made) => attempt.made = Some(made),
            Err(error) => {
                attempt.failure = Some(error.class);
                let was_forbidden = before.map(|class| class == FailureClass::Forbidden);
                if was_forbidden != Some(error.class == FailureClass::Forbidden) {
                    let (namespace, name) = place;
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
mod tests {
    use dispatcher_core::table::SigningScheme;

    use super::*;

    fn wanted(names: &[&str]) -> Vec<(GenerateSecret, String)> {
        let secret = |name: &&str| GenerateSecret {
            namespace: "shop".to_owned(),
            name: (*name).to_owned(),
            endpoint: "e".to_owned(),
            scheme: SigningScheme::StandardWebhooks,
        };
        names.iter().map(|name| (secret(name), "uid".to_owned())).collect()
    }

    fn place_of(name: &str) -> Place {
        ("shop".to_owned(), name.to_owned())
    }

    fn next(wishes: &mut Wishes, now: Instant) -> Option<String> {
        wishes.next(now).map(|(secret, _)| secret.name)
    }

    fn failure() -> ApiFailure {
        ApiFailure { class: FailureClass::Forbidden, message: "no".to_owned() }
    }

    #[tokio::test]
    async fn what_is_being_made_and_what_failed_lately_is_passed_over() {
        let (mut wishes, now) = (Wishes::default(), Instant::now());
        wishes.want(wanted(&["a", "b"]), 0, now);
        assert_eq!(next(&mut wishes, now).as_deref(), Some("a"));
        wishes.want(wanted(&["a", "b"]), 0, now);
        assert_eq!(next(&mut wishes, now).as_deref(), Some("b"), "the first one is being made");
        wishes.record(&place_of("b"), Err(failure()), now);
        wishes.want(wanted(&["b"]), 0, now);
        assert_eq!(next(&mut wishes, now), None);
        let later = now + SECRET_RETRY_PAUSES[0];
        wishes.want(wanted(&["b"]), 0, later);
        assert_eq!(next(&mut wishes, later).as_deref(), Some("b"));
        wishes.record(&place_of("b"), Err(failure()), later);
        wishes.want(wanted(&["b"]), 0, later + SECRET_RETRY_PAUSES[0]);
        assert_eq!(next(&mut wishes, later + SECRET_RETRY_PAUSES[0]), None, "pauses grow");
    }

    #[tokio::test]
    async fn what_was_made_is_made_again_only_for_a_plan_that_knew() {
        let (mut wishes, now) = (Wishes::default(), Instant::now());
        wishes.want(wanted(&["a", "b"]), 3, now);
        assert_eq!(next(&mut wishes, now).as_deref(), Some("a"));
        wishes.record(&place_of("a"), Ok(5), now);
        // Plans that began before take however long they take.
        let later = now + Duration::from_secs(100);
        for known in [3, 4] {
            wishes.want(wanted(&["a"]), known, later);
            assert_eq!(next(&mut wishes, later), None, "it is there, and the world of the plan did not know");
        }
        wishes.want(wanted(&["a"]), 5, later);
        assert_eq!(next(&mut wishes, later).as_deref(), Some("a"), "it was read, and is not there");
    }

    #[tokio::test]
    async fn a_plan_that_waited_in_line_asks_no_second_time_for_what_was_made_meanwhile() {
        let (mut wishes, now) = (Wishes::default(), Instant::now());
        wishes.want(wanted(&["a"]), 3, now);
        assert_eq!(next(&mut wishes, now).as_deref(), Some("a"));
        // While it is made, another plan asks for it.
        wishes.want(wanted(&["b", "a"]), 3, now);
        assert_eq!(next(&mut wishes, now).as_deref(), Some("b"));
        wishes.record(&place_of("a"), Ok(5), now);
        assert_eq!(next(&mut wishes, now + Duration::from_secs(100)), None);
    }

    #[tokio::test]
    async fn what_was_never_tried_comes_before_what_failed() {
        let (mut wishes, now) = (Wishes::default(), Instant::now());
        wishes.want(wanted(&["a"]), 0, now);
        assert_eq!(next(&mut wishes, now).as_deref(), Some("a"));
        wishes.record(&place_of("a"), Err(failure()), now);
        let later = now + SECRET_RETRY_PAUSES[0];
        wishes.want(wanted(&["a", "b", "c"]), 0, later);
        let order: Vec<String> = std::iter::from_fn(|| next(&mut wishes, later)).collect();
        assert_eq!(order, ["b", "c", "a"]);
    }

    #[tokio::test]
    async fn what_fails_or_vanishes_each_time_is_told_of_and_forgotten_with_the_lead() {
        let (mut wishes, now) = (Wishes::default(), Instant::now());
        let is_in_vain = |wishes: &Wishes, name| wishes.places.get(&place_of(name)).is_some_and(Attempt::is_in_vain);
        wishes.want(wanted(&["a", "b", "c"]), 0, now);
        while next(&mut wishes, now).is_some() {}
        wishes.record(&place_of("a"), Err(failure()), now);
        wishes.record(&place_of("b"), Ok(1), now);
        assert!(is_in_vain(&wishes, "a") && !is_in_vain(&wishes, "b"), "it may be read in a moment");
        let later = now + SECRET_RETRY_PAUSES[0];
        wishes.want(wanted(&["b"]), 1, later);
        assert_eq!(next(&mut wishes, later).as_deref(), Some("b"), "it was read, and is not there");
        wishes.record(&place_of("b"), Ok(2), later);
        assert!(is_in_vain(&wishes, "b"));
        wishes.clear();
        assert!(!is_in_vain(&wishes, "a") && !is_in_vain(&wishes, "b"));
        assert!(wishes.places.contains_key(&place_of("c")), "it is being made still");
    }

    #[tokio::test]
    async fn what_is_there_and_does_not_help_is_made_again_ever_less() {
        let (mut wishes, mut now, mut known) = (Wishes::default(), Instant::now(), 0);
        for pause in SECRET_RETRY_PAUSES {
            wishes.want(wanted(&["a"]), known, now);
            assert_eq!(next(&mut wishes, now).as_deref(), Some("a"));
            known += 1;
            wishes.record(&place_of("a"), Ok(known), now);
            // Until it is read nobody asks for it.
            wishes.want(Vec::new(), known, now);
            wishes.want(wanted(&["a"]), known, now);
            assert_eq!(next(&mut wishes, now), None);
            now += pause;
        }
        wishes.want(Vec::new(), known, now);
        assert!(wishes.places.is_empty(), "what helped is forgotten");
    }
}
