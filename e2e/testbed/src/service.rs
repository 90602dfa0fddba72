//! One private server: a process with mount, process and IPC namespaces of its own, so that one signal ends all of it.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::root::Root;

/// Longest time from the start of a server to its first answer, on a busy machine.
const START_MAX: Duration = Duration::from_mins(2);
/// Time between two questions to a server that starts.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Longest time that the end of a test waits for its clean-up.
const CLEAN_UP_MAX: Duration = Duration::from_secs(10);
/// End of the server's log that an error shows, in lines.
const LOG_LINES_MAX: usize = 40;
/// Ports to choose from: below the range that Linux gives to clients (32768 and up), so that a port stays free while its
/// server is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Tries to find a free port.
const PORT_TRIES_MAX: usize = 100;

/// PID 1 of the namespace. Everything that it mounts and starts ends with it: when it is killed, when the server exits,
/// and when the process that holds the other end of its standard input is gone, however that ended. That process cannot
/// remove the server's folder any more, so this one does.
///
/// The IPC namespace and the private `/dev/shm` take along the shared memory of a PostgreSQL that was killed.
const INIT: &str = r#"
set -eu
root=$1 state=$2 user=$3 disk=$4
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
for folder in dev/shm run tmp; do mount -t tmpfs -o mode=1777 tmpfs "$root/$folder"; done
mount --bind "$state" "$root/srv"
[ -z "$disk" ] || { mkdir -p "$root/srv/data"; mount -t tmpfs -o "size=${disk}m" tmpfs "$root/srv/data"; }
chroot "$root" chown --recursive "$user:$user" /srv
trap 'kill -KILL -1; rm -rf "$state"; exit 0' TERM
exec 3<&0
{ cat >/dev/null; kill -TERM 1; } <&3 &
chroot --userspec="$user:$user" "$root" env -i PATH=/usr/bin:/bin HOME=/srv sh -eu /srv/start 3<&- &
wait $!
"#;

/// A server and its folder, which it sees as `/srv`. Both are gone when the value is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    root: Root,
    /// User that the server runs as, a name of the root folder.
    user: &'static str,
    /// Size of a disk of its own for `/srv/data`, in mebibytes.
    disk_mebibytes: Option<u32>,
    state: TempDir,
    /// `unshare`, the parent of PID 1.
    process: Option<Child>,
    started: Instant,
}

impl Service {
    /// A server that is not yet started. `files` are names and contents in its folder; `start` among them is the script
    /// that becomes the server.
    pub(crate) fn new(
        root: &Root,
        user: &'static str,
        disk_mebibytes: Option<u32>,
        files: &[(&str, &str)],
    ) -> Result<Self> {
        // It holds a password.
        let permissions = fs::Permissions::from_mode(0o700);
        let state = tempfile::Builder::new().prefix("harborhook-testbed-").permissions(permissions).tempdir()?;
        for (name, content) in files {
            // Passwords and keys among them: servers refuse a key that others can read.
            let file = File::options().create_new(true).write(true).mode(0o600).open(state.path().join(name));
            let written = file.and_then(|mut file| file.write_all(content.as_bytes()));
            written.with_context(|| format!("cannot write {name}"))?;
        }
        Ok(Self { root: root.clone(), user, disk_mebibytes, state, process: None, started: Instant::now() })
    }

    /// Starts the process. Whether the server answers is for [`Self::wait_a_moment`] and its caller to find out.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.kill()?;
        let log = File::options().create(true).append(true).open(self.log())?;
        let process = Command::new("unshare")
            .args(["--mount", "--pid", "--ipc", "--fork", "--kill-child", "sh", "-c", INIT, "init"])
            .args([self.root.folder.as_path(), self.state.path(), Path::new(self.user)])
            .arg(self.disk_mebibytes.map(|mebibytes| mebibytes.to_string()).unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
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

    /// SIGKILL to PID 1, which ends every process of the server. Returns when they are gone; nothing to do when it does
    /// not run.
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

    /// The folder that it sees as `/srv`.
    pub(crate) fn folder(&self) -> &Path {
        self.state.path()
    }

    /// The folder as the server sees it, its own mounts included, for this process. An error when it does not run.
    pub(crate) fn folder_inside(&self) -> Result<PathBuf> {
        let init = self.process_id().context("the server does not run")?;
        Ok(PathBuf::from(format!("/proc/{init}/root{}/srv", self.root.folder.display())))
    }

    /// Runs a shell script beside the server, in its namespaces, as its user and in its folder; `$@` are the arguments.
    pub(crate) async fn run(&self, script: &str, arguments: &[&str]) -> Result<()> {
        let init = self.process_id().context("the server does not run")?;
        let output = tokio::process::Command::new("nsenter")
            .args(["--target", &init.to_string(), "--mount", "--pid", "--ipc", "chroot"])
            .arg(format!("--userspec={0}:{0}", self.user))
            .arg(&self.root.folder)
            .args(["env", "-i", "PATH=/usr/bin:/bin", "HOME=/srv", "sh", "-euc", &format!("cd /srv\n{script}"), "sh"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .await
            .context("nsenter does not start")?;
        if !output.status.success() {
            let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            bail!("a command beside the server failed ({})\n{said}{complained}", output.status);
        }
        Ok(())
    }

    /// Process id of its PID 1 as the host sees it.
    pub(crate) fn process_id(&self) -> Option<u32> {
        self.process.as_ref().and_then(init_of).map(|pid| pid.as_raw_nonzero().get().unsigned_abs())
    }

    fn log(&self) -> PathBuf {
        self.state.path().join("log")
    }

    fn log_end(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n")
    }
}

impl Drop for Service {
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

/// `N` different loopback ports that nothing listens on.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::with_capacity(N);
    for _ in 0..PORT_TRIES_MAX {
        if held.len() == N {
            break;
        }
        held.extend(TcpListener::bind(("127.0.0.1", rand::random_range(PORTS))));
    }
    let mut ports = [0; N];
    if held.len() < N {
        bail!("no free loopback port between {} and {} in {PORT_TRIES_MAX} tries", PORTS.start, PORTS.end);
    }
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_different_and_can_be_listened_on() {
        let ports: [u16; 8] = free_ports().unwrap();
        let listeners: Vec<_> = ports.iter().map(|port| TcpListener::bind(("127.0.0.1", *port)).unwrap()).collect();
        assert_eq!(listeners.len(), 8);
        assert!(ports.iter().all(|port| PORTS.contains(port)));
    }
}
