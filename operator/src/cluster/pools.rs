//! Pools of dispatchers on a cluster: a loop of its own beside that of the routing table, which neither waits for.
//!
//! [`watch`] follows what is there, the plan says what must change, [`apply`] changes it. Only the leader writes. In the
//! installation's namespace it needs: on Deployments, PodDisruptionBudgets and Services `get`, `list`, `watch`, `create`
//! and `patch`; on `deployments/scale` `patch`; on pods `list`, without which a condition cannot say why they do not start.

mod apply;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crds::{DispatcherPool, Kind};
use dispatcher::clock::now_unix_ms;
use dispatcher::ledger::{Ledger, LedgerError, PoolLoad};
use dispatcher_core::limits::{HEARTBEAT_DEAD_AFTER, POOL_LOOK_INTERVAL, POOL_LOOK_PAUSE};
use kube::Client;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::watch::PoolSources;
use super::lease::{Lead, Leadership};
use super::metrics::{OperatorMetrics, PoolGauges};
use super::status::StatusWriter;
use super::watch::WatchStates;
use crate::plan::pool::{
    DefaultPool, PodTrouble, PoolMemory, PoolPlan, PoolWorld, declared_pools, measured_pools, plan_pools,
};

/// What pools are run with.
#[derive(Clone)]
pub struct PoolsConfig {
    /// The API server.
    pub client: Client,
    /// The namespace of the installation.
    pub namespace: String,
    /// The default pool; none if the installation has no Deployment of it.
    pub default: Option<DefaultPool>,
    /// How often everything is listed anew.
    pub resync: Duration,
    /// Notified when the resources have changed, for whoever plans the endpoints that name them.
    pub changed: Arc<Notify>,
}

/// What is written with.
pub struct PoolWriters {
    /// Where loads are read and metrics are published.
    pub ledger: Arc<dyn Ledger>,
    /// Whether this process leads.
    pub lead: Lead,
    /// Where statuses go.
    pub statuses: StatusWriter,
    /// What is counted.
    pub metrics: Arc<OperatorMetrics>,
}

/// The pools of an installation.
pub struct Pools {
    config: PoolsConfig,
    sources: Arc<PoolSources>,
}

/// The pools that are declared, for whoever plans the endpoints that name them.
#[derive(Clone)]
pub struct DeclaredPools {
    namespace: String,
    sources: Arc<PoolSources>,
}

impl DeclaredPools {
    /// Whether all have been listed once.
    pub fn is_synced(&self) -> bool {
        self.sources.pools.is_synced()
    }

    /// Rises with every change.
    pub fn changes(&self) -> u64 {
        self.sources.pools.changes()
    }

    /// Their names.
    pub fn names(&self) -> BTreeSet<String> {
        let pools = self.resources();
        declared_pools(&self.namespace, pools.iter().map(|pool| &**pool)).into_iter().collect()
    }

    /// The resources.
    pub fn resources(&self) -> Vec<Arc<DispatcherPool>> {
        self.sources.pools()
    }
}

impl Pools {
    /// Begins to follow what is there.
    pub fn start(
        config: PoolsConfig,
        states: &Arc<WatchStates>,
        tasks: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) -> Self {
        let sources = Arc::new(PoolSources::start(&config, states, tasks, shutdown));
        Self { config, sources }
    }

    /// The pools that are declared.
    pub fn declared(&self) -> DeclaredPools {
        DeclaredPools { namespace: self.config.namespace.clone(), sources: Arc::clone(&self.sources) }
    }

    /// Looks after the pools until it is told to stop.
    pub async fn run(self, writers: PoolWriters, shutdown: CancellationToken) {
        let mut rounds = Rounds {
            config: self.config,
            sources: self.sources,
            writers,
            memory: PoolMemory::default(),
            failures: BTreeMap::new(),
            incomplete: Vec::new(),
            changes_told: 0,
            started: Instant::now(),
            is_ledger_told: false,
        };
        let looking = async {
            loop {
                let _ = timeout(POOL_LOOK_INTERVAL, rounds.sources.changed()).await;
                rounds.round().await;
                // Pods come and go one by one.
                sleep(POOL_LOOK_PAUSE).await;
            }
        };
        shutdown.run_until_cancelled(looking).await;
    }
}

/// What is kept from round to round.
struct Rounds {
    config: PoolsConfig,
    sources: Arc<PoolSources>,
    writers: PoolWriters,
    memory: PoolMemory,
    /// Why objects could not be applied, by pool.
    failures: BTreeMap<String, String>,
    /// Pools of which pods were missing.
    incomplete: Vec<String>,
    /// Changes of the resources that others have been told of.
    changes_told: u64,
    started: Instant,
    is_ledger_told: bool,
}

