//! Names to addresses, under guard: one forbidden answer refuses the whole name.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dispatcher_core::address::AddressPolicy;
use dispatcher_core::limits::HOST_ADDRESSES_MAX;
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

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
pub(super) struct GuardedResolver<L> {
    address_policy: Arc<AddressPolicy>,
    config: Arc<ResolverConfig>,
    lookup: Arc<L>,
}

impl<L: Lookup> GuardedResolver<L> {
    pub(super) fn new(address_policy: Arc<AddressPolicy>, config: ResolverConfig, lookup: L) -> Self {
        Self { address_policy, config: Arc::new(config), lookup: Arc::new(lookup) }
    }
}

impl<L: Lookup> Resolve for GuardedResolver<L> {
    fn resolve(&self, name: Name) -> Resolving {
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

fn check(
    policy: &AddressPolicy,
    addresses: Vec<SocketAddr>,
) -> Result<Addrs, Box<dyn std::error::Error + Send + Sync>> {
    if addresses.is_empty() {
        return Err(LookupFailed::NoAddress.into());
    }
    if addresses.len() > HOST_ADDRESSES_MAX {
        return Err(LookupFailed::TooMany.into());
    }
    for address in &addresses {
        policy.check_address(address.ip()).map_err(RefusedAddress::from)?;
    }
    Ok(Box::new(addresses.into_iter()))
}
