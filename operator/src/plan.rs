//! What must change so that the world is as it is wanted: pure, and empty once it is.

mod change;
mod endpoint;
pub mod events;
mod issuer;
mod memory;
pub mod pool;
pub mod removal;
pub mod replay;
mod revision;
pub mod scale;
mod status;
mod subscription;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crds::Kind;
use crds::condition::Reason;
use crds::endpoint::EndpointStatus;
use crds::pool::DispatcherPoolStatus;
use crds::replay::ReplayStatus;
use crds::subscription::SubscriptionStatus;
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::id::{EndpointId, SubscriptionId, TenantId};
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{
    EndpointRow, Row, RowKey, SigningScheme, SubscriptionRow, TableChange, TableVersion, TenantRow,
};
use serde::Serialize;

pub use self::change::StatusChange;
use self::events::{PlannedEvent, Regarding};
pub use self::memory::Memory;
use self::replay::{ReplayJob, ReplaySituation};
use self::subscription::PlannedSubscription;
use crate::validate::{Neighbours, Problem};
use crate::world::{Malformed, World};

/// What a plan needs beside the world.
#[derive(Clone, Copy, Debug)]
pub struct PlanContext<'a> {
    /// Seals what must not stand in the ledger in plain text, and opens the rows that stand there.
    pub sealing_key: &'a SealingKey,
    /// Where the installation delivers to.
    pub address_policy: &'a AddressPolicy,
}

/// What must change.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Rows that differ from the published ones.
    pub table: TableChange,
    /// Statuses that differ from the present ones.
    pub statuses: Vec<ObjectStatus>,
    /// Secrets with signing keys that are to be made; their endpoints are planned again once they are there.
    pub generate_secrets: Vec<GenerateSecret>,
    /// Replays that are to be worked on.
    pub replays: Vec<ReplayJob>,
    /// When to plan again although nothing changes.
    pub next_look_in: Option<Duration>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty() && self.statuses.is_empty() && self.generate_secrets.is_empty()
    }
}

/// The status of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its whole new status.
    pub body: StatusBody,
    /// What is new in it.
    pub change: StatusChange,
    /// What is to be told once it is written.
    pub events: Vec<PlannedEvent>,
}

/// A status of one of the kinds. Its JSON is that of the kind's `status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum StatusBody {
    /// Of an endpoint.
    Endpoint(EndpointStatus),
    /// Of a replay.
    Replay(ReplayStatus),
    /// Of a subscription.
    Subscription(SubscriptionStatus),
    /// Of a pool.
    DispatcherPool(DispatcherPoolStatus),
}

impl StatusBody {
    /// The kind that it belongs to.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Endpoint(_) => Kind::Endpoint,
            Self::Replay(_) => Kind::Replay,
            Self::Subscription(_) => Kind::Subscription,
            Self::DispatcherPool(_) => Kind::DispatcherPool,
        }
    }
}

/// A Secret to make with [`crate::generate::signing_key`] under [`crate::generate::GENERATED_KEY`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerateSecret {
    /// Namespace of the endpoint and of the Secret.
    pub namespace: String,
    /// Name of the Secret.
    pub name: String,
    /// Name of the endpoint that owns it.
    pub endpoint: String,
    /// What the key is for.
    pub scheme: SigningScheme,
}

/// The published table, by identity.
struct Published<'a> {
    tenants: Vec<&'a TenantRow>,
    endpoints: HashMap<EndpointId, &'a EndpointRow>,
    subscriptions: HashMap<SubscriptionId, &'a SubscriptionRow>,
    versions: &'a HashMap<RowKey, TableVersion>,
}

/// A resource that is planned: what it says, the row that it wants, and what is wrong with it.
struct Planned<'a, Resource, Row: Clone> {
    resource: &'a Resource,
    namespace: &'a str,
    name: &'a str,
    /// Borrowed if it is what is published already.
    row: Option<Cow<'a, Row>>,
    /// The version of the table that made the published row; `None` if the row is not published yet.
    row_version: Option<TableVersion>,
    problems: Vec<Problem>,
    /// Whether the row is what this generation says, and not what an earlier one said.
    is_current: bool,
    /// What holds until its problems are gone, in words for its owner.
    meanwhile: Option<&'static str>,
}

/// What everything is planned from.
struct Situation<'a> {
    world: &'a World,
    context: &'a PlanContext<'a>,
    published: Published<'a>,
    /// What is wrong with resources that are not understood.
    malformed: HashMap<(Kind, &'a str, &'a str), &'a str>,
    now_unix_ms: u64,
}

/// The rows that are wanted: those that stay, by their keys, and those that are new or differ.
#[derive(Default)]
struct Wanted {
    kept: HashSet<RowKey>,
    put: BTreeMap<RowKey, Row>,
}

