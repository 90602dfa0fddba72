//! `harborctl route`: which endpoints would get an event, what of it, and why the others would not.

use dispatcher_core::limits::TRANSFORM_SHOWN_CHARACTERS_MAX;
use serde_json::{Map, Value, json};

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
            let waits = (state != "active").then(|| format!("It waits: the endpoint is {state}."));
            let notes: Vec<String> = waits.into_iter().chain(transformed(fields)).collect();
            if !notes.is_empty() {
                fields.insert("message".to_owned(), notes.join(" ").into());
            }
        }
    }
    rows
}

/// What the subscription's transform makes of the event, as far as a line holds it.
fn transformed(fields: &Map<String, Value>) -> Option<String> {
    if let Some(error) = fields.get("transform_error").and_then(Value::as_str) {
        return Some(format!("Nothing is sent: {error}"));
    }
    if let Some(reason) = fields.get("transform_not_shown").and_then(Value::as_str) {
        return Some(format!("What it gets is not shown: {reason}"));
    }
    let json = fields.get("transformed")?.to_string();
    let mut shown: String = json.chars().take(TRANSFORM_SHOWN_CHARACTERS_MAX).collect();
    if shown.len() < json.len() {
        shown.push('…');
    }
    Some(format!("It gets {shown}"))
}
