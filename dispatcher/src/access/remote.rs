//! Keys that are fetched: kept up to date in the background, and looked for once more when a token names a new one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dispatcher_core::address::{AddressPolicy, PortRule};
use dispatcher_core::limits::{
    ISSUERS_FILE_POLL_INTERVAL, JWKS_BYTES_MAX, JWKS_FETCH_DEADLINE, JWKS_REFRESH_INTERVAL, JWKS_RETRY_PAUSE_MAX,
    JWKS_RETRY_PAUSE_MIN, JWKS_STALE_MAX, JWKS_UNKNOWN_KEY_PAUSE,
};
use ipnet::IpNet;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::issuers::RemoteSource;
use super::keys::{KeySet, KeySetError};
use crate::http::{Client, ClientConfig, ClientError, Fetch, FetchError, Identity, ResolverConfig};
use crate::metrics::Metrics;

/// What `internal` allows beside public addresses: this machine and private networks, IPv4 and IPv6, never the link and
/// its metadata services.
const INTERNAL_RANGES: [&str; 7] =
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "::1/128"];
/// RFC 7517, 8.5.
const MEDIA_TYPE: &str = "application/jwk-set+json, application/json";

/// When keys are fetched, and the file of issuers is read.
#[derive(Clone, Copy, Debug)]
pub struct FetchTimes {
    /// How often the file of issuers is looked at.
    pub file_interval: Duration,
    /// How often they are fetched again.
    pub interval: Duration,
    /// Shortest time between two fetches for the sake of an unknown key.
    pub unknown_key_pause: Duration,
    /// Bound on a fetch.
    pub deadline: Duration,
    /// Shortest pause after a failure; it doubles.
    pub retry_pause_min: Duration,
    /// Longest pause after a failure.
    pub retry_pause_max: Duration,
    /// How long the last keys stay in use while none can be fetched.
    pub stale_max: Duration,
}

impl Default for FetchTimes {
    fn default() -> Self {
        Self {
            file_interval: ISSUERS_FILE_POLL_INTERVAL,
            interval: JWKS_REFRESH_INTERVAL,
            unknown_key_pause: JWKS_UNKNOWN_KEY_PAUSE,
            deadline: JWKS_FETCH_DEADLINE,
            retry_pause_min: JWKS_RETRY_PAUSE_MIN,
            retry_pause_max: JWKS_RETRY_PAUSE_MAX,
            stale_max: JWKS_STALE_MAX,
        }
    }
}

/// The keys of one issuer.
pub(super) struct RemoteKeys {
    issuer: String,
    source: RemoteSource,
    identity: Option<Identity>,
    client: Client,
    times: FetchTimes,
    state: Mutex<State>,
    /// Notified when a token names a key that is not there.
    asked: Notify,
    /// Changes with the end of every fetch.
    ended: watch::Sender<()>,
    /// Counts changes of what is trusted, of all issuers.
    epoch: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    fetched_at: Option<Instant>,
    began_at: Option<Instant>,
    is_under_way: bool,
}

