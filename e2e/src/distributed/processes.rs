//! `dispatcher` processes: started, listened to, stopped, killed.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use hyper::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{DEADLINE, until};
use crate::http::Client;
use crate::process::dispatcher;

/// Lines of each log that a failed test shows.
const LOG_LINES_MAX: usize = 30;

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Accepts events.
    Ingest,
    /// Delivers them.
    Deliver,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Deliver => "deliver",
        }
    }

    /// What it listens for.
    fn listeners(self) -> &'static [&'static str] {
        match self {
            Self::Ingest => &["api", "admin"],
            Self::Deliver => &["admin"],
        }
    }
}

/// Brings the schema up to date.
pub(super) async fn migrate(database_url: &str, folder: &Path) -> Result<()> {
    let mut command = Command::new(dispatcher()?);
    command.args(["migrate", "--database", database_url]).stdin(Stdio::null()).stdout(log(folder, "migrate")?);
    let status = command.stderr(log(folder, "migrate")?).status().await?;
    if !status.success() {
        show_logs(folder);
        bail!("dispatcher migrate failed: {status}");
    }
    Ok(())
}

/// The command line of a role.
pub(super) fn command(role: Role, database_url: &str, queue_url: &str, key_file: &Path) -> Result<Command> {
    let mut command = Command::new(dispatcher()?);
    command.arg(role.name()).args(["--database", database_url, "--queue", queue_url, "--sealing-key-file"]);
    command.arg(key_file).args(["--admin-listen", "127.0.0.1:0"]);
    match role {
        Role::Ingest => command.args(["--listen", "127.0.0.1:0"]),
        Role::Deliver => command.args(["--allow-http", "--allow-address", "127.0.0.0/8", "--allow-port", "any"]),
    };
    Ok(command)
}

/// A running process. It is killed when dropped.
pub struct Process {
    child: Child,
    /// Read to its end only with the process: a closed pipe would be an error to it.
    _lines: Lines<BufReader<ChildStdout>>,
    api: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

impl Process {
    /// Starts a command of a role, with its log in `folder`; returns when it is ready.
    pub async fn start(mut command: Command, role: Role, folder: &Path) -> Result<Self> {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{}-{}", role.name(), STARTED.fetch_add(1, Ordering::Relaxed));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log(folder, &name)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        let mut lines = BufReader::new(child.stdout.take().context("its output is piped")?).lines();
        let (mut api, mut admin) = (None, None);
        for _ in role.listeners() {
            let line = tokio::time::timeout(DEADLINE, lines.next_line()).await;
            let line = line.with_context(|| format!("{name} never listened"))??;
            let Some(line) = line else { bail!("{name} ended before it listened: {}", child.wait().await?) };
            let line: Value = serde_json::from_str(&line).with_context(|| format!("{name} said: {line}"))?;
            let address = line["address"].as_str().context("a line names an address")?.parse()?;
            match line["role"].as_str() {
                Some("api") => api = Some(address),
                Some("admin") => admin = Some(address),
                _ => bail!("{name} listens for {line}"),
            }
        }
        let process = Self { child, _lines: lines, api, admin };
        let ready = format!("http://{}/readyz", process.admin());
        let client = Client::default();
        until(&format!("{name} is ready"), async || {
            Ok(client.get(&ready).await.is_ok_and(|(status, _)| status == StatusCode::OK))
        })
        .await?;
        Ok(process)
    }

    /// Where events are published.
    pub fn api(&self) -> SocketAddr {
        self.api.expect("only a process that accepts events is asked")
    }

    /// Where its state is asked for.
    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("every process has an admin listener")
    }

    /// A metric of its, by name and labels as they stand there; `None` while it has not got one.
    pub async fn metric(&self, name: &str) -> Result<Option<f64>> {
        let (_, page) = Client::default().get(&format!("http://{}/metrics", self.admin())).await?;
        let page = String::from_utf8_lossy(&page);
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map(|value| value.parse().context("a metric is a number")).transpose()
    }

    /// SIGKILL, at once; returns when it is gone.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("the process could not be killed")
    }

    /// SIGSTOP: from now on it does nothing, and nobody is told.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn go_on(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM; returns when it has ended by itself.
    pub async fn terminate(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        tokio::time::timeout(DEADLINE, self.child.wait()).await.context("it did not end")?.context("no exit status")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("the process has ended")?;
        kill_process(id, signal).context("the signal was not sent")
    }
}

fn log(folder: &Path, name: &str) -> Result<File> {
    let path = folder.join(format!("{name}.log"));
    File::options().create(true).append(true).open(path).context("no log can be written")
}

/// Writes the end of every log to the standard error stream.
pub(super) fn show_logs(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
        let log = fs::read(path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n");
        // Nothing is left to tell it to when the stream is closed.
        let _ = writeln!(std::io::stderr(), "--- {}\n{end}", path.display());
    }
}
