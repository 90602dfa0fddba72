//! Kubernetes, and the image of Harborhook in it.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testbed::{Cluster, Environment, KUBECONFIG, Kubectl, NODE_NAME, TestNamespace};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::{DEADLINE, eventually, exists};

/// Label of a namespace whose pods may do next to nothing.
const RESTRICTED: (&str, &str) = ("pod-security.kubernetes.io/enforce", "restricted");
/// Time between two tries.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// What a server on this machine's loopback answers in these tests.
const NO_DELIVERIES: &str = r#"{"items":[],"next_cursor":null}"#;

/// The programs that were built, in a folder as the image wants it. Nobody starts an operator here: any program does.
fn programs() -> tempfile::TempDir {
    let built = std::env::var_os("HARBORHOOK_BINARIES").map_or_else(build, PathBuf::from);
    let folder = tempfile::tempdir().unwrap();
    for (name, source) in [("dispatcher", "dispatcher"), ("harborctl", "harborctl"), ("operator", "harborctl")] {
        fs::copy(built.join(source), folder.path().join(name)).unwrap();
    }
    folder
}

fn build() -> PathBuf {
    let cargo = ["build", "--quiet", "--locked", "--package", "dispatcher", "--package", "harborctl"];
    assert!(std::process::Command::new(env!("CARGO")).args(cargo).status().unwrap().success());
    Path::new(env!("CARGO_BIN_EXE_testbed")).parent().unwrap().to_owned()
}

/// A dispatcher with a database of its own, as it runs in a cluster whose rules are strict.
fn dispatcher_pod(image: &str) -> String {
    format!(
        r"
apiVersion: v1
kind: Pod
metadata: {{name: dispatcher, labels: {{app: dispatcher}}}}
spec:
  securityContext: {{runAsNonRoot: true, fsGroup: 65532, seccompProfile: {{type: RuntimeDefault}}}}
  terminationGracePeriodSeconds: 1
  containers:
  - name: dispatcher
    image: {image}
    imagePullPolicy: Never
    command: [dispatcher, all, --log-format, json]
    env:
    - {{name: HARBORHOOK_DATABASE, value: 'sqlite:/data/ledger.sqlite'}}
    - {{name: HARBORHOOK_QUEUE, value: 'memory:'}}
    - {{name: HARBORHOOK_SEALING_KEY_FILE, value: /key/key}}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {{drop: [ALL]}}
    volumeMounts: [{{name: data, mountPath: /data}}, {{name: key, mountPath: /key}}]
  volumes:
  - {{name: data, emptyDir: {{}}}}
  - {{name: key, secret: {{secretName: sealing, defaultMode: 0440}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: sealing}}
stringData: {{key: '0123456789abcdef0123456789abcdef'}}
"
    )
}

/// A Service whose only endpoint is an address.
fn service_of(name: &str, address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!(
        r"
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{port: 80, targetPort: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: ['{ip}']}}]
ports: [{{port: {port}}}]
"
    )
}

/// A server on this machine's loopback that gives everybody the same answer.
async fn local_server() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _read = stream.read(&mut request).await;
                let length = NO_DELIVERIES.len();
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
                stream.write_all(format!("{head}content-length: {length}\r\n\r\n{NO_DELIVERIES}").as_bytes()).await
            });
        }
    });
    port
}

/// Whether the pod says that it is ready. A forwarder ends when nobody listens in the pod yet.
async fn answers_through_a_forwarder(kubectl: &Kubectl) -> bool {
    let forward = kubectl.port_forward("pod/dispatcher", 8081).await.unwrap();
    let mut answer = String::new();
    let exchange = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, forward.local_port())).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        stream.read_to_string(&mut answer).await
    };
    exchange.await.is_ok() && answer.starts_with("HTTP/1.1 200")
}

fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == condition && one["status"] == "True"))
}

