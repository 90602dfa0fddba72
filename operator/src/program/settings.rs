//! What the operator is started with: the command line, checked as far as it can be without a server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crds::pool::ScalingMode;
use dispatcher::process::{Database, Failure, read_sealing_keys};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::limits::WATCHED_NAMESPACES_MAX;
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::ServiceAccountRules;

use super::arguments::{PoolArguments, PoolScaling, RunArguments};
use crate::cluster::issuer::IssuerSettings;
use crate::cluster::lease::LeaseConfig;
use crate::plan::pool::{DefaultPool, PoolSettings};
use crate::plan::scale::ScalePolicy;

/// Everything that the operator needs to start.
pub(super) struct Settings {
    pub(super) database: Database,
    pub(super) sealing_key: Arc<SealingKey>,
    pub(super) admin_listen: SocketAddr,
    pub(super) address_policy: AddressPolicy,
    pub(super) default_pool: Option<DefaultPool>,
    pub(super) issuer: IssuerSettings,
    pub(super) lease: LeaseConfig,
    /// The namespaces that are watched; none stands for all.
    pub(super) namespaces: Vec<String>,
    pub(super) watch_secrets: bool,
    pub(super) resync: Duration,
}

/// Reads them.
pub(super) fn read(arguments: &RunArguments) -> Result<Settings, Failure> {
    let mut namespaces = arguments.watch_namespace.clone();
    namespaces.sort_unstable();
    namespaces.dedup();
    let too_many = namespaces.len() > WATCHED_NAMESPACES_MAX;
    for (option, names) in [
        ("--namespace", std::slice::from_ref(&arguments.namespace)),
        ("--watch-namespace", &namespaces[..]),
        ("--lease-name", std::slice::from_ref(&arguments.lease_name)),
        ("--identity", std::slice::from_ref(&arguments.identity)),
    ] {
        if let Some(name) = names.iter().find(|name| !is_name(name)) {
            let message = format!("{option}: {name:?} is no name: lower case letters, digits, `-` and `.`");
            return Err(Failure::Configuration(message));
        }
    }
    if too_many {
        let message = format!(
            "--watch-namespace: at most {WATCHED_NAMESPACES_MAX} can be watched one by one; give none, to watch all"
        );
        return Err(Failure::Configuration(message));
    }
    Ok(Settings {
        database: Database::read(&arguments.database, arguments.database_connections_max)?,
        sealing_key: Arc::new(
            read_sealing_keys(&arguments.sealing_key_file)
                .map_err(|error| Failure::Configuration(format!("--sealing-key-file {error}")))?,
        ),
        default_pool: default_pool(&arguments.pool)?,
        issuer: IssuerSettings {
            accounts: ServiceAccountRules {
                scopes: arguments.service_account_scopes,
                grants: arguments.service_account_grant.clone(),
            },
            ..IssuerSettings::default()
        },
        admin_listen: arguments.admin_listen,
        address_policy: arguments.address.policy(),
        lease: LeaseConfig::new(arguments.namespace.clone(), arguments.lease_name.clone(), arguments.identity.clone()),
        namespaces,
        watch_secrets: arguments.watch_secrets,
        resync: Duration::from_secs(arguments.resync_seconds.into()),
    })
}

fn default_pool(arguments: &PoolArguments) -> Result<Option<DefaultPool>, Failure> {
    let Some(deployment) = &arguments.pool_deployment else { return Ok(None) };
    if !is_name(deployment) {
        return Err(Failure::Configuration(format!("--pool-deployment: {deployment:?} is no name of a Deployment")));
    }
    let (replicas_min, replicas_max) = (arguments.pool_min_replicas, arguments.pool_max_replicas);
    if replicas_min > replicas_max {
        let message = "--pool-min-replicas: must not be more than --pool-max-replicas";
        return Err(Failure::Configuration(message.to_owned()));
    }
    let mode = match arguments.pool_scaling {
        PoolScaling::Backlog => ScalingMode::Backlog,
        PoolScaling::External => ScalingMode::External,
    };
    let policy = ScalePolicy {
        replicas_min,
        replicas_max,
        drain_target: Duration::from_secs(arguments.pool_drain_target_seconds.into()),
        stabilization: Duration::from_secs(arguments.pool_stabilization_seconds.into()),
    };
    Ok(Some(DefaultPool { deployment: deployment.clone(), settings: PoolSettings { mode, policy } }))
}

/// Whether a text can be the name of an object: a DNS subdomain (RFC 1123).
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(is_inner)
    };
    text.len() <= 253 && text.split('.').all(is_label)
}
