//! `kubectl` for tests.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::distr::{Alphanumeric, SampleString};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::announce;

/// Time between two looks at an object.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Longest wait for what the cluster does by itself.
const CLUSTER_MAX: Duration = Duration::from_mins(1);
/// Length of the random end of a namespace's name.
const SUFFIX_LENGTH: usize = 8;

/// Runs `kubectl` against one cluster, in one namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: Option<PathBuf>,
    namespace: Option<String>,
}

impl Kubectl {
    /// In the namespace that the kubeconfig names, or `default`.
    pub fn new(program: &Path, kubeconfig: &Path) -> Self {
        Self { program: program.to_owned(), kubeconfig: kubeconfig.to_owned(), cache: None, namespace: None }
    }

    /// The same with a folder of its own for what it remembers of the cluster. The user's folder goes by the address,
    /// which another cluster may have had.
    #[must_use]
    pub fn with_cache(&self, folder: &Path) -> Self {
        Self { cache: Some(folder.to_owned()), ..self.clone() }
    }

    /// The same in another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    /// A command with these arguments that is not yet started and ends with its handle.
    pub fn command(&self, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        if let Some(cache) = &self.cache {
            command.arg("--cache-dir").arg(cache);
        }
        if let Some(namespace) = &self.namespace {
            command.args(["--namespace", namespace]);
        }
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// What it writes and how it ends, whatever that is.
    pub async fn output(&self, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Result<Output> {
        self.command(arguments).output().await.with_context(|| format!("{} does not start", self.program.display()))
    }

    /// What it writes to its standard output. What it complains about is the error when it fails.
    pub async fn run(&self, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Result<String> {
        succeeded(self.output(arguments).await?)
    }

    /// Applies YAML or JSON: one object or several.
    pub async fn apply(&self, manifests: &str) -> Result<String> {
        let mut command = self.command(["apply", "--filename", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{} does not start", self.program.display()))?;
        let mut input = child.stdin.take().context("kubectl has no input")?;
        // It may refuse before it has read everything; then its complaint is the error.
        let _refused = input.write_all(manifests.as_bytes()).await;
        drop(input);
        succeeded(child.wait_with_output().await?)
    }

    /// An object, such as `pod/a`, or a list, such as `pods`.
    pub async fn get(&self, what: &str) -> Result<Value> {
        let json = self.run(["get", what, "--output", "json"]).await?;
        serde_json::from_str(&json).with_context(|| format!("kubectl get {what} wrote no JSON"))
    }

    /// Waits until an object exists for which `condition` holds, and returns it; at the deadline, an error with the last
    /// one that was seen. `expectation` is for that error.
    pub async fn wait_for(
        &self,
        what: &str,
        expectation: &str,
        deadline: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let start = Instant::now();
        loop {
            let seen = self.get(what).await;
            match seen {
                Ok(object) if condition(&object) => return Ok(object),
                seen if start.elapsed() > deadline => match seen {
                    Ok(object) => bail!("{what} is not {expectation} after {deadline:?}: {object:#}"),
                    Err(error) => return Err(error.context(format!("{what} is not {expectation} after {deadline:?}"))),
                },
                _ => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// A namespace of the caller's own, deleted with the value, in which pods can be made at once.
    pub async fn namespace(&self, prefix: &str) -> Result<TestNamespace> {
        self.namespace_with_labels(prefix, &[]).await
    }

    /// [`Self::namespace`] with labels, such as `("pod-security.kubernetes.io/enforce", "restricted")`.
    pub async fn namespace_with_labels(&self, prefix: &str, labels: &[(&str, &str)]) -> Result<TestNamespace> {
        let suffix = Alphanumeric.sample_string(&mut rand::rng(), SUFFIX_LENGTH).to_ascii_lowercase();
        let name = format!("{prefix}-{suffix}");
        let labels: serde_json::Map<_, _> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
        let manifest = serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        });
        self.apply(&manifest.to_string()).await?;
        let namespace = TestNamespace { kubectl: self.in_namespace(&name), name };
        // No pod is admitted before it is there.
        namespace.kubectl.wait_for("serviceaccount/default", "there", CLUSTER_MAX, |_| true).await?;
        Ok(namespace)
    }

    /// A loopback port that leads to a port of `target`, such as `service/a`, until the value is dropped.
    pub async fn port_forward(&self, target: &str, port: u16) -> Result<PortForward> {
        let mut command = self.command(["port-forward", "--address", "127.0.0.1", target, &format!(":{port}")]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("kubectl has no output")?;
        let mut lines = BufReader::new(output).lines();
        let line = tokio::time::timeout(CLUSTER_MAX, lines.next_line())
            .await
            .context("kubectl port-forward says nothing")??;
        // Forwarding from 127.0.0.1:PORT -> …
        let local = line.as_deref().and_then(|line| line.split_whitespace().find(|word| word.contains(':')));
        let local = local.and_then(|address| address.rsplit(':').next()).and_then(|port| port.parse().ok());
        if let Some(local_port) = local {
            // It tells of every connection, and ends when nobody listens.
            let mut errors = child.stderr.take().context("kubectl has no errors")?;
            tokio::spawn(async move { tokio::io::copy(lines.get_mut(), &mut tokio::io::sink()).await });
            tokio::spawn(async move { tokio::io::copy(&mut errors, &mut tokio::io::sink()).await });
            return Ok(PortForward { local_port, _child: child });
        }
        succeeded(child.wait_with_output().await?)?;
        bail!("kubectl port-forward names no address: {line:?}")
    }
}

/// See [`Kubectl::port_forward`].
#[derive(Debug)]
pub struct PortForward {
    local_port: u16,
    _child: Child,
}

impl PortForward {
    /// The port on 127.0.0.1.
    pub fn local_port(&self) -> u16 {
        self.local_port
    }
}

/// See [`Kubectl::namespace`].
#[derive(Debug)]
pub struct TestNamespace {
    kubectl: Kubectl,
    name: String,
}

impl TestNamespace {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// In this namespace.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        let delete = self.kubectl.command(["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"]);
        let output = delete.into_std().output().map_err(Into::into).and_then(succeeded);
        if let Err(error) = output {
            announce(&format!("the namespace {} was left behind: {error:#}", self.name));
        }
    }
}

fn succeeded(output: Output) -> Result<String> {
    if !output.status.success() {
        bail!("kubectl failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("kubectl wrote no UTF-8")
}
