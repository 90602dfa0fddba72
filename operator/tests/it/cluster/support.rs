//! The real API server, if there is one.

use std::sync::Arc;
use std::time::Duration;

use crds::Kind;
use crds::definition::definition;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use testbed::{Kubectl, TestNamespace};

/// Patience of tests: far beyond what anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A namespace of a real cluster, for one test.
pub(crate) struct Cluster {
    pub(crate) client: kube::Client,
    /// How it is reached.
    pub(crate) config: kube::Config,
    namespace: TestNamespace,
    _server: Arc<testbed::Cluster>,
}

impl Cluster {
    /// `None`, after a printed line, if there is no cluster.
    pub(crate) async fn connect(test: &str) -> Option<Self> {
        let cluster = testbed::cluster().await.unwrap()?;
        let config = config(&cluster).await;
        let client = kube::Client::try_from(config.clone()).unwrap();
        let namespace = cluster.kubectl().namespace(&format!("operator-{test}")).await.unwrap();
        Some(Self { client, config, namespace, _server: cluster })
    }

    /// The same, with our kinds installed.
    pub(crate) async fn with_kinds(test: &str) -> Option<Self> {
        let cluster = Self::connect(test).await?;
        let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
        for kind in Kind::ALL {
            let definition = definition(kind);
            let name = definition.metadata.name.clone().unwrap();
            let params = PatchParams::apply("harborhook-test").force();
            definitions.patch(&name, &params, &Patch::Apply(&definition)).await.unwrap();
            eventually("the definition is served", || async {
                cluster.objects(kind).list(&ListParams::default().limit(1)).await.is_ok()
            })
            .await;
        }
        Some(cluster)
    }

    /// The client of a user who may do nothing but what is granted.
    pub(crate) fn client_of(&self, user: &str) -> kube::Client {
        let mut config = self.config.clone();
        config.auth_info.impersonate = Some(user.to_owned());
        kube::Client::try_from(config).unwrap()
    }

    pub(crate) fn namespace(&self) -> &str {
        self.namespace.name()
    }

    pub(crate) fn kubectl(&self) -> &Kubectl {
        self.namespace.kubectl()
    }

    /// Objects of a kind of Kubernetes' own in the namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), self.namespace())
    }

    pub(crate) fn objects(&self, kind: Kind) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: crds::GROUP.to_owned(),
            version: crds::VERSION.to_owned(),
            api_version: crds::API_VERSION.to_owned(),
            kind: kind.as_str().to_owned(),
            plural: kind.plural().to_owned(),
        };
        Api::namespaced_with(self.client.clone(), self.namespace(), &resource)
    }

    /// Makes the endpoint of this name; answers it as the server has it.
    pub(crate) async fn endpoint(&self, name: &str) -> Value {
        let object = json!({
            "apiVersion": crds::API_VERSION, "kind": "Endpoint", "metadata": {"name": name},
            "spec": {"url": "https://example.com/hook"},
        });
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let made = self.objects(Kind::Endpoint).create(&PostParams::default(), &object).await.unwrap();
        serde_json::to_value(made).unwrap()
    }

    pub(crate) async fn read_endpoint(&self, name: &str) -> Value {
        serde_json::to_value(self.objects(Kind::Endpoint).get(name).await.unwrap()).unwrap()
    }
}

async fn config(cluster: &testbed::Cluster) -> kube::Config {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

/// Waits for something, asking again and again.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {PATIENCE:?}: {what}");
}

#[expect(clippy::print_stderr, reason = "what was measured is told")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}
