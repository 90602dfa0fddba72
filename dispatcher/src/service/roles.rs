//! Which parts a role consists of, and how they are joined.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::heartbeat::Beating;
use super::stages::{Parts, Stage};
use super::{Guard, Loaded, ServiceConfig, Shared, Tenure, guarded_admin, housekeeping};
use crate::admin::{self, Admin};
use crate::api::{self, Api};
use crate::deliver::Deliver;
use crate::due::Due;
use crate::http::Client;
use crate::ingest::{Acceptor, Admission, Ingest, Routing};
use crate::readiness::{self, Observer, Watched};
use crate::server::{self, EarlyServer};

/// What the outside of a service is.
pub(super) struct Outside {
    pub(super) api: Option<EarlyServer>,
    pub(super) admin: Option<TcpListener>,
    pub(super) client: Client,
    pub(super) guard: Guard,
}

/// Starts the parts of the role.
pub(super) fn start(
    config: &ServiceConfig,
    loaded: Loaded,
    shared: &Shared,
    outside: Outside,
    stopping: &CancellationToken,
) -> Parts {
    let mut parts = Parts::default();
    parts.spawn(Stage::Support, "snapshot", |stop| loaded.loader.run(stop));
    start_housekeeping(&mut parts, config, shared);
    let beating = Beating::of(config, shared.snapshot.clone());
    parts.spawn(Stage::Support, "heartbeat", |stop| beating.run(stop));
    let mut acceptor = None;
    if let Some(api) = outside.api {
        acceptor = Some(start_ingest(&mut parts, config, shared, (api, outside.guard)));
    }
    if config.role.delivers() {
        start_delivery(&mut parts, config, shared, outside.client);
    }
    if let Some(listener) = outside.admin {
        let admin = Admin { probe: Arc::clone(&config.probe), metrics: Arc::clone(&config.metrics) };
        let router = guarded_admin(admin::router(admin), &config.access, &listener, &config.metrics);
        let limits = config.server;
        parts.spawn(Stage::Support, "admin", |stop| server::serve(listener, router, limits, stop));
    }
    config.probe.observe(Observer {
        ledger: Arc::clone(&config.ledger),
        queue: Arc::clone(&config.queue),
        snapshot: shared.snapshot.clone(),
        stopping: stopping.clone(),
    });
    let watched = Watched {
        queue: Arc::clone(&config.queue),
        pool: config.deliver.pool.clone(),
        acceptor,
        metrics: Arc::clone(&config.metrics),
    };
    let probe = Arc::clone(&config.probe);
    parts.spawn(Stage::Support, "progress", |stop| readiness::watch(probe, watched, stop));
    parts
}

fn start_ingest(
    parts: &mut Parts,
    config: &ServiceConfig,
    shared: &Shared,
    (server, guard): (EarlyServer, Guard),
) -> Acceptor {
    let (ledger, metrics) = (&config.ledger, &config.metrics);
    let (acceptor, accepting) = Acceptor::new(Arc::clone(ledger), Arc::clone(&config.queue), Arc::clone(metrics));
    let (admission, counting) = Admission::new(Arc::clone(ledger), config.admission, Arc::clone(metrics));
    parts.spawn(Stage::Accept, "acceptor", |stop| accepting.run(stop));
    parts.spawn(Stage::Support, "admission", |stop| counting.run(stop));
    let ingest = Ingest {
        snapshot: shared.snapshot.clone(),
        acceptor: acceptor.clone(),
        admission,
        bodies: config.bodies.clone(),
        routing: Routing::default(),
        clock: ledger.clock(),
        metrics: Arc::clone(metrics),
    };
    let api = Api {
        ledger: Arc::clone(ledger),
        snapshot: shared.snapshot.clone(),
        due_changed: Arc::clone(&shared.due_changed),
        metrics: Arc::clone(metrics),
    };
    let (router, issuers) = guard.before(api::router(api, ingest), metrics);
    if let Some(issuers) = issuers {
        parts.spawn(Stage::Support, "issuers", |stop| issuers.run(stop));
    }
    server.open(router);
    parts.spawn(Stage::Serve, "api", |stop| server.run(stop));
    acceptor
}

fn start_delivery(parts: &mut Parts, config: &ServiceConfig, shared: &Shared, client: Client) {
    let due = Due {
        ledger: Arc::clone(&config.ledger),
        queue: Arc::clone(&config.queue),
        pool: config.deliver.pool.clone(),
        instance: config.deliver.instance,
        changed: Arc::clone(&shared.due_changed),
        metrics: Arc::clone(&config.metrics),
    };
    parts.spawn(Stage::Claim, "due", |stop| due.run(stop));
    let deliver = Deliver {
        config: config.deliver.clone(),
        ledger: Arc::clone(&config.ledger),
        queue: Arc::clone(&config.queue),
        snapshot: shared.snapshot.clone(),
        client,
        metrics: Arc::clone(&config.metrics),
        observers: shared.observers.clone(),
        due_changed: Arc::clone(&shared.due_changed),
    };
    parts.spawn(Stage::Deliver, "deliver", |stop| deliver.run(stop));
}

fn start_housekeeping(parts: &mut Parts, config: &ServiceConfig, shared: &Shared) {
    let (ledger, metrics) = (&config.ledger, &config.metrics);
    let removing = housekeeping::remove_what_is_over(Arc::clone(ledger), Arc::clone(metrics));
    parts.spawn_endless(Stage::Support, "housekeeping", removing);
    let maintaining = housekeeping::maintain(Arc::clone(ledger), config.retention, Arc::clone(metrics));
    parts.spawn_endless(Stage::Support, "maintenance", maintaining);
    if let Tenure::Shared(postgres) = &config.tenure {
        let watching = housekeeping::watch_table(Arc::clone(postgres), Arc::clone(&shared.table_changed));
        parts.spawn_endless(Stage::Support, "table", watching);
    }
}
