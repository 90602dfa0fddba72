//! One look at the world: plan it, publish the routing table, and say what else is to be written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dispatcher::clock::now_unix_ms;
use dispatcher::ledger::{Ledger, LedgerError, TableLoad};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::limits::{FACTS_LOOK_INTERVAL, HEARTBEAT_DEAD_AFTER};
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{TableChange, TableVersion};
use tokio::time::Instant;

use super::metrics::{OperatorMetrics, Publication};
use crate::apply;
use crate::plan::removal::{RemovedLately, Withheld, withhold};
use crate::plan::replay::ReplayJob;
use crate::plan::{GenerateSecret, Memory, ObjectStatus, Plan, PlanContext, plan_again};
use crate::world::World;

/// Plans and publishes, as the leader of an epoch.
pub struct Control {
    ledger: Arc<dyn Ledger>,
    sealing_key: Arc<SealingKey>,
    address_policy: Arc<AddressPolicy>,
    metrics: Arc<OperatorMetrics>,
    memory: Memory,
    /// The pools that are declared.
    pools: BTreeSet<String>,
    /// The table that is in the world, and the history that counts its versions.
    loaded: Option<(String, TableVersion)>,
    facts_due: Instant,
    removed: RemovedLately,
}

/// What a look led to.
#[derive(Debug, Default)]
pub struct Look {
    /// Statuses that differ from the present ones.
    pub statuses: Vec<ObjectStatus>,
    /// Secrets to make, with the identities of the endpoints that will own them.
    pub generate_secrets: Vec<(GenerateSecret, String)>,
    /// Replays to work on.
    pub replays: Vec<ReplayJob>,
    /// A removal that waits for a confirmation.
    pub withheld: Option<Withheld>,
    /// When to look again although nothing changes.
    pub next_look_in: Option<Duration>,
    /// Version of the table.
    pub table_version: TableVersion,
    /// Rows that were put and dropped.
    pub changed_rows: usize,
}

