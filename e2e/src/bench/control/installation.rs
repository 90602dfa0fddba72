//! An installation as a cluster has it: the resources, the ledger, the dispatchers, and the operator in between.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher_core::limits::FACTS_LOOK_INTERVAL;
use hyper::StatusCode;
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::api::{ApiServer, NAMESPACE};
use super::counts::{count, metric};
use super::fleet::Fleet;
use crate::bench::child::Child;
use crate::bench::servers::{Servers, Storage};
use crate::bench::sink::Sink;
use crate::http::Client;
use crate::process::binaries;

/// Dispatchers that deliver.
const DELIVERERS: [&str; 3] = ["deliver-1", "deliver-2", "deliver-3"];
const READY_DEADLINE: Duration = Duration::from_mins(10);
/// Seals the secrets of the routing table.
const SEALING_KEY: [u8; 32] = [7; 32];
const LOG: &str = "warn";
/// What operator and dispatchers must agree on: deliveries go to this machine.
const REACHABLE: [&str; 5] = ["--allow-http", "--allow-address", "127.0.0.0/8", "--allow-port", "any"];

/// A running installation. Its parts end with it, the processes first.
pub(super) struct Installation {
    operator: Option<Process>,
    /// All dispatchers: the first one accepts events, the others deliver them.
    pub(super) dispatchers: Vec<Process>,
    /// Where events are published.
    pub(super) ingest: SocketAddr,
    pub(super) fleet: Fleet,
    pub(super) api: ApiServer,
    storage: Storage,
    key_file: PathBuf,
    kubeconfig: PathBuf,
    _files: TempDir,
}

/// A process and where it tells how it is.
pub(super) struct Process {
    child: Child,
    admin: SocketAddr,
    client: Client,
}

/// What the ledger has.
#[derive(Clone, Copy, Debug)]
pub(super) struct LedgerState {
    /// Version of the routing table.
    pub(super) table_version: i64,
    /// Rows of the table that were written since the ledger was made, and of what belongs to endpoints.
    pub(super) rows_written: i64,
}

