//! All roles in one process: wired, started, and stopped in the order in which work flows.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::limits::{DELETION_GRACE, HOUSEKEEPING_INTERVAL, HOUSEKEEPING_ROWS_MAX, OBSERVED_WAITING_MAX};
use dispatcher_core::seal::SealingKey;
use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast};
use tokio::task::{Id, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin};
use crate::api::{self, Api};
use crate::deliver::{Deliver, DeliverConfig, Observed};
use crate::due::Due;
use crate::http::{Client, ClientConfig, ClientError, ResolverConfig};
use crate::ingest::{Acceptor, Admission, AdmissionLimits, BodyReader, Ingest, Routing};
use crate::ledger::{Ledger, LedgerError};
use crate::metrics::{Metrics, Role};
use crate::queue::Queue;
use crate::server::{self, ServerLimits};
use crate::snapshot::{SnapshotLoader, SnapshotReceiver};

/// Who may use the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever reaches the listeners. So that of the API must be one that only this machine reaches, and both answer
    /// only to names of this machine.
    Open,
}

/// Everything that a service is made of.
pub struct ServiceConfig {
    /// The ledger, which this process holds alone.
    pub ledger: Arc<dyn Ledger>,
    /// The queue.
    pub queue: Arc<dyn Queue>,
    /// Opens the secrets of the routing table.
    pub sealing_key: Arc<SealingKey>,
    /// Where deliveries may go.
    pub address_policy: AddressPolicy,
    /// Hosts that are not looked up.
    pub fixed_hosts: HashMap<String, SocketAddr>,
    /// Who may use the API.
    pub access: Access,
    /// Pool, identity and bounds of delivery.
    pub deliver: DeliverConfig,
    /// When no more is accepted.
    pub admission: AdmissionLimits,
    /// Reads request bodies within bounds.
    pub bodies: BodyReader,
    /// Bounds of the listeners.
    pub server: ServerLimits,
}

impl ServiceConfig {
    /// A service with the limits of [`dispatcher_core::limits`] and access for this machine only.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        queue: Arc<dyn Queue>,
        sealing_key: Arc<SealingKey>,
        address_policy: AddressPolicy,
    ) -> Self {
        Self {
            ledger,
            queue,
            sealing_key,
            address_policy,
            fixed_hosts: HashMap::new(),
            access: Access::Open,
            deliver: DeliverConfig::default(),
            admission: AdmissionLimits::default(),
            bodies: BodyReader::default(),
            server: ServerLimits::default(),
        }
    }
}

