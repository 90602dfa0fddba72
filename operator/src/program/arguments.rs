//! The command line's grammar. Every option is also an environment variable; nothing else reads the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand};
use dispatcher::process::LogArguments;
use dispatcher::process::address::AddressArguments;
use dispatcher_core::limits::{
    LEDGER_POOL_CONNECTIONS_LIMIT, LEDGER_POOL_CONNECTIONS_MIN, OPERATOR_LEDGER_CONNECTIONS_MAX,
    RESYNC_SECONDS_DEFAULT, RESYNC_SECONDS_MAX, RESYNC_SECONDS_MIN,
};
use dispatcher_core::redacted::Redacted;
use dispatcher_core::scope::Scopes;
use dispatcher_core::table::ServiceAccountGrant;

/// The control plane of Harborhook: resources in, routing table and statuses out.
#[derive(Debug, Parser)]
#[command(name = "operator", version, propagate_version = true, after_help = AFTER_HELP)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) log: LogArguments,

    /// What to do
    #[command(subcommand)]
    pub(super) command: Command,
}

const AFTER_HELP: &str = "Exit codes: 0 stopped in order, 1 a defect, 2 wrong configuration, 4 stopped before all was \
    finished, 130 stopped at once by a second signal.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Watch resources, publish the routing table and write statuses, until it is stopped
    Run(Box<RunArguments>),
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with the parameters of libpq, or `sqlite:FILE`
    #[arg(long, value_name = "URL", env = "HARBORHOOK_DATABASE", hide_env_values = true)]
    pub(super) database: Redacted<String>,

    /// Most connections to the database
    #[arg(
        long,
        value_name = "N",
        env = "HARBORHOOK_DATABASE_CONNECTIONS_MAX",
        default_value_t = OPERATOR_LEDGER_CONNECTIONS_MAX,
        value_parser = clap::value_parser!(u32)
            .range(i64::from(LEDGER_POOL_CONNECTIONS_MIN)..=i64::from(LEDGER_POOL_CONNECTIONS_LIMIT)),
    )]
    pub(super) database_connections_max: u32,

    /// File with the 32 bytes of a key that seals the secrets in the routing table, or a folder of such files; may be given
    /// several times
    #[arg(long, value_name = "FILE", env = "HARBORHOOK_SEALING_KEY_FILE", value_delimiter = ',', required = true)]
    pub(super) sealing_key_file: Vec<PathBuf>,

    /// Address that health and metrics are served on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", env = "HARBORHOOK_ADMIN_LISTEN", default_value = "127.0.0.1:8081")]
    pub(super) admin_listen: SocketAddr,

    /// Namespace of the installation, which has the operator's Lease
    #[arg(long, value_name = "NAME", env = "HARBORHOOK_NAMESPACE")]
    pub(super) namespace: String,

    /// Namespace whose resources to watch; may be given several times. None: all namespaces, which takes a ClusterRole
    #[arg(long, value_name = "NAME", env = "HARBORHOOK_WATCH_NAMESPACE", value_delimiter = ',')]
    pub(super) watch_namespace: Vec<String>,

    /// Watch Secrets too, where the permission to list and watch them is given, and notice their changes at once
    #[arg(long, env = "HARBORHOOK_WATCH_SECRETS", value_parser = BoolishValueParser::new())]
    pub(super) watch_secrets: bool,

    /// Name of this process among the operators: that of its pod
    #[arg(long, value_name = "NAME", env = "HARBORHOOK_IDENTITY")]
    pub(super) identity: String,

    /// Name of the Lease that decides which operator leads
    #[arg(long, value_name = "NAME", env = "HARBORHOOK_LEASE_NAME", default_value = "harborhook-operator")]
    pub(super) lease_name: String,

    /// What every ServiceAccount may in the tenant of its namespace, as in `publish,read`
    #[arg(long, value_name = "SCOPES", env = "HARBORHOOK_SERVICE_ACCOUNT_SCOPES", default_value = "publish")]
    pub(super) service_account_scopes: Scopes,

    /// What one ServiceAccount may beside that, as in `shop/support=read+replay`; may be given several times
    #[arg(long, value_name = "NAMESPACE/NAME=SCOPES", env = "HARBORHOOK_SERVICE_ACCOUNT_GRANT", value_delimiter = ',')]
    pub(super) service_account_grant: Vec<ServiceAccountGrant>,

    /// Seconds after which everything is listed anew
    #[arg(
        long,
        value_name = "N",
        env = "HARBORHOOK_RESYNC_SECONDS",
        default_value_t = RESYNC_SECONDS_DEFAULT,
        value_parser = clap::value_parser!(u32).range(i64::from(RESYNC_SECONDS_MIN)..=i64::from(RESYNC_SECONDS_MAX)),
    )]
    pub(super) resync_seconds: u32,

    #[command(flatten)]
    pub(super) address: AddressArguments,
}
