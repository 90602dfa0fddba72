//! The whole cluster and its Secrets watched, by a ServiceAccount that may do that and no more; and rights that are taken
//! away while it does.

use std::time::Duration;

use crds::Kind;
use dispatcher_core::table::EndpointState;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::instance::{Operator, Setup};
use super::run::{KEY, signed};
use super::support::{Cluster, condition_of, eventually};

const OTHER_KEY: &str = "other-key-other-key-other-key";

/// A ClusterRole with these rules, and its binding to the account, both of this name.
fn cluster_role(name: &str, namespace: &str, rules: &Value) -> [Value; 2] {
    let api = "rbac.authorization.k8s.io";
    [
        json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}),
        json!({
            "apiVersion": format!("{api}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": namespace}],
        }),
    ]
}

/// What is to be watched, and what is to be written; as the page on the operator lists it.
fn rights(namespace: &str) -> Vec<Value> {
    let resources = ["hookendpoints", "hooksubscriptions", "hookreplays", "hookpools"];
    let watch = json!([
        {"apiGroups": ["harborhook.dev"], "resources": resources, "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]},
    ]);
    let secrets = json!([
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]},
    ]);
    let write = json!([
        {"apiGroups": ["harborhook.dev"], "resources": resources.map(|name| format!("{name}/status")), "verbs": ["patch"]},
    ]);
    let lead = json!([
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
    ]);
    let tell = json!([
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    ]);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator"}});
    let roles = [("watch", watch), ("secrets", secrets), ("write", write), ("lead", lead), ("tell", tell)];
    let roles = roles.iter().flat_map(|(name, rules)| cluster_role(&format!("operator-{name}"), namespace, rules));
    std::iter::once(account).chain(roles).collect()
}

/// A cluster, and an operator that runs as its ServiceAccount.
struct Scene {
    cluster: Cluster,
    operator: Operator,
}

impl Scene {
    async fn start() -> Option<Self> {
        let cluster = Cluster::private("rights").await?;
        cluster.install_kinds().await;
        Self::grant_all(&cluster).await;
        let token = cluster.kubectl().run(["create", "token", "operator"]).await.unwrap();
        let setup = Setup {
            namespaces: Vec::new(),
            watch_secrets: true,
            // A watch that was allowed goes on when it no longer is; to list is asked anew.
            resync: Duration::from_secs(5),
            ..Setup::new(cluster.client_with(token.trim()), cluster.namespace())
        };
        Some(Self { operator: Operator::start_with(setup).await, cluster })
    }

