//! The real API server, if there is one.

use std::time::Duration;

use crds::Kind;
use crds::definition::definition;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::ApiResource;
use serde_json::{Value, json};

/// Patience of tests: far beyond what anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Names the file with access to a cluster whose definitions may be replaced.
const KUBECONFIG: &str = "HARBORHOOK_E2E_KUBECONFIG";

/// A namespace of a real cluster, for one test.
pub(crate) struct Cluster {
    pub(crate) client: kube::Client,
    pub(crate) namespace: String,
}

impl Cluster {
    /// `None`, and a printed line, if there is no cluster.
    pub(crate) async fn connect(test: &str) -> Option<Self> {
        let Some(config) = config().await else {
            say(&format!("{test}: not run, since {KUBECONFIG} names no kubeconfig"));
            return None;
        };
        let client = kube::Client::try_from(config).unwrap();
        let namespace = format!("operator-{test}-{:08x}", rand::random::<u32>());
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let object = json!({"metadata": {"name": namespace}});
        namespaces.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        Some(Self { client, namespace })
    }

    /// The same, with our kinds installed.
    pub(crate) async fn with_kinds(test: &str) -> Option<Self> {
        let cluster = Self::connect(test).await?;
        let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
        for kind in [Kind::Endpoint, Kind::Subscription] {
            let definition = definition(kind);
            let name = definition.metadata.name.clone().unwrap();
            let params = PatchParams::apply("harborhook-test").force();
            definitions.patch(&name, &params, &Patch::Apply(&definition)).await.unwrap();
            eventually("the definition is served", || async {
                cluster.objects(kind).list(&kube::api::ListParams::default().limit(1)).await.is_ok()
            })
            .await;
        }
        Some(cluster)
    }

    pub(crate) fn objects(&self, kind: Kind) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: crds::GROUP.to_owned(),
            version: crds::VERSION.to_owned(),
            api_version: crds::API_VERSION.to_owned(),
            kind: kind.as_str().to_owned(),
            plural: kind.plural().to_owned(),
        };
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
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

    pub(crate) async fn remove(self) {
        let namespaces: Api<Namespace> = Api::all(self.client);
        drop(namespaces.delete(&self.namespace, &DeleteParams::default()).await.unwrap());
    }
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

/// How the cluster is reached, if there is one.
pub(crate) async fn config() -> Option<kube::Config> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig()?).unwrap();
    Some(kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap())
}

#[expect(clippy::disallowed_methods, reason = "where tests are configured")]
fn kubeconfig() -> Option<String> {
    std::env::var(KUBECONFIG).ok().filter(|file| !file.is_empty())
}

#[expect(clippy::print_stderr, reason = "a test that is not run says so")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}
