//! Replays with real deliveries.

use serde_json::{Value, json};

use super::{BILLING, Story};
use crate::cluster::publishing::Published;
use crate::cluster::support::{DEADLINE, apply};

const HEADER: &str = "NAME STATE MATCHED QUEUED DELIVERED FAILED AGE";
/// Invoices that are replayed.
const EVENTS: u64 = 40;

/// Invoices that were replayed, and when the first of them was published.
pub(super) struct Replayed {
    pub(super) published: Published,
    pub(super) since: String,
}

impl Story {
    pub(super) async fn a_replay_counts_first_and_then_delivers_again(&self) -> Replayed {
        let since = self.now().await;
        let published = self.invoices(EVENTS).await;
        let numbers = &published.numbers;
        self.billing_has(numbers).await;
        self.delivered_since(&since, EVENTS).await;
        let count = usize::try_from(EVENTS).unwrap();
        let came = |times| self.billing.look(|seen| seen.answered("/billing", numbers, times));

        self.replay("counted", &since, json!({"dryRun": true})).await;
        self.setting.has_conditions("hreplay/counted", &["Complete", "Ready"]).await;
        self.row_of_replay_is("counted", "Completed", [count, 0, 0]).await;
        assert_eq!(came(2), 0, "a dry run has sent something");

        self.replay("again", &since, json!({"perSecond": 2})).await;
        self.billing.until("something comes again", |seen| seen.answered("/billing", numbers, 2) > 0).await;
        self.edit_replay("again", &json!({"suspend": true}), true).await;
        // Counts are told from time to time.
        let is_told = |replay: &Value| replay["status"]["queued"].as_u64().is_some_and(|queued| queued > 0);
        self.setting.tenant.kubectl().wait_for("hreplay/again", "counted", DEADLINE, is_told).await.unwrap();
        let begun = self.row_of_replay("again").await;
        assert_eq!(begun[1], "Suspended", "{begun:?}");
        let queued: usize = begun[3].parse().unwrap();
        self.billing.until("what was started comes", |seen| seen.answered("/billing", numbers, 2) >= queued).await;
        assert!(came(2) < count, "it did not pause");
        self.edit_replay("again", &json!({"suspend": false, "perSecond": 100}), false).await;
        self.setting.has_conditions("hreplay/again", &["Complete"]).await;
        self.row_of_replay_is("again", "Completed", [count; 3]).await;
        // Under the same identities: the receiver tells another one from the one before.
        assert_eq!((came(2), came(3)), (count, 0));
        self.tell(&format!("{EVENTS} deliveries replayed, {queued} of them before a pause"));
        Replayed { published, since }
    }

    /// Applies a replay of what the endpoint has got since then.
    pub(super) async fn replay(&self, name: &str, since: &str, more: Value) {
        let mut spec = json!({
            "endpointRef": {"name": BILLING}, "states": ["Delivered"], "sinceTime": since,
            "untilTime": "2126-01-01T00:00:00Z",
        });
        if let (Some(fields), Value::Object(more)) = (spec.as_object_mut(), more) {
            fields.extend(more);
        }
        apply(self.setting.tenant.kubectl(), "Replay", name, spec).await.unwrap();
    }

    /// Edits a replay, and waits until it is suspended, or is not any more.
    async fn edit_replay(&self, name: &str, spec: &Value, is_suspended: bool) {
        let kubectl = self.setting.tenant.kubectl();
        let (replay, patch) = (format!("hreplay/{name}"), json!({"spec": spec}).to_string());
        kubectl.run(["patch", &replay, "--type=merge", "--patch", &patch]).await.unwrap();
        let follows = |replay: &Value| {
            let conditions = replay["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|condition| {
                condition["type"] == "Ready"
                    && condition["observedGeneration"] == replay["metadata"]["generation"]
                    && (condition["reason"] == "Suspended") == is_suspended
            })
        };
        kubectl.wait_for(&replay, "as its spec asks", DEADLINE, follows).await.unwrap();
    }

    /// What `kubectl get hreplay` says of one: its name, state and counts.
    async fn row_of_replay(&self, name: &str) -> Vec<String> {
        let table = self.setting.tenant.kubectl().run(["get", "hreplay", name]).await.unwrap();
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0].join(" "), HEADER);
        rows[1].iter().map(|word| (*word).to_owned()).collect()
    }

    /// That `kubectl get hreplay` says this, and that nothing has failed.
    pub(super) async fn row_of_replay_is(&self, name: &str, state: &str, counts: [usize; 3]) {
        let [matched, queued, delivered] = counts;
        let row = self.row_of_replay(name).await;
        assert_eq!(row[..6].join(" "), format!("{name} {state} {matched} {queued} {delivered} 0"));
    }

    /// The ledger's time.
    async fn now(&self) -> String {
        let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')";
        sqlx::query_scalar(now).fetch_one(&self.ledger).await.unwrap()
    }

    /// Waits until so many deliveries that began since then are recorded as delivered.
    async fn delivered_since(&self, since: &str, count: u64) {
        let question = "SELECT count(*) FROM deliveries JOIN events ON events.id = deliveries.event
                        WHERE state = 1 AND event_type = 'invoice.created' AND run_started_at >= $1::timestamptz";
        let is_recorded = async || {
            let delivered: i64 = sqlx::query_scalar(question).bind(since).fetch_one(&self.ledger).await?;
            Ok(u64::try_from(delivered)? >= count)
        };
        e2e::distributed::until("what was delivered is recorded", is_recorded).await.unwrap();
    }
}
