//! Publishes sample events through the API, as any producer would.

use dispatcher_core::id::{EventId, TenantId};

use super::samples::Sample;
use crate::client::Client;
use crate::exit::Failure;

/// What became of the sample events.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Accepted events.
    pub(super) events: Vec<(TenantId, EventId)>,
    /// Why others were not accepted, one line each.
    pub(super) refused: Vec<String>,
}

/// Publishes one after another. A sample that names no tenant belongs to the only one.
pub(super) async fn publish(client: Client, tenants: Vec<String>, samples: Vec<Sample>) -> Published {
    let mut published = Published::default();
    for sample in samples {
        let tenant = match (&sample.tenant, tenants.as_slice()) {
            (Some(tenant), _) | (None, [tenant]) => tenant.clone(),
            (None, _) => {
                let names = tenants.join(", ");
                published.refused.push(format!("{}: name a \"tenant\", one of {names}", sample.place));
                continue;
            }
        };
        match event_of(&client.for_tenant(&tenant), sample.body).await {
            Ok(event) => published.events.push((TenantId::of_namespace_name(&tenant), event)),
            Err(failure) => published.refused.push(format!("{}: {failure}", sample.place)),
        }
    }
    published
}

async fn event_of(client: &Client, body: Vec<u8>) -> Result<EventId, Failure> {
    let answer = client.post(&["events:publish"], body).await?;
    let event = answer.field("event_id").and_then(|event| event.parse().ok());
    event.ok_or_else(|| Failure::Unreachable("the answer names no event".to_owned()))
}