impl Control {
    /// Knows nothing yet.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        sealing_key: Arc<SealingKey>,
        address_policy: AddressPolicy,
        metrics: Arc<OperatorMetrics>,
    ) -> Self {
        Self {
            ledger,
            sealing_key,
            address_policy: Arc::new(address_policy),
            metrics,
            memory: Memory::default(),
            pools: BTreeSet::new(),
            loaded: None,
            facts_due: Instant::now(),
            removed: RemovedLately::default(),
        }
    }

    /// The pools that are declared now.
    pub fn set_pools(&mut self, pools: BTreeSet<String>) {
        self.pools = pools;
    }

    /// Forgets what is known of the ledger: somebody else writes it now.
    pub fn step_down(&mut self) {
        self.loaded = None;
        self.facts_due = Instant::now();
    }

    /// Looks, plans and publishes. `world` holds the resources; what the ledger knows is brought up to date in it.
    /// `confirmed` is the removal that somebody has confirmed.
    ///
    /// # Errors
    /// The ledger's; then nothing was changed, or it is unclear. To look again is right.
    pub async fn look(&mut self, world: &mut World, epoch: u64, confirmed: Option<&str>) -> Result<Look, LedgerError> {
        let version = self.load(world, epoch).await?;
        let began = std::time::Instant::now();
        let first = self.plan(world).await;
        let published = (&world.published[..], &world.row_versions);
        let lately = self.removed.routes(std::time::Instant::now());
        let (change, withheld) = withhold(first.table.clone(), published, lately, confirmed);
        self.removed.set_waiting(withheld.is_some());
        let changed_rows = change.put.len() + change.drop.len();
        let mut look = Look { withheld, table_version: version, changed_rows, ..Look::default() };
        let plan = if change.is_empty() {
            first
        } else {
            let published = self.ledger.publish_table(change.clone(), Some(epoch)).await;
            self.metrics.publication_ended(match &published {
                Ok(_) => Publication::Done,
                Err(LedgerError::Superseded { .. }) => Publication::Superseded,
                Err(_) => Publication::Failed,
            });
            look.table_version = published?;
            self.removed.add(&change.drop, std::time::Instant::now());
            self.publish_in(world, &change, version, look.table_version);
            // Now that the table is published, the statuses say so.
            self.plan(world).await
        };
        self.metrics.planned(began.elapsed());
        self.metrics.set_table_version(look.table_version.0);
        self.metrics.set_pending_removal(look.withheld.as_ref().map_or(0, |withheld| withheld.routes));
        look.next_look_in = plan.next_look_in;
        look.generate_secrets = owned(plan.generate_secrets, world);
        look.statuses = plan.statuses;
        look.replays = plan.replays;
        Ok(look)
    }

    /// The world after a publication. If somebody else has published in between, all that changed is loaded the next
    /// time.
    fn publish_in(&mut self, world: &mut World, change: &TableChange, before: TableVersion, after: TableVersion) {
        world.publish(change, after);
        if let Some((_, loaded)) = &mut self.loaded
            && after.0 == before.0 + 1
        {
            *loaded = after;
        }
    }

    /// Brings what the ledger knows up to date. The first time it also shuts out the leaders before.
    async fn load(&mut self, world: &mut World, epoch: u64) -> Result<TableVersion, LedgerError> {
        if self.loaded.is_none() {
            self.ledger.publish_table(TableChange::default(), Some(epoch)).await?;
        }
        let load = self.load_table().await?;
        let loaded = (load.history.clone(), load.version);
        world.load(load);
        let version = loaded.1;
        self.loaded = Some(loaded);
        world.disabled = self.ledger.disabled().await?;
        let dispatchers = self.ledger.dispatchers(HEARTBEAT_DEAD_AFTER).await?;
        world.set_dispatchers(self.pools.clone(), &dispatchers);
        if Instant::now() >= self.facts_due {
            world.facts = apply::load_facts(&*self.ledger, &world.published).await?;
            self.facts_due = Instant::now() + FACTS_LOOK_INTERVAL;
        }
        Ok(version)
    }

    async fn load_table(&self) -> Result<TableLoad, LedgerError> {
        let Some((history, version)) = &self.loaded else { return self.ledger.load_table(None).await };
        let load = self.ledger.load_table(Some(*version)).await?;
        if load.complete || load.history == *history { Ok(load) } else { self.ledger.load_table(None).await }
    }

    /// Plans on a thread for such work: of many resources it takes a while.
    async fn plan(&mut self, world: &mut World) -> Plan {
        let (planned, mut memory) = (std::mem::take(world), std::mem::take(&mut self.memory));
        let (sealing_key, address_policy) = (Arc::clone(&self.sealing_key), Arc::clone(&self.address_policy));
        let planning = tokio::task::spawn_blocking(move || {
            let context = PlanContext { sealing_key: &sealing_key, address_policy: &address_policy };
            let plan = plan_again(&planned, &context, now_unix_ms(), &mut memory);
            (plan, planned, memory)
        });
        match planning.await {
            Ok((plan, planned, memory)) => {
                (*world, self.memory) = (planned, memory);
                plan
            }
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// Secrets to make, each with the identity of its endpoint. One whose endpoint has none cannot be owned.
fn owned(secrets: Vec<GenerateSecret>, world: &World) -> Vec<(GenerateSecret, String)> {
    if secrets.is_empty() {
        return Vec::new();
    }
    let identities: BTreeMap<(&str, &str), &str> = world
        .endpoints
        .iter()
        .filter_map(|endpoint| {
            let metadata = &endpoint.metadata;
            let place = (metadata.namespace.as_deref()?, metadata.name.as_deref()?);
            Some((place, metadata.uid.as_deref()?))
        })
        .collect();
    let identity = |secret: &GenerateSecret| {
        identities.get(&(secret.namespace.as_str(), secret.endpoint.as_str())).map(|uid| (*uid).to_owned())
    };
    secrets.into_iter().filter_map(|secret| identity(&secret).map(|uid| (secret, uid))).collect()
}
