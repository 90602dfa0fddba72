//! The clients: how each is built, and which are kept.
//!
//! Every client is built by [`Factory::build`], so all have the same guards. Clients of TLS identities have connections,
//! sessions and certificates of their own, and are kept while they are used.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use dispatcher_core::limits::{IDENTITY_CLIENT_BUILDS_MAX, IDENTITY_CLIENT_LIFETIME};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::sign::SingleCertAndKey;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

use super::connect::{Pool, pool};
use super::failure::NotMade;
use super::identity::{Fingerprint, Identity, OpenIdentity};
use super::resolve::GuardedResolver;

/// The one protocol that is spoken (RFC 7301, 6).
const ALPN_HTTP_1_1: &[u8] = b"http/1.1";

/// Builds clients, all with the same guards.
#[derive(Clone)]
pub(super) struct Factory {
    resolver: GuardedResolver,
}

impl Factory {
    pub(super) fn new(resolver: GuardedResolver) -> Self {
        Self { resolver }
    }

    /// A client with its own pool of connections. Without authorities of an identity it reads those of the system,
    /// which takes some milliseconds.
    ///
    /// # Errors
    /// When the system has none.
    pub(super) fn build(&self, identity: Option<OpenIdentity>) -> Result<Arc<Pool>, rustls::Error> {
        let OpenIdentity { authorities, client } = identity.unwrap_or_default();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?;
        let builder = match authorities {
            Some(authorities) => builder.with_root_certificates(authorities),
            None => builder.with_platform_verifier()?,
        };
        let mut config = match client {
            Some(client) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(client))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.push(ALPN_HTTP_1_1.to_vec());
        Ok(Arc::new(pool(self.resolver.clone(), config)))
    }
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
    client: Arc<OnceCell<Arc<Pool>>>,
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
    pub(super) async fn of(self: &Arc<Self>, identity: &Identity) -> Result<Arc<Pool>, NotMade> {
        let client = self.slot(identity.fingerprint());
        client.get_or_try_init(|| self.build(identity)).await.cloned()
    }

    /// How many are kept.
    pub(super) fn count(&self) -> usize {
        self.kept().slots.len()
    }

    fn slot(self: &Arc<Self>, fingerprint: Fingerprint) -> Arc<OnceCell<Arc<Pool>>> {
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
    async fn build(&self, identity: &Identity) -> Result<Arc<Pool>, NotMade> {
        let permit = Arc::clone(&self.builds).acquire_owned().await.map_err(|_| NotMade::NoClient)?;
        let (factory, identity) = (self.factory.clone(), identity.clone());
        let built = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let identity = identity.open().map_err(NotMade::Identity)?;
            factory.build(Some(identity)).map_err(|error| {
                tracing::debug!(%error, "a client of a TLS identity cannot be built");
                NotMade::NoClient
            })
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
