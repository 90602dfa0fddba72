//! The command line's grammar. Every option is also an environment variable; nothing else reads the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use crds::limits::{
    POOL_DRAIN_TARGET_SECONDS_DEFAULT, POOL_DRAIN_TARGET_SECONDS_MAX, POOL_DRAIN_TARGET_SECONDS_MIN,
    POOL_MAX_REPLICAS_DEFAULT, POOL_MIN_REPLICAS_DEFAULT, POOL_REPLICAS_MAX, POOL_STABILIZATION_SECONDS_DEFAULT,
    POOL_STABILIZATION_SECONDS_MAX, POOL_STABILIZATION_SECONDS_MIN,
};
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
    pub(super) pool: PoolArguments,

    #[command(flatten)]
    pub(super) address: AddressArguments,
}

/// The default pool, whose Deployment is a part of the installation.
#[derive(Debug, Args)]
#[expect(clippy::struct_field_names, reason = "they are the names of the options")]
pub(super) struct PoolArguments {
    /// Deployment of the default pool, in the installation's namespace; without it, it is not scaled
    #[arg(long, value_name = "NAME", env = "HARBORHOOK_POOL_DEPLOYMENT")]
    pub(super) pool_deployment: Option<String>,

    /// Fewest dispatchers of the default pool
    #[arg(
        long,
        value_name = "N",
        env = "HARBORHOOK_POOL_MIN_REPLICAS",
        default_value_t = to_u32(POOL_MIN_REPLICAS_DEFAULT),
        value_parser = clap::value_parser!(u32).range(0..=i64::from(POOL_REPLICAS_MAX)),
    )]
    pub(super) pool_min_replicas: u32,

    /// Most dispatchers of the default pool
    #[arg(
        long,
        value_name = "N",
        env = "HARBORHOOK_POOL_MAX_REPLICAS",
        default_value_t = to_u32(POOL_MAX_REPLICAS_DEFAULT),
        value_parser = clap::value_parser!(u32).range(1..=i64::from(POOL_REPLICAS_MAX)),
    )]
    pub(super) pool_max_replicas: u32,

    /// Who sets the number of dispatchers of the default pool
    #[arg(long, value_name = "MODE", env = "HARBORHOOK_POOL_SCALING", default_value = "Backlog")]
    pub(super) pool_scaling: PoolScaling,

    /// Seconds within which a backlog of the default pool is to be worked off
    #[arg(
        long,
        value_name = "N",
        env = "HARBORHOOK_POOL_DRAIN_TARGET_SECONDS",
        default_value_t = to_u32(POOL_DRAIN_TARGET_SECONDS_DEFAULT),
        value_parser = clap::value_parser!(u32)
            .range(i64::from(POOL_DRAIN_TARGET_SECONDS_MIN)..=i64::from(POOL_DRAIN_TARGET_SECONDS_MAX)),
    )]
    pub(super) pool_drain_target_seconds: u32,

    /// Seconds for which fewer dispatchers must have been enough before some are taken away
    #[arg(
        long,
        value_name = "N",
        env = "HARBORHOOK_POOL_STABILIZATION_SECONDS",
        default_value_t = to_u32(POOL_STABILIZATION_SECONDS_DEFAULT),
        value_parser = clap::value_parser!(u32)
            .range(i64::from(POOL_STABILIZATION_SECONDS_MIN)..=i64::from(POOL_STABILIZATION_SECONDS_MAX)),
    )]
    pub(super) pool_stabilization_seconds: u32,
}

/// Who sets the number of dispatchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(super) enum PoolScaling {
    /// The operator, from the load
    Backlog,
    /// Somebody else, such as a HorizontalPodAutoscaler
    External,
}

/// A limit of a resource, which is not negative.
const fn to_u32(limit: i32) -> u32 {
    limit.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_consistent_and_every_option_is_also_an_environment_variable() {
        let command = Arguments::command();
        command.clone().debug_assert();
        for argument in options(&command) {
            let long = argument.get_long().unwrap();
            let expected = format!("HARBORHOOK_{}", long.replace('-', "_").to_uppercase());
            let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
            assert_eq!(variable, Some(expected), "--{long}");
        }
    }

    #[test]
    fn the_page_has_every_option_with_its_variable_and_no_other() {
        let page = include_str!("../../../docs/operator.md");
        let cells =
            |line: &str| line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect::<Vec<_>>();
        let rows = page.lines().filter(|line| line.starts_with("| `--")).map(cells);
        let mut documented: Vec<(String, String)> =
            rows.map(|cells| (cells[1].split(' ').next().unwrap().to_owned(), cells[2].clone())).collect();
        let command = Arguments::command();
        let mut found: Vec<(String, String)> = options(&command)
            .map(|argument| {
                let variable = argument.get_env().unwrap().to_string_lossy().into_owned();
                (format!("--{}", argument.get_long().unwrap()), variable)
            })
            .collect();
        found.sort();
        documented.sort();
        assert_eq!(found, documented);
    }

    #[test]
    fn what_service_accounts_may_is_publishing_unless_more_is_given() {
        let required =
            "operator run --database sqlite:ledger --sealing-key-file one,two --namespace harborhook --identity a";
        let read = |more: &str| {
            let arguments = Arguments::try_parse_from(required.split(' ').chain(more.split_whitespace()))?;
            let Command::Run(run) = arguments.command;
            Ok::<_, clap::Error>(run)
        };
        let run = read("").unwrap();
        assert_eq!(run.service_account_scopes, "publish".parse().unwrap());
        assert!(run.service_account_grant.is_empty());
        assert_eq!(run.sealing_key_file, [PathBuf::from("one"), PathBuf::from("two")]);
        let grants = ["shop/support=read+replay", "*/auditor=read"];
        let run = read(&format!("--service-account-scopes publish,read --service-account-grant {}", grants.join(",")));
        let run = run.unwrap();
        assert_eq!(run.service_account_scopes, "publish,read".parse().unwrap());
        assert_eq!(run.service_account_grant, grants.map(|grant| grant.parse().unwrap()));
        for wrong in ["--service-account-scopes write", "--service-account-grant shop=read"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    fn options(command: &clap::Command) -> impl Iterator<Item = &clap::Arg> {
        let all = command.get_subcommands().flat_map(clap::Command::get_arguments).chain(command.get_arguments());
        all.filter(|argument| argument.get_long().is_some_and(|long| !["help", "version"].contains(&long)))
    }
}
