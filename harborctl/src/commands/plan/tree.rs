//! A tree of resources, planned by an operator that knows nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crds::Kind;
use crds::admission::admit_update;
use crds::condition::{ConditionStatus, ConditionType};
use crds::pool::DispatcherPoolSpec;
use crds::replay::ReplaySpec;
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::id::{EndpointId, SubscriptionId, TenantId};
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{EndpointRow, Row, Sealed, SubscriptionRow};
use operator::conditions::find;
use operator::generate::{GENERATED_KEY, signing_key};
use operator::plan::{Plan, PlanContext, plan};
use operator::world::files::Loaded;
use operator::world::problem::FileProblem;
use operator::world::resource::ObjectKey;
use operator::world::store::FileStore;
use operator::world::{SecretData, SecretState, World};
use serde::Serialize;
use serde_json::{Value, json};

use super::assume::{UNKNOWN_HOST, assume};

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Place {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// What a tree comes to.
pub(super) struct Tree {
    pub(super) endpoints: BTreeMap<Place, PlannedEndpoint>,
    pub(super) subscriptions: BTreeMap<Place, PlannedSubscription>,
    pub(super) replays: BTreeMap<Place, PlannedReplay>,
    pub(super) pools: BTreeMap<Place, DispatcherPoolSpec>,
    /// What an API server would refuse, and what cannot be read.
    pub(super) file_problems: Vec<FileProblem>,
    /// Secrets that are named and are not in the tree.
    pub(super) assumed_secrets: BTreeSet<Place>,
    store: FileStore,
}

/// An endpoint, and what it comes to.
pub(super) struct PlannedEndpoint {
    pub(super) spec: Value,
    /// Host and port of its URL; `None` while it is not ready, or if only a Secret knows.
    pub(super) host: Option<String>,
    /// All that it sends beside payloads, sealed: the same if and only if it is the same.
    pub(super) sealed: Option<Sealed>,
    pub(super) trouble: Option<Trouble>,
}

/// A subscription, and what it comes to.
pub(super) struct PlannedSubscription {
    pub(super) spec: Value,
    /// Names of the endpoints that it routes to; `None` while it is not ready.
    pub(super) endpoints: Option<BTreeSet<String>>,
    pub(super) trouble: Option<Trouble>,
}

/// A replay, and what it comes to.
pub(super) struct PlannedReplay {
    pub(super) spec: ReplaySpec,
    /// Why it would not begin.
    pub(super) trouble: Option<Trouble>,
}

/// Why a resource is not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Trouble {
    pub(super) reason: String,
    pub(super) message: String,
}

impl Tree {
    /// Plans what was read. `before` is the tree that it takes the place of: a pool that was there and is not is gone.
    pub(super) fn plan(loaded: Loaded, before: Option<&Self>, policy: &AddressPolicy, now_unix_ms: u64) -> Self {
        let mut store = FileStore::default();
        let file_problems = store.update(loaded);
        let written = store.world();
        let mut world = written.clone();
        let pools_before = before.map(Self::pool_names).unwrap_or_default();
        let assumed_secrets = assume(&mut world, &pools_before);
        settle(&mut world, policy, now_unix_ms);
        let rows = Rows::of(&world);
        let endpoints = world.endpoints.iter().zip(&written.endpoints).filter_map(|(planned, written)| {
            let (place, tenant) =
                rows.place(planned.metadata.namespace.as_deref()?, planned.metadata.name.as_deref()?)?;
            let row = rows.endpoints.get(&EndpointId::derive(tenant, &place.name));
            let ready = planned.status.as_ref().and_then(|status| find(&status.conditions, ConditionType::Ready));
            let trouble = ready.and_then(|ready| trouble(&ready.status, &ready.reason, &ready.message));
            let host = row.map(|row| row.host.clone()).filter(|host| host != UNKNOWN_HOST);
            let sealed = row.map(|row| row.sealed.clone());
            let spec = serde_json::to_value(&written.spec).unwrap_or_default();
            Some((place, PlannedEndpoint { spec, host, sealed, trouble }))
        });
        let subscriptions = world.subscriptions.iter().filter_map(|planned| {
            let (place, tenant) =
                rows.place(planned.metadata.namespace.as_deref()?, planned.metadata.name.as_deref()?)?;
            let row = rows.subscriptions.get(&SubscriptionId::derive(tenant, &place.name));
            let ready = planned.status.as_ref().and_then(|status| find(&status.conditions, ConditionType::Ready));
            let trouble = ready.and_then(|ready| trouble(&ready.status, &ready.reason, &ready.message));
            let names =
                |row: &&SubscriptionRow| row.endpoints.iter().filter_map(|id| rows.endpoint_name(*id)).collect();
            let spec = serde_json::to_value(&planned.spec).unwrap_or_default();
            Some((place, PlannedSubscription { spec, endpoints: row.map(names), trouble }))
        });
        let replays = world.replays.iter().filter_map(|planned| {
            let place = Place::new(planned.metadata.namespace.as_deref()?, planned.metadata.name.as_deref()?);
            let ready = planned.status.as_ref().and_then(|status| find(&status.conditions, ConditionType::Ready))?;
            // One that is about to begin is not ready either.
            let is_wrong = ready.status == ConditionStatus::False.as_str();
            let trouble = is_wrong.then(|| Trouble { reason: ready.reason.clone(), message: ready.message.clone() });
            Some((place, PlannedReplay { spec: planned.spec.clone(), trouble }))
        });
        let pools = world.dispatcher_pools.iter().filter_map(|pool| {
            let place = Place::new(pool.metadata.namespace.as_deref()?, pool.metadata.name.as_deref()?);
            Some((place, pool.spec.clone()))
        });
        Self {
            endpoints: endpoints.collect(),
            subscriptions: subscriptions.collect(),
            replays: replays.collect(),
            pools: pools.collect(),
            file_problems,
            assumed_secrets,
            store,
        }
    }

