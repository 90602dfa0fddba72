//! Reading events.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use dispatcher_core::id::{EventId, TenantId};
use http::{HeaderValue, header};

use super::parameters::Parameters;
use super::path::Segment;
use super::views::{EventView, ListView};
use super::{Api, not_found};
use crate::ledger::{EventQuery, EventRecord};
use crate::problem::Problem;

/// `GET …/events`
pub(super) async fn list(
    State(api): State<Api>,
    Segment(tenant): Segment<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<EventView>>, Problem> {
    let (_, tenant) = api.tenant(&tenant)?;
    let parameters = Parameters::parse(query.as_deref(), &["event_type", "limit", "cursor"])?;
    let query = EventQuery {
        event_type: parameters.text("event_type").map(str::to_owned),
        after: parameters.cursor()?,
        rows_max: parameters.limit()?,
    };
    let page = api.ledger.events(tenant, query).await.map_err(|error| api.failed(&error))?;
    Ok(Json(ListView::of_page(page, EventView::listed)))
}

/// `GET …/events/{event}`
pub(super) async fn show(
    State(api): State<Api>,
    Segment((tenant, event)): Segment<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<EventView>, Problem> {
    let (_, tenant) = api.tenant(&tenant)?;
    Parameters::parse(query.as_deref(), &[])?;
    Ok(Json(EventView::whole(find(&api, tenant, &event).await?)))
}

/// `GET …/events/{event}/body`: the very bytes that were accepted.
pub(super) async fn body(
    State(api): State<Api>,
    Segment((tenant, event)): Segment<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (_, tenant) = api.tenant(&tenant)?;
    Parameters::parse(query.as_deref(), &[])?;
    let record = find(&api, tenant, &event).await?;
    let mut response = record.event.body.into_response();
    let headers = response.headers_mut();
    let content_type = HeaderValue::try_from(record.event.content_type)
        .unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_TYPE, content_type);
    // The bytes are foreign: no browser may take them for a page of ours.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    Ok(response)
}

async fn find(api: &Api, tenant: TenantId, event: &str) -> Result<EventRecord, Problem> {
    let event: EventId = event.parse().map_err(|_| not_found("event"))?;
    let found = api.ledger.event(tenant, event).await.map_err(|error| api.failed(&error))?;
    found.ok_or_else(|| not_found("event"))
}
