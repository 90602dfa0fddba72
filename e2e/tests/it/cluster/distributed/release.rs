//! What helm does to a release that works.

use std::time::Duration;

use serde_json::{Value, json};

use super::scaling::{POOL, POOL_DEPLOYMENT};
use super::{BILLING, DEPLOYMENTS, INVOICES, ORDERS, PARTNERS, Story};
use crate::cluster::counting::Seen;
use crate::cluster::publishing::{Load, Published};
use crate::cluster::support::{DEADLINE, RELEASE, refused};

/// Some 40 invoices a second.
const LIGHT: Load = Load { connections: 4, batch: 1, pause: Duration::from_millis(100), events_max: 100_000 };
/// A value that every pod has in its environment.
const LOG_VARIABLE: &str = "HARBORHOOK_LOG";
const LOG_FILTER: &str = "info,lapin=warn,sqlx=warn,hyper=warn";
/// Dispatchers of the default pool, which nobody but the operator sets.
const DISPATCHERS: u64 = 2;
/// Events that wait while there is no installation.
const WAITING: u64 = 20;

impl Story {
    pub(super) async fn an_upgrade_and_a_rollback_under_load_lose_nothing(&self) -> Published {
        let publishing = self.publishing(INVOICES, 1, LIGHT);
        publishing.further_acknowledged(20).await;
        let copies = self.billing.look(Seen::copies);
        let mut values = self.values.clone();
        values["log"] = json!({"filter": LOG_FILTER});
        self.setting.helm_with_values("upgrade", &values).await;
        self.rolled_out_with(|filter| filter == LOG_FILTER).await;
        publishing.further_acknowledged(20).await;
        self.setting.helm_run(&["rollback", RELEASE]).await;
        self.rolled_out_with(|filter| filter != LOG_FILTER).await;
        publishing.further_acknowledged(20).await;

        let published = publishing.stop().await;
        self.billing_has(&published.numbers).await;
        // Every dispatcher had the time to tell of what it had sent.
        assert_eq!(self.billing.assert_nothing_wrong(copies), copies);
        let history = self.setting.helm_run(&["history", RELEASE, "--output", "json"]).await;
        let history: Value = serde_json::from_str(&history).unwrap();
        let revisions: Vec<&Value> = history.as_array().unwrap().iter().map(|entry| &entry["status"]).collect();
        assert_eq!(revisions, ["superseded", "superseded", "deployed"]);
        self.tell(&format!(
            "{} invoices through an upgrade and a rollback, 0 copies, {} requests repeated",
            published.numbers.clone().count(),
            published.repeated
        ));
        published
    }

    /// Waits until every pod is of the present release, and the pool's Deployment too, which the operator makes of it.
    async fn rolled_out_with(&self, is_wanted: impl Fn(&str) -> bool) {
        for deployment in DEPLOYMENTS {
            self.setting.rolled_out(deployment).await;
        }
        let kubectl = self.setting.namespace.kubectl();
        let has_filter = |deployment: &Value| {
            let environment = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
            let mut variables = environment.as_array().into_iter().flatten();
            let filter = variables.find(|variable| variable["name"] == LOG_VARIABLE);
            filter.is_some_and(|filter| is_wanted(filter["value"].as_str().unwrap_or_default()))
        };
        for deployment in DEPLOYMENTS.iter().chain([&POOL_DEPLOYMENT]) {
            kubectl.wait_for(deployment, "of this release", DEADLINE, has_filter).await.unwrap();
        }
        let dispatchers = kubectl.get(DEPLOYMENTS[2]).await.unwrap();
        assert_eq!(dispatchers["spec"]["replicas"], DISPATCHERS, "helm has set the number of dispatchers");
    }

    pub(super) async fn uninstalled_and_installed_again_it_goes_on(&self) -> Vec<Published> {
        self.setting.suspend_endpoint(BILLING, true).await;
        let waiting = self.invoices(WAITING).await;
        self.setting.helm_run(&["uninstall", RELEASE, "--wait"]).await;
        let kubectl = self.setting.namespace.kubectl();
        for gone in DEPLOYMENTS {
            assert!(refused(&kubectl.output(["get", gone]).await.unwrap()).contains("NotFound"));
        }
        let pool = format!("hpool/{POOL}");
        // A pool is its user's, and its Deployment is the pool's.
        for kept in ["secret/harborhook-sealing-key", "crd/hookendpoints.harborhook.dev", &pool, POOL_DEPLOYMENT] {
            kubectl.get(kept).await.unwrap();
        }
        for kept in ["hep/billing", "hep/partner-1", "hsub/orders", "hreplay/again", "secret/signing"] {
            self.setting.tenant.kubectl().get(kept).await.unwrap();
        }

        self.setting.helm_with_values("install", &self.values).await;
        for deployment in DEPLOYMENTS {
            self.setting.rolled_out(deployment).await;
        }
        self.setting.suspend_endpoint(BILLING, false).await;
        self.billing_has(&waiting.numbers).await;
        // The pool wakes from nothing.
        let load = Load { connections: 1, batch: 1, pause: Duration::ZERO, events_max: 1 };
        let again = self.setting.api().await;
        let order = self.publishing_to(again, ORDERS, PARTNERS as u64, load).finish().await;
        self.orders_have_arrived(&order.numbers).await;
        self.tell("installed again, and on it goes");
        vec![waiting, order]
    }
}