impl<R: kube::ResourceExt, Row: Clone> Planned<'_, R, Row> {
    /// Whom its Events are about.
    fn regarding(&self, kind: Kind) -> Regarding<'_> {
        let uid = self.resource.meta().uid.as_deref();
        Regarding { kind, namespace: self.namespace, name: self.name, uid }
    }
}

/// Plans. `now_unix_ms` is the time in milliseconds since the Unix epoch.
///
/// Statuses speak of the published table: the plan that changes a row says that it waits, the plan after its publication
/// that it is in effect. Planning the world that [`World::apply`] leaves changes no row, and a second time no status.
pub fn plan(world: &World, context: &PlanContext<'_>, now_unix_ms: u64) -> Plan {
    plan_again(world, context, now_unix_ms, &mut Memory::default())
}

/// Plans, with what earlier plans of the same process found out. Yields the same as [`plan`], sooner.
pub fn plan_again(world: &World, context: &PlanContext<'_>, now_unix_ms: u64, memory: &mut Memory) -> Plan {
    let tenants: BTreeMap<&str, TenantId> = world.tenants.iter().map(|(id, name)| (name.as_str(), *id)).collect();
    let situation = Situation::of(world, context, now_unix_ms);
    let mut plan = Plan::default();
    memory.begin();

    let mut by_namespace: BTreeMap<&str, Neighbours<'_>> = BTreeMap::new();
    let mut homeless: BTreeSet<&str> = BTreeSet::new();
    let places = world.endpoints.iter().filter_map(|endpoint| Some((place(&endpoint.metadata)?, endpoint)));
    let mut resources = HashMap::new();
    for ((namespace, name), endpoint) in places {
        match tenants.get(namespace) {
            Some(tenant) => by_namespace.entry(namespace).or_default().add(*tenant, name, endpoint),
            None => drop(homeless.insert(namespace)),
        }
        resources.insert((namespace, name), endpoint);
    }
    let none = Neighbours::default();
    let mut subscriptions = Vec::with_capacity(world.subscriptions.len());
    for resource in &world.subscriptions {
        let Some((namespace, name)) = place(&resource.metadata) else { continue };
        let Some(tenant) = tenants.get(namespace).copied() else {
            homeless.insert(namespace);
            continue;
        };
        let neighbours = by_namespace.get(namespace).unwrap_or(&none);
        let place = (tenant, namespace, name);
        subscriptions.push((tenant, subscription::plan_subscription(resource, place, neighbours, &situation, memory)));
    }
    let routed: HashSet<EndpointId> = subscriptions
        .iter()
        .filter_map(|(_, subscription)| subscription.planned.row.as_ref())
        .flat_map(|row| row.endpoints.iter().copied())
        .collect();

    let mut wanted = Wanted::default();
    let mut statuses = status::Statuses::new(world, now_unix_ms);
    for (namespace, neighbours) in &by_namespace {
        let Some(tenant) = tenants.get(namespace).copied() else { continue };
        for (name, id, _) in neighbours.iter() {
            let Some(resource) = resources.get(&(*namespace, name)) else { continue };
            let planned = endpoint::plan_endpoint(resource, (tenant, namespace, name, id), &situation, memory);
            plan.look_in(planned.retires_in);
            plan.generate_secrets.extend(planned.generate);
            if !planned.is_untold {
                statuses.endpoint(&planned.planned, id, routed.contains(&id));
            }
            wanted.tenant(tenant, namespace, &situation.published);
            wanted.row(RowKey::Endpoint(id), planned.planned.row, |row| Row::Endpoint(Box::new(row)));
        }
    }
    for (tenant, subscription) in subscriptions {
        let PlannedSubscription { planned, id, endpoints_count } = subscription;
        statuses.subscription(&planned, endpoints_count);
        wanted.tenant(tenant, planned.namespace, &situation.published);
        wanted.row(RowKey::Subscription(id), planned.row, Row::Subscription);
    }
    wanted.issuers(world);
    wanted.keep_homeless(&homeless, &situation.published);
    memory.end();
    plan.table = wanted.difference(&world.published);
    plan.look_in(statuses.next_look_in);
    plan.statuses = statuses.changed;
    plan.plan_replays(world, now_unix_ms);
    plan
}

impl Plan {
    fn plan_replays(&mut self, world: &World, now_unix_ms: u64) {
        let situation = ReplaySituation {
            tenants: &world.tenants,
            replays: &world.replays,
            malformed: &world.malformed,
            progress: &world.replay_progress,
            published: &world.published,
        };
        let planned = replay::plan_replays(&situation, now_unix_ms);
        self.replays = planned.jobs;
        self.statuses.extend(planned.statuses);
        self.look_in(planned.next_look_in);
    }

    fn look_in(&mut self, duration: Option<Duration>) {
        self.next_look_in = [self.next_look_in, duration].into_iter().flatten().min();
    }
}

