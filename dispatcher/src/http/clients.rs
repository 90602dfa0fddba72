//! The clients: how each is built, and which are kept.
//!
//! Every client is built by [`Factory::build`], so all have the same guards. Clients of TLS identities have connections,
//! sessions and certificates of their own, and are kept while they are used.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use dispatcher_core::limits::{
    CONNECT_TIMEOUT, IDENTITY_CLIENT_BUILDS_MAX, IDENTITY_CLIENT_LIFETIME, IDLE_CONNECTION_LIFETIME,
    IDLE_CONNECTIONS_PER_HOST_MAX, RESPONSE_HEADERS_MAX,
};
use reqwest::dns::Resolve;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

use super::failure::NotMade;
use super::identity::{Fingerprint, Identity, IdentityErrorReason, IdentityPart, OpenIdentity};

/// Names us to receivers.
const USER_AGENT: &str = concat!("Harborhook/", env!("CARGO_PKG_VERSION"));

/// Builds clients, all with the same guards.
#[derive(Clone)]
pub(super) struct Factory {
    resolver: Arc<dyn Resolve>,
}

impl Factory {
    pub(super) fn new(resolver: impl Resolve + 'static) -> Self {
        Self { resolver: Arc::new(resolver) }
    }

    /// A client with its own pool of connections. Without authorities of an identity it reads those of the system,
    /// which takes some milliseconds.
    pub(super) fn build(&self, identity: Option<OpenIdentity>) -> Result<reqwest::Client, reqwest::Error> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_rustls()
            .http1_only()
            .http1_max_headers(RESPONSE_HEADERS_MAX)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(no_retry())
            .user_agent(USER_AGENT)
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST_MAX)
            .pool_idle_timeout(IDLE_CONNECTION_LIFETIME)
            .dns_resolver(Arc::clone(&self.resolver));
        if let Some(OpenIdentity { authorities, client }) = identity {
            if let Some(authorities) = authorities {
                builder = builder.tls_certs_only(authorities);
            }
            if let Some(client) = client {
                builder = builder.identity(client);
            }
        }
        builder.build().map_err(reqwest::Error::without_url)
    }

    /// A client of an identity.
    ///
    /// # Errors
    /// [`NotMade::Identity`] if there is none for this identity alone, [`NotMade::NoClient`] if there is none for nobody
    /// either: then it is this machine that lacks something.
    fn build_identified(&self, identity: OpenIdentity) -> Result<reqwest::Client, NotMade> {
        let part = if identity.client.is_some() { IdentityPart::Chain } else { IdentityPart::Authorities };
        self.build(Some(identity)).map_err(|error| {
            tracing::debug!(%error, "a client of a TLS identity cannot be built");
            let refused = NotMade::Identity(IdentityErrorReason::Refused.of(part));
            self.build(None).map_or(NotMade::NoClient, |_| refused)
        })
    }
}

/// Never a second request, like [`reqwest::retry::never`], which all the same keeps a copy of each request for it.
fn no_retry() -> reqwest::retry::Builder {
    reqwest::retry::for_host("").no_budget().max_retries_per_request(0)
}

/// The clients of TLS identities, each built when it is first used. The ones that were used last are kept.
pub(super) struct IdentityClients {
    factory: Factory,
    clients_max: usize,
    builds: Arc<Semaphore>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    slots: HashMap<Fingerprint, Slot>,
    /// Counts the uses of all slots: the order of uses, which a clock may not tell.
    uses: u64,
    /// Whether somebody is there to drop what is idle.
    is_swept: bool,
}

struct Slot {
    client: Arc<OnceCell<reqwest::Client>>,
    last_use: u64,
    used_at: Instant,
}

/// Nothing of an identity is printed, not even its fingerprint.
impl fmt::Debug for IdentityClients {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("IdentityClients").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl IdentityClients {
    pub(super) fn new(factory: Factory, clients_max: usize) -> Arc<Self> {
        let builds = Arc::new(Semaphore::new(IDENTITY_CLIENT_BUILDS_MAX));
        Arc::new(Self { factory, clients_max, builds, kept: Mutex::default() })
    }

    /// The client of an identity, built if it is not there; whoever asks meanwhile waits for the same one.
    ///
    /// # Errors
    /// [`NotMade::Identity`] if its certificates cannot be used, [`NotMade::NoClient`] if the machine has no roots.
    pub(super) async fn of(self: &Arc<Self>, identity: &Identity) -> Result<reqwest::Client, NotMade> {
        let client = self.slot(identity.fingerprint());
        client.get_or_try_init(|| self.build(identity)).await.cloned()
    }

    /// How many are kept.
    pub(super) fn count(&self) -> usize {
        self.kept().slots.len()
    }

    fn slot(self: &Arc<Self>, fingerprint: Fingerprint) -> Arc<OnceCell<reqwest::Client>> {
        let mut kept = self.kept();
        let used_at = Instant::now();
        kept.uses += 1;
        let last_use = kept.uses;
        if let Some(slot) = kept.slots.get_mut(&fingerprint) {
            (slot.last_use, slot.used_at) = (last_use, used_at);
            return Arc::clone(&slot.client);
        }
        if kept.slots.len() >= self.clients_max {
            let oldest = kept.slots.iter().min_by_key(|(_, slot)| slot.last_use).map(|(fingerprint, _)| *fingerprint);
            // Whoever uses it now keeps it until the exchange has ended.
            oldest.and_then(|oldest| kept.slots.remove(&oldest));
        }
        let client = Arc::new(OnceCell::new());
        kept.slots.insert(fingerprint, Slot { client: Arc::clone(&client), last_use, used_at });
        if !std::mem::replace(&mut kept.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
        client
    }

    /// Builds on a thread for blocking work: it computes, and it may read the system's roots from the disk.
    async fn build(&self, identity: &Identity) -> Result<reqwest::Client, NotMade> {
        let permit = Arc::clone(&self.builds).acquire_owned().await.map_err(|_| NotMade::NoClient)?;
        let (factory, identity) = (self.factory.clone(), identity.clone());
        let built = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let identity = identity.open().map_err(NotMade::Identity)?;
            factory.build_identified(identity)
        });
        built.await.map_err(|_| NotMade::NoClient)?
    }

    /// Drops what has not been used for its lifetime. Answers whether nothing is left, and nobody sweeps any more.
    fn drop_idle(&self, now: Instant) -> bool {
        let mut kept = self.kept();
        kept.slots.retain(|_, slot| now.duration_since(slot.used_at) < IDENTITY_CLIENT_LIFETIME);
        kept.is_swept = !kept.slots.is_empty();
        !kept.is_swept
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops idle clients again and again, until there is none left, or nobody who could use one.
async fn sweep(clients: Weak<IdentityClients>) {
    loop {
        tokio::time::sleep(IDENTITY_CLIENT_LIFETIME).await;
        if clients.upgrade().is_none_or(|clients| clients.drop_idle(Instant::now())) {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
