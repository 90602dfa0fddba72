//! A cluster with a release in it, a receiver for its deliveries, and a producer outside of it.

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use e2e::http::{Client, Received, serve};
use e2e::process::binaries;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use testbed::{Cluster, Kubectl, PortForward, TestNamespace};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, Notify};

use crate::chart::support::{chart, succeeded};

/// Longest wait for what a cluster on a busy machine does.
pub(super) const DEADLINE: Duration = Duration::from_mins(3);
/// The same for kubectl.
const TIMEOUT: &str = "--timeout=180s";
/// Name of a release, and what all its names begin with.
pub(super) const RELEASE: &str = "harborhook";
/// Network of the pods; the test's receivers have an address in it.
const POD_NETWORK: &str = "10.244.0.0/16";
/// Network of the Services.
const SERVICE_NETWORK: &str = "10.96.0.0/16";

/// A cluster of the test's own, because an installation has roles and policies that hold in all namespaces; one at a
/// time, because of the machine's memory.
pub(super) struct Setting {
    /// Where the release is.
    pub(super) namespace: TestNamespace,
    /// Where its users are.
    pub(super) tenant: TestNamespace,
    pub(super) cluster: Cluster,
    image: String,
    _alone: MutexGuard<'static, ()>,
}

impl Setting {
    /// `None`, and a line that says so, where no cluster can be had.
    pub(super) async fn start() -> Option<Self> {
        static ALONE: AsyncMutex<()> = AsyncMutex::const_new(());
        let alone = ALONE.lock().await;
        let cluster = testbed::kubernetes().await.unwrap()?;
        let programs = tokio::task::spawn_blocking(binaries).await.unwrap().unwrap();
        let image = cluster.harborhook_image(programs).await.unwrap();
        let namespace = cluster.kubectl().namespace("hooks").await.unwrap();
        let tenant = cluster.kubectl().namespace("shop").await.unwrap();
        Some(Self { namespace, tenant, cluster, image, _alone: alone })
    }

    /// Values of an installation of the image that may deliver to receivers of the test.
    pub(super) fn values(&self) -> Value {
        let (repository, tag) = self.image.rsplit_once(':').unwrap();
        json!({
            "image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
            "tenants": [{"namespace": self.tenant.name(), "generateSecrets": true}],
            "addressPolicy": {
                "allowHttp": true, "allowAddresses": [POD_NETWORK], "allowPorts": ["any"], "clusterCidrs": [SERVICE_NETWORK],
            },
        })
    }