impl Rounds {
    async fn round(&mut self) {
        let changes = self.sources.pools.changes();
        if changes != self.changes_told {
            self.changes_told = changes;
            self.config.changed.notify_one();
        }
        let Leadership::Leader { epoch } = self.writers.lead.now() else {
            // What another leader decides meanwhile is not known.
            self.memory = PoolMemory::default();
            self.failures.clear();
            self.writers.metrics.set_pools(&[]);
            return;
        };
        if !self.sources.is_synced() {
            return;
        }
        let world = self.world().await;
        if !self.still_leads(epoch) {
            return;
        }
        let steady_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let plan = plan_pools(&world, &mut self.memory, now_unix_ms(), steady_ms);
        self.incomplete.clone_from(&plan.incomplete);
        self.carry_out(&world, plan, epoch).await;
    }

    /// Whether this process still leads with this epoch: another one may by now. To be asked before every write.
    ///
    /// An API server knows of no epoch. Nothing is lost by a write that is under way when the lead goes: all that is
    /// written is a whole, and the next leader writes it anew. The rows for autoscalers carry the epoch, as the routing
    /// table does.
    fn still_leads(&self, epoch: u64) -> bool {
        self.writers.lead.now() == Leadership::Leader { epoch }
    }

    async fn world(&mut self) -> PoolWorld {
        let mut world = PoolWorld {
            namespace: self.config.namespace.clone(),
            default: self.config.default.clone(),
            failures: self.failures.clone(),
            troubles: self.troubles().await,
            ..self.sources.world()
        };
        match self.measure(&measured_pools(&world)).await {
            Ok((loads, running)) => {
                self.is_ledger_told = false;
                (world.loads, world.running) = (loads, running);
            }
            Err(error) if !self.is_ledger_told => {
                self.is_ledger_told = true;
                tracing::warn!(%error, "the load of pools is not known; numbers of dispatchers stay as they are");
            }
            Err(_) => {}
        }
        world
    }

    /// What pools have to do, and how many dispatchers work for each.
    async fn measure(
        &self,
        names: &[String],
    ) -> Result<(BTreeMap<String, PoolLoad>, BTreeMap<String, u32>), LedgerError> {
        if names.is_empty() {
            return Ok((BTreeMap::new(), BTreeMap::new()));
        }
        let loads = self.writers.ledger.pool_loads(names).await?;
        let mut running = BTreeMap::new();
        for dispatcher in self.writers.ledger.dispatchers(HEARTBEAT_DEAD_AFTER).await? {
            if let Some(pool) = dispatcher.pool.filter(|_| dispatcher.role.delivers()) {
                *running.entry(pool).or_default() += 1;
            }
        }
        Ok((loads.into_iter().map(|load| (load.pool.clone(), load)).collect(), running))
    }

    /// Why pods of pools do not start, as far as it can be found out.
    async fn troubles(&self) -> BTreeMap<String, PodTrouble> {
        let mut troubles = BTreeMap::new();
        for pool in &self.incomplete {
            match apply::pod_trouble(&self.config.client, &self.config.namespace, pool, now_unix_ms()).await {
                Ok(trouble) => troubles.extend(trouble.map(|trouble| (pool.clone(), trouble))),
                Err(failure) => tracing::debug!(pool, %failure, "why pods do not start cannot be found out"),
            }
        }
        troubles
    }

    async fn carry_out(&mut self, world: &PoolWorld, plan: PoolPlan, epoch: u64) {
        let (client, namespace) = (&self.config.client, self.config.namespace.as_str());
        self.failures.retain(|pool, _| plan.apply.iter().any(|(changed, _)| changed == pool));
        for (pool, change) in &plan.apply {
            if !self.still_leads(epoch) {
                return;
            }
            match apply::apply(client, namespace, change).await {
                Ok(()) => {
                    tracing::info!(pool, "the objects of a pool were applied");
                    self.failures.remove(pool);
                }
                Err(failure) => {
                    let message = failure.to_string();
                    if self.failures.get(pool) != Some(&message) {
                        tracing::warn!(pool, "the objects of a pool were not applied: {message}");
                    }
                    self.failures.insert(pool.clone(), message);
                }
            }
        }
        for scale in &plan.scales {
            if !self.still_leads(epoch) {
                return;
            }
            let (pool, from, to) = (&scale.pool, scale.from, scale.replicas);
            match apply::scale(client, namespace, scale).await {
                Ok(()) => tracing::info!(pool, from, to, "the number of dispatchers was changed"),
                Err(failure) => {
                    tracing::warn!(pool, from, to, "the number of dispatchers was not changed: {failure}");
                }
            }
        }
        if !self.still_leads(epoch) {
            return;
        }
        self.writers.statuses.want_all(&[Kind::DispatcherPool], plan.statuses);
        if let Err(error) = self.writers.ledger.publish_pool_metrics(&plan.metrics, Some(epoch)).await {
            tracing::debug!(%error, "autoscalers are not told of pools");
        }
        let gauges = plan.metrics.iter().map(|metric| PoolGauges {
            pool: metric.pool.clone(),
            late: metric.backlog,
            accepted_per_second: metric.arrival_per_second,
            delivered_per_second: metric.delivery_per_second,
            running: world.running.get(&metric.pool).copied().unwrap_or_default(),
            wanted: metric.wanted_replicas,
        });
        self.writers.metrics.set_pools(&gauges.collect::<Vec<_>>());
    }
}
