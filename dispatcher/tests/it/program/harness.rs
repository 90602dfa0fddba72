//! Starts the program, reads what it says, and gives it a database, a vhost and receivers.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dispatcher::ledger::Ledger;
use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher_core::id::SubscriptionId;
use dispatcher_core::table::{EndpointRow, Row, SubscriptionRow, TableChange, TenantRow};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{TestDatabase, TestVhost};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::deliver::harness::{Receiver, endpoint, eventually, policy, tenant};

/// How long a process may take to do what a test waits for.
const DEADLINE: Duration = Duration::from_mins(1);

/// A running program. It is killed when dropped.
pub(super) struct Program {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    said: Arc<Mutex<String>>,
    listening: Vec<Value>,
}

/// How a program ended, and what it had said by then.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) stderr: String,
}

impl Program {
    pub(super) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// Starts it with variables in its environment, and nothing else of ours.
    pub(super) fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_dispatcher"))
            .args(arguments)
            .env_clear()
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::unbounded_channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let said = Arc::new(Mutex::new(String::new()));
        let (mut stderr, heard) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&said));
        std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                heard.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
            // What is not text is still something to wait for the end of.
            stderr.read_to_end(&mut Vec::new()).ok();
        });
        Self { child, lines, said, listening: Vec::new() }
    }

    /// What it has said so far on the standard error stream.
    pub(super) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Where it listens for something.
    pub(super) async fn address(&mut self, role: &str) -> SocketAddr {
        loop {
            if let Some(line) = self.listening.iter().find(|line| line["role"] == role) {
                return line["address"].as_str().unwrap().parse().unwrap();
            }
            let line = timeout(DEADLINE, self.lines.recv()).await.expect("it listens in time");
            let line = line.unwrap_or_else(|| panic!("it ended before it listened: {}", self.said()));
            let line: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(line["kind"], "listening", "{line}");
            self.listening.push(line);
        }
    }

    /// Status and body of a path of its admin listener.
    pub(super) async fn admin(&mut self, path: &str) -> (u16, String) {
        get(self.address("admin").await, path).await
    }

    /// What `/readyz` says now.
    pub(super) async fn readiness(&mut self) -> Value {
        let (status, body) = self.admin("/readyz").await;
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status == 200, answer["ready"] == true, "{status} {body}");
        answer
    }

    /// Waits until it says that it is ready.
    pub(super) async fn ready(&mut self) {
        self.until(|answer| answer["ready"] == true).await;
    }

    /// Waits until a check finds something, and answers all of them.
    pub(super) async fn finds(&mut self, check: &str, finding: &str) -> Value {
        self.until(|answer| answer["checks"][check] == finding).await
    }

    /// Waits until what `/readyz` says is as expected.
    pub(super) async fn until(&mut self, condition: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let waiting = async {
            loop {
                last = self.readiness().await;
                if condition(&last) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = timeout(DEADLINE, waiting).await.is_ok();
        assert!(in_time, "in vain: {last}; it said: {}", self.said());
        last
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended by itself.
    pub(super) async fn end(&mut self) -> Ended {
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().unwrap();
            std::future::ready(status.is_some())
        })
        .await;
        // The last line may still be on its way.
        let stderr = self.said();
        Ended { code: status.unwrap().code(), stderr }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Status and body of a page.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let client = reqwest::Client::builder().build().unwrap();
    let response = client.get(format!("http://{address}{path}")).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// Publishes an event of a type; answers status and body.
pub(crate) async fn publish(address: SocketAddr, event_type: &str, number: usize) -> (u16, Value) {
    let url = format!("http://{address}/v1/tenants/shop/events:publish");
    let body = json!({"event_type": event_type, "payload": {"number": number}}).to_string();
    let client = reqwest::Client::builder().build().unwrap();
    let request = client.post(url).header("content-type", "application/json").body(body);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
}

/// Servers of a test's own, the key file, and the ledger as another process sees it.
pub(super) struct World {
    pub(super) database: TestDatabase,
    pub(super) vhost: TestVhost,
    folder: TempDir,
}

impl World {
    /// An empty database and an empty vhost; `None`, with a word on the error stream, where there are no servers.
    pub(super) async fn empty() -> Option<Self> {
        let (database, vhost) = (testbed::database().await.unwrap()?, testbed::vhost().await.unwrap()?);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sealing.key"), [7; 32]).unwrap();
        Some(Self { database, vhost, folder })
    }

    /// A migrated database with one endpoint for all events, and the ledger in it.
    pub(super) async fn with_endpoint(endpoint: EndpointRow) -> Option<(Self, Arc<dyn Ledger>)> {
        let world = Self::empty().await?;
        let ended = Program::start(&["migrate", "--database", world.database.url()]).end().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let ledger = world.ledger().await;
        ledger.publish_table(table(endpoint), None).await.unwrap();
        Some((world, ledger))
    }

    /// The same with a receiver as the endpoint, which answers every request with this status, or not at all.
    pub(super) async fn with_receiver(status: u16) -> Option<(Self, Arc<dyn Ledger>, Receiver)> {
        let receiver = Receiver::start(status).await;
        let (world, ledger) = Self::with_endpoint(endpoint("sink", &receiver.url, policy())).await?;
        Some((world, ledger, receiver))
    }

    pub(super) async fn ledger(&self) -> Arc<dyn Ledger> {
        let config = PostgresConfig { pool_connections_max: 2, ..PostgresConfig::new(self.database.url()) };
        Arc::new(PostgresLedger::connect(config).await.unwrap())
    }

    pub(super) fn key_file(&self) -> String {
        self.folder.path().join("sealing.key").display().to_string()
    }

    /// Starts a role on the servers, with free ports; receivers on loopback are allowed.
    pub(super) fn start(&self, role: &str, more: &[&str]) -> Program {
        self.start_on(role, self.database.url(), self.vhost.url(), more)
    }

    /// Starts a role on other servers.
    pub(super) fn start_on(&self, role: &str, database: &str, queue: &str, more: &[&str]) -> Program {
        let key = self.key_file();
        let servers = ["--database", database, "--queue", queue, "--sealing-key-file", &key];
        let mut line = [&[role][..], &servers, &["--admin-listen", "127.0.0.1:0"]].concat();
        if role != "deliver" {
            line.extend(["--listen", "127.0.0.1:0"]);
        }
        if role != "ingest" {
            line.extend(["--allow-http", "--allow-address", "127.0.0.0/8", "--allow-port", "any"]);
        }
        line.extend(more);
        Program::start(&line)
    }
}

pub(crate) fn table(endpoint: EndpointRow) -> TableChange {
    let subscription = SubscriptionRow {
        id: SubscriptionId::derive(tenant(), "all"),
        tenant: tenant(),
        name: "all".into(),
        endpoints: vec![endpoint.id],
        event_types: vec!["**".into()],
        filter: None,
        transform: None,
        suspended: false,
    };
    let tenant = TenantRow { id: tenant(), name: "shop".into() };
    let put = vec![Row::Tenant(tenant), Row::Endpoint(Box::new(endpoint)), Row::Subscription(subscription)];
    TableChange { put, drop: vec![] }
}

/// A URL with something changed in it.
pub(super) fn changed(url: &str, change: impl FnOnce(&mut url::Url)) -> String {
    let mut url: url::Url = url.parse().unwrap();
    change(&mut url);
    url.to_string()
}

/// Waits until so many deliveries are delivered, and nothing is open.
pub(super) async fn delivered(ledger: &Arc<dyn Ledger>, count: u64) {
    eventually("all is delivered", || async {
        let balances = ledger.balance().await.unwrap();
        balances.iter().all(|balance| balance.open == 0) && balances.iter().map(|b| b.delivered).sum::<u64>() == count
    })
    .await;
    for balance in ledger.balance().await.unwrap() {
        assert_eq!(
            balance.accepted,
            balance.delivered + balance.dead + balance.cancelled + balance.open,
            "{balance:?}"
        );
    }
}
