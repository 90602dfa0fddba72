//! A process with namespaces and a folder of its own, so that one signal ends all of it.

use std::fs::{self, File};
use std::io::{Read, Seek, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longest time from the start of a server to its first answer, on a busy machine.
const START_MAX: Duration = Duration::from_mins(2);
/// Time between two questions to a server that starts or ends.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Longest time that the end of a test waits for its clean-up.
const CLEAN_UP_MAX: Duration = Duration::from_secs(10);
/// End of the log that an error shows, in lines.
const LOG_LINES_MAX: usize = 60;

/// A folder, and while it runs the process. Both are gone when the value is dropped.
///
/// The process is one of `unshare` and its only child, PID 1 of a namespace. Its standard input stays open until this
/// process is gone, however that ended; PID 1 is to end then and to remove the folder, which nobody else can any more.
#[derive(Debug)]
pub(crate) struct Sandbox {
    folder: TempDir,
    process: Option<Child>,
    /// What PID 1 writes; kept open because PID 1 may remove the file.
    log: File,
    started: Instant,
}

impl Sandbox {
    /// Nothing runs yet. `files` are paths and contents in its folder, for root alone.
    pub(crate) fn new(files: &[(&str, &str)]) -> Result<Self> {
        // It holds a password or a key.
        let permissions = fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("harborhook-testbed-").permissions(permissions).tempdir()?;
        for (name, content) in files {
            let path = folder.path().join(name);
            path.parent().map_or(Ok(()), fs::create_dir_all).with_context(|| format!("cannot make room for {name}"))?;
            // Servers refuse a key that others could read, whatever folder it is in.
            let file = File::options().create_new(true).write(true).mode(0o600).open(path);
            let written = file.and_then(|mut file| file.write_all(content.as_bytes()));
            written.with_context(|| format!("cannot write {name}"))?;
        }
        let log = File::options().create(true).append(true).read(true).open(folder.path().join("log"))?;
        Ok(Self { folder, process: None, log, started: Instant::now() })
    }

    /// Starts `unshare` with these namespaces and a shell script as PID 1; `$@` are the arguments. Whether what it
    /// starts answers is for [`Self::wait_a_moment`] and its caller to find out.
    pub(crate) fn start(&mut self, namespaces: &[&str], script: &str, arguments: &[&Path]) -> Result<()> {
        self.kill()?;
        let process = Command::new("unshare")
            .args(namespaces)
            .args(["--pid", "--fork", "--kill-child", "sh", "-c", script, "init"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(self.log.try_clone()?)
            .stderr(self.log.try_clone()?)
            // An interrupt from the terminal is for the tests; they end the server when they are done with it.
            .process_group(0)
            .spawn()
            .context("unshare does not start")?;
        self.process = Some(process);
        self.started = Instant::now();
        Ok(())
    }

    /// Pauses between two questions to a server that does not answer yet. An error, with the end of its log, when it has
    /// ended or had enough time.
    pub(crate) async fn wait_a_moment(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("the server was not started")?;
        if let Some(status) = process.try_wait()? {
            bail!("the server ended while it started ({status})\n{}", self.log_end());
        }
        if self.started.elapsed() > START_MAX {
            bail!("the server did not answer within {START_MAX:?}\n{}", self.log_end());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        Ok(())
    }

    /// SIGKILL to PID 1, which ends every process in the namespaces. Returns when they are gone; nothing to do when it
    /// does not run.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        match init_of(&process) {
            // It may have ended by itself since.
            Some(init) => drop(kill_process(init, Signal::KILL)),
            None => process.kill()?,
        }
        process.wait().context("cannot wait for the end of the server")?;
        Ok(())
    }

    /// Lets PID 1 end by itself, as it does when this process is gone; returns when it has.
    pub(crate) fn end(&mut self) -> Result<()> {
        let Some(process) = &mut self.process else { return Ok(()) };
        drop(process.stdin.take());
        block_on_own_thread(async {
            while process.try_wait()?.is_none() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            Ok(())
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Process id of its PID 1 as the host sees it.
    pub(crate) fn process_id(&self) -> Option<u32> {
        self.process.as_ref().and_then(init_of).map(|pid| pid.as_raw_nonzero().get().unsigned_abs())
    }

    fn log_end(&self) -> String {
        let (mut log, mut text) = (&self.log, Vec::new());
        // What cannot be read of it is missing from an error's text.
        let _read = log.rewind().and_then(|()| log.read_to_end(&mut text));
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            crate::announce(&format!("a private server was not ended: {error:#}"));
        }
    }
}

/// The only child of `unshare`.
fn init_of(process: &Child) -> Option<Pid> {
    let id = process.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

/// Runs a future to its end from a destructor, wherever that runs: on a runtime of its own, for at most
/// [`CLEAN_UP_MAX`].
pub(crate) fn block_on_own_thread(work: impl Future<Output = Result<()>> + Send) -> Result<()> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { tokio::time::timeout(CLEAN_UP_MAX, work).await.context("no answer in time")? })
    };
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|_| bail!("the clean-up panicked"))
}
