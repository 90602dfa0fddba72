//! The real program.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::support::{Cluster, PATIENCE};

/// An `operator run`. It is killed when dropped.
pub(crate) struct Process {
    child: Child,
    admin: SocketAddr,
    log: Arc<Mutex<String>>,
    _folder: TempDir,
}

impl Process {
    /// Starts one that watches the namespace of the cluster, with these options too.
    pub(crate) async fn start(cluster: &Cluster, identity: &str, database: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("sealing.key");
        std::fs::write(&key, [7; 32]).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_operator"))
            .env_clear()
            .env("KUBECONFIG", cluster.server().kubeconfig())
            .args(["run", "--admin-listen", "127.0.0.1:0", "--identity", identity, "--database", database])
            .args(["--namespace", cluster.namespace(), "--watch-namespace", cluster.namespace()])
            .args([Path::new("--sealing-key-file"), &key])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
        let written = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = errors.next_line().await {
                let mut written = written.lock().unwrap();
                written.push_str(&line);
                written.push('\n');
            }
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("it listens").unwrap();
        let Some(line) = line else { panic!("it ended: {}", log.lock().unwrap()) };
        let line: Value = serde_json::from_str(&line).unwrap();
        let admin = line["address"].as_str().unwrap().parse().unwrap();
        Self { child, admin, log, _folder: folder }
    }

    pub(crate) async fn readyz(&self) -> Value {
        serde_json::from_str(&self.get("/readyz").await).unwrap()
    }

    pub(crate) async fn is_ready(&self) -> bool {
        self.readyz().await["ready"] == true
    }

    pub(crate) async fn leads(&self) -> bool {
        self.readyz().await["leader"] == true
    }

    /// Its metrics whose names begin with one of these, as lines.
    pub(crate) async fn metrics(&self, names: &[&str]) -> Vec<String> {
        let text = self.get("/metrics").await;
        let is_asked = |line: &&str| names.iter().any(|name| line.starts_with(&format!("harborhook_operator_{name}")));
        text.lines().filter(is_asked).map(ToOwned::to_owned).collect()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// SIGSTOP: from now on it does nothing, and nobody is told.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM; returns when it has ended by itself.
    pub(crate) async fn terminate(mut self, within: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        timeout(within, self.child.wait()).await.expect("it ends in time").unwrap()
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().expect("it runs").cast_signed()).unwrap();
        kill_process(id, signal).unwrap();
    }

    async fn get(&self, path: &str) -> String {
        let asked = async {
            let mut stream = TcpStream::connect(self.admin).await.unwrap();
            let request = format!("GET {path} HTTP/1.0\r\nhost: operator\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text.split_once("\r\n\r\n").unwrap().1.to_owned()
        };
        timeout(PATIENCE, asked).await.expect("it answers")
    }
}
