//! A private API server, as its administrator uses it, and the account that the operator has there.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use crds::Kind;
use crds::definition::definition;
use futures::{StreamExt, TryStreamExt};
use hyper::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use testbed::Cluster;
use tokio::time::{Instant, sleep};

use super::counts::{SCHEMAS, Writes};

/// Namespace of the installation.
pub(super) const NAMESPACE: &str = "harborhook";
/// The operator's ServiceAccount there.
const ACCOUNT: &str = "operator";
/// Requests at once where many are sent.
const REQUESTS_AT_ONCE: usize = 48;
/// Objects in a page of a list.
const PAGE_OBJECTS: usize = 500;
const SERVED_DEADLINE: Duration = Duration::from_secs(30);

/// The API server. It ends with the value.
pub(super) struct ApiServer {
    client: Client,
    /// Its URL, and who vouches for it, as a kubeconfig has them.
    server: String,
    authorities: String,
    _cluster: Cluster,
}

impl ApiServer {
    /// Starts it, with our kinds installed, and an account whose writes it counts.
    pub(super) async fn start() -> Result<Self> {
        let missing = "the control plane needs a private cluster, see the lines above";
        let cluster = testbed::kubernetes().await?.context(missing)?;
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
        let named = kubeconfig.clusters.first().and_then(|named| named.cluster.clone());
        let named = named.context("the kubeconfig names a cluster")?;
        let url = named.server.context("the cluster has a URL")?;
        let authorities = named.certificate_authority_data.context("somebody vouches for the cluster")?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let server = Self { client: Client::try_from(config)?, server: url, authorities, _cluster: cluster };
        server.install_kinds().await?;
        server.install_account().await?;
        Ok(server)
    }

    async fn install_kinds(&self) -> Result<()> {
        for kind in Kind::ALL {
            let definition = serde_json::to_value(definition(kind))?;
            self.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await?;
        }
        for kind in Kind::ALL {
            let path = format!("/apis/{}/{}?limit=1", crds::API_VERSION, kind.plural());
            self.wait(&path, |_| true).await.with_context(|| format!("{} is not served", kind.plural()))?;
        }
        Ok(())
    }

    /// The account may do everything, and is treated as any other workload's; each class of its writes is counted.
    async fn install_account(&self) -> Result<()> {
        let metadata = json!({"name": NAMESPACE});
        self.create("/api/v1/namespaces", &json!({"metadata": metadata})).await?;
        let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
        self.create(&accounts, &json!({"metadata": {"name": ACCOUNT}})).await?;
        let subject = json!({"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE});
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"});
        let binding = json!({"metadata": {"name": "harborhook-operator"}, "subjects": [subject], "roleRef": role});
        self.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await?;
        let schemas = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
        for (index, schema) in SCHEMAS.iter().enumerate() {
            let account = json!({"name": ACCOUNT, "namespace": NAMESPACE});
            let covered = json!({
                "subjects": [{"kind": "ServiceAccount", "serviceAccount": account}],
                "resourceRules": [{
                    "verbs": ["create", "update", "patch", "delete", "deletecollection"], "apiGroups": ["*"],
                    "resources": schema.resources, "clusterScope": true, "namespaces": ["*"],
                }],
            });
            let object = json!({"metadata": {"name": schema.name}, "spec": {
                "priorityLevelConfiguration": {"name": "workload-low"}, "matchingPrecedence": 100 + index,
                "distinguisherMethod": {"type": "ByUser"}, "rules": [covered],
            }});
            self.create(schemas, &object).await?;
            let is_used = |schema: &Value| schema["status"]["conditions"].is_array();
            self.wait(&format!("{schemas}/{}", schema.name), is_used).await.context("a FlowSchema is not used")?;
        }
        Ok(())
    }

    /// Writes a kubeconfig of the operator's account.
    pub(super) async fn write_account(&self, file: &Path) -> Result<()> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token");
        let answer = self.create(&path, &json!({"spec": {"expirationSeconds": 86_400}})).await?;
        let token = answer["status"]["token"].as_str().context("a token was asked for")?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {
                "server": self.server, "certificate-authority-data": self.authorities,
            }}],
            "users": [{"name": "bench", "user": {"token": token}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        });
        Ok(std::fs::write(file, kubeconfig.to_string())?)
    }

    /// Creates an object; answers it as it was stored.
    pub(super) async fn create(&self, path: &str, object: &Value) -> Result<Value> {
        let request = Request::post(path).header("content-type", "application/json");
        let answer = self.client.request_text(request.body(object.to_string().into_bytes())?).await;
        Ok(serde_json::from_str(&answer.with_context(|| format!("POST {path}"))?)?)
    }

    /// Creates many, so many at once.
    pub(super) async fn create_all(&self, objects: impl Iterator<Item = (String, Value)>) -> Result<()> {
        let creations = futures::stream::iter(objects).map(Ok);
        creations
            .try_for_each_concurrent(REQUESTS_AT_ONCE, |(path, object): (String, Value)| async move {
                self.create(&path, &object).await.map(drop)
            })
            .await
    }

    /// Changes an object by a merge patch; answers it as it was stored.
    pub(super) async fn patch(&self, path: &str, change: &Value) -> Result<Value> {
        let request = Request::patch(path).header("content-type", "application/merge-patch+json");
        let answer = self.client.request_text(request.body(change.to_string().into_bytes())?).await;
        Ok(serde_json::from_str(&answer.with_context(|| format!("PATCH {path}"))?)?)
    }

    /// Reads an object.
    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.client.request_text(Request::get(path).body(Vec::new())?).await;
        Ok(serde_json::from_str(&answer.with_context(|| format!("GET {path}"))?)?)
    }

    /// Counts the objects of a kind in all namespaces that are not as they should be.
    pub(super) async fn count(&self, kind: Kind, mut matches: impl FnMut(&Value) -> bool) -> Result<usize> {
        let (mut found, mut next) = (0, String::new());
        loop {
            let (version, plural) = (crds::API_VERSION, kind.plural());
            let page = self.get(&format!("/apis/{version}/{plural}?limit={PAGE_OBJECTS}&continue={next}")).await?;
            let items = page["items"].as_array().context("a list has items")?;
            found += items.iter().filter(|item| matches(item)).count();
            match page["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => token.clone_into(&mut next),
                _ => return Ok(found),
            }
        }
    }

    /// What the operator's account has written so far.
    pub(super) async fn writes(&self) -> Result<Writes> {
        let metrics = self.client.request_text(Request::get("/metrics").body(Vec::new())?).await?;
        Ok(Writes::read(&metrics))
    }

    /// Waits until an object is there and as it should be.
    async fn wait(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> Result<()> {
        let deadline = Instant::now() + SERVED_DEADLINE;
        while !self.get(path).await.is_ok_and(|object| is_so(&object)) {
            if Instant::now() > deadline {
                bail!("{path} is not as it should be after {SERVED_DEADLINE:?}");
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}