    async fn grant_all(cluster: &Cluster) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": rights(cluster.namespace())});
        cluster.kubectl().apply(&list.to_string()).await.unwrap();
    }

    async fn take_away(&self, role: &str) {
        let bindings: Api<ClusterRoleBinding> = Api::all(self.cluster.client.clone());
        bindings.delete(&format!("operator-{role}"), &DeleteParams::default()).await.unwrap();
    }

    async fn state(&self, endpoint: &str) -> Option<EndpointState> {
        self.operator.endpoint(endpoint).await.map(|row| row.state)
    }

    async fn suspend(&self, suspend: bool) {
        let mut spec = signed();
        spec["suspend"] = json!(suspend);
        self.cluster.put(Kind::Endpoint, "e", &spec).await;
    }

    async fn is_back(&self) {
        Self::grant_all(&self.cluster).await;
        eventually("it works again", || async { self.operator.is_ready().await && self.operator.leads().await }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_a_whole_cluster_are_watched_and_rights_that_are_taken_away_are_missed() {
    let Some(scene) = Scene::start().await else { return };
    let (cluster, operator) = (&scene.cluster, &scene.operator);
    secrets_count_at_once(&scene).await;

    // A namespace that comes to be.
    let late = cluster.server().kubectl().namespace("operator-late").await.unwrap();
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"key": KEY}});
    let endpoint = json!({
        "apiVersion": crds::API_VERSION, "kind": "Endpoint", "metadata": {"name": "late"}, "spec": signed(),
    });
    late.kubectl()
        .apply(&json!({"apiVersion": "v1", "kind": "List", "items": [secret, endpoint]}).to_string())
        .await
        .unwrap();
    eventually("it is served too", || async { scene.state("late").await == Some(EndpointState::Active) }).await;

    let rows = operator.rows().await;
    scene.take_away("watch").await;
    eventually("it says which is missing", || misses(operator, "hookendpoints")).await;
    eventually("an Event about the Lease tells it", || async {
        let events = cluster.events_about("Lease").await;
        events.iter().any(|(reason, note)| reason == "CannotWatch" && note.contains("not allowed"))
    })
    .await;
    assert!(!operator.is_ready().await);
    assert_eq!(operator.rows().await, rows, "every route stays");
    scene.is_back().await;

    scene.take_away("secrets").await;
    eventually("it says which is missing", || misses(operator, "secrets")).await;
    let mut spec = signed();
    spec["signing"]["secretKeyRef"]["name"] = json!("other");
    cluster.put(Kind::Endpoint, "second", &spec).await;
    let ready = async || condition_of(&cluster.read_endpoint("second").await, "Ready")["reason"].clone();
    eventually("who names one is told", || async { ready().await == "SecretForbidden" }).await;
    scene.is_back().await;
    eventually("it is looked for again", || async { ready().await == "SecretNotFound" }).await;

    scene.take_away("write").await;
    scene.suspend(true).await;
    eventually("routing goes on without statuses", || async {
        scene.state("e").await == Some(EndpointState::Suspended)
    })
    .await;
    let refused = "harborhook_operator_status_failures_total{class=\"forbidden\"}";
    eventually("what is refused is counted", || async { operator.metrics().contains(refused) }).await;
    scene.is_back().await;
    eventually("and told once it may be", || async {
        condition_of(&cluster.read_endpoint("e").await, "Ready")["reason"] == "Suspended"
    })
    .await;

    scene.take_away("lead").await;
    eventually("it gives up the lead and says why", || async {
        let words = "not allowed: let a Role in namespace";
        !operator.leads().await && operator.reasons().await.contains(words)
    })
    .await;
    eventually("an Event about the Lease tells it", || async {
        cluster.events_about("Lease").await.iter().any(|(reason, _)| reason == "CannotLead")
    })
    .await;
    scene.suspend(false).await;
    assert_eq!(operator.rows().await.len(), rows.len());
    scene.is_back().await;
    eventually("it goes on", || async { scene.state("e").await == Some(EndpointState::Active) }).await;
    let Scene { mut operator, .. } = scene;
    operator.running.stop().await;
}

/// Whether the right to watch this is missed.
async fn misses(operator: &Operator, what: &str) -> bool {
    let words = format!("{what}: not allowed: let a ClusterRole grant get, list and watch on {what}");
    operator.reasons().await.contains(&words)
}

/// Far sooner than they would be read again by themselves: in five minutes.
async fn secrets_count_at_once(Scene { cluster, operator }: &Scene) {
    cluster.put(Kind::Endpoint, "e", &signed()).await;
    let ready = async || condition_of(&cluster.read_endpoint("e").await, "Ready");
    let says = async |reason: &str, words: &str| {
        let ready = ready().await;
        ready["reason"] == reason && ready["message"].as_str().is_some_and(|message| message.contains(words))
    };
    eventually("its Secret is missing", || says("SecretNotFound", "keys")).await;
    cluster.put_secret("keys", &[("key", KEY)]).await;
    eventually("it is there", || async { operator.active().await == 1 && operator.is_ready().await }).await;
    let before = operator.endpoint("e").await.unwrap();
    cluster.put_secret("keys", &[("key", OTHER_KEY)]).await;
    eventually("another key counts", || async {
        operator.endpoint("e").await.is_some_and(|row| row.revision != before.revision)
    })
    .await;
    for (values, words) in [
        (&[("another", KEY)][..], "has no key key"),
        (&[("key", "")], "cannot sign here"),
        (&[("key", "whsec_***")], "base64"),
    ] {
        cluster.put_secret("keys", values).await;
        eventually("a wrong shape is told", || says("SecretKeyMissing", words)).await;
        let state = operator.endpoint("e").await.unwrap().state;
        assert!(matches!(state, EndpointState::Held { .. }), "{state:?}");
    }
    cluster.put_secret("keys", &[("key", KEY)]).await;
    eventually("it heals", || async { operator.active().await == 1 && ready().await["status"] == "True" }).await;
}
