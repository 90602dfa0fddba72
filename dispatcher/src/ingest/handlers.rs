//! The routes that accept events, and the dry run of routing.

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use dispatcher_core::event::{Draft, cloudevents, native};
use dispatcher_core::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;

use super::explain::{RouteView, explain};
use super::{Ingest, Purpose, Receipt, event_problem};
use crate::api::path::Segment;
use crate::problem::{Problem, ProblemKind};

/// Header that carries an idempotency key.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The routes of ingest.
pub fn router(ingest: Ingest) -> Router {
    Router::new()
        .route("/v1/tenants/{tenant}/events:publish", post(publish))
        .route("/v1/tenants/{tenant}/events:route", post(route))
        .route("/v1/tenants/{tenant}/events", post(publish_cloudevents))
        .with_state(ingest)
}

/// One accepted event, as the producer is told.
#[derive(Serialize)]
struct ReceiptView {
    event_id: String,
    fanout_count: u32,
}

#[derive(Serialize)]
struct ReceiptsView {
    events: Vec<ReceiptView>,
}

impl From<Receipt> for ReceiptView {
    fn from(receipt: Receipt) -> Self {
        Self { event_id: receipt.event_id.to_string(), fanout_count: receipt.fanout_count }
    }
}

async fn publish(
    State(ingest): State<Ingest>,
    Segment(tenant): Segment<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let received = ingest.receive(&tenant, &head, body, Purpose::Store).await?;
    let draft = native_draft(&head.headers, &received.body.bytes)?;
    let receipts = ingest.accept(&received, vec![draft]).await?;
    let view = receipts.into_iter().next().map(ReceiptView::from);
    Ok((StatusCode::ACCEPTED, Json(view)).into_response())
}

async fn publish_cloudevents(
    State(ingest): State<Ingest>,
    Segment(tenant): Segment<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let received = ingest.receive(&tenant, &head, body, Purpose::Store).await?;
    if head.headers.contains_key(IDEMPOTENCY_KEY) {
        let detail = "A CloudEvent is identified by its source and id. Leave the header out.";
        return Err(Problem::new(ProblemKind::InvalidHeader, detail).at(IDEMPOTENCY_KEY));
    }
    let drafts = cloudevents::parse(&head.headers, &received.body.bytes).map_err(event_problem)?;
    let receipts = ingest.accept(&received, drafts).await?;
    let view = ReceiptsView { events: receipts.into_iter().map(ReceiptView::from).collect() };
    Ok((StatusCode::ACCEPTED, Json(view)).into_response())
}

async fn route(
    State(ingest): State<Ingest>,
    Segment(tenant): Segment<String>,
    request: Request,
) -> Result<Json<RouteView>, Problem> {
    let (head, body) = request.into_parts();
    let received = ingest.receive(&tenant, &head, body, Purpose::DryRun).await?;
    let draft = native_draft(&head.headers, &received.body.bytes)?;
    let (event, snapshot) = (ingest.identified(draft, received.tenant), received.snapshot);
    ingest.routing.run(move |budget| explain(&snapshot, &event, budget)).await.map(Json)
}

fn native_draft(headers: &HeaderMap, body: &bytes::Bytes) -> Result<Draft, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(native::CONTENT_TYPE) {
        let detail = "Send `content-type: application/json`.";
        return Err(Problem::new(ProblemKind::UnsupportedContentType, detail).at("content-type"));
    }
    let mut draft = native::parse_publish(body).map_err(event_problem)?;
    if let Some(key) = idempotency_header(headers)? {
        if draft.idempotency_key.as_ref().is_some_and(|in_body| *in_body != key) {
            let detail = "The header and the field name different idempotency keys. Send one of them, or the same.";
            return Err(Problem::new(ProblemKind::IdempotencyKeyMismatch, detail).at("idempotency_key"));
        }
        draft.idempotency_key = Some(key);
    }
    Ok(draft)
}

fn idempotency_header(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let invalid = |kind, detail: &str| Err(Problem::new(kind, detail).at(IDEMPOTENCY_KEY));
    if values.next().is_some() {
        return invalid(ProblemKind::InvalidHeader, "The header stands there twice. Send one idempotency key.");
    }
    match std::str::from_utf8(value.as_bytes()) {
        Err(_) => invalid(ProblemKind::InvalidHeader, "An idempotency key is UTF-8 text."),
        Ok(key) if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX || key.chars().any(char::is_control) => {
            let detail =
                format!("An idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes and no control characters.");
            invalid(ProblemKind::InvalidField, &detail)
        }
        Ok(key) => Ok(Some(key.to_owned())),
    }
}
