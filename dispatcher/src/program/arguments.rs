//! The command line's grammar. Every option is also an environment variable; nothing else reads the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dispatcher::process::LogArguments;
use dispatcher::process::address::AddressArguments;
use dispatcher_core::limits::{
    DRAIN_SECONDS_DEFAULT, DRAIN_SECONDS_MAX, FAST_TRACK_EXCHANGES_LIMIT, FAST_TRACK_EXCHANGES_MAX,
    LEDGER_POOL_CONNECTIONS_LIMIT, LEDGER_POOL_CONNECTIONS_MAX, LEDGER_POOL_CONNECTIONS_MIN, RETENTION_DAYS_DEFAULT,
    RETENTION_DAYS_MAX,
};
use dispatcher_core::redacted::Redacted;
use dispatcher_core::table::DEFAULT_POOL;

/// The data plane of Harborhook: accepts events and delivers them as signed webhooks.
#[derive(Debug, Parser)]
#[command(name = "dispatcher", version, propagate_version = true, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) log: LogArguments,

    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "Exit codes: 0 done, 1 a defect, 2 wrong configuration, 3 database unreachable (migrate only), \
    4 stopped before all was finished, 130 stopped at once by a second signal.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring the database's schema up to date, and end
    Migrate(MigrateArguments),
    /// Accept events over HTTP
    Ingest(IngestArguments),
    /// Deliver the events of one pool
    Deliver(DeliverArguments),
    /// Accept and deliver in one process; the only one that takes `sqlite:` and `memory:`
    All(AllArguments),
}

/// Arguments of `migrate`.
#[derive(Debug, Args)]
pub(crate) struct MigrateArguments {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with the parameters of libpq
    #[arg(long, value_name = "URL", env = "HARBORHOOK_DATABASE", hide_env_values = true)]
    pub(crate) database: Redacted<String>,
}

/// Arguments of `ingest`.
#[derive(Debug, Args)]
pub(crate) struct IngestArguments {
    #[command(flatten)]
    pub(crate) common: CommonArguments,
    #[command(flatten)]
    pub(crate) ingest: ApiArguments,
}

/// Arguments of `deliver`.
#[derive(Debug, Args)]
pub(crate) struct DeliverArguments {
    #[command(flatten)]
    pub(crate) common: CommonArguments,
    #[command(flatten)]
    pub(crate) delivery: DeliveryArguments,
}

/// Arguments of `all`.
#[derive(Debug, Args)]
pub(crate) struct AllArguments {
    #[command(flatten)]
    pub(crate) common: CommonArguments,
    #[command(flatten)]
    pub(crate) ingest: ApiArguments,
    #[command(flatten)]
    pub(crate) delivery: DeliveryArguments,
}

/// Arguments of every role.
#[derive(Debug, Args)]
pub(crate) struct CommonArguments {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with the parameters of libpq; for `all` also `sqlite:FILE`
    #[arg(long, value_name = "URL", env = "HARBORHOOK_DATABASE", hide_env_values = true)]
    pub(crate) database: Redacted<String>,

    /// Most connections to the database
    #[arg(
        long,
        value_name = "N",
        env = "HARBORHOOK_DATABASE_CONNECTIONS_MAX",
        default_value_t = LEDGER_POOL_CONNECTIONS_MAX,
        value_parser = clap::value_parser!(u32)
            .range(i64::from(LEDGER_POOL_CONNECTIONS_MIN)..=i64::from(LEDGER_POOL_CONNECTIONS_LIMIT)),
    )]
    pub(crate) database_connections_max: u32,

    /// `amqp://USER:PASSWORD@HOST:PORT/VHOST`, or `amqps` with `cacertfile`, `certfile` and `keyfile` as parameters; for
    /// `all` also `memory:`
    #[arg(long, value_name = "URL", env = "HARBORHOOK_QUEUE", hide_env_values = true)]
    pub(crate) queue: Redacted<String>,

    /// File with the 32 bytes of a key that opens the secrets in the routing table, or a folder of such files; may be given
    /// several times
    #[arg(long, value_name = "FILE", env = "HARBORHOOK_SEALING_KEY_FILE", value_delimiter = ',', required = true)]
    pub(crate) sealing_key_file: Vec<PathBuf>,

    /// Address that health and metrics are served on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", env = "HARBORHOOK_ADMIN_LISTEN", default_value = "127.0.0.1:8081")]
    pub(crate) admin_listen: SocketAddr,

    /// Days that finished deliveries and their events are kept
    #[arg(
        long,
        value_name = "N",
        env = "HARBORHOOK_RETENTION_DAYS",
        default_value_t = RETENTION_DAYS_DEFAULT,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(RETENTION_DAYS_MAX)),
    )]
    pub(crate) retention_days: u32,

    /// Seconds that a stop may take until what is not finished is left to others
    #[arg(
        long,
        value_name = "N",
        env = "HARBORHOOK_DRAIN_SECONDS",
        default_value_t = DRAIN_SECONDS_DEFAULT,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(DRAIN_SECONDS_MAX)),
    )]
    pub(crate) drain_seconds: u32,
}

