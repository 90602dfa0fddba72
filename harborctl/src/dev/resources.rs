//! From files to the routing table: read, plan, make the Secrets that are missing, publish.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crds::Kind;
use dispatcher::clock::now_unix_ms;
use dispatcher::ledger::{Ledger, LedgerError};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::id::{ReplayId, TenantId};
use dispatcher_core::seal::SealingKey;
use dispatcher_core::sign::{self, VerifyingKey};
use dispatcher_core::table::{EndpointRow, EndpointSecrets, Row, SigningScheme};
use operator::plan::replay::replay_id;
use operator::plan::{ObjectStatus, Plan, PlanContext, plan};
use operator::replays::ReplayDesk;
use operator::world::World;
use operator::world::files::Loaded;
use operator::world::problem::FileProblem;
use operator::world::store::FileStore;
use serde_json::Value;
use url::Url;

use super::generated::GeneratedSecrets;
use super::troubles::{Healed, NotReady, Troubles};
use crate::exit::Failure;
use crate::receiver::{Key, KeyBook};

/// Host of the built-in test receiver in the URLs of endpoints.
pub(super) const RECEIVER_HOST: &str = "receiver.localhost";

/// The resources, and what was made of them.
pub(super) struct Resources {
    store: FileStore,
    problems: Vec<FileProblem>,
    skipped: Vec<String>,
    statuses: BTreeMap<(Kind, String, String), ObjectStatus>,
    troubles: Troubles,
    world: World,
}

/// Where a plan is carried out.
pub(super) struct Ground<'a> {
    /// The ledger.
    pub(super) ledger: &'a Arc<dyn Ledger>,
    /// Seals what the ledger keeps.
    pub(super) sealing_key: &'a SealingKey,
    /// Where deliveries may go.
    pub(super) address_policy: &'a AddressPolicy,
    /// Where replays are ordered, and how far they are.
    pub(super) replays: &'a ReplayDesk,
    /// Secrets that were made here.
    pub(super) secrets: &'a mut GeneratedSecrets,
}

/// What reading files again brought.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Problems that were not there before.
    pub(super) problems: Vec<FileProblem>,
    /// Objects of kinds that are not for us, not named before.
    pub(super) skipped: Vec<String>,
}

/// What carrying out a plan brought.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Version of the table.
    pub(super) table_version: u64,
    /// Rows that were put.
    pub(super) put: usize,
    /// Rows that were dropped.
    pub(super) dropped: usize,
    /// Why objects are not ready, where that is new.
    pub(super) not_ready: Vec<NotReady>,
    /// What is no longer wrong.
    pub(super) healed: Vec<Healed>,
    /// When to plan again although nothing changes.
    pub(super) next_look_in: Option<Duration>,
}

impl Resources {
    /// Takes what was read first. Everything must be right, and there must be something.
    pub(super) fn first(loaded: Loaded) -> Result<(Self, News), Failure> {
        let mut resources = Self {
            store: FileStore::default(),
            problems: Vec::new(),
            skipped: Vec::new(),
            statuses: BTreeMap::new(),
            troubles: Troubles::default(),
            world: World::default(),
        };
        let news = resources.update(loaded);
        if !news.problems.is_empty() {
            let lines: Vec<String> = news.problems.iter().map(ToString::to_string).collect();
            return Err(Failure::Local(format!("the resources are not right:\n{}", lines.join("\n"))));
        }
        let world = resources.store.world();
        if world.endpoints.is_empty() && world.subscriptions.is_empty() {
            return Err(Failure::Local("there is no Endpoint and no Subscription to run".to_owned()));
        }
        Ok((resources, news))
    }

    /// Takes what was read again. A file that is wrong now goes on counting as it was.
    pub(super) fn update(&mut self, loaded: Loaded) -> News {
        let problems = self.store.update(loaded);
        let skipped: Vec<String> = self
            .store
            .skipped()
            .map(|skipped| format!("{}:{}: {}", skipped.file, skipped.line, skipped.object))
            .collect();
        let news = News {
            problems: problems.iter().filter(|problem| !self.problems.contains(problem)).cloned().collect(),
            skipped: skipped.iter().filter(|object| !self.skipped.contains(object)).cloned().collect(),
        };
        (self.problems, self.skipped) = (problems, skipped);
        news
    }

