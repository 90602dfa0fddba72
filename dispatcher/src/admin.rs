//! The admin listener: is the process alive, is it ready, what does it count. No tenant's data stand here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use serde::Serialize;

use crate::metrics::Metrics;
use crate::problem::{Problem, ProblemKind};
use crate::readiness::Probe;

/// What the admin routes tell of a process.
#[async_trait]
pub trait Report: Send + Sync + 'static {
    /// Whether the process can work, with what was found, as `/readyz` answers it.
    async fn readiness(&self) -> (bool, serde_json::Value);

    /// The metrics, as text.
    fn metrics(&self) -> Result<String, fmt::Error>;
}

/// A dispatcher, as the admin routes see it.
#[derive(Clone)]
pub struct Admin {
    /// Whether the process can work.
    pub probe: Arc<Probe>,
    /// What is rendered.
    pub metrics: Arc<Metrics>,
}

/// Media type of OpenMetrics 1.0.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes `/healthz`, `/readyz` and `/metrics`.
pub fn router(report: impl Report) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(report) as Arc<dyn Report>)
        .fallback(unknown_route)
}

async fn healthz() -> &'static str {
    "ok\n"
}

/// What `/readyz` answers.
#[derive(Serialize)]
struct Answer {
    ready: bool,
    /// Every check by its name, with what was found.
    checks: BTreeMap<&'static str, &'static str>,
    /// Version of the routing table in use, once there is one.
    table_version: Option<u64>,
}

#[async_trait]
impl Report for Admin {
    async fn readiness(&self) -> (bool, serde_json::Value) {
        let readiness = self.probe.readiness().await;
        let checks = readiness.checks.iter().map(|(check, finding)| (check.as_str(), finding.as_str())).collect();
        let table_version = readiness.table.map(|version| version.0);
        let answer = Answer { ready: readiness.ready, checks, table_version };
        (readiness.ready, serde_json::to_value(answer).unwrap_or_default())
    }

    fn metrics(&self) -> Result<String, fmt::Error> {
        self.metrics.render()
    }
}

async fn readyz(State(report): State<Arc<dyn Report>>) -> Response {
    let (ready, answer) = report.readiness().await;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(answer)).into_response()
}

async fn metrics(State(report): State<Arc<dyn Report>>) -> Result<Response, Problem> {
    let text = report.metrics().map_err(|_| Problem::new(ProblemKind::Internal, "The metrics do not render."))?;
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response())
}

async fn unknown_route() -> Problem {
    Problem::new(ProblemKind::UnknownRoute, "The routes here are /healthz, /readyz and /metrics.")
}
