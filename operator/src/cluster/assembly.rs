//! The parts of the operator: wired, started, and stopped in the order that keeps two leaders from acting at once.

use std::sync::Arc;

use dispatcher::ledger::Ledger;
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::seal::SealingKey;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::confirmation::Confirmation;
use super::control::Control;
use super::events::EventWriter;
use super::generating::SecretMaker;
use super::issuer::{IssuerSettings, IssuerWatch};
use super::lease::{Elector, LeaseConfig};
use super::metrics::OperatorMetrics;
use super::notices::Notices;
use super::pools::{PoolWriters, Pools, PoolsConfig};
use super::readiness::Readiness;
use super::run::{Run, RunConfig};
use super::sources::{Sources, SourcesConfig};
use super::status::StatusWriter;
use crate::plan::pool::DefaultPool;
use crate::replays;

/// Everything that an operator is made of.
pub struct Assembly {
    /// What is watched, and where.
    pub sources: SourcesConfig,
    /// The ledger, whose schema is up to date.
    pub ledger: Arc<dyn Ledger>,
    /// Seals the secrets of the routing table.
    pub sealing_key: Arc<SealingKey>,
    /// Where deliveries may go: the same as the dispatchers'.
    pub address_policy: AddressPolicy,
    /// How the leader is elected.
    pub lease: LeaseConfig,
    /// The default pool; none where its dispatcher is part of the installation's one pod.
    pub default_pool: Option<DefaultPool>,
    /// What the tokens of the cluster's ServiceAccounts are accepted for.
    pub issuer: IssuerSettings,
    /// Where the parts tell how they do.
    pub readiness: Readiness,
    /// What is counted.
    pub metrics: Arc<OperatorMetrics>,
}

/// An operator that runs.
pub struct Running {
    tasks: JoinSet<()>,
    /// Cancelled for those who act: they end before the Lease is given back.
    acting: CancellationToken,
    acted: TaskTracker,
    electing: CancellationToken,
}

impl Assembly {
    /// Starts all parts.
    pub fn start(self) -> Running {
        let Self { sources, ledger, sealing_key, address_policy, lease, default_pool, issuer, readiness, metrics } =
            self;
        let resync = sources.resync;
        let (acting, electing, acted) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let (client, mut tasks) = (sources.client.clone(), JoinSet::new());
        let sources = Sources::start(&sources, Arc::clone(&metrics), &mut tasks, &acting);
        let (elector, lead) = Elector::new(client.clone(), lease.clone());
        readiness.watch(Arc::clone(sources.states()), elector.complaint());
        let pools = Pools::start(
            PoolsConfig {
                client: client.clone(),
                namespace: lease.namespace.clone(),
                default: default_pool,
                resync,
                changed: Arc::clone(sources.notifier()),
            },
            sources.states(),
            &mut tasks,
            &acting,
        );
        let declared = pools.declared();
        let (replays, desk) = replays::worker(Arc::clone(&ledger));
        let (issuer, issuers) = IssuerWatch::new(client.clone(), issuer);
        let events = EventWriter::new(client.clone(), lease.identity.clone(), Arc::clone(&metrics));
        let statuses = StatusWriter::with_events(client.clone(), Arc::clone(&metrics), events.clone(), lead.clone());
        let (secret_maker, secrets) =
            (SecretMaker::new(client.clone(), Arc::clone(&metrics)), Arc::clone(sources.secrets()));
        let pool_writers = PoolWriters {
            ledger: Arc::clone(&ledger),
            lead: lead.clone(),
            statuses: statuses.clone(),
            metrics: Arc::clone(&metrics),
        };
        let notices = Notices {
            client: client.clone(),
            namespace: lease.namespace.clone(),
            lease: lease.name.clone(),
            identity: lease.identity,
            lead: lead.clone(),
            readiness: readiness.clone(),
        };
        let run = Run::new(RunConfig {
            sources,
            control: Control::new(ledger, sealing_key, address_policy, Arc::clone(&metrics)),
            lead,
            issuers,
            pools: declared,
            replays: desk,
            epoch_floor: elector.epoch_floor(),
            statuses: statuses.clone(),
            secret_maker: secret_maker.clone(),
            confirmation: Confirmation { client, namespace: lease.namespace, lease: lease.name },
            readiness,
            metrics,
        });
        tasks.spawn(acted.track_future(run.run(acting.clone())));
        tasks.spawn(acted.track_future(statuses.run(acting.clone())));
        tasks.spawn(acted.track_future(secret_maker.run(secrets, acting.clone())));
        tasks.spawn(acted.track_future(events.run(acting.clone())));
        tasks.spawn(acted.track_future(pools.run(pool_writers, acting.clone())));
        tasks.spawn(acted.track_future(replays.run(acting.clone())));
        tasks.spawn(notices.run(acting.clone()));
        tasks.spawn(issuer.run(acting.clone()));
        tasks.spawn(elector.run(electing.clone()));
        Running { tasks, acting, acted, electing }
    }
}

impl Running {
    /// Waits for a part that ends by itself, which is a defect.
    pub async fn ended(&mut self) -> Option<Result<(), JoinError>> {
        self.tasks.join_next().await
    }

    /// Ends those who act as leader, then gives the Lease back.
    pub async fn stop(&mut self) {
        self.acting.cancel();
        self.acted.close();
        self.acted.wait().await;
        self.electing.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}