    /// Plans and carries it out.
    pub(super) async fn apply(&mut self, ground: &mut Ground<'_>) -> Result<Applied, Failure> {
        let state = operator::apply::load_world_state(&**ground.ledger).await.map_err(|error| unavailable(&error))?;
        let mut world = self.store.world();
        state.fill(&mut world);
        world.replay_progress.clone_from(&ground.replays.progress());
        self.forget_other_replays(&world);
        let known: Vec<ObjectStatus> = self.statuses.values().cloned().collect();
        world.set_statuses(&known);
        ground.secrets.add_to(&mut world);
        let mut plan = ground.plan(&world);
        if !plan.generate_secrets.is_empty() {
            ground.secrets.make(&plan.generate_secrets)?;
            ground.secrets.add_to(&mut world);
            plan = ground.plan(&world);
        }
        let version =
            operator::apply::publish(&**ground.ledger, &plan, None).await.map_err(|error| unavailable(&error))?;
        world.apply(&plan);
        // Now that the table is published, the statuses say so.
        let settled = ground.plan(&world);
        world.set_statuses(&settled.statuses);
        ground.replays.order(settled.replays, None);
        let mut changed = BTreeMap::new();
        for status in plan.statuses.into_iter().chain(settled.statuses) {
            changed.insert((status.body.kind(), status.namespace.clone(), status.name.clone()), status);
        }
        self.statuses.extend(changed);
        let troubles = Troubles::now(&self.problems, self.statuses.values(), &self.store);
        let (not_ready, healed) = (troubles.new_since(&self.troubles), troubles.healed_since(&self.troubles));
        (self.troubles, self.world) = (troubles, world);
        Ok(Applied {
            table_version: version.0,
            put: plan.table.put.len(),
            dropped: plan.table.drop.len(),
            not_ready,
            healed,
            next_look_in: settled.next_look_in,
        })
    }

    /// A file can be edited to ask for something else under the same name, where an API server would refuse it: that is
    /// another replay, of which nothing is known.
    fn forget_other_replays(&mut self, world: &World) {
        let asked = |world: &World| -> BTreeMap<(String, String), ReplayId> {
            let replays = world.replays.iter().filter_map(|replay| {
                let (namespace, name) = (replay.metadata.namespace.clone()?, replay.metadata.name.clone()?);
                let id = replay_id(TenantId::of_namespace_name(&namespace), &name, &replay.spec);
                Some(((namespace, name), id))
            });
            replays.collect()
        };
        let (before, now) = (asked(&self.world), asked(world));
        self.statuses.retain(|(kind, namespace, name), _| {
            let place = (namespace.clone(), name.clone());
            *kind != Kind::Replay || before.get(&place) == now.get(&place)
        });
    }

    /// The objects of a kind, whole, by namespace and name.
    pub(super) fn objects(&self, kind: Kind) -> Vec<Value> {
        let values = match kind {
            Kind::Endpoint => self.world.endpoints.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>(),
            Kind::Replay => self.world.replays.iter().map(serde_json::to_value).collect(),
            Kind::Subscription => self.world.subscriptions.iter().map(serde_json::to_value).collect(),
            Kind::DispatcherPool => self.world.dispatcher_pools.iter().map(serde_json::to_value).collect(),
        };
        let mut objects = values.unwrap_or_default();
        let key =
            |object: &Value| ["namespace", "name"].map(|field| object["metadata"][field].as_str().map(str::to_owned));
        objects.sort_by_key(key);
        objects
    }

    /// Why objects are not ready at present.
    pub(super) fn not_ready(&self) -> &[NotReady] {
        self.troubles.not_ready()
    }

    /// Whether a file is there.
    pub(super) fn has_file(&self, file: &str) -> bool {
        self.store.has_file(file)
    }

    /// Names of the tenants.
    pub(super) fn tenants(&self) -> Vec<String> {
        self.world.tenants.iter().map(|(_, name)| name.clone()).collect()
    }

    /// The keys that the built-in receiver verifies with: those of the endpoints that deliver to it, by path.
    pub(super) fn receiver_keys(&self, sealing_key: &SealingKey) -> KeyBook {
        let mut by_path: HashMap<String, Vec<Key>> = HashMap::new();
        for row in &self.world.published {
            let Row::Endpoint(row) = row else { continue };
            if let Some((path, key)) = receiver_key(row, sealing_key) {
                by_path.entry(path).or_default().push(key);
            }
        }
        KeyBook { by_path, other: Vec::new() }
    }
}

impl Ground<'_> {
    fn plan(&self, world: &World) -> Plan {
        let context = PlanContext { sealing_key: self.sealing_key, address_policy: self.address_policy };
        plan(world, &context, now_unix_ms())
    }
}

fn unavailable(error: &LedgerError) -> Failure {
    Failure::Local(error.to_string())
}

fn receiver_key(row: &EndpointRow, sealing_key: &SealingKey) -> Option<(String, Key)> {
    let secrets = sealing_key.open(row.id, &row.sealed).ok()?;
    let url = Url::parse(secrets.url.expose()).ok()?;
    if url.host_str() != Some(RECEIVER_HOST) {
        return None;
    }
    let scheme = row.policy.signing_scheme;
    Some((url.path().to_owned(), Key { scheme: Some(scheme), keys: verifying_keys(scheme, &secrets) }))
}

fn verifying_keys(scheme: SigningScheme, secrets: &EndpointSecrets) -> Vec<VerifyingKey> {
    let key = |key| match scheme {
        SigningScheme::StandardWebhooksEd25519 => {
            sign::public_key(key).and_then(|public_key| VerifyingKey::parse(public_key.as_bytes())).ok()
        }
        _ => Some(VerifyingKey::Hmac(key.bytes.clone())),
    };
    secrets.keys.iter().filter_map(key).collect()
}
