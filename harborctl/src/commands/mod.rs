//! One file for each command. Each asks the server or its input, and prints the answer.

mod completions;
mod delivery;
mod endpoint;
mod event;
mod plan;
mod receiver;
mod route;
mod subscription;
mod verify;

use serde_json::Value;

use crate::cli::{self, Cli, Command, PageArguments};
use crate::client::Client;
use crate::dev;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::table;

/// Runs the command that was asked for.
pub(crate) async fn run(cli: Cli, output: &Output) -> Result<Exit, Failure> {
    let token_file = cli.token_file.clone();
    let client = || Client::new(&cli.server, &cli.tenant).map(|client| client.with_token_file(token_file));
    match cli.command {
        Command::Dev(arguments) => dev::run(arguments, output).await,
        Command::Event(command) => event::run(&client()?, command, output).await,
        Command::Delivery(command) => delivery::run(&client()?, command, output).await,
        Command::Endpoint(command) => endpoint::run(&client()?, command, output).await,
        Command::Subscription(command) => subscription::run(&client()?, command, output).await,
        Command::Route(arguments) => route::run(&client()?, arguments, output).await,
        Command::Plan(arguments) => plan::run(&arguments, output),
        Command::Verify(arguments) => verify::run(&arguments, cli::secret_from_environment().as_ref(), output),
        Command::Receiver(arguments) => receiver::run(&arguments, output).await,
        Command::Completions { shell } => completions::run(shell, output),
    }
}

/// The query parameters of a page.
fn page_query(page: PageArguments) -> Vec<(&'static str, String)> {
    let limit = page.limit.map(|limit| ("limit", limit.to_string()));
    limit.into_iter().chain(page.cursor.map(|cursor| ("cursor", cursor))).collect()
}

/// A cell: the state, and its reason if it has one.
fn state_with_reason(row: &Value) -> String {
    match row["reason"].as_str() {
        Some(reason) => format!("{} ({})", cell(row, "state"), table::printable(reason)),
        None => cell(row, "state"),
    }
}

/// A cell: the text of a field.
fn cell(row: &Value, field: &str) -> String {
    table::text(&row[field])
}
