//! `harborctl subscription list`.

use super::{cell, page_query};
use crate::cli::SubscriptionCommand;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::table::Column;

const COLUMNS: &[Column] = &[
    Column { title: "NAME", cell: |row| cell(row, "name") },
    Column { title: "ENDPOINTS", cell: |row| cell(row, "endpoints") },
    Column { title: "TYPES", cell: |row| cell(row, "event_types") },
    Column { title: "FILTER", cell: |row| cell(row, "filter") },
    Column { title: "SUSPENDED", cell: |row| cell(row, "suspended") },
];

/// Runs `subscription …`.
pub(crate) async fn run(client: &Client, command: SubscriptionCommand, output: &Output) -> Result<Exit, Failure> {
    match command {
        SubscriptionCommand::List { page } => {
            output.listing(&client.get(&["subscriptions"], &page_query(page)).await?, COLUMNS)?;
        }
    }
    Ok(Exit::Done)
}
