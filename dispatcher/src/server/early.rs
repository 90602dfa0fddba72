//! A listener that is served before there is anything behind it.
//!
//! Whoever connects while the process starts is not left without an answer: a request waits a little for the router,
//! and is then told to come back.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use dispatcher_core::limits::START_PATIENCE;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::SetOnce;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ServerLimits;
use crate::problem::{Problem, ProblemKind};

/// A served listener whose router comes later. Dropped, it is closed.
pub struct EarlyServer {
    address: SocketAddr,
    router: Arc<SetOnce<Router>>,
    stop: DropGuard,
    serving: JoinHandle<()>,
}

impl EarlyServer {
    /// Begins to serve.
    pub fn start(listener: TcpListener, limits: ServerLimits) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let router = Arc::new(SetOnce::new());
        let waiting = Router::new().fallback(forward).with_state(Arc::clone(&router));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(super::serve(listener, waiting, limits, stop.clone()));
        Ok(Self { address, router, stop: stop.drop_guard(), serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this router answers, whatever was to answer before.
    pub(crate) fn open(&self, router: Router) {
        // There is one service behind a listener, so nobody else has set it.
        self.router.set(router).ok();
    }

    /// Serves until it is told to stop; then lets requests in flight finish.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut serving = self.serving;
        let ended = tokio::select! {
            () = shutdown.cancelled() => {
                drop(self.stop);
                serving.await
            }
            ended = &mut serving => ended,
        };
        if ended.is_err() {
            tracing::error!("a listener ended by a panic");
        }
    }
}

async fn forward(State(router): State<Arc<SetOnce<Router>>>, request: Request) -> Response {
    let router = match router.get() {
        Some(router) => router,
        None => match tokio::time::timeout(START_PATIENCE, router.wait()).await {
            Ok(router) => router,
            Err(_) => return not_started().into_response(),
        },
    };
    match TowerToHyperService::new(router.clone()).call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn not_started() -> Problem {
    let detail = "The service is starting: its ledger is not there yet. Nothing is stored: try again.";
    Problem::new(ProblemKind::LedgerUnavailable, detail)
}
