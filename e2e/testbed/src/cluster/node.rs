//! The node of a private cluster: one sandbox, whose PID 1 starts everything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::NODE_NAME;
use super::credentials::Credentials;
use super::programs::Programs;
use crate::announce;
use crate::cache::{build_once, fingerprint};
use crate::environment::Environment;
use crate::kubectl::Kubectl;
use crate::missing::{Missing, missing};
use crate::root::{MMDEBSTRAP, UNSHARE};
use crate::sandbox::Sandbox;

/// Where the API server listens on the node's loopback.
pub(super) const API_PORT: u16 = 6443;
/// Folder below `/var` with what the node's programs read.
pub(super) const FOLDER: &str = "node";

const INIT: &str = include_str!("../../../cluster/node/init.sh");
/// Files for the node's programs that are the same in every cluster.
const FILES: &[(&str, &str)] = &[
    ("containerd.toml", include_str!("../../../cluster/node/containerd.toml")),
    ("cni/bridge.conflist", include_str!("../../../cluster/node/bridge.conflist")),
    ("kubelet.yaml", include_str!("../../../cluster/node/kubelet.yaml")),
    ("Corefile", include_str!("../../../cluster/node/Corefile")),
];
const PAUSE_SOURCE: &str = include_str!("../../../cluster/pause/pause.c");
const PAUSE_IMAGE: &str = include_str!("../../../cluster/pause/Dockerfile");

/// What a node takes from Debian, and how it is installed.
const PROGRAMS: &[(&str, &str)] = &[
    UNSHARE,
    MMDEBSTRAP,
    ("containerd", "apt-get install containerd"),
    ("runc", "apt-get install runc"),
    ("/usr/lib/cni/bridge", "apt-get install containernetworking-plugins"),
    ("buildah", "apt-get install buildah"),
    ("iptables", "apt-get install iptables"),
    ("nft", "apt-get install nftables"),
    ("ip", "apt-get install iproute2"),
    ("cc", "apt-get install gcc libc6-dev"),
];

/// What every node is made of.
pub(super) struct Ingredients {
    pub(super) programs: Programs,
    cache: PathBuf,
    /// Image of the container that holds a pod's namespaces.
    pause: PathBuf,
}

impl Ingredients {
    pub(super) fn prepare(environment: &Environment) -> Result<Result<Self, Missing>> {
        if let Some(missing) = missing(PROGRAMS) {
            return Ok(Err(missing));
        }
        let cache = environment.cache_folder()?.to_owned();
        let pause = cache.join(format!("pause-{}", fingerprint([PAUSE_SOURCE, PAUSE_IMAGE])));
        build_once(&pause, build_pause)?;
        Ok(Ok(Self { programs: Programs::prepare(environment)?, cache, pause: pause.join("image.tar") }))
    }
}

fn build_pause(folder: &Path) -> Result<()> {
    fs::create_dir(folder)?;
    fs::write(folder.join("pause.c"), PAUSE_SOURCE)?;
    fs::write(folder.join("Dockerfile"), PAUSE_IMAGE)?;
    let compiled = Command::new("cc")
        .args(["-Os", "-static", "-s", "-Wall", "-Werror", "-o", "pause", "pause.c"])
        .current_dir(folder)
        .output()
        .context("cc does not start")?;
    if !compiled.status.success() {
        bail!("the pause program does not compile\n{}", String::from_utf8_lossy(&compiled.stderr));
    }
    crate::image::build_archive(folder, &[], "localhost/pause:1", &folder.join("image.tar"))
}

/// See [`super::Cluster`].
#[derive(Debug)]
pub(super) struct Node {
    credentials: Credentials,
    sandbox: Sandbox,
}

impl Node {
    /// Starts everything at once. What answers is for the other methods to find out.
    pub(super) fn start(ingredients: &Ingredients) -> Result<Self> {
        let credentials = Credentials::new()?;
        let mut files: Vec<_> = FILES.iter().map(|(name, content)| (*name, (*content).to_owned())).collect();
        files.extend(credentials.files());
        let files: Vec<_> =
            files.into_iter().map(|(name, content)| (format!("var/{FOLDER}/{name}"), content)).collect();
        let files: Vec<_> = files.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
        let mut sandbox = Sandbox::new(&files)?;
        let folder = sandbox.folder().to_owned();
        fs::copy(&ingredients.pause, folder.join(format!("var/{FOLDER}/pause.tar")))?;
        // In every hierarchy the control group has the name of the folder, which no other has.
        let control_group = folder.file_name().context("the folder has no name")?.to_owned();
        let programs = ingredients.programs.folder_names().map(|name| format!("/run/cache/{name}"));
        let path = programs.chain(["/usr/sbin:/usr/bin:/sbin:/bin".to_owned()]).collect::<Vec<_>>().join(":");
        let arguments = [&folder, &ingredients.cache, Path::new(&control_group), Path::new(&path)];
        sandbox.start(&["--net", "--mount", "--ipc", "--uts"], INIT, &arguments)?;
        Ok(Self { credentials, sandbox })
    }

    /// Process id of its PID 1 as the host sees it. The namespaces exist once this does.
    pub(super) async fn wait_for_process(&mut self) -> Result<u32> {
        loop {
            if let Some(process) = self.sandbox.process_id() {
                return Ok(process);
            }
            self.sandbox.wait_a_moment().await?;
        }
    }

    /// Writes the administrator's kubeconfig for the host, and returns its path.
    pub(super) fn write_kubeconfig(&self, server: &str, process: u32) -> Result<PathBuf> {
        let path = self.sandbox.folder().join("kubeconfig");
        fs::write(&path, self.credentials.admin_kubeconfig(server, process))?;
        Ok(path)
    }

    /// Until the API server answers and the node takes pods.
    pub(super) async fn wait_until_ready(&mut self, kubectl: &Kubectl) -> Result<()> {
        while !is_ready(kubectl).await? {
            self.sandbox.wait_a_moment().await.context("Kubernetes does not start")?;
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.sandbox.end() {
            announce(&format!("a cluster did not end by itself, look at /sys/fs/cgroup: {error:#}"));
        }
    }
}

/// Pods need the node, and the account that they run as unless they name another.
async fn is_ready(kubectl: &Kubectl) -> Result<bool> {
    let node = format!("node/{NODE_NAME}");
    let output = kubectl.output(["get", &node, "serviceaccount/default", "--output", "json"]).await?;
    let Ok(answer) = serde_json::from_slice::<Value>(&output.stdout) else { return Ok(false) };
    let Some([node, _account]) = answer["items"].as_array().map(Vec::as_slice) else { return Ok(false) };
    let conditions = node["status"]["conditions"].as_array();
    Ok(conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")))
}
