//! The whole operator: on a real API server, and on one in the process that fails as a real one cannot be made to.

use std::sync::Arc;
use std::time::Duration;

use crds::Kind;
use dispatcher::admin::Report;
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::ledger::{DispatcherRole, Heartbeat, Ledger};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{EndpointState, Row};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use operator::cluster::assembly::{Assembly, Running};
use operator::cluster::issuer::IssuerSettings;
use operator::cluster::lease::LeaseConfig;
use operator::cluster::metrics::OperatorMetrics;
use operator::cluster::readiness::Readiness;
use operator::cluster::sources::SourcesConfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::support::{Cluster, eventually};

/// An operator on a ledger of its own.
pub(crate) struct Operator {
    pub(crate) running: Running,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) readiness: Readiness,
    folder: Arc<TempDir>,
}

impl Operator {
    pub(crate) async fn start(client: kube::Client, namespace: &str) -> Self {
        Self::start_in(client, namespace, "one", Arc::new(tempfile::tempdir().unwrap())).await
    }

    /// Another one on the same ledger.
    async fn start_beside(&self, client: kube::Client, namespace: &str, identity: &str) -> Self {
        Self::start_in(client, namespace, identity, Arc::clone(&self.folder)).await
    }

    async fn start_in(client: kube::Client, namespace: &str, identity: &str, folder: Arc<TempDir>) -> Self {
        let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(folder.path()).await.unwrap());
        let metrics = Arc::new(OperatorMetrics::new());
        let readiness = Readiness::new(Arc::clone(&metrics));
        let running = Assembly {
            sources: SourcesConfig {
                client,
                namespaces: vec![namespace.to_owned()],
                watch_secrets: false,
                resync: Duration::from_mins(10),
            },
            ledger: Arc::clone(&ledger),
            sealing_key: Arc::new(SealingKey::from_bytes(&[7; 32])),
            address_policy: AddressPolicy::public_https(),
            lease: LeaseConfig::new(namespace.to_owned(), "harborhook-operator".to_owned(), identity.to_owned()),
            default_pool: None,
            issuer: IssuerSettings::default(),
            readiness: readiness.clone(),
            metrics,
        }
        .start();
        Self { running, ledger, readiness, folder }
    }

    pub(crate) async fn rows(&self) -> Vec<Row> {
        self.ledger.load_table(None).await.unwrap().rows
    }

    pub(crate) async fn endpoint_state(&self) -> Option<EndpointState> {
        self.rows().await.iter().find_map(|row| match row {
            Row::Endpoint(row) => Some(row.state.clone()),
            _ => None,
        })
    }

    pub(crate) async fn reasons(&self) -> String {
        self.readiness.readiness().await.1["reasons"].to_string()
    }

    pub(crate) async fn is_ready(&self) -> bool {
        self.readiness.readiness().await.0
    }

    /// A dispatcher that has loaded the table as it is now.
    async fn beat(&self) {
        let table_version = self.ledger.load_table(None).await.unwrap().version;
        let pool = Some("default".to_owned());
        let heartbeat = Heartbeat { instance: Uuid::from_u128(1), role: DispatcherRole::All, pool, table_version };
        self.ledger.beat(heartbeat).await.unwrap();
    }
}

fn condition(object: &Value, type_: &str) -> (String, String) {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == type_).cloned().unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

async fn create(cluster: &Cluster, kind: Kind, name: &str, spec: Value) {
    let object = json!({
        "apiVersion": crds::API_VERSION, "kind": kind.as_str(), "metadata": {"name": name}, "spec": spec,
    });
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    cluster.objects(kind).create(&PostParams::default(), &object).await.unwrap();
}

async fn put_secret(cluster: &Cluster, name: &str, value: &str) {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), cluster.namespace());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"key": value, "other": "x"},
    });
    let params = PatchParams::apply("test").force();
    secrets.patch(name, &params, &Patch::Apply(&secret)).await.unwrap();
}

const KEY: &str = "first-key-first-key-first-key";

fn signed() -> Value {
    json!({"url": "https://example.com/", "signing": {"secretKeyRef": {"name": "keys", "key": "key"}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_become_routes_and_say_so() {
    let Some(cluster) = Cluster::with_kinds("routes").await else { return };
    let mut operator = Operator::start(cluster.client.clone(), cluster.namespace()).await;
    create(&cluster, Kind::Endpoint, "e", signed()).await;
    create(&cluster, Kind::Subscription, "s", json!({"endpointRef": {"name": "e"}, "eventTypes": ["order.*"]})).await;
    let ready = async || condition(&cluster.read_endpoint("e").await, "Ready");
    eventually("the Secret is missing", || async { ready().await.1 == "SecretNotFound" }).await;
    put_secret(&cluster, "keys", KEY).await;
    eventually("it heals, and is in effect while no dispatcher runs", || async {
        ready().await == ("True".to_owned(), "Programmed".to_owned())
    })
    .await;
    assert_eq!(operator.endpoint_state().await, Some(EndpointState::Active));
    assert_eq!(operator.rows().await.len(), 4, "tenant, endpoint, subscription, issuer: {:?}", operator.rows().await);
    eventually("the operator is ready", || operator.is_ready()).await;

    // A dispatcher that has loaded the table until now has not loaded the next change.
    operator.beat().await;
    let endpoints = cluster.objects(Kind::Endpoint);
    let edit = async |patch: Value| {
        endpoints.patch("e", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    edit(json!({"spec": {"timeoutSeconds": 7}})).await;
    let programmed = async || condition(&cluster.read_endpoint("e").await, "Programmed");
    eventually("one dispatcher is behind", || async { programmed().await.1 == "Waiting" }).await;
    eventually("it has caught up", || async {
        operator.beat().await;
        programmed().await == ("True".to_owned(), "Programmed".to_owned())
    })
    .await;

    edit(json!({"spec": {"url": "http://example.com/"}})).await;
    eventually("what is not allowed holds", || async {
        matches!(operator.endpoint_state().await, Some(EndpointState::Held { .. }))
            && ready().await.1 == "AddressBlocked"
    })
    .await;
    edit(json!({"spec": {"suspend": true}})).await;
    eventually("to suspend takes effect", || async {
        operator.endpoint_state().await == Some(EndpointState::Suspended)
    })
    .await;
    endpoints.delete("e", &DeleteParams::default()).await.unwrap();
    eventually("its row is gone", || async { operator.endpoint_state().await.is_none() }).await;
    operator.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_without_a_key_gets_one_and_the_next_leader_goes_on() {
    let Some(cluster) = Cluster::with_kinds("next-leader").await else { return };
    let mut first = Operator::start(cluster.client.clone(), cluster.namespace()).await;
    create(&cluster, Kind::Endpoint, "e", json!({"url": "https://example.com/"})).await;
    eventually("a key was made for it", || async { first.endpoint_state().await == Some(EndpointState::Active) }).await;
    let mut second = first.start_beside(cluster.client.clone(), cluster.namespace(), "two").await;
    eventually("the second one follows and is ready", || second.is_ready()).await;
    let version = first.ledger.load_table(None).await.unwrap().version;
    first.running.stop().await;
    let endpoints = cluster.objects(Kind::Endpoint);
    let patch = Patch::Merge(json!({"spec": {"suspend": true}}));
    endpoints.patch("e", &PatchParams::default(), &patch).await.unwrap();
    eventually("the second one publishes", || async {
        second.endpoint_state().await == Some(EndpointState::Suspended)
    })
    .await;
    let after = second.ledger.load_table(None).await.unwrap().version;
    assert_eq!(after.0, version.0 + 1, "it changed nothing else");
    second.running.stop().await;
}
