//! Reading deliveries and their attempts; replaying one.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use dispatcher_core::delivery::DeliveryState;
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, TenantId};
use dispatcher_core::limits::ATTEMPTS_READ_MAX;
use http::StatusCode;

use super::parameters::{Parameters, invalid};
use super::path::Segment;
use super::views::{AttemptView, DeliveryView, ListView, ReplayView};
use super::{Api, not_found, unknown};
use crate::ledger::{DeliveryQuery, Replayed};
use crate::problem::{Problem, ProblemKind};
use crate::snapshot::Snapshot;

/// What follows a delivery's identity in the path of a replay.
const REPLAY_SUFFIX: &str = ":replay";

/// `GET …/deliveries`
pub(super) async fn list(
    State(api): State<Api>,
    Segment(tenant): Segment<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<DeliveryView>>, Problem> {
    let (snapshot, tenant) = api.tenant(&tenant)?;
    let parameters = Parameters::parse(query.as_deref(), &["event", "endpoint", "state", "limit", "cursor"])?;
    let query = DeliveryQuery {
        event: parameters.parsed::<EventId>("event", "It must be the identity of an event.")?,
        endpoint: parameters.text("endpoint").map(|name| endpoint_by_name(&snapshot, tenant, name)),
        state: parameters.text("state").map(state_by_name).transpose()?,
        after: parameters.cursor()?,
        rows_max: parameters.limit()?,
    };
    let page = api.ledger.deliveries(tenant, query).await.map_err(|error| api.failed(&error))?;
    Ok(Json(ListView::of_page(page, |record| DeliveryView::new(record, &snapshot))))
}

/// `GET …/deliveries/{delivery}`
pub(super) async fn show(
    State(api): State<Api>,
    Segment((tenant, delivery)): Segment<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<DeliveryView>, Problem> {
    let (snapshot, tenant) = api.tenant(&tenant)?;
    Parameters::parse(query.as_deref(), &[])?;
    let delivery = parse_delivery(&delivery)?;
    let found = api.ledger.delivery(tenant, delivery).await.map_err(|error| api.failed(&error))?;
    found.map(|record| Json(DeliveryView::new(record, &snapshot))).ok_or_else(|| not_found("delivery"))
}

/// `GET …/deliveries/{delivery}/attempts`: oldest first; of very many the newest.
pub(super) async fn attempts(
    State(api): State<Api>,
    Segment((tenant, delivery)): Segment<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<AttemptView>>, Problem> {
    let (_, tenant) = api.tenant(&tenant)?;
    Parameters::parse(query.as_deref(), &[])?;
    let delivery = parse_delivery(&delivery)?;
    let newest = api.ledger.attempts(tenant, delivery, ATTEMPTS_READ_MAX).await;
    let newest = newest.map_err(|error| api.failed(&error))?;
    if newest.is_empty() {
        let found = api.ledger.delivery(tenant, delivery).await.map_err(|error| api.failed(&error))?;
        found.ok_or_else(|| not_found("delivery"))?;
    }
    Ok(Json(ListView { items: newest.into_iter().map(AttemptView::from).collect(), next_cursor: None }))
}

/// `POST …/deliveries/{delivery}:replay`
pub(super) async fn act(
    State(api): State<Api>,
    Segment((tenant, target)): Segment<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let Some(delivery) = target.strip_suffix(REPLAY_SUFFIX) else { return Err(unknown()) };
    let (_, tenant) = api.tenant(&tenant)?;
    Parameters::parse(query.as_deref(), &[])?;
    let delivery = parse_delivery(delivery)?;
    match api.ledger.replay(tenant, delivery).await.map_err(|error| api.failed(&error))? {
        Replayed::Started { run } => {
            api.due_changed.notify_one();
            let view = ReplayView { delivery_id: delivery.to_string(), run };
            Ok((StatusCode::ACCEPTED, Json(view)).into_response())
        }
        Replayed::StillOpen => {
            let detail = "The delivery is not finished, so it is attempted again anyway.";
            Err(Problem::new(ProblemKind::DeliveryOpen, detail))
        }
        Replayed::NotFound => Err(not_found("delivery")),
    }
}

fn parse_delivery(text: &str) -> Result<DeliveryId, Problem> {
    text.parse().map_err(|_| not_found("delivery"))
}

/// An endpoint that was removed is no longer in the table, but its deliveries are still in the ledger.
fn endpoint_by_name(snapshot: &Snapshot, tenant: TenantId, name: &str) -> EndpointId {
    let routed = snapshot.index.endpoints_of(tenant).find(|row| row.name == name);
    routed.map_or_else(|| EndpointId::derive(tenant, name), |row| row.id)
}

fn state_by_name(name: &str) -> Result<DeliveryState, Problem> {
    let state = DeliveryState::ALL.into_iter().find(|state| state.as_str() == name);
    state.ok_or_else(|| {
        let names: Vec<&str> = DeliveryState::ALL.iter().map(|state| state.as_str()).collect();
        invalid("state", &format!("It must be one of {}.", names.join(", ")))
    })
}
