//! The roles of a process: wired, started, and stopped in the order in which work flows.

mod heartbeat;
mod housekeeping;
mod roles;
mod stages;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::limits::{OBSERVED_WAITING_MAX, RETENTION_DAYS_DEFAULT, SNAPSHOT_POLL_INTERVAL_EMBEDDED};
use dispatcher_core::seal::SealingKey;
use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::heartbeat::Beating;
use self::roles::Outside;
pub use crate::access::Access;
use crate::access::{IssuersTask, TokenGate, for_tokens_only};
use crate::deliver::{DeliverConfig, Observed};
use crate::http::{Client, ClientConfig, ClientError, ResolverConfig};
use crate::ingest::{AdmissionLimits, BodyReader};
use crate::ledger::postgres::PostgresLedger;
use crate::ledger::{DispatcherRole, Ledger, LedgerError};
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::readiness::Probe;
use crate::server::{self, EarlyServer, ServerLimits};
use crate::snapshot::{SnapshotLoader, SnapshotReceiver};

/// With whom the process shares the ledger.
#[derive(Clone)]
pub enum Tenure {
    /// With nobody: what an earlier process left behind is due at once.
    Alone,
    /// With any number of processes. It is the same ledger, for what only this one can do.
    Shared(Arc<PostgresLedger>),
}

/// Everything that a service is made of.
pub struct ServiceConfig {
    /// What it does.
    pub role: DispatcherRole,
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// With whom the ledger is shared.
    pub tenure: Tenure,
    /// How long the ledger keeps what is finished, in whole days. The same in all processes.
    pub retention: Duration,
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
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Whether the process is ready.
    pub probe: Arc<Probe>,
}

impl ServiceConfig {
    /// All roles on a ledger that the process holds alone, with the limits of [`dispatcher_core::limits`] and access
    /// for this machine only.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        queue: Arc<dyn Queue>,
        sealing_key: Arc<SealingKey>,
        address_policy: AddressPolicy,
    ) -> Self {
        Self {
            role: DispatcherRole::All,
            ledger,
            tenure: Tenure::Alone,
            retention: Duration::from_hours(24) * RETENTION_DAYS_DEFAULT,
            queue,
            sealing_key,
            address_policy,
            fixed_hosts: HashMap::new(),
            access: Access::Open,
            deliver: DeliverConfig::default(),
            admission: AdmissionLimits::default(),
            bodies: BodyReader::default(),
            server: ServerLimits::default(),
            metrics: Arc::new(Metrics::new()),
            probe: Arc::new(Probe::new(DispatcherRole::All)),
        }
    }

    /// Makes due what an earlier process left behind, if nobody else can hold it, loads the routing table, and tells
    /// the ledger that the process lives, before it holds anything. May be tried again after an error.
    pub async fn load(&self) -> Result<Loaded, LedgerError> {
        if matches!(self.tenure, Tenure::Alone) {
            self.ledger.expire_all_leases().await?;
        }
        let table_changed = Arc::new(Notify::new());
        let (mut loader, snapshot) = SnapshotLoader::start(
            Arc::clone(&self.ledger),
            Arc::clone(&self.sealing_key),
            Arc::clone(&table_changed),
            Arc::clone(&self.metrics),
        )
        .await?;
        Beating::of(self, snapshot.clone()).beat().await?;
        // Whoever published in between did not know of this process, and told that everybody has loaded it.
        loader.catch_up().await?;
        let loader = match self.tenure {
            // Nobody tells of what the operator writes into the same file; a look costs little.
            Tenure::Alone => loader.polling_each(SNAPSHOT_POLL_INTERVAL_EMBEDDED),
            Tenure::Shared(_) => loader,
        };
        Ok(Loaded { loader, snapshot, table_changed })
    }
}

/// The routing table, and what keeps it up to date.
pub struct Loaded {
    loader: SnapshotLoader,
    snapshot: SnapshotReceiver,
    table_changed: Arc<Notify>,
}

/// Why a service did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Open access on an address that others can reach.
    #[error(
        "{0} is not a loopback address, and the API asks for no credentials: listen on 127.0.0.1 or [::1], or demand \
         tokens (--access tokens)"
    )]
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

/// The roles of a process.
///
/// After its shutdown, first no request is accepted, then what was received is committed and answered, then nothing
/// more is claimed and consumed and deliveries in flight end, then the rest stops.
pub struct Service;

