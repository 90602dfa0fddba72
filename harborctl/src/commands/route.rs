//! `harborctl route`: which endpoints would get an event, and why the others would not.

use serde_json::{Value, json};

use super::{cell, event};
use crate::cli::RouteArguments;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{Format, Output};
use crate::table::Column;

const COLUMNS: &[Column] = &[
    Column { title: "ENDPOINT", cell: |row| cell(row, "endpoint") },
    Column { title: "SUBSCRIPTION", cell: |row| cell(row, "subscription") },
    Column { title: "GETS IT", cell: |row| cell(row, "gets_it") },
    Column { title: "WHY", cell: |row| cell(row, "message") },
];

/// Runs `route`. The answer is no if no endpoint would get the event.
pub(crate) async fn run(client: &Client, arguments: RouteArguments, output: &Output) -> Result<Exit, Failure> {
    let body = event::publish_request(&arguments.event, None)?;
    let answer = client.post(&["events:route"], body).await?;
    let matched = rows(&answer.value()["matched"], "yes");
    let nobody = matched.is_empty();
    match output.format() {
        Format::Table => {
            let items: Vec<Value> = matched.into_iter().chain(rows(&answer.value()["not_matched"], "no")).collect();
            output.listing(&json!({ "items": items }).into(), COLUMNS)?;
        }
        Format::Json | Format::Yaml => output.document(&answer)?,
    }
    Ok(if nobody { Exit::AnswerIsNo } else { Exit::Done })
}

fn rows(explanations: &Value, gets_it: &str) -> Vec<Value> {
    let mut rows = explanations.as_array().cloned().unwrap_or_default();
    for row in &mut rows {
        if let Some(fields) = row.as_object_mut() {
            fields.insert("gets_it".to_owned(), gets_it.into());
            let state = fields.get("endpoint_state").and_then(Value::as_str).unwrap_or("active");
            if state != "active" {
                fields.insert("message".to_owned(), format!("It waits: the endpoint is {state}.").into());
            }
        }
    }
    rows
}
