//! Names to addresses, under guard: one forbidden answer refuses the whole name.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec;

use dispatcher_core::address::AddressPolicy;
use dispatcher_core::limits::HOST_ADDRESSES_MAX;
use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

use super::failure::{LookupFailed, RefusedAddress};

/// How names become addresses.
#[derive(Clone, Debug, Default)]
pub struct ResolverConfig {
    /// Hosts that are not looked up, in lower case. The port counts where the URL names none. The addresses are
    /// checked like all others.
    pub fixed_hosts: HashMap<String, SocketAddr>,
}

/// Looks names up. One implementation asks the system; tests answer what they like.
pub(super) trait Lookup: Send + Sync + 'static {
    /// All addresses of a host.
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The system's resolver.
pub(super) struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((host, 0)).await?;
            Ok(addresses.map(|address| address.ip()).take(HOST_ADDRESSES_MAX + 1).collect())
        })
    }
}

/// Resolves for the connector, and answers only addresses that may be connected to.
#[derive(Clone)]
pub(super) struct GuardedResolver {
    address_policy: Arc<AddressPolicy>,
    config: Arc<ResolverConfig>,
    lookup: Arc<dyn Lookup>,
}

/// What the layers of a connection hand on; what it is is found by its type.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl GuardedResolver {
    pub(super) fn new(address_policy: Arc<AddressPolicy>, config: ResolverConfig, lookup: impl Lookup) -> Self {
        Self { address_policy, config: Arc::new(config), lookup: Arc::new(lookup) }
    }
}

impl Service<Name> for GuardedResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let policy = Arc::clone(&self.address_policy);
        let host = name.as_str().to_ascii_lowercase();
        if let Some(fixed) = self.config.fixed_hosts.get(&host) {
            let checked = check(&policy, vec![*fixed]);
            return Box::pin(async move { checked });
        }
        let lookup = Arc::clone(&self.lookup);
        Box::pin(async move {
            let addresses = lookup.lookup(host).await.map_err(LookupFailed::System)?;
            // Port 0: the connector puts in that of the URL.
            let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect();
            check(&policy, addresses)
        })
    }
}

fn check(policy: &AddressPolicy, addresses: Vec<SocketAddr>) -> Result<vec::IntoIter<SocketAddr>, BoxError> {
    if addresses.is_empty() {
        return Err(LookupFailed::NoAddress.into());
    }
    if addresses.len() > HOST_ADDRESSES_MAX {
        return Err(LookupFailed::TooMany.into());
    }
    for address in &addresses {
        policy.check_address(address.ip()).map_err(RefusedAddress::from)?;
    }
    Ok(addresses.into_iter())
}