    /// `helm install` or `helm upgrade` of the release with these values and no others.
    pub(super) async fn helm_with_values(&self, command: &str, values: &Value) {
        let mut helm = self.helm(&[command, RELEASE]);
        helm.arg(chart()).args(["--values", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = helm.spawn().unwrap();
        child.stdin.take().unwrap().write_all(values.to_string().as_bytes()).await.unwrap();
        succeeded(&child.wait_with_output().await.unwrap());
    }

    /// Another helm command, which must succeed.
    pub(super) async fn helm_run(&self, arguments: &[&str]) -> String {
        succeeded(&self.helm(arguments).output().await.unwrap())
    }

    fn helm(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.cluster.helm_program());
        command.args(arguments).arg("--kubeconfig").arg(self.cluster.kubeconfig());
        command.args(["--namespace", self.namespace.name()]).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Waits until every pod of a workload, such as `statefulset/harborhook`, is the newest one and ready.
    pub(super) async fn rolled_out(&self, workload: &str) {
        let kubectl = self.namespace.kubectl();
        if let Err(error) = kubectl.run(["rollout", "status", workload, TIMEOUT]).await {
            let pods = kubectl.run(["describe", "pods"]).await.unwrap_or_default();
            panic!("{error:#}\n{pods}");
        }
    }

    /// Waits until resources of the tenant have these conditions.
    pub(super) async fn has_conditions(&self, resource: &str, conditions: &[&str]) {
        for condition in conditions {
            let condition = format!("--for=condition={condition}");
            let kubectl = self.tenant.kubectl();
            if let Err(error) = kubectl.run(["wait", &condition, TIMEOUT, resource]).await {
                let described = kubectl.run(["describe", resource]).await.unwrap_or_default();
                panic!("{error:#}\n{described}");
            }
        }
    }

    /// Suspends an endpoint of the tenant, or lets it go on, and waits until that is in effect.
    pub(super) async fn suspend_endpoint(&self, name: &str, suspend: bool) {
        let kubectl = self.tenant.kubectl();
        let (endpoint, patch) = (format!("hep/{name}"), json!({"spec": {"suspend": suspend}}).to_string());
        kubectl.run(["patch", &endpoint, "--type=merge", "--patch", &patch]).await.unwrap();
        let programmed = |endpoint: &Value| {
            let conditions = endpoint["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|condition| {
                condition["type"] == "Programmed"
                    && condition["status"] == "True"
                    && condition["observedGeneration"] == endpoint["metadata"]["generation"]
            })
        };
        kubectl.wait_for(&endpoint, "programmed anew", DEADLINE, programmed).await.unwrap();
    }

    /// A receiver of the test's process that pods reach.
    pub(super) async fn receiver(&self) -> Receiver {
        let arrivals = Arc::new(Arrivals::default());
        let filled = Arc::clone(&arrivals);
        let local = serve(move |received| {
            filled.received.lock().unwrap_or_else(PoisonError::into_inner).push(received);
            filled.changed.notify_waiters();
            StatusCode::OK
        });
        let local = local.await.unwrap();
        let exposed = self.cluster.expose(local.port()).await.unwrap();
        Receiver { url: format!("http://{exposed}"), host: exposed.to_string(), arrivals }
    }

    /// An address of the API, in which every connection finds a pod that is ready.
    pub(super) async fn api(&self) -> SocketAddr {
        let service = self.namespace.kubectl().get(&format!("service/{RELEASE}")).await.unwrap();
        let address = service["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
        self.cluster.reach(SocketAddr::new(address, 80)).await.unwrap()
    }

    /// A way to the API from outside of the cluster, until the pod behind it ends.
    pub(super) async fn producer(&self) -> Producer {
        let forward = self.namespace.kubectl().port_forward(&format!("service/{RELEASE}"), 80).await.unwrap();
        Producer { forward, client: Client::default() }
    }
}

/// Applies a resource of ours, which may be refused. Answers what kubectl says.
pub(super) async fn apply(kubectl: &Kubectl, kind: &str, name: &str, spec: Value) -> anyhow::Result<String> {
    let metadata = json!({"name": name});
    let object = json!({"apiVersion": "harborhook.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
    kubectl.apply(&object.to_string()).await
}

/// A token of a namespace's ServiceAccount `default` for Harborhook.
pub(super) async fn token(kubectl: &Kubectl) -> String {
    let token = kubectl.run(["create", "token", "default", "--audience", "harborhook"]).await.unwrap();
    token.trim().to_owned()
}

/// Key of a signing Secret, as receivers verify with it.
pub(super) async fn signing_key(kubectl: &Kubectl, secret: &str) -> Webhook {
    let template = "--output=go-template={{.data.key | base64decode}}";
    let key = kubectl.run(["get", "secret", secret, template]).await.unwrap();
    assert!(key.starts_with("whsec_"), "the Secret {secret} has no signing key");
    Webhook::new(&key).unwrap()
}

/// What a command complains about, which it must.
pub(super) fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// See [`Setting::receiver`].
pub(super) struct Receiver {
    /// For an Endpoint, without a path.
    pub(super) url: String,
    /// Its address and port, as a status shows them.
    pub(super) host: String,
    arrivals: Arc<Arrivals>,
}

#[derive(Default)]
struct Arrivals {
    received: Mutex<Vec<Received>>,
    changed: Notify,
}

impl Receiver {
    /// Everything that has arrived.
    pub(super) fn received(&self) -> Vec<Received> {
        self.arrivals.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a request with this body.
    pub(super) async fn receive(&self, body: &Value) -> Received {
        let body = body.to_string();
        let wait = async {
            loop {
                let changed = self.arrivals.changed.notified();
                let mut changed = std::pin::pin!(changed);
                changed.as_mut().enable();
                if let Some(received) = self.received().into_iter().find(|received| received.body == body.as_bytes()) {
                    return received;
                }
                changed.await;
            }
        };
        let received = tokio::time::timeout(DEADLINE, wait).await;
        received.unwrap_or_else(|_| panic!("{body} never arrived, but {} others", self.received().len()))
    }
}

/// See [`Setting::producer`].
pub(super) struct Producer {
    forward: PortForward,
    client: Client,
}

impl Producer {
    /// Publishes an event of the type `order.created` with this payload, and answers what the API says.
    pub(super) async fn publish(&self, tenant: &str, token: Option<&str>, payload: &Value) -> (StatusCode, Value) {
        let url = format!("http://127.0.0.1:{}/v1/tenants/{tenant}/events:publish", self.forward.local_port());
        let mut request = Request::post(url).header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = json!({"event_type": "order.created", "payload": payload}).to_string();
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let (status, answer) = self.client.send(request).await.unwrap();
        (status, serde_json::from_slice(&answer).unwrap())
    }
}
