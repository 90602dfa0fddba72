//! The real API server, if there is one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::Kind;
use crds::definition::definition;
use k8s_openapi::api::core::v1::{Event, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use testbed::{Kubectl, TestNamespace};
use tokio::sync::{Mutex, MutexGuard};

/// Patience of tests: far beyond what anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A namespace of a real cluster, for one test.
pub(crate) struct Cluster {
    pub(crate) client: kube::Client,
    /// How it is reached.
    pub(crate) config: kube::Config,
    namespace: TestNamespace,
    server: Arc<testbed::Cluster>,
    /// Held by whoever has a cluster of its own.
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Cluster {
    /// `None`, after a printed line, if there is no cluster.
    pub(crate) async fn connect(test: &str) -> Option<Self> {
        let server = testbed::cluster().await.unwrap()?;
        Some(Self::of(server, test, None).await)
    }

    /// One of the test's own, without our kinds, for tests that break it. One at a time.
    pub(crate) async fn private(test: &str) -> Option<Self> {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let server = testbed::kubernetes().await.unwrap()?;
        Some(Self::of(Arc::new(server), test, Some(turn)).await)
    }

    async fn of(server: Arc<testbed::Cluster>, test: &str, turn: Option<MutexGuard<'static, ()>>) -> Self {
        let config = config(&server).await;
        let client = kube::Client::try_from(config.clone()).unwrap();
        let namespace = server.kubectl().namespace(&format!("operator-{test}")).await.unwrap();
        Self { client, config, namespace, server, _turn: turn }
    }

    /// The same, with our kinds installed.
    pub(crate) async fn with_kinds(test: &str) -> Option<Self> {
        let cluster = Self::connect(test).await?;
        cluster.install_kinds().await;
        Some(cluster)
    }

    pub(crate) async fn install_kinds(&self) {
        for kind in Kind::ALL {
            self.install(&definition(kind)).await;
            eventually("the definition is served", || async {
                self.objects(kind).list(&ListParams::default().limit(1)).await.is_ok()
            })
            .await;
        }
    }

    /// Installs a definition, or changes the one that is there.
    pub(crate) async fn install(&self, definition: &CustomResourceDefinition) {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let name = definition.metadata.name.clone().unwrap();
        let params = PatchParams::apply("harborhook-test").force();
        definitions.patch(&name, &params, &Patch::Apply(definition)).await.unwrap();
    }

    /// Removes our kinds, and every object of them.
    pub(crate) async fn remove_kinds(&self, kinds: &[Kind]) {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for kind in kinds {
            let name = definition(*kind).metadata.name.unwrap();
            definitions.delete(&name, &DeleteParams::default()).await.unwrap();
            eventually("the definition is gone", || async { definitions.get_opt(&name).await.unwrap().is_none() })
                .await;
        }
    }

    /// A client of the same server under another address, as of a proxy before it.
    pub(crate) fn client_at(&self, url: &str) -> kube::Client {
        let mut config = self.config.clone();
        config.cluster_url = url.parse().unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// A client with nothing but the token of a ServiceAccount.
    pub(crate) fn client_with(&self, token: &str) -> kube::Client {
        let mut config = self.config.clone();
        config.auth_info = kube::config::AuthInfo { token: Some(token.to_owned().into()), ..Default::default() };
        kube::Client::try_from(config).unwrap()
    }

    /// The cluster itself.
    pub(crate) fn server(&self) -> &testbed::Cluster {
        &self.server
    }

    /// Makes an object of ours, or changes it.
    pub(crate) async fn put(&self, kind: Kind, name: &str, spec: &Value) {
        let object = json!({
            "apiVersion": crds::API_VERSION, "kind": kind.as_str(), "metadata": {"name": name}, "spec": spec,
        });
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let params = PatchParams::apply("harborhook-test").force();
        self.objects(kind).patch(name, &params, &Patch::Apply(&object)).await.unwrap();
    }

    /// Makes a Secret with these values, or replaces it.
    pub(crate) async fn put_secret(&self, name: &str, values: &[(&str, &str)]) {
        let secrets = self.api::<Secret>();
        let values: BTreeMap<String, String> =
            values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let secret = Secret { metadata, string_data: Some(values), ..Secret::default() };
        if secrets.get_opt(name).await.unwrap().is_some() {
            secrets.replace(name, &PostParams::default(), &secret).await.unwrap();
        } else {
            secrets.create(&PostParams::default(), &secret).await.unwrap();
        }
    }

    /// Reasons and notes of the Events about an object of a kind.
    pub(crate) async fn events_about(&self, kind: &str) -> Vec<(String, String)> {
        let events = self.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        let of_kind = events.into_iter().filter(|event| event.involved_object.kind.as_deref() == Some(kind));
        of_kind.map(|event| (event.reason.unwrap_or_default(), event.message.unwrap_or_default())).collect()
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

/// Status and reason of a condition of an object.
pub(crate) fn condition(object: &Value, type_: &str) -> (String, String) {
    let found = condition_of(object, type_);
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

/// A condition of an object; null if it has none.
pub(crate) fn condition_of(object: &Value, type_: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default()
}

#[expect(clippy::print_stderr, reason = "what was measured is told")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}
