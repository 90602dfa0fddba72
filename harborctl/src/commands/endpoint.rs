//! `harborctl endpoint list|show`.

use super::{cell, page_query, state_with_reason};
use crate::cli::EndpointCommand;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::table::Column;

const COLUMNS: &[Column] = &[
    Column { title: "NAME", cell: |row| cell(row, "name") },
    Column { title: "STATE", cell: state_with_reason },
    Column { title: "RECIPIENT", cell: |row| cell(row, "recipient") },
    Column { title: "HOST", cell: |row| cell(row, "host") },
    Column { title: "POOL", cell: |row| cell(row, "pool") },
];

/// Runs `endpoint …`.
pub(crate) async fn run(client: &Client, command: EndpointCommand, output: &Output) -> Result<Exit, Failure> {
    match command {
        EndpointCommand::List { page } => {
            output.listing(&client.get(&["endpoints"], &page_query(page)).await?, COLUMNS)?;
        }
        EndpointCommand::Show { name } => output.document(&client.get(&["endpoints", &name], &[]).await?)?,
    }
    Ok(Exit::Done)
}
