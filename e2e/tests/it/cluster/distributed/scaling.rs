//! A pool of its own that follows its load, from no dispatcher to four and back.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dispatcher_core::limits::FAST_TRACK_EXCHANGES_MAX;
use serde_json::{Value, json};

use super::{ORDERS, PARTNERS, Story};
use crate::cluster::publishing::{Load, Published};
use crate::cluster::support::{DEADLINE, apply};

pub(super) const POOL: &str = "partners";
pub(super) const POOL_DEPLOYMENT: &str = "deployment/harborhook-dispatcher-partners";
const HEADER: &str = "NAME READY REASON REPLICAS WANTED BACKLOG MODE AGE";
const REPLICAS_MAX: u64 = 4;
/// Shortest time that a pool can be told to wait before it takes a dispatcher away.
const STABILIZATION_SECONDS: u64 = 60;
/// Requests that one dispatcher has in flight. The partners take 200 ms for each, so it gets 40 a second done.
const MAX_IN_FLIGHT: u32 = 8;
/// Some 15 orders a second, each for eight partners: three times what one dispatcher gets done.
const LOAD: Load = Load { connections: 3, batch: 5, pause: Duration::from_secs(1), events_max: 3000 };
/// Longest time from the end of the load until no dispatcher is left.
const QUIET_MAX: Duration = Duration::from_mins(6);

impl Story {
    pub(super) async fn a_new_pool_that_may_be_empty_is_empty_at_once(&self) {
        let kubectl = self.setting.namespace.kubectl();
        let spec = json!({
            "minReplicas": 0, "maxReplicas": REPLICAS_MAX, "maxInFlight": MAX_IN_FLIGHT,
            "scaling": {"drainTargetSeconds": 5, "stabilizationSeconds": STABILIZATION_SECONDS},
        });
        let created = Instant::now();
        apply(kubectl, "DispatcherPool", POOL, spec).await.unwrap();
        kubectl.wait_for(&format!("hpool/{POOL}"), "empty", DEADLINE, is_at_zero).await.unwrap();
        assert!(created.elapsed() < Duration::from_secs(STABILIZATION_SECONDS), "{:?}", created.elapsed());
        assert_eq!(self.row_of_pool().await[..7].join(" "), "partners True PoolAtZero 0/0 0 0 Backlog");
        self.partners_are_ready().await;
        self.tell("a pool without dispatchers");
    }

    /// Endpoints of the pool, and the subscription of all of them.
    async fn partners_are_ready(&self) {
        let signing = json!({"secretKeyRef": {"name": "signing", "key": "key"}});
        let endpoint = |path: String| {
            json!({
                "apiVersion": "harborhook.dev/v1alpha1", "kind": "Endpoint",
                "metadata": {"name": path[1..], "labels": {"tier": "partner"}},
                "spec": {"url": format!("{}{path}", self.partners.url), "signing": signing, "poolRef": {"name": POOL},
                         // More than one dispatcher has in flight: the pool is the bound.
                         "maxInFlight": 256},
            })
        };
        let endpoints: Vec<Value> = paths().into_iter().map(endpoint).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": endpoints});
        self.setting.tenant.kubectl().apply(&list.to_string()).await.unwrap();
        let spec = json!({"endpointSelector": {"matchLabels": {"tier": "partner"}}, "eventTypes": [ORDERS]});
        apply(self.setting.tenant.kubectl(), "Subscription", "orders", spec).await.unwrap();
        for path in paths() {
            self.setting.has_conditions(&format!("hep{path}"), &["Programmed", "Ready"]).await;
        }
        self.setting.has_conditions("hsub/orders", &["Programmed", "Ready"]).await;
        let all = |subscription: &Value| subscription["status"]["endpoints"] == PARTNERS;
        self.setting.tenant.kubectl().wait_for("hsub/orders", "for all", DEADLINE, all).await.unwrap();
    }

    pub(super) async fn load_makes_it_four_dispatchers(&self) -> Published {
        let publishing = self.publishing(ORDERS, PARTNERS as u64, LOAD);
        let numbers =
            self.replicas_until("four", DEADLINE, |pool| pool["status"]["readyReplicas"] == REPLICAS_MAX).await;
        assert!(numbers.is_sorted() && numbers.contains(&1) && numbers.last() == Some(&REPLICAS_MAX), "{numbers:?}");
        let is_told =
            |pool: &Value| pool["status"]["replicas"] == "4/4" && pool["status"]["wantedReplicas"] == REPLICAS_MAX;
        self.setting.namespace.kubectl().wait_for("hpool/partners", "four", DEADLINE, is_told).await.unwrap();
        let row = self.row_of_pool().await;
        assert_eq!(row[..5].join(" "), "partners True Available 4/4 4");
        let balance = self.balance().await;
        // All four work while it still comes.
        publishing.further_acknowledged(15 * 5).await;
        let published = publishing.stop().await;
        self.orders_have_arrived(&published.numbers).await;
        let copies = self.partners.assert_nothing_wrong(FAST_TRACK_EXCHANGES_MAX);
        self.tell(&format!(
            "replicas {numbers:?}, {} open when all four were ready; {} orders to {PARTNERS} partners, {copies} copies, \
             {} requests repeated",
            balance.open,
            published.numbers.clone().count(),
            published.repeated
        ));
        published
    }

    pub(super) async fn orders_have_arrived(&self, numbers: &Range<u64>) {
        self.partners.all_answered(&paths(), numbers).await;
    }

    pub(super) async fn quiet_takes_all_of_them_away(&self) {
        let is_empty = |pool: &Value| pool["spec"]["replicas"] == 0 && pool["status"]["replicas"].is_null();
        let numbers = self.replicas_until("empty", QUIET_MAX, is_empty).await;
        assert!(numbers.is_sorted_by(|one, next| one > next) && numbers.ends_with(&[1, 0]), "{numbers:?}");
        self.setting.namespace.kubectl().wait_for("hpool/partners", "empty", DEADLINE, is_at_zero).await.unwrap();
        self.tell(&format!("replicas {numbers:?}"));
    }

    /// The numbers of replicas that are asked for one after the other, until the Deployment is as wanted.
    async fn replicas_until(&self, expectation: &str, deadline: Duration, wanted: impl Fn(&Value) -> bool) -> Vec<u64> {
        let numbers = Mutex::new(Vec::new());
        let look = |pool: &Value| {
            let replicas = pool["spec"]["replicas"].as_u64().unwrap_or_default();
            let mut numbers = numbers.lock().unwrap_or_else(PoisonError::into_inner);
            if numbers.last() != Some(&replicas) {
                numbers.push(replicas);
            }
            wanted(pool)
        };
        self.setting.namespace.kubectl().wait_for(POOL_DEPLOYMENT, expectation, deadline, look).await.unwrap();
        numbers.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `kubectl get hpool` says.
    async fn row_of_pool(&self) -> Vec<String> {
        let table = self.setting.namespace.kubectl().run(["get", "hpool", POOL]).await.unwrap();
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0].join(" "), HEADER);
        rows[1].iter().map(|word| (*word).to_owned()).collect()
    }
}

fn paths() -> Vec<String> {
    (1..=PARTNERS).map(|number| format!("/partner-{number}")).collect()
}

fn is_at_zero(pool: &Value) -> bool {
    let conditions = pool["status"]["conditions"].as_array();
    let mut ready = conditions.into_iter().flatten().filter(|condition| condition["type"] == "Ready");
    ready.any(|condition| condition["reason"] == "PoolAtZero") && pool["status"]["replicas"] == "0/0"
}