/// Why a service did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Open access on an address that others can reach.
    #[error("{0} is not a loopback address, and the API asks for no credentials: listen on 127.0.0.1 or [::1]")]
    NotLoopback(SocketAddr),
    /// A listener has no address.
    #[error("the listener cannot be used: {0}")]
    Listener(#[source] io::Error),
    /// The ledger did not answer at the start.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The outbound client could not be built.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A part of the service ended although nobody asked it to: a defect.
    #[error("the part `{0}` of the service ended by itself: this is a defect, report it")]
    Ended(&'static str),
}

/// A service that runs.
#[derive(Debug)]
pub struct RunningService {
    /// Where the API listens.
    pub address: SocketAddr,
    /// Where the admin routes listen, if they do.
    pub admin_address: Option<SocketAddr>,
    /// What is delivered is told here, to whoever subscribes.
    pub observers: broadcast::Sender<Arc<Observed>>,
    /// Notify this after a change of the routing table, and it is loaded at once.
    pub table_changed: Arc<Notify>,
    /// The routing table in use.
    pub snapshot: SnapshotReceiver,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Ends when the service has stopped and everything in flight is drained.
    pub join: JoinHandle<Result<(), ServiceError>>,
}

/// All roles in one process.
pub struct Service;

impl Service {
    /// Starts all roles. The process must hold the ledger alone: what an earlier one left behind is due at once.
    ///
    /// After `shutdown`, first no request is accepted, then what was received is committed and answered, then
    /// deliveries in flight end, then the rest stops.
    pub async fn start(
        config: ServiceConfig,
        listener: TcpListener,
        admin: Option<TcpListener>,
        shutdown: CancellationToken,
    ) -> Result<RunningService, ServiceError> {
        let address = listener.local_addr().map_err(ServiceError::Listener)?;
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose().map_err(ServiceError::Listener)?;
        match config.access {
            Access::Open if !server::is_loopback(address) => return Err(ServiceError::NotLoopback(address)),
            Access::Open => {}
        }
        let client = Client::new(ClientConfig {
            address_policy: config.address_policy.clone(),
            resolver: ResolverConfig { fixed_hosts: config.fixed_hosts.clone() },
        })?;
        config.ledger.expire_all_leases().await?;
        let metrics = Arc::new(Metrics::new());
        let table_changed = Arc::new(Notify::new());
        let (loader, snapshot) = SnapshotLoader::start(
            Arc::clone(&config.ledger),
            Arc::clone(&config.sealing_key),
            Arc::clone(&table_changed),
            Arc::clone(&metrics),
        )
        .await?;
        let (observers, _) = broadcast::channel(OBSERVED_WAITING_MAX);
        let shared = Shared { snapshot, metrics, observers, due_changed: Arc::new(Notify::new()) };
        let mut roles = Roles::default();
        roles.spawn(Stage::Support, "snapshot", |stop| loader.run(stop));
        start_roles(&mut roles, config, &shared, client, (listener, admin), &shutdown);
        Ok(RunningService {
            address,
            admin_address,
            observers: shared.observers,
            table_changed,
            snapshot: shared.snapshot,
            metrics: shared.metrics,
            join: tokio::spawn(roles.run(shutdown)),
        })
    }
}

/// What several roles hold.
struct Shared {
    snapshot: SnapshotReceiver,
    metrics: Arc<Metrics>,
    observers: broadcast::Sender<Arc<Observed>>,
    due_changed: Arc<Notify>,
}

fn start_roles(
    roles: &mut Roles,
    config: ServiceConfig,
    shared: &Shared,
    client: Client,
    listeners: (TcpListener, Option<TcpListener>),
    stopping: &CancellationToken,
) {
    let ServiceConfig { ledger, queue, .. } = config;
    let (metrics, snapshot) = (&shared.metrics, &shared.snapshot);
    let (acceptor, accepting) = Acceptor::new(Arc::clone(&ledger), Arc::clone(&queue), Arc::clone(metrics));
    let (admission, counting) = Admission::new(Arc::clone(&ledger), config.admission, Arc::clone(metrics));
    roles.spawn(Stage::Accept, "acceptor", |stop| accepting.run(stop));
    roles.spawn(Stage::Support, "admission", |stop| counting.run(stop));
    let due = Due {
        ledger: Arc::clone(&ledger),
        queue: Arc::clone(&queue),
        pool: config.deliver.pool.clone(),
        instance: config.deliver.instance,
        changed: Arc::clone(&shared.due_changed),
        metrics: Arc::clone(metrics),
    };
    roles.spawn(Stage::Claim, "due", |stop| due.run(stop));
    let deliver = Deliver {
        config: config.deliver,
        ledger: Arc::clone(&ledger),
        queue,
        snapshot: snapshot.clone(),
        client,
        metrics: Arc::clone(metrics),
        observers: shared.observers.clone(),
        due_changed: Arc::clone(&shared.due_changed),
    };
    roles.spawn(Stage::Deliver, "deliver", |stop| deliver.run(stop));
    let housekeeping = housekeeping(Arc::clone(&ledger), Arc::clone(metrics));
    roles.spawn(Stage::Support, "housekeeping", |stop| async move {
        tokio::select! { () = stop.cancelled() => {}, () = housekeeping => {} }
    });
    let (listener, admin_listener) = listeners;
    if let Some(listener) = admin_listener {
        let admin = Admin {
            ledger: Arc::clone(&ledger),
            acceptor: acceptor.clone(),
            snapshot: snapshot.clone(),
            metrics: Arc::clone(metrics),
            stopping: stopping.clone(),
        };
        let router = guarded(admin::router(admin), config.access, metrics);
        roles.spawn(Stage::Support, "admin", |stop| server::serve(listener, router, config.server, stop));
    }
    let ingest = Ingest {
        snapshot: snapshot.clone(),
        acceptor,
        admission,
        bodies: config.bodies,
        routing: Routing::default(),
        metrics: Arc::clone(metrics),
    };
    let api = Api {
        ledger,
        snapshot: snapshot.clone(),
        due_changed: Arc::clone(&shared.due_changed),
        metrics: Arc::clone(metrics),
    };
    let router = guarded(api::router(api, ingest), config.access, metrics);
    roles.spawn(Stage::Serve, "api", |stop| server::serve(listener, router, config.server, stop));
}

/// What the kind of access asks of every request.
fn guarded(router: Router, access: Access, metrics: &Arc<Metrics>) -> Router {
    match access {
        Access::Open => server::for_this_machine_only(router, Arc::clone(metrics)),
    }
}

/// Removes what is over, a bounded number of rows at a time.
async fn housekeeping(ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>) {
    loop {
        let cancelled = ledger.cancel_orphans(DELETION_GRACE, HOUSEKEEPING_ROWS_MAX).await;
        let expired = ledger.expire_idempotency_keys(HOUSEKEEPING_ROWS_MAX).await;
        let mut pause = HOUSEKEEPING_INTERVAL;
        for removed in [cancelled, expired] {
            match removed {
                Ok(rows) if rows >= HOUSEKEEPING_ROWS_MAX.into() => pause = Duration::ZERO,
                Ok(_) => {}
                Err(error) => {
                    metrics.ledger_failed(Role::Housekeeping);
                    tracing::debug!(%error, "what is over could not be removed");
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// The order in which a service stops: nothing stops before what feeds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// Receives requests.
    Serve,
    /// Commits and answers them.
    Accept,
    /// Feeds the queue with what is due.
    Claim,
    /// Delivers what the queue holds.
    Deliver,
    /// What the others look at.
    Support,
}

impl Stage {
    const IN_ORDER: [Self; 5] = [Self::Serve, Self::Accept, Self::Claim, Self::Deliver, Self::Support];
}

/// The tasks of a service.
#[derive(Default)]
struct Roles {
    tasks: JoinSet<()>,
    stages: HashMap<Id, (Stage, &'static str)>,
    tokens: HashMap<Stage, CancellationToken>,
}

impl Roles {
    fn spawn<F>(&mut self, stage: Stage, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.tokens.entry(stage).or_default().clone();
        let handle = self.tasks.spawn(task(token));
        self.stages.insert(handle.id(), (stage, name));
    }

    /// Waits for the shutdown, or for a task that ends by itself; then stops all stages in order.
    async fn run(mut self, shutdown: CancellationToken) -> Result<(), ServiceError> {
        let mut result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            ended = self.join_next() => ended.1,
        };
        for stage in Stage::IN_ORDER {
            if let Some(token) = self.tokens.get(&stage) {
                token.cancel();
            }
            while self.stages.values().any(|(running, _)| *running == stage) {
                let (ended, was_asked) = self.join_next().await;
                result = result.and(was_asked);
                tracing::debug!(stage = ?ended, "a part of the service has stopped");
            }
        }
        result
    }

    /// The next task that ends; an error if it ended by a panic, or before its stage was told to stop.
    async fn join_next(&mut self) -> (Option<Stage>, Result<(), ServiceError>) {
        let (id, panicked) = match self.tasks.join_next_with_id().await {
            None => return (None, Ok(())),
            Some(Ok((id, ()))) => (id, false),
            Some(Err(error)) => (error.id(), true),
        };
        let Some((stage, name)) = self.stages.remove(&id) else { return (None, Ok(())) };
        let asked = self.tokens.get(&stage).is_some_and(CancellationToken::is_cancelled);
        (Some(stage), if asked && !panicked { Ok(()) } else { Err(ServiceError::Ended(name)) })
    }
}
