//! The HTTP API: what a tenant can read and do, beside publishing.

mod deliveries;
mod endpoints;
mod events;
pub mod parameters;
pub(crate) mod path;
pub mod views;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::middleware::map_response_with_state;
use axum::response::Response;
use axum::routing::get;
use dispatcher_core::id::TenantId;
use tokio::sync::Notify;

use crate::ingest::{self, Ingest, find_tenant};
use crate::ledger::{Ledger, LedgerError};
use crate::metrics::{Metrics, Role};
use crate::problem::{Problem, ProblemKind};
use crate::snapshot::{Snapshot, SnapshotReceiver};

/// What the reading routes work with.
#[derive(Clone)]
pub struct Api {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// The routing table.
    pub snapshot: SnapshotReceiver,
    /// Wakes the scheduler when something became due.
    pub due_changed: Arc<Notify>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// All routes of the public listener.
pub fn router(api: Api, ingest: Ingest) -> Router {
    let metrics = Arc::clone(&api.metrics);
    Router::new()
        .route("/v1/tenants/{tenant}/events", get(events::list))
        .route("/v1/tenants/{tenant}/events/{event}", get(events::show))
        .route("/v1/tenants/{tenant}/events/{event}/body", get(events::body))
        .route("/v1/tenants/{tenant}/deliveries", get(deliveries::list))
        // The last segment is an identity for GET, and an identity with `:replay` for POST.
        .route("/v1/tenants/{tenant}/deliveries/{delivery}", get(deliveries::show).post(deliveries::act))
        .route("/v1/tenants/{tenant}/deliveries/{delivery}/attempts", get(deliveries::attempts))
        .route("/v1/tenants/{tenant}/endpoints", get(endpoints::list))
        .route("/v1/tenants/{tenant}/endpoints/{endpoint}", get(endpoints::show))
        .route("/v1/tenants/{tenant}/subscriptions", get(endpoints::list_subscriptions))
        .with_state(api)
        .merge(ingest::router(ingest))
        .fallback(unknown_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(map_response_with_state(metrics, count_rejection))
}

async fn unknown_route() -> Problem {
    unknown()
}

async fn method_not_allowed() -> Problem {
    other_method()
}

async fn count_rejection(State(metrics): State<Arc<Metrics>>, response: Response) -> Response {
    if let Some(kind) = response.extensions().get::<ProblemKind>() {
        metrics.request_rejected(*kind);
    }
    response
}

pub(crate) fn other_method() -> Problem {
    Problem::new(ProblemKind::MethodNotAllowed, "The header `allow` says which methods the route knows.")
}

pub(crate) fn unknown() -> Problem {
    Problem::new(ProblemKind::UnknownRoute, "There is no such route. docs/api.md lists them all.")
}

fn not_found(what: &str) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("The tenant has no such {what}."))
}

impl Api {
    fn tenant(&self, name: &str) -> Result<(Arc<Snapshot>, TenantId), Problem> {
        let snapshot = Arc::clone(&self.snapshot.borrow());
        let tenant = find_tenant(&snapshot, name)?;
        Ok((snapshot, tenant))
    }

    /// What a client is told when the ledger fails; nothing of the database's own words leaves the process.
    fn failed(&self, error: &LedgerError) -> Problem {
        self.metrics.ledger_failed(Role::Api);
        tracing::warn!(%error, "a request could not be answered");
        match error {
            LedgerError::Unavailable(_) | LedgerError::Schema { .. } => {
                Problem::new(ProblemKind::LedgerUnavailable, "The ledger does not answer. Try again later.")
            }
            LedgerError::Refused(_) | LedgerError::Superseded { .. } => {
                Problem::new(ProblemKind::Internal, "The ledger refused the request. This is a defect: report it.")
            }
        }
    }
}