impl Service {
    /// Starts all roles, with the API on `listener` and health and metrics on `admin`.
    pub async fn start(
        config: ServiceConfig,
        listener: TcpListener,
        admin: Option<TcpListener>,
        shutdown: CancellationToken,
    ) -> Result<RunningService, ServiceError> {
        let address = listener.local_addr().map_err(ServiceError::Listener)?;
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose().map_err(ServiceError::Listener)?;
        config.access.check(address)?;
        let loaded = config.load().await?;
        let api = EarlyServer::start(listener, config.server).map_err(ServiceError::Listener)?;
        let shared = Shared::new(&loaded);
        let join = launch(&config, loaded, &shared, (Some(api), admin), &shutdown)?;
        Ok(RunningService {
            address,
            admin_address,
            observers: shared.observers,
            table_changed: shared.table_changed,
            snapshot: shared.snapshot,
            metrics: config.metrics,
            join,
        })
    }

    /// Starts a role whose listener, if it has one, is served already. The answer ends when the service has stopped
    /// and everything in flight is drained.
    pub fn start_early(
        config: &ServiceConfig,
        loaded: Loaded,
        api: Option<EarlyServer>,
        shutdown: &CancellationToken,
    ) -> Result<JoinHandle<Result<(), ServiceError>>, ServiceError> {
        if let Some(api) = &api {
            config.access.check(api.address())?;
        }
        let shared = Shared::new(&loaded);
        launch(config, loaded, &shared, (api, None), shutdown)
    }
}

impl Access {
    /// Whether a listener of the API may have this address.
    pub fn check(&self, address: SocketAddr) -> Result<(), ServiceError> {
        match self {
            Self::Open if !server::is_loopback(address) => Err(ServiceError::NotLoopback(address)),
            Self::Open | Self::Tokens(_) => Ok(()),
        }
    }
}

/// What several parts hold.
struct Shared {
    snapshot: SnapshotReceiver,
    observers: broadcast::Sender<Arc<Observed>>,
    table_changed: Arc<Notify>,
    due_changed: Arc<Notify>,
}

impl Shared {
    fn new(loaded: &Loaded) -> Self {
        let (observers, _) = broadcast::channel(OBSERVED_WAITING_MAX);
        Self {
            snapshot: loaded.snapshot.clone(),
            observers,
            table_changed: Arc::clone(&loaded.table_changed),
            due_changed: Arc::new(Notify::new()),
        }
    }
}

fn launch(
    config: &ServiceConfig,
    loaded: Loaded,
    shared: &Shared,
    (api, admin): (Option<EarlyServer>, Option<TcpListener>),
    shutdown: &CancellationToken,
) -> Result<JoinHandle<Result<(), ServiceError>>, ServiceError> {
    let resolver = ResolverConfig { fixed_hosts: config.fixed_hosts.clone() };
    let address_policy = config.address_policy.clone();
    let client = Client::new(ClientConfig { address_policy, resolver: resolver.clone() })?;
    let guard = Guard::new(config, shared, resolver)?;
    // Of this service alone: one that stops by itself stops nothing else of its owner's.
    let stopping = shutdown.child_token();
    let parts = roles::start(config, loaded, shared, Outside { api, admin, client, guard }, &stopping);
    Ok(tokio::spawn(parts.run(stopping)))
}

/// What stands before the API.
enum Guard {
    /// Only names of this machine.
    Open,
    /// Only tokens, of issuers that the task looks after.
    Tokens(TokenGate, Box<IssuersTask>),
}

impl Guard {
    fn new(config: &ServiceConfig, shared: &Shared, resolver: ResolverConfig) -> Result<Self, ClientError> {
        match &config.access {
            Access::Open => Ok(Self::Open),
            Access::Tokens(tokens) => {
                let (snapshot, bodies) = (shared.snapshot.clone(), config.bodies.clone());
                let (gate, task) = TokenGate::new(tokens, snapshot, resolver, bodies, Arc::clone(&config.metrics))?;
                Ok(Self::Tokens(gate, Box::new(task)))
            }
        }
    }

    /// The API behind the guard, and what has to run beside it.
    fn before(self, api: Router, metrics: &Arc<Metrics>) -> (Router, Option<IssuersTask>) {
        match self {
            Self::Open => (server::for_this_machine_only(api, Arc::clone(metrics)), None),
            Self::Tokens(gate, task) => (for_tokens_only(api, gate), Some(*task)),
        }
    }
}

/// The admin routes as they are served on a listener: they show no tenant's data, so whoever is let reach them may. Where
/// that is this machine alone, and nothing proves who asks, they answer only to its names, lest web pages ask.
pub fn guarded_admin(admin: Router, access: &Access, listener: &TcpListener, metrics: &Arc<Metrics>) -> Router {
    let is_of_this_machine_only = listener.local_addr().map_or(true, server::is_loopback);
    match access {
        Access::Open if is_of_this_machine_only => server::for_this_machine_only(admin, Arc::clone(metrics)),
        Access::Open | Access::Tokens(_) => admin,
    }
}