/// `harborctl` in the pod asks a server for its deliveries until it gets the answer of [`local_server`].
async fn harborctl_reaches(namespace: &TestNamespace, server: &str) {
    let arguments =
        ["exec", "dispatcher", "--", "harborctl", "delivery", "list", "--output", "json", "--server", server];
    let start = Instant::now();
    loop {
        let output = namespace.kubectl().output(arguments).await.unwrap();
        if output.status.success() {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{server}: {}", String::from_utf8_lossy(&output.stderr));
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[tokio::test]
async fn the_image_runs_under_the_strictest_rules_and_reaches_what_it_is_given() {
    let Some(cluster) = testbed::cluster().await.unwrap() else { return };
    if !cluster.is_on_this_machine() {
        return;
    }
    let node = cluster.kubectl().get(&format!("node/{NODE_NAME}")).await.unwrap();
    assert!(is_true(&node, "Ready"), "{node:#}");
    let programs = programs();
    let image = cluster.harborhook_image(programs.path()).await.unwrap();
    let namespace = cluster.kubectl().namespace_with_labels("testbed", &[RESTRICTED]).await.unwrap();
    let kubectl = namespace.kubectl();
    let refused = kubectl.run(["run", "root", "--image=localhost/pause:1"]).await.unwrap_err().to_string();
    assert!(refused.contains("PodSecurity"), "{refused}");
    kubectl.apply(&dispatcher_pod(&image)).await.unwrap();
    kubectl.wait_for("pod/dispatcher", "ready", DEADLINE, |pod| is_true(pod, "Ready")).await.unwrap();

    let start = Instant::now();
    while !answers_through_a_forwarder(kubectl).await {
        assert!(start.elapsed() < DEADLINE, "the dispatcher is never ready");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let log = kubectl.run(["logs", "dispatcher"]).await.unwrap();
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()) && !log.is_empty(), "{log}");
    assert_eq!(cluster.harborhook_image(programs.path()).await.unwrap(), image, "it is there already");
    let version = kubectl.run(["exec", "dispatcher", "--", "harborctl", "--version"]).await.unwrap();
    assert!(version.starts_with("harborctl "), "{version}");

    let exposed = cluster.expose(local_server().await).await.unwrap();
    harborctl_reaches(&namespace, &format!("http://{exposed}")).await;
    kubectl.apply(&service_of("here", exposed)).await.unwrap();
    let name = namespace.name();
    for host in ["here", &format!("here.{name}"), &format!("here.{name}.svc.cluster.local")] {
        harborctl_reaches(&namespace, &format!("http://{host}")).await;
    }
}

#[tokio::test]
async fn the_programs_of_a_module_are_built_once() {
    let Some(folder) = testbed::go_programs("etcd").await.unwrap() else { return };
    assert!(folder.join("etcd").is_file());
    assert_eq!(testbed::go_programs("etcd").await.unwrap(), Some(folder));
    let error = testbed::go_programs("no-such-module").await.unwrap_err();
    assert!(error.to_string().contains("no-such-module"), "{error}");
}

/// What a cluster has on this machine.
struct Traces {
    folder: PathBuf,
    processes: BTreeSet<u32>,
}

impl Traces {
    fn of(cluster: &Cluster) -> Self {
        let folder = cluster.kubeconfig().parent().unwrap().to_owned();
        let processes = descendants(cluster.node_process().unwrap());
        let traces = Self { folder, processes };
        assert!(traces.processes.len() > 8, "{:?}", traces.processes);
        assert!(!traces.control_groups().is_empty());
        traces
    }

    fn control_groups(&self) -> Vec<PathBuf> {
        let name = self.folder.file_name().unwrap();
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        hierarchies.chain(["/sys/fs/cgroup".into()]).map(|path| path.join(name)).filter(|path| path.exists()).collect()
    }

    fn remaining(&self) -> Vec<String> {
        let folder = self.folder.to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let processes = self.processes.iter().copied().filter(|process| exists(*process));
        let mut remaining: Vec<_> = processes.map(|process| format!("process {process}")).collect();
        remaining.extend(mounts.lines().filter(|line| line.contains(folder)).map(str::to_owned));
        remaining.extend(self.control_groups().iter().map(|path| path.display().to_string()));
        if self.folder.exists() {
            remaining.push(folder.to_owned());
        }
        remaining
    }
}

/// A process and all that it and its descendants have started.
fn descendants(process: u32) -> BTreeSet<u32> {
    let parent_of = |process: u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name before it may contain anything.
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let all: Vec<u32> =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    let mut found = BTreeSet::from([process]);
    loop {
        let more: Vec<_> = all
            .iter()
            .copied()
            .filter(|one| !found.contains(one) && parent_of(*one).is_some_and(|parent| found.contains(&parent)))
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// A pod that does nothing, so that there is something to leave behind.
async fn idle_pod(cluster: &Cluster) {
    let kubectl = cluster.kubectl();
    kubectl.wait_for("serviceaccount/default", "there", DEADLINE, |_| true).await.unwrap();
    kubectl.run(["run", "idle", "--image=localhost/pause:1", "--image-pull-policy=Never"]).await.unwrap();
    kubectl.wait_for("pod/idle", "ready", DEADLINE, |pod| is_true(pod, "Ready")).await.unwrap();
}

#[tokio::test]
async fn two_clusters_know_nothing_of_each_other_and_nothing_is_left_of_one() {
    let Some(shared) = testbed::cluster().await.unwrap() else { return };
    let Some(own) = testbed::kubernetes().await.unwrap() else { return };
    idle_pod(&own).await;
    own.kubectl().run(["create", "namespace", "of-one-cluster"]).await.unwrap();
    let missing = shared.kubectl().get("namespace/of-one-cluster").await.unwrap_err().to_string();
    assert!(missing.contains("NotFound"), "{missing}");

    let traces = Traces::of(&own);
    drop(own);
    assert_eq!(traces.remaining(), Vec::<String>::new());
    assert!(!Path::new("/sys/class/net/cni0").exists(), "this machine's network has changed");
    shared.kubectl().run(["get", "nodes"]).await.unwrap();
}

#[tokio::test]
async fn a_cluster_that_the_environment_names_is_used_and_ends_with_the_command_that_holds_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
    command.arg("cluster").stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut holder = command.spawn().unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let Some(line) = lines.next_line().await.unwrap() else {
        assert!(!holder.wait().await.unwrap().success());
        return;
    };
    let kubeconfig = line.strip_prefix(&format!("export {KUBECONFIG}=")).unwrap();

    // Another process: the cluster is the same, nothing is started.
    let script = format!("echo ${KUBECONFIG}");
    let mut run = Command::new(env!("CARGO_BIN_EXE_testbed"));
    run.args(["run", "/bin/sh", "-c", &script]).env(KUBECONFIG, kubeconfig);
    for unused in [testbed::DATABASE_URL, testbed::AMQP_URL] {
        run.env(unused, "named:");
    }
    let output = run.output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{kubeconfig}\n"));

    let environment = Environment { kubeconfig: Some(kubeconfig.into()), ..Environment::read().unwrap() };
    let cluster = Cluster::named(&environment).await.unwrap().unwrap();
    assert!(cluster.is_on_this_machine());
    assert_eq!(cluster.expose(local_server().await).await.unwrap().ip(), testbed::NODE_ADDRESS);
    idle_pod(&cluster).await;
    let traces = Traces::of(&cluster);

    let id = Pid::from_raw(holder.id().unwrap().cast_signed()).unwrap();
    kill_process(id, Signal::KILL).unwrap();
    holder.wait().await.unwrap();
    eventually("nothing is left", || traces.remaining().is_empty()).await;
    let error = Cluster::named(&environment).await.unwrap_err();
    assert!(error.to_string().contains(KUBECONFIG), "{error:#}");
}
