//! Reading endpoints and subscriptions as they are routed.

use axum::Json;
use axum::extract::{RawQuery, State};

use super::parameters::{Parameters, encode_cursor};
use super::path::Segment;
use super::views::{EndpointView, ListView, SubscriptionView};
use super::{Api, not_found};
use crate::problem::Problem;

/// `GET …/endpoints`
pub(super) async fn list(
    State(api): State<Api>,
    Segment(tenant): Segment<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<EndpointView>>, Problem> {
    let (snapshot, tenant) = api.tenant(&tenant)?;
    let parameters = Parameters::parse(query.as_deref(), &["limit", "cursor"])?;
    let rows: Vec<_> = snapshot.index.endpoints_of(tenant).collect();
    let page = page_by_name(rows, |row| &row.name, &parameters)?;
    Ok(Json(page.map(|row| EndpointView::new(row, &snapshot))))
}

/// `GET …/endpoints/{endpoint}`
pub(super) async fn show(
    State(api): State<Api>,
    Segment((tenant, endpoint)): Segment<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<EndpointView>, Problem> {
    let (snapshot, tenant) = api.tenant(&tenant)?;
    Parameters::parse(query.as_deref(), &[])?;
    let row = snapshot.index.endpoints_of(tenant).find(|row| row.name == endpoint);
    row.map(|row| Json(EndpointView::new(row, &snapshot))).ok_or_else(|| not_found("endpoint"))
}

/// `GET …/subscriptions`
pub(super) async fn list_subscriptions(
    State(api): State<Api>,
    Segment(tenant): Segment<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<SubscriptionView>>, Problem> {
    let (snapshot, tenant) = api.tenant(&tenant)?;
    let parameters = Parameters::parse(query.as_deref(), &["limit", "cursor"])?;
    let rows: Vec<_> = snapshot.index.subscriptions_of(tenant).collect();
    let page = page_by_name(rows, |row| &row.name, &parameters)?;
    Ok(Json(page.map(|row| SubscriptionView::new(row, &snapshot))))
}

/// A page of rows in the order of their names, which are unique within a tenant and a kind.
fn page_by_name<'a, T>(
    mut rows: Vec<&'a T>,
    name: impl Fn(&T) -> &str,
    parameters: &Parameters,
) -> Result<ListView<&'a T>, Problem> {
    let after = parameters.name_cursor()?;
    let limit = parameters.limit()? as usize;
    rows.retain(|row| after.as_deref().is_none_or(|after| name(row) > after));
    rows.sort_unstable_by(|a, b| name(a).cmp(name(b)));
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|row| encode_cursor(name(row).as_bytes()));
    Ok(ListView { items: rows, next_cursor })
}