impl Installation {
    /// Starts all but the operator, and creates the resources.
    pub(super) async fn start(servers: &Servers, sink: &Sink, endpoints: usize) -> Result<Self> {
        let (api, storage) = tokio::try_join!(ApiServer::start(), servers.storage())?;
        PostgresLedger::migrate(&PostgresConfig::new(&storage.database())).await?;
        let files = tempfile::tempdir()?;
        let (key_file, kubeconfig) = (files.path().join("sealing.key"), files.path().join("kubeconfig"));
        fs::write(&key_file, SEALING_KEY)?;
        api.write_account(&kubeconfig).await?;
        let start = |name: &'static str, options: &[&str]| -> Result<Child> {
            let mut command = Command::new(binaries()?.join("dispatcher"));
            command.args(options).args(["--log", LOG, "--admin-listen", "127.0.0.1:0", "--sealing-key-file"]);
            command.arg(&key_file).args(["--database", &storage.database(), "--queue", storage.broker()]);
            Child::start(name, &mut command)
        };
        let mut accepting = Process::of(start("ingest", &["ingest", "--listen", "127.0.0.1:0"])?).await?;
        let ingest = accepting.child.address("api").await?;
        let mut dispatchers = vec![accepting];
        for name in DELIVERERS {
            dispatchers.push(Process::of(start(name, &[["deliver"].as_slice(), &REACHABLE].concat())?).await?);
        }
        for dispatcher in &dispatchers {
            dispatcher.wait_until_ready().await?;
        }
        let fleet = Fleet { endpoints, receiver: sink.address };
        fleet.create(&api).await?;
        Ok(Self { operator: None, dispatchers, ingest, fleet, api, storage, key_file, kubeconfig, _files: files })
    }

    /// Starts the operator; returns when it listens.
    pub(super) async fn start_operator(&mut self) -> Result<()> {
        let mut command = Command::new(binaries()?.join("operator"));
        command.env("KUBECONFIG", &self.kubeconfig).args(["run", "--log", LOG, "--admin-listen", "127.0.0.1:0"]);
        command.args(["--namespace", NAMESPACE, "--identity", "bench", "--database", &self.storage.database()]);
        command.arg("--sealing-key-file").arg(&self.key_file).args(REACHABLE);
        self.operator = Some(Process::of(Child::start("operator", &mut command)?).await?);
        Ok(())
    }

    /// Stops the operator in order, which gives its Lease back.
    pub(super) async fn stop_operator(&mut self) -> Result<()> {
        match self.operator.take() {
            Some(operator) => operator.child.end().await,
            None => Ok(()),
        }
    }

    pub(super) fn operator(&self) -> Result<&Process> {
        self.operator.as_ref().context("the operator runs")
    }

    /// Waits until the operator is ready, leads, and has made its first plan.
    pub(super) async fn wait_until_planned(&self) -> Result<()> {
        let operator = self.operator()?;
        let is_planned = |answer: &Value| answer["leader"] == true && answer["table_version"].is_u64();
        operator
            .wait_until("/readyz", |status, body| {
                let answer: Value = serde_json::from_str(body).unwrap_or_default();
                status == StatusCode::OK && is_planned(&answer)
            })
            .await
    }

    /// Waits until all resources are ready and in effect, and say so.
    pub(super) async fn wait_until_told(&self) -> Result<()> {
        let waits = "harborhook_operator_statuses_waiting{change=\"conditions\"}";
        let written = "harborhook_operator_status_writes_total{change=\"conditions\"}";
        #[expect(clippy::cast_precision_loss, reason = "resources are far fewer than 2^52")]
        let resources = (self.fleet.endpoints * 2) as f64;
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            // Asks the operator first: to list everything takes a while.
            let is_done = |metrics: &str| count(metrics, written) >= resources && count(metrics, waits) < 1.0;
            self.operator()?.wait_until("/metrics", |_, metrics| is_done(metrics)).await?;
            match self.fleet.check(&self.api).await {
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => sleep(Duration::from_millis(500)).await,
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Waits until no status waits to be written, not even for facts.
    pub(super) async fn wait_until_quiet(&self) -> Result<()> {
        let is_quiet = |metrics: &str| {
            let series = |change: &str| format!("harborhook_operator_statuses_waiting{{change=\"{change}\"}}");
            ["conditions", "facts"].iter().all(|change| count(metrics, &series(change)) < 1.0)
        };
        // Facts are looked at anew each few seconds.
        let (mut quiet_since, deadline) = (Instant::now(), Instant::now() + READY_DEADLINE);
        while quiet_since.elapsed() < FACTS_LOOK_INTERVAL * 2 {
            if !is_quiet(&self.operator()?.metrics().await?) {
                quiet_since = Instant::now();
                ensure!(quiet_since < deadline, "statuses are still written after {READY_DEADLINE:?}");
            }
            sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    /// Reads the state of the ledger.
    pub(super) async fn ledger(&self) -> Result<LedgerState> {
        let mut connection = PgConnection::connect(&self.storage.database()).await?;
        let (table_version, rows_written) = sqlx::query_as(
            "SELECT table_version, (SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::int8 FROM pg_stat_user_tables
                                    WHERE relname IN ('routes', 'lanes')) FROM ledger",
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        Ok(LedgerState { table_version, rows_written })
    }

    /// Ends everything in order.
    pub(super) async fn stop(mut self) -> Result<()> {
        self.stop_operator().await?;
        for dispatcher in std::mem::take(&mut self.dispatchers) {
            dispatcher.child.stop().await?;
        }
        Ok(())
    }
}

impl Process {
    async fn of(mut child: Child) -> Result<Self> {
        let admin = child.address("admin").await?;
        Ok(Self { child, admin, client: Client::default() })
    }

    /// Its metrics in their text form.
    pub(super) async fn metrics(&self) -> Result<String> {
        let (_, body) = self.client.get(&format!("http://{}/metrics", self.admin)).await?;
        Ok(String::from_utf8(body.to_vec())?)
    }

    /// The version of the routing table that a dispatcher works with.
    pub(super) async fn table_version(&self) -> Result<f64> {
        metric(&self.metrics().await?, "harborhook_table_version").context("a dispatcher tells its table's version")
    }

    pub(super) fn child(&self) -> &Child {
        &self.child
    }

    async fn wait_until_ready(&self) -> Result<()> {
        self.wait_until("/readyz", |status, _| status == StatusCode::OK).await
    }

    /// Asks again and again until the answer is as it should be.
    pub(super) async fn wait_until(&self, path: &str, is_so: impl Fn(StatusCode, &str) -> bool) -> Result<()> {
        let (url, deadline) = (format!("http://{}{path}", self.admin), Instant::now() + READY_DEADLINE);
        loop {
            let answer = self.client.get(&url).await;
            let last = answer.map(|(status, body)| (status, String::from_utf8_lossy(&body).into_owned()));
            if last.as_ref().is_ok_and(|(status, body)| is_so(*status, body)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{} did not get ready within {READY_DEADLINE:?}: {last:?}", self.child.name);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}
