//! `harborctl delivery list|show|replay`.

use serde_json::Value;

use super::{cell, page_query, state_with_reason};
use crate::answer::Answer;
use crate::cli::DeliveryCommand;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{Format, Output};
use crate::table::{self, Column};

const COLUMNS: &[Column] = &[
    Column { title: "DELIVERY", cell: |row| cell(row, "delivery_id") },
    Column { title: "TYPE", cell: |row| cell(row, "event_type") },
    Column { title: "ENDPOINT", cell: |row| cell(row, "endpoint") },
    Column { title: "STATE", cell: state_with_reason },
    Column { title: "RUN", cell: |row| cell(row, "run") },
    Column { title: "ATTEMPTS", cell: |row| cell(row, "attempts_count") },
    Column { title: "LAST", cell: last },
    Column { title: "NEXT", cell: |row| cell(row, "due_time") },
];

const ATTEMPT_COLUMNS: &[Column] = &[
    Column { title: "RUN", cell: |row| cell(row, "run") },
    Column { title: "ATTEMPT", cell: |row| cell(row, "attempt_number") },
    Column { title: "STARTED", cell: |row| cell(row, "started_time") },
    Column { title: "OUTCOME", cell: |row| cell(row, "outcome") },
    Column { title: "STATUS", cell: |row| cell(row, "status_code") },
    Column { title: "MILLISECONDS", cell: |row| cell(row, "duration_ms") },
    Column { title: "ANSWER", cell: answer },
];

/// Most characters of a receiver's answer in a table.
const ANSWER_CHARACTERS: usize = 60;

/// Runs `delivery …`.
pub(crate) async fn run(client: &Client, command: DeliveryCommand, output: &Output) -> Result<Exit, Failure> {
    match command {
        DeliveryCommand::List { event, endpoint, state, page } => {
            let mut query = page_query(page);
            query.extend(event.map(|event| ("event", event.to_string())));
            query.extend(endpoint.map(|endpoint| ("endpoint", endpoint)));
            query.extend(state.map(|state| ("state", state)));
            output.listing(&client.get(&["deliveries"], &query).await?, COLUMNS)?;
        }
        DeliveryCommand::Show { delivery } => {
            let path = ["deliveries", &delivery.to_string()];
            let shown = client.get(&path, &[]).await?;
            let attempts = client.get(&[path[0], path[1], "attempts"], &[]).await?;
            show(&shown, &attempts, output)?;
        }
        DeliveryCommand::Replay { delivery } => {
            let answer = client.post(&["deliveries", &format!("{delivery}:replay")], Vec::new()).await?;
            output.document(&answer)?;
            output.notice(&format!("see what became of it: harborctl delivery show {delivery}"));
        }
    }
    Ok(Exit::Done)
}

fn show(delivery: &Answer, attempts: &Answer, output: &Output) -> Result<(), Failure> {
    match output.format() {
        Format::Table => {
            output.document(delivery)?;
            output.text("\n")?;
            output.listing(attempts, ATTEMPT_COLUMNS)
        }
        Format::Json | Format::Yaml => {
            let mut whole = delivery.value().clone();
            whole["attempts"] = attempts.value()["items"].clone();
            output.document(&whole.into())
        }
    }
}

fn last(row: &Value) -> String {
    match row["last_status_code"].as_u64() {
        Some(code) => code.to_string(),
        None => cell(row, "last_outcome"),
    }
}

fn answer(row: &Value) -> String {
    let text = row["excerpt"].as_str().unwrap_or_default().trim_end();
    let mut shown: String = table::printable(text).chars().take(ANSWER_CHARACTERS).collect();
    if text.chars().count() > ANSWER_CHARACTERS {
        shown.push('…');
    }
    if shown.is_empty() { "-".to_owned() } else { shown }
}
