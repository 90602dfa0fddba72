//! The embedded installation, from `helm install` to `helm uninstall`, as the pages of the documentation tell it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use e2e::http::Received;
use hyper::StatusCode;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use testbed::NODE_NAME;

use super::support::{DEADLINE, RELEASE, Receiver, Setting, apply, refused, signing_key, token};

const WORKLOAD: &str = "statefulset/harborhook";
const POD: &str = "pod/harborhook-0";
const HEADER: &str = "NAME READY DELIVERY SUCCESS P95 PENDING OLDEST LAST-CODE HOST AGE";
/// Longest time until the table tells of a delivery.
const TABLE_MAX: Duration = Duration::from_mins(1);
/// Class of the volume, which is made by hand: the test's cluster has nobody who makes volumes.
const STORAGE_CLASS: &str = "by-hand";
/// The key that takes the place of the generated one, and its base64.
const NEXT_KEY: &str = "whsec_bmV4dC1rZXktbmV4dC1rZXktbmV4dC1rZXktbmV4dC0=";

/// An installation, and who uses it.
struct Story {
    setting: Setting,
    receiver: Receiver,
    token: String,
    values: Value,
}

#[tokio::test]
async fn the_embedded_installation_does_what_its_pages_say() {
    let Some(setting) = Setting::start().await else { return };
    let story = Story::begin(setting).await;
    story.an_endpoint_and_a_subscription_are_programmed().await;
    story.only_the_tenants_own_token_publishes().await;
    let key = story.deliveries_are_signed_with_the_generated_key().await;
    story.the_table_of_endpoints_tells_how_deliveries_go().await;
    story.a_wrong_resource_is_refused_when_it_is_applied().await;
    story.a_missing_secret_is_told_and_healed().await;
    story.nothing_accepted_is_lost_with_the_pod().await;
    story.an_upgrade_lets_the_operator_watch_secrets().await;
    story.a_changed_key_signs_beside_the_one_before(&key).await;
    story.a_rollback_goes_on_delivering().await;
    story.uninstalling_leaves_what_is_the_users().await;
    story.installed_again_it_goes_on().await;
}

impl Story {
    async fn begin(setting: Setting) -> Self {
        make_volume(&setting).await;
        let mut values = setting.values();
        values["embedded"] = json!({"persistence": {"size": "1Gi", "storageClassName": STORAGE_CLASS}});
        setting.helm_with_values("install", &values).await;
        setting.rolled_out(WORKLOAD).await;
        let receiver = setting.receiver().await;
        let token = token(setting.tenant.kubectl()).await;
        Self { setting, receiver, token, values }
    }

    async fn an_endpoint_and_a_subscription_are_programmed(&self) {
        let told = self.apply("Endpoint", "billing", json!({"url": self.receiver.url})).await;
        assert_eq!(told, "endpoint.harborhook.dev/billing created\n");
        let told = self.apply("Subscription", "orders", orders_to("billing")).await;
        assert_eq!(told, "subscription.harborhook.dev/orders created\n");
        self.setting.has_conditions("hep/billing", &["Ready", "Programmed"]).await;
        self.setting.has_conditions("hsub/orders", &["Ready", "Programmed"]).await;
    }

    async fn only_the_tenants_own_token_publishes(&self) {
        let producer = self.setting.producer().await;
        let tenant = self.setting.tenant.name();
        let order = json!({"order": "of a stranger"});
        let (status, problem) = producer.publish(tenant, None, &order).await;
        assert_eq!((status, &problem["type"]), (StatusCode::UNAUTHORIZED, &problem_type("unauthenticated")));
        let strangers = token(self.setting.namespace.kubectl()).await;
        let (status, problem) = producer.publish(tenant, Some(&strangers), &order).await;
        assert_eq!((status, &problem["type"]), (StatusCode::NOT_FOUND, &problem_type("unknown-tenant")));
    }

    /// Answers the key.
    async fn deliveries_are_signed_with_the_generated_key(&self) -> Webhook {
        let key = signing_key(self.setting.tenant.kubectl(), "billing-signing-key").await;
        let order = json!({"order": "first"});
        self.publish(&order).await;
        let received = self.receiver.receive(&order).await;
        key.verify(&received.body, &received.headers).unwrap();
        assert_eq!(self.receiver.received().len(), 1, "what was refused was delivered");
        key
    }

