//! A release in a cluster that others use too: its names are its own, and it goes with the test.

use std::process::{Output, Stdio};
use std::sync::Arc;

use serde_json::Value;
use testbed::{Cluster, Kubectl, TestNamespace};
use tokio::io::AsyncWriteExt;

use crate::chart::support::{Helm, Objects};

/// Kinds of a release that are in no namespace. The definitions of the resources are shared, and stay.
const IN_CLUSTER: &str =
    "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings";

/// A cluster, and a namespace for a release.
pub(super) struct Setting {
    pub(super) cluster: Arc<Cluster>,
    pub(super) namespace: TestNamespace,
    helm: Helm,
}

impl Setting {
    /// `None`, and a line that says so, where there is no cluster or no helm.
    pub(super) async fn start(labels: &[(&str, &str)]) -> Option<Self> {
        let helm = Helm::find()?;
        let cluster = testbed::cluster().await.unwrap()?;
        let namespace = cluster.kubectl().namespace_with_labels("chart", labels).await.unwrap();
        Some(Self { cluster, namespace, helm })
    }

    /// Name of the release, and what all its names begin with.
    pub(super) fn release(&self) -> String {
        format!("{}-harborhook", self.namespace.name())
    }

    /// Renders the release.
    pub(super) fn render(&self, values: &Value) -> Objects {
        self.helm.render_as(&self.release(), self.namespace.name(), values)
    }

    /// Installs the definitions, and of the release the kinds that are named.
    pub(super) async fn install(&self, values: &Value, kinds: &[&str]) -> Installed {
        let kubectl = self.cluster.kubectl();
        let mut objects = self.render(values);
        objects.0.retain(|object| object["kind"] == "CustomResourceDefinition");
        applied(&kubectl, &objects).await;
        let waiting = ["wait", "--for=condition=Established", "--timeout=60s", "crd/hookendpoints.harborhook.dev"];
        kubectl.run(waiting).await.unwrap();
        // From here on it is cleared away, whatever happens.
        let installed = Installed { kubectl: kubectl.clone(), release: self.release() };
        let mut objects = self.render(values);
        objects.0.retain(|object| kinds.iter().any(|kind| object["kind"] == *kind));
        applied(&kubectl, &objects).await;
        installed
    }
}

/// Takes away what of the release is in no namespace.
pub(super) struct Installed {
    kubectl: Kubectl,
    release: String,
}

impl Drop for Installed {
    fn drop(&mut self) {
        let selector = format!("app.kubernetes.io/instance={}", self.release);
        let delete = ["delete", IN_CLUSTER, "--selector", &selector, "--ignore-not-found", "--wait=false"];
        // What is left behind harms no other test.
        let _ = self.kubectl.command(delete).into_std().stdout(Stdio::null()).status();
    }
}

async fn applied(kubectl: &Kubectl, objects: &Objects) {
    let output = apply(kubectl, &["apply", "--server-side", "--force-conflicts", "--filename", "-"], objects).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What kubectl says to objects on its standard input.
pub(super) async fn apply(kubectl: &Kubectl, arguments: &[&str], objects: &Objects) -> Output {
    let mut command = kubectl.command(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // It may refuse before it has read everything; then its complaint is what is asserted.
    let _refused = input.write_all(objects.manifest().as_bytes()).await;
    drop(input);
    child.wait_with_output().await.unwrap()
}
