//! Pods that are killed.

use dispatcher_core::limits::{FAST_TRACK_EXCHANGES_MAX, MAX_IN_FLIGHT_DEFAULT};
use serde_json::{Value, json};

use super::replay::Replayed;
use super::{BILLING, Story};
use crate::cluster::counting::Seen;
use crate::cluster::publishing::Published;
use crate::cluster::support::{DEADLINE, apply};

const LEASE: &str = "lease/harborhook-operator";
/// Invoices that are published at once before the kill.
const EVENTS: u64 = 600;
/// Requests in flight at the kill. Of each of the two dispatchers an endpoint has at most its `maxInFlight`, so half of
/// that at least is the killed one's.
const IN_FLIGHT: usize = MAX_IN_FLIGHT_DEFAULT as usize * 3 / 2;

impl Story {
    pub(super) async fn a_killed_dispatcher_loses_nothing_of_much_in_flight(&self) -> Published {
        let kubectl = self.setting.namespace.kubectl();
        let pods = kubectl.get("pods").await.unwrap();
        let mut names = pods["items"].as_array().unwrap().iter().filter_map(|pod| pod["metadata"]["name"].as_str());
        let dispatcher = names.find(|name| name.contains("dispatcher-default")).unwrap();

        let copies = self.billing.look(Seen::copies);
        let published = self.invoices(EVENTS).await;
        self.billing.until("much is in flight", |seen| seen.in_flight >= IN_FLIGHT).await;
        kubectl.run(["delete", "pod", dispatcher, "--force", "--grace-period=0"]).await.unwrap();
        self.billing_has(&published.numbers).await;
        // A process has told of all but its exchanges in flight.
        let copies = self.billing.assert_nothing_wrong(copies + FAST_TRACK_EXCHANGES_MAX) - copies;
        self.tell(&format!("{EVENTS} invoices through the kill of a dispatcher, {copies} copies"));
        published
    }

    /// Kills the leader while a replay runs that is the second one of these.
    pub(super) async fn another_operator_leads_and_goes_on_with_a_replay(&self, replayed: &Replayed) {
        let kubectl = self.setting.namespace.kubectl();
        let holder = |lease: &Value| lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        let led = holder(&kubectl.get(LEASE).await.unwrap());
        let numbers = &replayed.published.numbers;
        let count = numbers.clone().count();
        self.replay("through-a-crash", &replayed.since, json!({"perSecond": 3})).await;
        let again = |seen: &Seen| seen.answered("/billing", numbers, 3);
        self.billing.until("the replay has begun", |seen| again(seen) > 0).await;
        kubectl.run(["delete", "pod", &led, "--force", "--grace-period=0"]).await.unwrap();
        assert!(self.billing.look(again) < count, "the replay was over before the leader was killed");
        let another = |lease: &Value| !holder(lease).is_empty() && holder(lease) != led;
        kubectl.wait_for(LEASE, "another's", DEADLINE, another).await.unwrap();
        self.setting.has_conditions("hreplay/through-a-crash", &["Complete"]).await;
        self.billing.until("everything has come again", |seen| again(seen) == count).await;
        assert_eq!(self.billing.look(|seen| seen.answered("/billing", numbers, 4)), 0, "repeated by the next leader");
        self.row_of_replay_is("through-a-crash", "Completed", [count; 3]).await;

        let spec = json!({"eventTypes": ["refund.*"], "endpointRef": {"name": BILLING}});
        apply(self.setting.tenant.kubectl(), "Subscription", "refunds", spec).await.unwrap();
        self.setting.has_conditions("hsub/refunds", &["Programmed", "Ready"]).await;
        self.tell("another operator leads");
    }
}