    async fn the_table_of_endpoints_tells_how_deliveries_go(&self) {
        let kubectl = self.setting.tenant.kubectl();
        let delivering = |endpoint: &Value| endpoint["status"]["delivery"]["state"] == "Delivering";
        kubectl.wait_for("hep/billing", "Delivering", TABLE_MAX, delivering).await.unwrap();
        let table = kubectl.run(["get", "hep"]).await.unwrap();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0].join(" "), HEADER);
        assert_eq!(lines[1][..4], ["billing", "True", "Delivering", "100%"], "{table}");
        // Nothing waits, so there is no oldest.
        assert_eq!(lines[1][5..8], ["0", "200", &self.receiver.host], "{table}");
    }

    async fn a_wrong_resource_is_refused_when_it_is_applied(&self) {
        let error = self.try_apply("Endpoint", "wrong", json!({"url": "ftp://example.com"})).await.unwrap_err();
        let sentence = "The Endpoint \"wrong\" is invalid: spec.url: Invalid value: \"ftp://example.com\": \
                        must be an absolute URL in ASCII that begins with https:// or http://";
        assert!(error.to_string().ends_with(sentence), "{error}");
        let output = self.setting.tenant.kubectl().output(["get", "hep/wrong"]).await.unwrap();
        assert!(refused(&output).contains("NotFound"));
    }

    async fn a_missing_secret_is_told_and_healed(&self) {
        let kubectl = self.setting.tenant.kubectl();
        let signing = json!({"secretKeyRef": {"name": "late", "key": "key"}});
        self.apply("Endpoint", "waits", json!({"url": self.receiver.url, "signing": signing})).await;
        let tenant = self.setting.tenant.name();
        let sentence = format!("there is no Secret late in namespace {tenant}: create it");
        let start = Instant::now();
        loop {
            let described = kubectl.run(["describe", "hep/waits"]).await.unwrap();
            let (status, events) = described.split_once("Events:").unwrap();
            let says = |text: &str| text.contains("SecretNotFound") && text.contains(&sentence);
            if says(status) && events.contains("Warning") && says(events) {
                break;
            }
            assert!(start.elapsed() < DEADLINE, "the missing Secret is not told of: {described}");
        }
        let literal = format!("--from-literal=key={NEXT_KEY}");
        kubectl.run(["create", "secret", "generic", "late", &literal]).await.unwrap();
        self.setting.has_conditions("hep/waits", &["Ready", "ResolvedRefs", "Programmed"]).await;
        kubectl.run(["delete", "hep/waits"]).await.unwrap();
    }

    async fn nothing_accepted_is_lost_with_the_pod(&self) {
        self.setting.suspend_endpoint("billing", true).await;
        let orders: Vec<Value> = (0..20).map(|number| json!({"order": number})).collect();
        for order in &orders {
            self.publish(order).await;
        }
        let arrived = self.receiver.received();
        assert!(!orders.iter().any(|order| arrived.iter().any(|one| one.body == order.to_string())), "not suspended");
        let kubectl = self.setting.namespace.kubectl();
        let before = kubectl.get(POD).await.unwrap()["metadata"]["uid"].clone();
        kubectl.run(["delete", POD]).await.unwrap();
        self.setting.rolled_out(WORKLOAD).await;
        assert_ne!(kubectl.get(POD).await.unwrap()["metadata"]["uid"], before);
        self.setting.suspend_endpoint("billing", false).await;
        for order in &orders {
            self.receiver.receive(order).await;
        }
    }

    async fn an_upgrade_lets_the_operator_watch_secrets(&self) {
        let mut values = self.values.clone();
        let tenant = self.setting.tenant.name();
        values["watchNamespaces"] = json!([tenant]);
        values["tenants"] = json!([{"namespace": tenant, "generateSecrets": true, "watchSecrets": true}]);
        self.setting.helm_with_values("upgrade", &values).await;
        self.setting.rolled_out(WORKLOAD).await;
        self.delivers("after the upgrade").await;
    }

    async fn a_changed_key_signs_beside_the_one_before(&self, before: &Webhook) {
        let kubectl = self.setting.tenant.kubectl();
        let patch = json!({"stringData": {"key": NEXT_KEY}}).to_string();
        kubectl.run(["patch", "secret", "billing-signing-key", "--patch", &patch]).await.unwrap();
        let next = signing_key(kubectl, "billing-signing-key").await;
        let start = Instant::now();
        for number in 0.. {
            let order = json!({"rotating": number});
            self.publish(&order).await;
            let received = self.receiver.receive(&order).await;
            // Whoever has the key of before verifies every request, from the first to the last.
            before.verify(&received.body, &received.headers).unwrap();
            if next.verify(&received.body, &received.headers).is_ok() {
                let signatures = received.headers["webhook-signature"].to_str().unwrap();
                assert_eq!(signatures.split(' ').count(), 2, "{signatures}");
                return;
            }
            assert!(start.elapsed() < DEADLINE, "the new key does not sign");
        }
    }

    async fn a_rollback_goes_on_delivering(&self) {
        self.setting.helm_run(&["rollback", RELEASE]).await;
        self.setting.rolled_out(WORKLOAD).await;
        let history = self.setting.helm_run(&["history", RELEASE, "--output", "json"]).await;
        let history: Value = serde_json::from_str(&history).unwrap();
        assert_eq!(history[2]["description"], "Rollback to 1");
        self.delivers("after the rollback").await;
    }

    async fn uninstalling_leaves_what_is_the_users(&self) {
        self.setting.helm_run(&["uninstall", RELEASE, "--wait"]).await;
        let kubectl = self.setting.namespace.kubectl();
        let output = kubectl.output(["get", WORKLOAD]).await.unwrap();
        assert!(refused(&output).contains("NotFound"));
        for kept in ["secret/harborhook-sealing-key", "pvc/ledger-harborhook-0", "crd/hookendpoints.harborhook.dev"] {
            kubectl.get(kept).await.unwrap();
        }
        for kept in ["hep/billing", "hsub/orders", "secret/billing-signing-key"] {
            self.setting.tenant.kubectl().get(kept).await.unwrap();
        }
    }

    async fn installed_again_it_goes_on(&self) {
        self.setting.helm_with_values("install", &self.values).await;
        self.setting.rolled_out(WORKLOAD).await;
        self.setting.has_conditions("hep/billing", &["Ready", "Programmed"]).await;
        let order = self.delivers("after the second installation").await;
        let key = signing_key(self.setting.tenant.kubectl(), "billing-signing-key").await;
        key.verify(&order.body, &order.headers).unwrap();
    }

    async fn apply(&self, kind: &str, name: &str, spec: Value) -> String {
        self.try_apply(kind, name, spec).await.unwrap()
    }

    async fn try_apply(&self, kind: &str, name: &str, spec: Value) -> anyhow::Result<String> {
        apply(self.setting.tenant.kubectl(), kind, name, spec).await
    }

    /// Publishes an event with the tenant's token, for its one endpoint.
    async fn publish(&self, order: &Value) {
        let producer = self.setting.producer().await;
        let (status, answer) = producer.publish(self.setting.tenant.name(), Some(&self.token), order).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        assert_eq!(answer["fanout_count"], 1, "{answer}");
    }

    /// Publishes an event, and answers its delivery.
    async fn delivers(&self, order: &str) -> Received {
        let order = json!({"order": order});
        self.publish(&order).await;
        self.receiver.receive(&order).await
    }
}

fn orders_to(endpoint: &str) -> Value {
    json!({"eventTypes": ["order.*"], "endpointRef": {"name": endpoint}})
}

fn problem_type(label: &str) -> Value {
    json!(format!("https://harborhook.dev/problems/{label}"))
}

/// A folder of the node as a volume that the release's claim gets.
async fn make_volume(setting: &Setting) {
    let process = setting.cluster.node_process().unwrap();
    let path = "/var/lib/ledger";
    let folder = PathBuf::from(format!("/proc/{process}/root{path}"));
    fs::create_dir(&folder).unwrap();
    // The group that the pod's own volumes get is given by the node; nobody else has to read the file.
    fs::set_permissions(&folder, Permissions::from_mode(0o770)).unwrap();
    let node = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]});
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "ledger"},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": STORAGE_CLASS,
            "persistentVolumeReclaimPolicy": "Retain", "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [node]}]}},
        },
    });
    setting.cluster.kubectl().apply(&volume.to_string()).await.unwrap();
}
