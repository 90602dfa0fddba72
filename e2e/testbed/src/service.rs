//! One private server of the root folder, in a sandbox.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::root::Root;
use crate::sandbox::Sandbox;

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
    sandbox: Sandbox,
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
        Ok(Self { root: root.clone(), user, disk_mebibytes, sandbox: Sandbox::new(files)? })
    }

    /// Starts the process. Whether the server answers is for [`Self::wait_a_moment`] and its caller to find out.
    pub(crate) fn start(&mut self) -> Result<()> {
        let disk = self.disk_mebibytes.map(|mebibytes| mebibytes.to_string()).unwrap_or_default();
        let state = self.sandbox.folder().to_owned();
        let arguments = [self.root.folder.as_path(), &state, Path::new(self.user), Path::new(&disk)];
        self.sandbox.start(&["--mount", "--ipc"], INIT, &arguments)
    }

    /// [`Sandbox::wait_a_moment`].
    pub(crate) async fn wait_a_moment(&mut self) -> Result<()> {
        self.sandbox.wait_a_moment().await
    }

    /// SIGKILL to PID 1, which ends every process of the server. Returns when they are gone; nothing to do when it does
    /// not run.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.sandbox.kill()
    }

    /// The folder that it sees as `/srv`.
    pub(crate) fn folder(&self) -> &Path {
        self.sandbox.folder()
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
        self.sandbox.process_id()
    }
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