    /// Adds what an API server refuses because of what is there already: replays that ask for something else.
    pub(super) fn refuse_updates(&mut self, before: &Self) {
        for (place, new) in &self.replays {
            let Some(old) = before.replays.get(place) else { continue };
            let problems = admit_update(&object(place, &new.spec), &object(place, &old.spec)).err();
            let Place { namespace, name } = place.clone();
            let key = ObjectKey { kind: Kind::Replay.as_str(), namespace, name };
            let found = self.store.find(&key);
            for problem in problems.into_iter().flatten() {
                self.file_problems.push(FileProblem {
                    file: found.map(|(file, _)| file.to_owned()).unwrap_or_default(),
                    line: found.map(|(_, located)| located.line),
                    document: found.map(|(_, located)| located.document).unwrap_or_default(),
                    object: Some(key.to_string()),
                    field: Some(problem.field),
                    message: problem.message,
                });
            }
        }
    }

    fn pool_names(&self) -> BTreeSet<String> {
        self.pools.keys().map(|place| place.name.clone()).collect()
    }
}

fn object(place: &Place, spec: &ReplaySpec) -> Value {
    json!({
        "apiVersion": crds::API_VERSION, "kind": Kind::Replay.as_str(), "spec": spec,
        "metadata": {"namespace": place.namespace, "name": place.name},
    })
}

/// Plans until the statuses speak of the planned table.
fn settle(world: &mut World, policy: &AddressPolicy, now_unix_ms: u64) {
    // What is sealed is only compared, here and now.
    let context = PlanContext { sealing_key: &SealingKey::from_bytes(&[0; 32]), address_policy: policy };
    let planned = |world: &World| -> Plan { plan(world, &context, now_unix_ms) };
    for secret in planned(world).generate_secrets {
        let data = SecretData::from([(GENERATED_KEY.to_owned(), signing_key(secret.scheme, &[0; 32]))]);
        world.secrets.insert(&secret.namespace, &secret.name, SecretState::Present(data));
    }
    for _ in 0..2 {
        let plan = planned(world);
        world.apply(&plan);
    }
}

/// The rows of a world's table, by identity.
struct Rows<'a> {
    tenants: BTreeMap<&'a str, TenantId>,
    endpoints: BTreeMap<EndpointId, &'a EndpointRow>,
    subscriptions: BTreeMap<SubscriptionId, &'a SubscriptionRow>,
    /// Names of all endpoints, also of those without a row.
    names: BTreeMap<EndpointId, &'a str>,
}

impl<'a> Rows<'a> {
    fn of(world: &'a World) -> Self {
        let mut rows = Self {
            tenants: world.tenants.iter().map(|(id, name)| (name.as_str(), *id)).collect(),
            endpoints: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        for row in &world.published {
            match row {
                Row::Endpoint(row) => drop(rows.endpoints.insert(row.id, row)),
                Row::Subscription(row) => drop(rows.subscriptions.insert(row.id, row)),
                Row::Tenant(_) | Row::Issuer(_) => {}
            }
        }
        for endpoint in &world.endpoints {
            let tenant = endpoint.metadata.namespace.as_deref().and_then(|namespace| rows.tenants.get(namespace));
            if let (Some(tenant), Some(name)) = (tenant, endpoint.metadata.name.as_deref()) {
                rows.names.insert(EndpointId::derive(*tenant, name), name);
            }
        }
        rows
    }

    fn place(&self, namespace: &str, name: &str) -> Option<(Place, TenantId)> {
        Some((Place::new(namespace, name), *self.tenants.get(namespace)?))
    }

    fn endpoint_name(&self, id: EndpointId) -> Option<String> {
        self.names.get(&id).map(|name| (*name).to_owned())
    }
}

/// What the Ready condition says, unless all is well.
fn trouble(status: &str, reason: &str, message: &str) -> Option<Trouble> {
    (status != "True").then(|| Trouble { reason: reason.to_owned(), message: message.to_owned() })
}
