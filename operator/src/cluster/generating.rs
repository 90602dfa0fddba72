//! Makes the Secrets that plans ask for, a few at once, and tries again later what does not work.

use std::collections::HashMap;
use std::time::Duration;

use dispatcher_core::limits::{SECRET_MAKES_MAX, SECRET_RETRY_PAUSES};
use kube::Client;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::failure::{ApiFailure, FailureClass};
use super::secret::{Made, make_secret};
use crate::plan::GenerateSecret;
use crate::world::{SecretState, Secrets};

/// Namespace and name.
type Place = (String, String);

/// Makes Secrets.
pub(super) struct Generating {
    client: Client,
    under_way: JoinSet<(Place, Result<Made, ApiFailure>)>,
    places: HashMap<Place, Attempt>,
}

/// What became of the last attempt to make a Secret.
struct Attempt {
    /// When it may be tried again; `None` while it is tried.
    again: Option<Instant>,
    failures: usize,
    is_forbidden: bool,
}

impl Generating {
    pub(super) fn new(client: Client) -> Self {
        Self { client, under_way: JoinSet::new(), places: HashMap::new() }
    }

    /// Makes these, and forgets what was asked for before. What does not fit is asked for again by the next plan.
    pub(super) fn want(&mut self, wanted: Vec<(GenerateSecret, String)>, now: Instant) {
        let place = |secret: &GenerateSecret| (secret.namespace.clone(), secret.name.clone());
        let places: Vec<Place> = wanted.iter().map(|(secret, _)| place(secret)).collect();
        self.places.retain(|place, attempt| attempt.again.is_none() || places.contains(place));
        for (secret, owner_uid) in wanted {
            if self.under_way.len() >= SECRET_MAKES_MAX {
                return;
            }
            let place = place(&secret);
            let attempt = self.places.entry(place.clone()).or_insert(Attempt {
                again: Some(now),
                failures: 0,
                is_forbidden: false,
            });
            if attempt.again.is_none_or(|again| again > now) {
                continue;
            }
            attempt.again = None;
            let client = self.client.clone();
            self.under_way.spawn(async move { (place, make_secret(&client, &secret, &owner_uid).await) });
        }
    }

    /// Waits for an attempt to end; for ever while there is none. Answers the Secret, to be read again.
    pub(super) async fn ended(&mut self) -> Place {
        loop {
            match self.under_way.join_next().await {
                Some(Ok((place, result))) => {
                    self.record(&place, &result, Instant::now());
                    return place;
                }
                Some(Err(error)) => tracing::error!(%error, "a Secret was not made: this is a defect, report it"),
                None => std::future::pending().await,
            }
        }
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

    /// Whether a Secret may not be made.
    pub(super) fn is_forbidden(&self) -> bool {
        self.places.values().any(|attempt| attempt.is_forbidden)
    }

    /// Marks in a world the Secrets that may not be made, so that their endpoints say so.
    pub(super) fn mark(&self, secrets: &mut Secrets) {
        for ((namespace, name), attempt) in &self.places {
            if attempt.is_forbidden && secrets.get(namespace, name).is_none() {
                secrets.insert(namespace, name, SecretState::Unmade);
            }
        }
    }
}

fn retry_pause(failures: usize) -> Duration {
    SECRET_RETRY_PAUSES[failures.saturating_sub(1).min(SECRET_RETRY_PAUSES.len() - 1)]
}
