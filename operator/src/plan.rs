//! What must change so that the world is as it is wanted: pure, and empty once it is.

mod endpoint;
pub mod pool;
pub mod scale;
mod status;
mod subscription;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crds::endpoint::EndpointStatus;
use crds::pool::DispatcherPoolStatus;
use crds::subscription::SubscriptionStatus;
use crds::{Endpoint, Kind};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::id::{EndpointId, SubscriptionId, TenantId};
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{EndpointRow, Row, RowKey, SigningScheme, SubscriptionRow, TableChange, TenantRow};

use self::subscription::PlannedSubscription;
use crate::validate::Problem;
use crate::world::World;

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
}

/// A status of one of the kinds.
#[derive(Clone, Debug, PartialEq)]
pub enum StatusBody {
    /// Of an endpoint.
    Endpoint(EndpointStatus),
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
    endpoints: HashMap<EndpointId, &'a EndpointRow>,
    subscriptions: HashMap<SubscriptionId, &'a SubscriptionRow>,
}

/// A resource that is planned: what it says, the row that it wants, and what is wrong with it.
struct Planned<'a, Resource, Row> {
    resource: &'a Resource,
    namespace: &'a str,
    name: &'a str,
    row: Option<Row>,
    /// Whether the row is what is published already.
    is_published: bool,
    problems: Vec<Problem>,
    /// Whether the row is what this generation says, and not what an earlier one said.
    is_current: bool,
    /// What holds until its problems are gone, in words for its owner.
    meanwhile: Option<&'static str>,
}

/// Plans. `now_unix_ms` is the time in milliseconds since the Unix epoch.
///
/// Statuses speak of the published table: the plan that changes a row says that it waits, the plan after its publication
/// that it is in effect. Planning the world that [`World::apply`] leaves changes no row, and a second time no status.
pub fn plan(world: &World, context: &PlanContext<'_>, now_unix_ms: u64) -> Plan {
    let tenants: BTreeMap<&str, TenantId> = world.tenants.iter().map(|(id, name)| (name.as_str(), *id)).collect();
    let published = Published::of(&world.published);
    let mut plan = Plan::default();

    let mut by_namespace: BTreeMap<&str, BTreeMap<&str, &Endpoint>> = BTreeMap::new();
    for endpoint in &world.endpoints {
        if let Some((namespace, name)) = place(&endpoint.metadata) {
            by_namespace.entry(namespace).or_default().insert(name, endpoint);
        }
    }
    let none = BTreeMap::new();
    let subscriptions: Vec<_> = world
        .subscriptions
        .iter()
        .filter_map(|resource| {
            let (namespace, name) = place(&resource.metadata)?;
            let tenant = *tenants.get(namespace)?;
            let endpoints = by_namespace.get(namespace).unwrap_or(&none);
            Some((tenant, subscription::plan_subscription(resource, (tenant, namespace, name), endpoints, &published)))
        })
        .collect();
    let routed: BTreeSet<EndpointId> = subscriptions
        .iter()
        .filter_map(|(_, subscription)| subscription.planned.row.as_ref())
        .flat_map(|row| row.endpoints.iter().copied())
        .collect();

    let mut wanted: BTreeMap<RowKey, Row> = BTreeMap::new();
    let mut want = |tenant: TenantId, namespace: &str, row: Option<Row>| {
        let row_of_tenant = Row::Tenant(TenantRow { id: tenant, name: namespace.to_owned() });
        wanted.extend([Some(row_of_tenant), row].into_iter().flatten().map(|row| (row.key(), row)));
    };
    let mut statuses = status::Statuses::new(world, now_unix_ms);
    for (namespace, endpoints) in &by_namespace {
        let Some(tenant) = tenants.get(namespace).copied() else { continue };
        for (name, resource) in endpoints {
            let id = EndpointId::derive(tenant, name);
            let planned =
                endpoint::plan_endpoint(resource, (tenant, namespace, name), world, context, &published, now_unix_ms);
            plan.look_in(planned.retires_in);
            plan.generate_secrets.extend(planned.generate);
            statuses.endpoint(&planned.planned, id, routed.contains(&id));
            want(tenant, namespace, planned.planned.row.map(|row| Row::Endpoint(Box::new(row))));
        }
    }
    for (tenant, subscription) in subscriptions {
        let PlannedSubscription { planned, endpoints_count } = subscription;
        statuses.subscription(&planned, endpoints_count);
        want(tenant, planned.namespace, planned.row.map(Row::Subscription));
    }
    plan.table = difference(&world.published, wanted);
    plan.look_in(statuses.next_look_in);
    plan.statuses = statuses.changed;
    plan
}

impl Plan {
    fn look_in(&mut self, duration: Option<Duration>) {
        self.next_look_in = [self.next_look_in, duration].into_iter().flatten().min();
    }
}

impl<'a> Published<'a> {
    fn of(rows: &'a [Row]) -> Self {
        let mut published = Self { endpoints: HashMap::new(), subscriptions: HashMap::new() };
        for row in rows {
            match row {
                Row::Endpoint(row) => drop(published.endpoints.insert(row.id, row)),
                Row::Subscription(row) => drop(published.subscriptions.insert(row.id, row)),
                Row::Tenant(_) => {}
            }
        }
        published
    }
}

fn difference(published: &[Row], mut wanted: BTreeMap<RowKey, Row>) -> TableChange {
    let mut change = TableChange::default();
    for row in published {
        match wanted.remove(&row.key()) {
            Some(new) if new != *row => change.put.push(new),
            Some(_) => {}
            None => change.drop.push(row.key()),
        }
    }
    change.put.extend(wanted.into_values());
    change.put.sort_by_key(Row::key);
    change.drop.sort_unstable();
    change
}

/// Namespace and name.
fn place(metadata: &kube::core::ObjectMeta) -> Option<(&str, &str)> {
    Some((metadata.namespace.as_deref()?, metadata.name.as_deref()?))
}