impl<'a> Situation<'a> {
    fn of(world: &'a World, context: &'a PlanContext<'a>, now_unix_ms: u64) -> Self {
        let malformed = world.malformed.iter().map(|malformed| {
            let Malformed { kind, namespace, name, message } = malformed;
            ((*kind, namespace.as_str(), name.as_str()), message.as_str())
        });
        let malformed = malformed.collect();
        Self { world, context, published: Published::of(world), malformed, now_unix_ms }
    }

    /// The problem of a resource that is not understood.
    fn malformed(&self, kind: Kind, namespace: &str, name: &str) -> Option<Problem> {
        let message = *self.malformed.get(&(kind, namespace, name))?;
        Some(Problem::new(Reason::InvalidSpec, "", message))
    }
}

impl<'a> Published<'a> {
    fn of(world: &'a World) -> Self {
        let mut published = Self {
            tenants: Vec::new(),
            endpoints: HashMap::new(),
            subscriptions: HashMap::new(),
            versions: &world.row_versions,
        };
        for row in &world.published {
            match row {
                Row::Endpoint(row) => drop(published.endpoints.insert(row.id, row)),
                Row::Subscription(row) => drop(published.subscriptions.insert(row.id, row)),
                Row::Tenant(row) => published.tenants.push(row),
                Row::Issuer(_) => {}
            }
        }
        published
    }

    /// The version that made a published row.
    fn version(&self, key: RowKey) -> TableVersion {
        self.versions.get(&key).copied().unwrap_or_default()
    }

    /// A row as it is wanted, with the version of the published one if that is the same.
    fn compare<Row: Clone + PartialEq>(
        &self,
        key: RowKey,
        row: Option<Row>,
        previous: Option<&'a Row>,
    ) -> (Option<Cow<'a, Row>>, Option<TableVersion>) {
        match (row, previous) {
            (Some(row), Some(previous)) if row == *previous => (Some(Cow::Borrowed(previous)), Some(self.version(key))),
            (row, None) if row.is_none() => (None, Some(TableVersion::default())),
            (row, _) => (row.map(Cow::Owned), None),
        }
    }
}

impl Wanted {
    fn tenant(&mut self, tenant: TenantId, namespace: &str, published: &Published<'_>) {
        let key = RowKey::Tenant(tenant);
        if self.kept.contains(&key) || self.put.contains_key(&key) {
            return;
        }
        if published.tenants.iter().any(|row| row.id == tenant && row.name == namespace) {
            self.kept.insert(key);
        } else {
            self.put.insert(key, Row::Tenant(TenantRow { id: tenant, name: namespace.to_owned() }));
        }
    }

    fn issuers(&mut self, world: &World) {
        for row in issuer::wanted(world) {
            if world.published.contains(&row) {
                self.kept.insert(row.key());
            } else {
                self.put.insert(row.key(), row);
            }
        }
    }

    fn row<R: Clone>(&mut self, key: RowKey, row: Option<Cow<'_, R>>, wrap: impl FnOnce(R) -> Row) {
        match row {
            Some(Cow::Borrowed(_)) => drop(self.kept.insert(key)),
            Some(Cow::Owned(row)) => drop(self.put.insert(key, wrap(row))),
            None => {}
        }
    }

    /// Keeps what is published of namespaces that have resources and whose identity is not known: they have just come to
    /// be, or the look at namespaces is late.
    fn keep_homeless(&mut self, homeless: &BTreeSet<&str>, published: &Published<'_>) {
        let tenants = published.tenants.iter().filter(|row| homeless.contains(row.name.as_str()));
        let tenants: HashSet<TenantId> = tenants.map(|row| row.id).collect();
        if tenants.is_empty() {
            return;
        }
        self.kept.extend(tenants.iter().map(|tenant| RowKey::Tenant(*tenant)));
        let endpoints = published.endpoints.values().filter(|row| tenants.contains(&row.tenant));
        self.kept.extend(endpoints.map(|row| RowKey::Endpoint(row.id)));
        let subscriptions = published.subscriptions.values().filter(|row| tenants.contains(&row.tenant));
        self.kept.extend(subscriptions.map(|row| RowKey::Subscription(row.id)));
    }

    fn difference(self, published: &[Row]) -> TableChange {
        let is_wanted = |key: &RowKey| self.kept.contains(key) || self.put.contains_key(key);
        let mut drop: Vec<RowKey> = published.iter().map(Row::key).filter(|key| !is_wanted(key)).collect();
        drop.sort_unstable();
        TableChange { put: self.put.into_values().collect(), drop }
    }
}

/// Namespace and name.
fn place(metadata: &kube::core::ObjectMeta) -> Option<(&str, &str)> {
    Some((metadata.namespace.as_deref()?, metadata.name.as_deref()?))
}
