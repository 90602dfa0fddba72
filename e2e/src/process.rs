//! The real binaries, and `harborctl dev` as a child process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How long a process may take to do what a test waits for.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Names the folder of binaries that are built already. Without it they are built on first use.
const BINARIES: &str = "HARBORHOOK_BINARIES";

/// Path of the `harborctl` binary, built on first use with the profile of the caller.
pub fn harborctl() -> Result<&'static Path> {
    static BINARY: Binary = Binary::new();
    once(&BINARY, "harborctl")
}

/// Path of the `dispatcher` binary, built on first use with the profile of the caller.
pub fn dispatcher() -> Result<&'static Path> {
    static BINARY: Binary = Binary::new();
    once(&BINARY, "dispatcher")
}

/// Folder with the three programs of an image, each built on first use.
pub fn binaries() -> Result<&'static Path> {
    static BINARY: Binary = Binary::new();
    harborctl()?;
    dispatcher()?;
    once(&BINARY, "operator")?.parent().context("the programs are in no folder")
}

type Binary = OnceLock<std::result::Result<PathBuf, String>>;

fn once(binary: &'static Binary, package: &str) -> Result<&'static Path> {
    let built = binary.get_or_init(|| build(package).map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn build(package: &str) -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(BINARIES) {
        let binary = Path::new(&folder).join(package);
        return if binary.is_file() { Ok(binary) } else { bail!("{BINARIES}: there is no {}", binary.display()) };
    }
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--package", package, "--message-format", "json"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{package} does not build");
    }
    let mut messages =
        output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let executable = messages.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    executable.with_context(|| format!("cargo named no executable of {package}"))
}

/// A running `harborctl dev … --output json`. It is killed when dropped.
pub struct Dev {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Where its API listens.
    pub address: SocketAddr,
}

impl Dev {
    /// Starts it on a folder, with its data in `data`, on a free port, and waits until it listens.
    pub async fn start(folder: &Path, data: &Path) -> Result<Self> {
        let mut child = Command::new(harborctl()?)
            .arg("dev")
            .arg(folder)
            .arg("--data")
            .arg(data)
            .args(["--listen", "127.0.0.1:0", "--output", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let first =
            tokio::time::timeout(DEADLINE, lines.next_line()).await.context("harborctl dev never listened")??;
        let first: Value = serde_json::from_str(&first.context("harborctl dev ended before it listened")?)?;
        let address = first["address"].as_str().with_context(|| format!("not a listening line: {first}"))?.parse()?;
        Ok(Self { child, lines, address })
    }

    /// The next line that it prints, or `None` once it has ended.
    pub async fn next_line(&mut self) -> Result<Option<Value>> {
        let line = tokio::time::timeout(DEADLINE, self.lines.next_line()).await.context("no line in time")??;
        line.map(|line| serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))).transpose()
    }

    /// SIGKILL, at once, and waits until it is gone.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("the process could not be killed")
    }

    /// URL of a path of its API.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}