/// Arguments of the roles that accept events.
#[derive(Debug, Args)]
pub(crate) struct ApiArguments {
    /// Address that the API listens on, a loopback one unless tokens are demanded; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", env = "HARBORHOOK_LISTEN", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,

    /// Who may use the API
    #[arg(long, value_name = "WHO", env = "HARBORHOOK_ACCESS", default_value = "open")]
    pub(crate) access: AccessKind,

    /// File of issuers in JSON whose tokens are accepted, beside those of the cluster
    #[arg(long, value_name = "FILE", env = "HARBORHOOK_ISSUERS_FILE")]
    pub(crate) issuers_file: Option<PathBuf>,
}

/// Who may use the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AccessKind {
    /// Everybody on this machine
    Open,
    /// Whoever has a valid token
    Tokens,
}

/// Arguments of the roles that deliver.
#[derive(Debug, Args)]
pub(crate) struct DeliveryArguments {
    /// Pool to deliver for
    #[arg(long, value_name = "NAME", env = "HARBORHOOK_POOL", default_value = DEFAULT_POOL)]
    pub(crate) pool: String,

    /// Most requests in flight at once; those without an answer after a second make room for others
    #[arg(
        long,
        value_name = "N",
        env = "HARBORHOOK_MAX_IN_FLIGHT",
        default_value_t = FAST_TRACK_EXCHANGES_MAX,
        value_parser = in_flight,
    )]
    pub(crate) max_in_flight: usize,

    #[command(flatten)]
    pub(crate) address: AddressArguments,
}

fn in_flight(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=FAST_TRACK_EXCHANGES_LIMIT).contains(count));
    count.ok_or_else(|| format!("it is a number from 1 to {FAST_TRACK_EXCHANGES_LIMIT}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_option_is_also_an_environment_variable() {
        let command = Arguments::command();
        for subcommand in command.get_subcommands() {
            for argument in subcommand.get_arguments().chain(command.get_arguments()) {
                let Some(long) = argument.get_long() else { continue };
                if ["help", "version"].contains(&long) {
                    continue;
                }
                let expected = format!("HARBORHOOK_{}", long.replace('-', "_").to_uppercase());
                let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
                assert_eq!(variable, Some(expected), "--{long} of {}", subcommand.get_name());
            }
        }
    }

    /// The rows of the table of options: option, variable, commands.
    fn documented() -> Vec<(String, String, String)> {
        let page = include_str!("../../../docs/operations.md");
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let rows = page.lines().filter(|line| line.starts_with("| `--")).map(cells);
        rows.map(|cells| {
            let option = cells[1].trim_matches('`').split(' ').next().unwrap().to_owned();
            (option, cells[2].trim_matches('`').to_owned(), cells[3].clone())
        })
        .collect()
    }

    #[test]
    fn the_page_has_every_option_with_its_variable_and_its_commands_and_no_other() {
        let command = Arguments::command();
        let subcommands: Vec<_> = command.get_subcommands().collect();
        let mut found: Vec<(String, String, String)> = Vec::new();
        for argument in
            subcommands.iter().flat_map(|subcommand| subcommand.get_arguments()).chain(command.get_arguments())
        {
            let Some(variable) = argument.get_env() else { continue };
            let option = format!("--{}", argument.get_long().unwrap());
            if found.iter().any(|(known, ..)| *known == option) {
                continue;
            }
            let has = |subcommand: &&&clap::Command| {
                argument.is_global_set() || subcommand.get_arguments().any(|other| other.get_id() == argument.get_id())
            };
            let names: Vec<&str> = subcommands.iter().filter(has).map(|subcommand| subcommand.get_name()).collect();
            let names = if names.len() == subcommands.len() { "all four".to_owned() } else { names.join(", ") };
            found.push((option, variable.to_string_lossy().into_owned(), names));
        }
        let mut documented = documented();
        found.sort();
        documented.sort();
        assert_eq!(found, documented);
    }

    #[test]
    fn a_secret_is_not_shown_where_arguments_are() {
        let line = ["dispatcher", "migrate", "--database", "postgres://u:hunter2@h/d"];
        let arguments = Arguments::try_parse_from(line).unwrap();
        assert!(!format!("{arguments:?}").contains("hunter2"));
        for subcommand in Arguments::command().get_subcommands() {
            for argument in subcommand.get_arguments() {
                let is_secret = argument.get_long().is_some_and(|long| ["database", "queue"].contains(&long));
                assert_eq!(argument.is_hide_env_values_set(), is_secret, "{argument}");
            }
        }
    }
}
