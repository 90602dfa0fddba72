//! `harborctl event publish|list|show`.

use dispatcher_core::limits::EVENT_BODY_BYTES_MAX;
use serde_json::json;
use serde_json::value::RawValue;

use super::{cell, page_query};
use crate::cli::{EventArguments, EventCommand};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output::{Format, Output};
use crate::publish::PublishRequest;
use crate::table::Column;

const COLUMNS: &[Column] = &[
    Column { title: "EVENT", cell: |row| cell(row, "event_id") },
    Column { title: "TYPE", cell: |row| cell(row, "event_type") },
    Column { title: "RECIPIENT", cell: |row| cell(row, "recipient") },
    Column { title: "DELIVERIES", cell: |row| cell(row, "fanout_count") },
    Column { title: "ACCEPTED", cell: |row| cell(row, "accepted_time") },
];

/// Runs `event …`.
pub(crate) async fn run(client: &Client, command: EventCommand, output: &Output) -> Result<Exit, Failure> {
    match command {
        EventCommand::Publish { event, idempotency_key } => {
            let body = publish_request(&event, idempotency_key.as_deref())?;
            let answer = client.post(&["events:publish"], body).await?;
            match output.format() {
                Format::Table => {
                    output.listing(&json!({ "items": [answer.value()] }).into(), &[COLUMNS[0], COLUMNS[3]])?;
                }
                Format::Json | Format::Yaml => output.document(&answer)?,
            }
        }
        EventCommand::List { event_type, page } => {
            let mut query = page_query(page);
            query.extend(event_type.map(|event_type| ("event_type", event_type)));
            output.listing(&client.get(&["events"], &query).await?, COLUMNS)?;
        }
        EventCommand::Show { event } => {
            output.document(&client.get(&["events", &event.to_string()], &[]).await?)?;
        }
    }
    Ok(Exit::Done)
}

/// Builds the body of a publish or a route request.
pub(super) fn publish_request(event: &EventArguments, idempotency_key: Option<&str>) -> Result<Vec<u8>, Failure> {
    let data = input::value(&event.data, "--data", EVENT_BODY_BYTES_MAX)?;
    let payload: Box<RawValue> = serde_json::from_slice(&data)
        .map_err(|error| Failure::Local(format!("--data is not JSON: {error}; a file is given as @FILE")))?;
    let request = PublishRequest {
        event_type: &event.event_type,
        payload: &payload,
        idempotency_key,
        recipient: event.recipient.as_deref(),
    };
    request.to_body().map_err(|error| Failure::Local(format!("--data: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_sent_byte_for_byte() {
        let data = "{\"z\": 1.10,  \"a\":\t\"\\u00e9\"}";
        let event = EventArguments { event_type: "a.b".into(), data: data.into(), recipient: Some("acme".into()) };
        let body = String::from_utf8(publish_request(&event, Some("k")).unwrap()).unwrap();
        let expected =
            format!("{{\"event_type\":\"a.b\",\"payload\":{data},\"idempotency_key\":\"k\",\"recipient\":\"acme\"}}");
        assert_eq!(body, expected);
    }

    #[test]
    fn data_that_is_not_json_is_refused_before_anything_is_sent() {
        let event = EventArguments { event_type: "a.b".into(), data: "{oops".into(), recipient: None };
        let failure = publish_request(&event, None).unwrap_err();
        assert!(failure.to_string().starts_with("--data is not JSON: "), "{failure}");
    }
}
