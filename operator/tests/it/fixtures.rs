//! Worlds from text.

use std::sync::Arc;

use crds::condition::{ConditionType, Reason};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::id::{EndpointId, SubscriptionId, TenantId};
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{EndpointRow, EndpointSecrets, Row, SubscriptionRow, TableVersion};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use operator::conditions::find;
use operator::plan::{Plan, PlanContext, plan};
use operator::world::files::Loaded;
use operator::world::resource::read_text;
use operator::world::store::FileStore;
use operator::world::{Pool, World};

pub(crate) const NOW: u64 = 1_700_000_000_000;

/// A world and what it is planned with.
pub(crate) struct Harness {
    pub(crate) world: World,
    pub(crate) now: u64,
    key: SealingKey,
    policy: AddressPolicy,
}

impl Harness {
    /// A world of one file, in which everything must be right.
    pub(crate) fn of(text: &str) -> Self {
        let world = read(text);
        Self { world, now: NOW, key: SealingKey::from_bytes(&[7; 32]), policy: AddressPolicy::public_https() }
    }

    /// The same, on a machine that also delivers to itself and over http.
    pub(crate) fn of_development(text: &str) -> Self {
        Self { policy: AddressPolicy::development(), ..Self::of(text) }
    }

    /// Other resources, the same ledger and statuses.
    pub(crate) fn change(&mut self, text: &str) {
        let old = std::mem::replace(&mut self.world, read(text));
        self.world.published = old.published;
        self.world.row_versions = old.row_versions;
        self.world.facts = old.facts;
        self.world.disabled = old.disabled;
        self.world.pools = old.pools;
        self.world.ingest = old.ingest;
        for endpoint in &mut self.world.endpoints {
            let same = old.endpoints.iter().find(|other| other.metadata.name == endpoint.metadata.name);
            Arc::make_mut(endpoint).status = same.and_then(|same| same.status.clone());
        }
    }

    /// From now on these keys seal and open.
    pub(crate) fn use_sealing_key(&mut self, key: SealingKey) {
        self.key = key;
    }

    pub(crate) fn plan(&self) -> Plan {
        plan(&self.world, &PlanContext { sealing_key: &self.key, address_policy: &self.policy }, self.now)
    }

    /// Plans and applies until nothing changes; answers the first plan.
    pub(crate) fn settle(&mut self) -> Plan {
        let first = self.plan();
        self.world.apply(&first);
        let second = self.plan();
        self.world.apply(&second);
        let third = self.plan();
        assert!(second.table.is_empty(), "the table settles at once: {:?}", second.table);
        assert!(third.table.is_empty() && third.statuses.is_empty(), "statuses settle: {third:?}");
        first
    }

    pub(crate) fn row(&self, name: &str) -> Option<&EndpointRow> {
        let id = EndpointId::derive(TenantId::of_namespace_name("shop"), name);
        self.world.published.iter().find_map(|row| match row {
            Row::Endpoint(row) if row.id == id => Some(&**row),
            _ => None,
        })
    }

    pub(crate) fn route(&self, name: &str) -> Option<&SubscriptionRow> {
        let id = SubscriptionId::derive(TenantId::of_namespace_name("shop"), name);
        self.world.published.iter().find_map(|row| match row {
            Row::Subscription(row) if row.id == id => Some(row),
            _ => None,
        })
    }

    pub(crate) fn secrets(&self, name: &str) -> EndpointSecrets {
        let row = self.row(name).unwrap();
        self.key.open(row.id, &row.sealed).unwrap()
    }

    pub(crate) fn endpoint_condition(&self, name: &str, type_: ConditionType) -> &Condition {
        let endpoint =
            self.world.endpoints.iter().find(|object| object.metadata.name.as_deref() == Some(name)).unwrap();
        find(&endpoint.status.as_ref().unwrap().conditions, type_).unwrap()
    }

    pub(crate) fn subscription_condition(&self, name: &str, type_: ConditionType) -> &Condition {
        let object =
            self.world.subscriptions.iter().find(|object| object.metadata.name.as_deref() == Some(name)).unwrap();
        find(&object.status.as_ref().unwrap().conditions, type_).unwrap()
    }

    /// Settles, and answers the Ready reason of the endpoint `e`.
    pub(crate) fn ready(&mut self) -> String {
        self.settle();
        self.endpoint_condition("e", ConditionType::Ready).reason.clone()
    }

    /// Settles, and answers the Delivering reason of the endpoint `e`.
    pub(crate) fn delivering(&mut self) -> String {
        self.settle();
        self.endpoint_condition("e", ConditionType::Delivering).reason.clone()
    }
}

/// A pool of which so many dispatchers have loaded every version, and the others none.
pub(crate) fn pool(running: u32, up_to_date: u32) -> Pool {
    let loaded = |number| TableVersion(if number < up_to_date { u64::MAX } else { 0 });
    Pool { loaded: (0..running).map(loaded).collect() }
}

/// The word of a reason.
pub(crate) fn word(reason: Reason) -> String {
    reason.as_str().to_owned()
}

fn read(text: &str) -> World {
    let mut store = FileStore::default();
    let file = read_text("test.yaml", text);
    let problems = store.update(Loaded { files: vec![file], problems: Vec::new(), complete: true });
    assert!(problems.is_empty(), "{problems:?}");
    store.world()
}

/// The endpoint `e` in namespace `shop` with these lines of spec.
pub(crate) fn endpoint(spec: &str) -> String {
    object("Endpoint", "e", spec)
}

/// The subscription `s` in namespace `shop` with these lines of spec.
pub(crate) fn subscription(spec: &str) -> String {
    object("Subscription", "s", spec)
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    let spec: String = format!("  {}\n", spec.trim_end().replace('\n', "\n  "));
    format!(
        "---\napiVersion: harborhook.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop, labels: {{team: a}}}}\nspec:\n{spec}"
    )
}

/// The Secret `keys` in namespace `shop` with the value under `key`.
pub(crate) fn secret(value: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: keys, namespace: shop}}\nstringData: {{key: {value:?}}}\n"
    )
}

/// Lines of a spec that sign with the Secret of [`secret`].
pub(crate) const SIGNING: &str = "signing: {secretKeyRef: {name: keys, key: key}}";
/// A key that is long enough.
pub(crate) const KEY: &str = "first-key-first-key-first-key";

/// A good endpoint and its Secret.
pub(crate) fn good(more: &str) -> String {
    format!("{}{}", secret(KEY), endpoint(&format!("url: https://example.com/hook\n{SIGNING}\n{more}")))
}
