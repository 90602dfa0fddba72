//! Kubernetes clusters of one node, or the one that the environment names.

mod credentials;
mod doorway;
mod images;
mod node;
mod programs;
mod stall;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::environment::{Environment, KUBECONFIG};
use crate::kubectl::Kubectl;
use crate::missing::Missing;

use doorway::Doorway;
use node::Node;
use programs::Programs;
pub(crate) use programs::{fetch, prepare};
pub use stall::Stalled;

/// The node's name.
pub const NODE_NAME: &str = "node";
/// The node's address in the network of its pods, which is its alone and the same in every cluster.
pub const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);

/// Entry of a kubeconfig by which another process finds the node again.
const EXTENSION: &str = "testbed.harborhook.dev";
/// Field of that entry: process id of the node's PID 1 as the host sees it.
const NODE_PROCESS: &str = "nodeProcess";

/// A cluster, with the means to look at it and to change it.
///
/// A private one ends when the value is dropped, and when this process ends, however it does. One that the environment
/// names is left as it is.
#[derive(Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    helm: PathBuf,
    /// Folder for what `kubectl` remembers of the cluster; `None` for the user's own.
    kubectl_cache: Option<PathBuf>,
    /// The node, where it is on this machine. It closes before the node ends.
    reach: Option<Reach>,
    /// Held by whoever builds and loads an image.
    loading: Mutex<()>,
    /// Lives as long as the cluster.
    _node: Option<Node>,
}

/// What only a node on this machine has.
#[derive(Debug)]
struct Reach {
    process: u32,
    doorway: Doorway,
}

impl Cluster {
    /// A private cluster, whatever the environment names; ready when this returns.
    pub(crate) async fn start(environment: &Environment) -> Result<Result<Self, Missing>> {
        let prepared = environment.clone();
        let ingredients = match tokio::task::spawn_blocking(move || node::Ingredients::prepare(&prepared)).await?? {
            Ok(ingredients) => ingredients,
            Err(missing) => return Ok(Err(missing)),
        };
        let program = |name| ingredients.programs.path(name).with_context(|| format!("{name} was not built"));
        let (kubectl, helm) = (program("kubectl")?, program("helm")?);
        let mut node = Node::start(&ingredients)?;
        let process = node.wait_for_process().await?;
        let doorway = Doorway::open(process)?;
        let server = doorway.lead_in(SocketAddr::from((Ipv4Addr::LOCALHOST, node::API_PORT))).await?;
        let kubeconfig = node.write_kubeconfig(&format!("https://{server}"), process)?;
        let kubectl_cache = kubeconfig.with_file_name("kubectl-cache");
        node.wait_until_ready(&Kubectl::new(&kubectl, &kubeconfig).with_cache(&kubectl_cache)).await?;
        let reach = Some(Reach { process, doorway });
        Ok(Ok(Self {
            kubeconfig,
            kubectl,
            helm,
            kubectl_cache: Some(kubectl_cache),
            reach,
            loading: Mutex::default(),
            _node: Some(node),
        }))
    }

    /// The cluster that the environment names, if it names one.
    pub async fn named(environment: &Environment) -> Result<Option<Self>> {
        let Some(kubeconfig) = environment.kubeconfig.clone() else { return Ok(None) };
        let built = Programs::of_cache(environment).ok();
        let program = |named: &Option<PathBuf>, name: &str| {
            let built = || built.as_ref().and_then(|built| built.path(name));
            named.clone().or_else(built).unwrap_or_else(|| PathBuf::from(name))
        };
        let (kubectl, helm) = (program(&environment.kubectl, "kubectl"), program(&environment.helm, "helm"));
        let command = Kubectl::new(&kubectl, &kubeconfig);
        command.run(["get", "--raw", "/readyz"]).await.with_context(|| format!("{KUBECONFIG} names no cluster"))?;
        let reach = match node_process(&command).await? {
            Some(process) => Some(Reach { process, doorway: Doorway::open(process)? }),
            None => None,
        };
        let kubectl_cache = reach.is_some().then(|| kubeconfig.with_file_name("kubectl-cache"));
        Ok(Some(Self { kubeconfig, kubectl, helm, kubectl_cache, reach, loading: Mutex::default(), _node: None }))
    }

    /// Path of the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Path of the program `kubectl`.
    pub fn kubectl_program(&self) -> &Path {
        &self.kubectl
    }

    /// Path of the program `helm`.
    pub fn helm_program(&self) -> &Path {
        &self.helm
    }

    /// `kubectl` as the administrator.
    pub fn kubectl(&self) -> Kubectl {
        let kubectl = Kubectl::new(&self.kubectl, &self.kubeconfig);
        self.kubectl_cache.as_ref().map_or_else(|| kubectl.clone(), |cache| kubectl.with_cache(cache))
    }

    /// Whether pods can be given a way to this machine, by [`Self::expose`], and images, by [`Self::load_image`].
    pub fn is_on_this_machine(&self) -> bool {
        self.reach.is_some()
    }

    /// Process id of the node's PID 1 as the host sees it; `None` when the node is elsewhere.
    pub fn node_process(&self) -> Option<u32> {
        self.reach.as_ref().map(|reach| reach.process)
    }

    /// An address by which pods reach a server on this machine's loopback, for as long as this value lives.
    pub async fn expose(&self, host_port: u16) -> Result<SocketAddr> {
        let Some(reach) = &self.reach else {
            bail!("pods of the cluster that {KUBECONFIG} names have no way to this machine; use a private cluster");
        };
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, host_port));
        reach.doorway.lead_out(NODE_ADDRESS.into(), target).await
    }

    /// An address on this machine's loopback that leads to one in the cluster, such as that of a Service, for as long as
    /// this value lives. Each connection finds its own way: to a Service, it goes to a pod that is ready.
    pub async fn reach(&self, target: SocketAddr) -> Result<SocketAddr> {
        let Some(reach) = &self.reach else {
            bail!("this machine has no way into the cluster that {KUBECONFIG} names; use a private cluster");
        };
        reach.doorway.lead_in(target).await
    }
}

/// Whether a kubeconfig says that its node is a process of this machine.
async fn node_process(kubectl: &Kubectl) -> Result<Option<u32>> {
    let config = kubectl.run(["config", "view", "--minify", "--output", "json"]).await?;
    let config: Value = serde_json::from_str(&config)?;
    let Some(process) = node_process_of(&config) else { return Ok(None) };
    // Another process may have its number by now; no other has this file.
    let file = format!("/proc/{process}/root/var/{}/admin.conf", node::FOLDER);
    if !Path::new(&file).exists() {
        bail!("the node of the cluster that {KUBECONFIG} names has ended, or you are not root");
    }
    Ok(Some(process))
}

fn node_process_of(config: &Value) -> Option<u32> {
    let extensions = config["clusters"][0]["cluster"]["extensions"].as_array()?;
    let ours = extensions.iter().find(|extension| extension["name"] == EXTENSION)?;
    u32::try_from(ours["extension"][NODE_PROCESS].as_u64()?).ok()
}
