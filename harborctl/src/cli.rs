//! The command line's grammar. Everything a command needs stands in its arguments; nothing else reads the environment.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use dispatcher::process::address::AddressArguments;
use dispatcher_core::limits::PAGE_ROWS_MAX;
use dispatcher_core::redacted::Redacted;
use url::Url;
use uuid::Uuid;

use crate::output::Format;
use crate::schemes::Scheme;

/// Harborhook: webhooks as resources, delivered signed and with retries.
#[derive(Debug, Parser)]
#[command(name = "harborctl", version, propagate_version = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Server to speak to
    #[arg(long, global = true, value_name = "URL", env = "HARBORHOOK_SERVER", default_value = "http://127.0.0.1:7070")]
    pub(crate) server: Url,

    /// Tenant to speak about: the name of its namespace
    #[arg(long, global = true, value_name = "NAMESPACE", env = "HARBORHOOK_TENANT", default_value = "default")]
    pub(crate) tenant: String,

    /// File with the bearer token for the server, read for each request
    #[arg(long, global = true, value_name = "FILE", env = "HARBORHOOK_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Form of what is printed to stdout
    #[arg(long, short, global = true, value_name = "FORM", default_value = "table")]
    pub(crate) output: Format,

    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "Exit codes: 0 done, 1 the answer is no, 2 wrong usage or configuration, 3 server unreachable, \
    4 refused by the server, 130 interrupted before it was done.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in one process on resources from YAML files
    Dev(DevArguments),
    /// Publish and read events
    #[command(subcommand)]
    Event(EventCommand),
    /// Read deliveries and replay them
    #[command(subcommand)]
    Delivery(DeliveryCommand),
    /// Read endpoints as they are routed
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Read subscriptions as they are routed
    #[command(subcommand)]
    Subscription(SubscriptionCommand),
    /// Say which endpoints would get an event, and why the others would not; nothing is sent
    Route(RouteArguments),
    /// Say what changes between two trees of resources, for reviews; no server is asked
    Plan(PlanArguments),
    /// Check the signature of a request that was received
    Verify(VerifyArguments),
    /// Run the test receiver alone
    Receiver(ReceiverArguments),
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Arguments of `dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArguments {
    /// Folder or file of Kubernetes YAML, or `-` for standard input
    pub(crate) path: PathBuf,

    /// Loopback address that the API listens on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7070")]
    pub(crate) listen: SocketAddr,

    /// Loopback address that health and metrics are served on; without it, they are not. Port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) admin: Option<SocketAddr>,

    /// Folder for what must survive a restart [default: one per PATH under ~/.local/state/harborhook/dev]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// Publish the sample events, wait until every delivery is finished, and end: 0 if all were delivered and all
    /// resources are ready, else 1
    #[arg(long)]
    pub(crate) once: bool,

    /// Folder of this user's state, as the XDG base directories define it
    #[arg(long, hide = true, value_name = "DIR", env = "XDG_STATE_HOME")]
    pub(crate) state_home: Option<PathBuf>,
}

/// `event …`
#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// Publish an event
    Publish {
        #[command(flatten)]
        event: EventArguments,
        /// Publishing again with the same key and content publishes nothing new
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// List events, newest first
    List {
        /// Only of this type
        #[arg(long = "type", value_name = "TYPE")]
        event_type: Option<String>,
        #[command(flatten)]
        page: PageArguments,
    },
    /// Show an event with its payload
    Show {
        /// Identity of the event
        event: Uuid,
    },
}

/// The event that a command is about.
#[derive(Debug, Args)]
pub(crate) struct EventArguments {
    /// Type of the event, such as `order.created`
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) event_type: String,

    /// Payload: JSON, `@FILE`, or `-` for standard input
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub(crate) data: String,

    /// Customer whose endpoints get it; without one, those of no customer
    #[arg(long, value_name = "NAME")]
    pub(crate) recipient: Option<String>,
}

/// Which page of a listing.
#[derive(Debug, Args)]
pub(crate) struct PageArguments {
    /// Most rows
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..=i64::from(PAGE_ROWS_MAX)))]
    pub(crate) limit: Option<u32>,

    /// Where the previous page said that there is more
    #[arg(long, value_name = "CURSOR")]
    pub(crate) cursor: Option<String>,
}

/// `delivery …`
#[derive(Debug, Subcommand)]
pub(crate) enum DeliveryCommand {
    /// List deliveries, newest first
    List {
        /// Only of this event
        #[arg(long, value_name = "ID")]
        event: Option<Uuid>,
        /// Only to this endpoint
        #[arg(long, value_name = "NAME")]
        endpoint: Option<String>,
        /// Only in this state
        #[arg(long, value_parser = ["open", "delivered", "dead", "cancelled"])]
        state: Option<String>,
        #[command(flatten)]
        page: PageArguments,
    },
    /// Show a delivery with its attempts
    Show {
        /// Identity of the delivery
        delivery: Uuid,
    },
    /// Deliver a finished delivery once more, under the same identity
    Replay {
        /// Identity of the delivery
        delivery: Uuid,
    },
}

/// `endpoint …`
#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// List endpoints by name
    List {
        #[command(flatten)]
        page: PageArguments,
    },
    /// Show an endpoint and the policy in effect, defaults filled in
    Show {
        /// Name of the endpoint
        name: String,
    },
}

/// `subscription …`
#[derive(Debug, Subcommand)]
pub(crate) enum SubscriptionCommand {
    /// List subscriptions by name
    List {
        #[command(flatten)]
        page: PageArguments,
    },
}

/// Arguments of `route`.
#[derive(Debug, Args)]
pub(crate) struct RouteArguments {
    #[command(flatten)]
    pub(crate) event: EventArguments,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    /// Folder or file of Kubernetes YAML before the change, or `-` for standard input
    #[arg(long, value_name = "PATH")]
    pub(crate) from: PathBuf,

    /// Folder or file of Kubernetes YAML after the change, or `-` for standard input
    #[arg(long, value_name = "PATH")]
    pub(crate) to: PathBuf,

    /// What the installation delivers to
    #[command(flatten)]
    pub(crate) address: AddressArguments,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Header of the request, `Name: value`; give it once for each
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,

    /// File of the request's headers, one a line; `-` for standard input
    #[arg(long, value_name = "FILE|-")]
    pub(crate) headers_file: Option<String>,

    /// Body of the request: text, `@FILE`, or `-` for standard input
    #[arg(long, value_name = "TEXT|@FILE|-")]
    pub(crate) body: String,

    /// File of the secret or public key; `-` for standard input. Without it, the variable HARBORHOOK_SECRET
    #[arg(long, value_name = "FILE|-")]
    pub(crate) secret_file: Option<String>,

    /// How the request is signed; without it, its headers tell
    #[arg(long, value_name = "SCHEME")]
    pub(crate) scheme: Option<Scheme>,

    /// Largest difference between the time that was signed and now
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) tolerance_seconds: u32,

    /// Verify as if it were this time, in seconds since the Unix epoch
    #[arg(long, value_name = "UNIX_SECONDS")]
    pub(crate) at: Option<i64>,
}

/// The secret in HARBORHOOK_SECRET. It has no argument: every user of a machine sees the command lines of all.
pub(crate) fn secret_from_environment() -> Option<Redacted<String>> {
    std::env::var_os("HARBORHOOK_SECRET").and_then(|secret| secret.into_string().ok()).map(Redacted::new)
}

/// How this program was started, as a person would type it to start it once more.
pub(crate) fn program() -> String {
    // Cargo names itself, and the package that it runs, to what it runs.
    let by_cargo =
        std::env::var_os("CARGO").is_some() && std::env::var_os("CARGO_PKG_NAME").is_some_and(|name| name == BINARY);
    started_as(std::env::args_os().next().as_deref(), by_cargo)
}

const BINARY: &str = env!("CARGO_PKG_NAME");

fn started_as(first_argument: Option<&OsStr>, by_cargo: bool) -> String {
    if by_cargo {
        return "cargo run --".to_owned();
    }
    let path = first_argument.and_then(OsStr::to_str).filter(|path| !path.is_empty()).unwrap_or(BINARY);
    let is_plain = path.chars().all(|character| character.is_alphanumeric() || "/._-+@%".contains(character));
    if is_plain { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// Arguments of `receiver`.
#[derive(Debug, Args)]
pub(crate) struct ReceiverArguments {
    /// Loopback address that it listens on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7071")]
    pub(crate) listen: SocketAddr,

    /// Fail the first N requests and answer the others with 200; without it, all are answered alike
    #[arg(long, value_name = "N")]
    pub(crate) fail_first: Option<u64>,

    /// Wait so long before each answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    pub(crate) delay_milliseconds: u64,

    /// Status of the answers; with --fail-first, of those that fail [default: 200; with --fail-first: 503]
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u16).range(200..=599))]
    pub(crate) status: Option<u16>,

    /// Reset the connection instead of answering
    #[arg(long, conflicts_with = "status")]
    pub(crate) reset: bool,

    /// File of a secret or public key that signatures must verify with
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_program_is_named_as_it_was_started() {
        for (first_argument, by_cargo, expected) in [
            (Some("harborctl"), false, "harborctl"),
            (Some("./target/debug/harborctl"), false, "./target/debug/harborctl"),
            (Some("/my programs/harbor'ctl"), false, r"'/my programs/harbor'\''ctl'"),
            (Some("target/debug/harborctl"), true, "cargo run --"),
            (None, false, "harborctl"),
        ] {
            assert_eq!(started_as(first_argument.map(OsStr::new), by_cargo), expected);
        }
    }

    #[test]
    fn the_help_names_every_exit_code() {
        use crate::exit::Exit;
        for exit in
            [Exit::Done, Exit::AnswerIsNo, Exit::Configuration, Exit::Unreachable, Exit::Refused, Exit::Interrupted]
        {
            assert!(AFTER_HELP.contains(&format!(" {} ", exit.code())), "{exit:?}");
        }
    }
}
