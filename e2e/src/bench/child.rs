//! A part of a system under test in a process of its own.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

use super::usage;

const START_DEADLINE: Duration = Duration::from_mins(1);
const END_DEADLINE: Duration = Duration::from_mins(1);

/// A running process. It is killed when dropped.
pub struct Child {
    /// What it does, for the rows.
    pub name: &'static str,
    process: tokio::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts this very program again with a hidden command.
    pub fn again<A: AsRef<OsStr>>(name: &'static str, arguments: impl IntoIterator<Item = A>) -> Result<Self> {
        Self::start(name, Command::new(std::env::current_exe()?).args(arguments))
    }

    /// Starts a program.
    pub fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let mut process =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().context(name)?;
        let lines = BufReader::new(process.stdout.take().context("its output is piped")?).lines();
        Ok(Self { name, process, lines })
    }

    /// Waits for the line that says where it listens in a role: `{"kind":"listening","role":…,"address":…}`.
    pub async fn address(&mut self, role: &str) -> Result<SocketAddr> {
        let name = self.name;
        let told = async {
            while let Some(line) = self.lines.next_line().await? {
                let line: Value = serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
                if line["kind"] == "listening" && line["role"] == role {
                    let address = line["address"].as_str().context("a listening line has an address")?;
                    return Ok(address.parse()?);
                }
            }
            bail!("{name} ended before it listened")
        };
        tokio::time::timeout(START_DEADLINE, told).await.with_context(|| format!("{name} never listened"))?
    }

    /// Its process id.
    pub fn id(&self) -> Result<u32> {
        self.process.id().with_context(|| format!("{} has ended", self.name))
    }

    /// CPU time so far.
    pub fn cpu(&self) -> Result<Duration> {
        usage::cpu_of_tree(self.id()?)
    }

    /// Largest resident memory so far.
    pub fn peak_memory_mebibytes(&self) -> Result<f64> {
        usage::peak_memory_mebibytes(self.id()?)
    }

    /// Largest resident memory so far, in megabytes.
    pub fn peak_memory_megabytes(&self) -> Result<f64> {
        Ok(self.peak_memory_mebibytes()? * 1.048_576)
    }

    /// Asks it to end in order, and waits until it has.
    pub async fn end(mut self) -> Result<()> {
        let id = Pid::from_raw(self.id()?.cast_signed()).context("a process has an id")?;
        kill_process(id, Signal::TERM)?;
        let ended = tokio::time::timeout(END_DEADLINE, self.process.wait()).await;
        let status = ended.with_context(|| format!("{} does not end", self.name))??;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }

    /// Ends it.
    pub async fn stop(mut self) -> Result<()> {
        self.process.kill().await.with_context(|| format!("{} could not be stopped", self.name))
    }
}

/// Tells whoever started this process where it listens.
pub async fn tell_address(role: &str, address: SocketAddr) -> Result<()> {
    use tokio::io::AsyncWriteExt;
    let line = serde_json::json!({"kind": "listening", "role": role, "address": address});
    let mut stdout = tokio::io::stdout();
    stdout.write_all(format!("{line}\n").as_bytes()).await?;
    stdout.flush().await?;
    Ok(())
}