#[derive(Debug, thiserror::Error)]
enum NoKeys {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Set(#[from] KeySetError),
}

impl RemoteKeys {
    /// Keys that are not fetched before [`RemoteKeys::run`].
    ///
    /// # Errors
    /// [`ClientError`] if TLS cannot be set up.
    pub(super) fn new(
        issuer: &str,
        source: RemoteSource,
        (times, resolver): (FetchTimes, ResolverConfig),
        epoch: Arc<AtomicU64>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ClientError> {
        let client = Client::new(ClientConfig { address_policy: address_policy(&source), resolver })?;
        Ok(Self {
            issuer: issuer.to_owned(),
            identity: source.authorities.clone().map(Identity::new),
            source,
            client,
            times,
            // The first fetch is about to begin.
            state: Mutex::new(State { is_under_way: true, ..State::default() }),
            asked: Notify::new(),
            ended: watch::Sender::new(()),
            epoch,
            metrics,
        })
    }

    /// The keys, if there are any that may be used.
    pub(super) fn keys(&self) -> Option<Arc<KeySet>> {
        self.state().keys.clone()
    }

    /// Waits for a fetch that may bring a key that is not there. Whoever makes up names of keys causes no more of them
    /// than one in [`FetchTimes::unknown_key_pause`]. Answers whether there was one.
    pub(super) async fn look_again(&self) -> bool {
        let mut ended = self.ended.subscribe();
        {
            let state = self.state();
            if !state.is_under_way {
                let is_too_soon = |at: Instant| at.elapsed() < self.times.unknown_key_pause;
                if state.began_at.is_some_and(is_too_soon) {
                    return false;
                }
                self.asked.notify_one();
            }
        }
        timeout(self.times.deadline, ended.changed()).await.is_ok()
    }

    /// Fetches the keys again and again, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let mut retry_pause = self.times.retry_pause_min;
        let mut told = None;
        loop {
            {
                let mut state = self.state();
                (state.is_under_way, state.began_at) = (true, Some(Instant::now()));
            }
            let fetched = self.fetch().await;
            let pause = match self.note(fetched) {
                Ok(()) => {
                    if told.take().is_some() {
                        tracing::info!(issuer = %self.issuer, "the issuer's keys are there again");
                    }
                    retry_pause = self.times.retry_pause_min;
                    self.times.interval
                }
                Err(error) => {
                    let message = error.to_string();
                    if told.as_ref() != Some(&message) {
                        tracing::warn!(issuer = %self.issuer, %error, "the issuer's keys cannot be fetched; trying again");
                        told = Some(message);
                    }
                    let pause = retry_pause;
                    retry_pause = (retry_pause * 2).min(self.times.retry_pause_max);
                    pause
                }
            };
            self.ended.send_replace(());
            tokio::select! {
                () = sleep(pause) => {}
                () = self.asked.notified() => {}
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, NoKeys> {
        let document = self.client.fetch(Fetch {
            url: &self.source.url,
            identity: self.identity.as_ref(),
            accept: MEDIA_TYPE,
            bytes_max: JWKS_BYTES_MAX,
            deadline: self.times.deadline,
        });
        Ok(KeySet::read(&document.await?)?)
    }

    /// Takes on what was fetched. Whatever went wrong, the last keys stay, for their time.
    fn note(&self, fetched: Result<KeySet, NoKeys>) -> Result<(), NoKeys> {
        let mut state = self.state();
        state.is_under_way = false;
        let ended = match fetched {
            Ok(keys) => {
                state.fetched_at = Some(Instant::now());
                if state.keys.as_deref() != Some(&keys) {
                    state.keys = Some(Arc::new(keys));
                    self.epoch.fetch_add(1, Ordering::Release);
                }
                Ok(())
            }
            Err(error) => {
                let is_stale = |at: Instant| at.elapsed() >= self.times.stale_max;
                if state.keys.is_some() && state.fetched_at.is_none_or(is_stale) {
                    state.keys = None;
                    self.epoch.fetch_add(1, Ordering::Release);
                }
                Err(error)
            }
        };
        self.metrics.keys_fetched(ended.is_ok());
        ended
    }

    /// Nothing panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What may be reached for an issuer's keys: what is public, over https, on any port; within the cluster what the
/// installation named, for it chose the URL itself.
fn address_policy(source: &RemoteSource) -> AddressPolicy {
    let public = AddressPolicy { ports: PortRule::Any, ..AddressPolicy::public_https() };
    if !source.internal {
        return public;
    }
    AddressPolicy {
        allow: INTERNAL_RANGES.iter().filter_map(|range| range.parse::<IpNet>().ok()).collect(),
        allow_hosts: source.url.host_str().map(str::to_owned).into_iter().collect(),
        allow_http: true,
        ..public
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_internal_reaches_into_the_cluster_and_nothing_reaches_metadata() {
        let policy = |url: &str, internal| {
            let url: url::Url = url.parse().unwrap();
            (address_policy(&RemoteSource { url: url.clone(), internal, authorities: None }), url)
        };
        for (url, from_outside, from_inside) in [
            ("https://login.example.com/keys", true, true),
            ("https://login.example.com:9443/keys", true, true),
            ("http://login.example.com/keys", false, true),
            ("http://dex.auth.svc:5556/keys", false, true),
            ("http://dex:5556/keys", false, true),
            ("http://10.0.0.7/keys", false, true),
            ("https://[fd00::7]/keys", false, true),
            ("http://169.254.169.254/keys", false, false),
            ("https://[fe80::1]/keys", false, false),
        ] {
            for (internal, allowed) in [(false, from_outside), (true, from_inside)] {
                let (policy, url) = policy(url, internal);
                assert_eq!(policy.check_url(&url).is_ok(), allowed, "{url} internal {internal}");
            }
        }
        assert_eq!(policy("https://a.example", true).0.allow.len(), INTERNAL_RANGES.len());
    }
}
