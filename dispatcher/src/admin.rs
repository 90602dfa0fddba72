//! The admin listener: is the process alive, is it ready, what does it count. No tenant's data stand here.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use dispatcher_core::limits::READINESS_DEADLINE;
use http::{StatusCode, header};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::ingest::Acceptor;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::problem::{Problem, ProblemKind};
use crate::snapshot::SnapshotReceiver;

/// What the admin routes look at.
#[derive(Clone)]
pub struct Admin {
    /// Must answer.
    pub ledger: Arc<dyn Ledger>,
    /// Must not be stuck in a commit.
    pub acceptor: Acceptor,
    /// The table in use.
    pub snapshot: SnapshotReceiver,
    /// What is rendered.
    pub metrics: Arc<Metrics>,
    /// Cancelled once the process is about to stop.
    pub stopping: CancellationToken,
}

/// Media type of OpenMetrics 1.0.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes `/healthz`, `/readyz` and `/metrics`.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin)
        .fallback(unknown_route)
}

async fn healthz() -> &'static str {
    "ok\n"
}

/// What readiness consists of.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    checks: Checks,
    /// Version of the routing table in use: none is served before one is loaded.
    table_version: u64,
}

#[derive(Serialize)]
struct Checks {
    /// Whether the ledger answers in time.
    ledger: bool,
    /// Whether commits come to an end.
    progress: bool,
    /// Whether no shutdown has begun.
    serving: bool,
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let ledger = matches!(tokio::time::timeout(READINESS_DEADLINE, admin.ledger.ping()).await, Ok(Ok(())));
    let progress = admin.acceptor.makes_progress();
    let serving = !admin.stopping.is_cancelled();
    let readiness = Readiness {
        ready: ledger && progress && serving,
        checks: Checks { ledger, progress, serving },
        table_version: admin.snapshot.borrow().version.0,
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Result<Response, Problem> {
    let text = admin.metrics.render().map_err(|_| Problem::new(ProblemKind::Internal, "The metrics do not render."))?;
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response())
}

async fn unknown_route() -> Problem {
    Problem::new(ProblemKind::UnknownRoute, "The routes here are /healthz, /readyz and /metrics.")
}
