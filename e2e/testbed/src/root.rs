//! The root folder that private servers run in: a small Debian, made once and kept in the user's cache.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::announce;
use crate::environment::Environment;

/// What private servers are made of.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// Debian release.
    pub suite: &'static str,
    /// Packages on top of a minimal system.
    pub packages: &'static [&'static str],
    /// Folder of the PostgreSQL programs.
    pub postgresql: &'static str,
    /// Folder of the RabbitMQ programs.
    pub rabbitmq: &'static str,
}

/// PostgreSQL 17 and RabbitMQ 4.0.
pub const RELEASE: Release = Release {
    suite: "trixie",
    packages: &["postgresql-17", "rabbitmq-server"],
    postgresql: "/usr/lib/postgresql/17/bin",
    rabbitmq: "/usr/lib/rabbitmq/bin",
};

/// PostgreSQL 15 and RabbitMQ 3.10: the oldest broker that is supported.
pub const OLDEST: Release = Release {
    suite: "bookworm",
    packages: &["postgresql-15", "rabbitmq-server"],
    postgresql: "/usr/lib/postgresql/15/bin",
    rabbitmq: "/usr/lib/rabbitmq/bin",
};

/// A minimal system has no hosts file, and the Erlang node is named after this host.
const HOSTS_HOOK: &str = r#"echo '127.0.0.1 localhost' >"$1/etc/hosts""#;

/// A root folder that is complete.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    /// Absolute path.
    pub(crate) folder: PathBuf,
    pub(crate) release: Release,
}

/// Why this machine cannot have private servers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Missing {
    Root,
    Unshare,
    Mmdebstrap,
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reason, cure) = match self {
            Self::Root => ("it needs root", "run the tests as root"),
            Self::Unshare => ("unshare is not installed", "apt-get install util-linux"),
            Self::Mmdebstrap => ("mmdebstrap is not installed", "apt-get install mmdebstrap debian-archive-keyring"),
        };
        write!(
            formatter,
            "{reason}; {cure}, or name running servers in {} and {}",
            crate::DATABASE_URL,
            crate::AMQP_URL
        )
    }
}

impl Root {
    /// The root folder of a release, made now when it is not in the cache. Blocks: for about half a minute when it is
    /// made, and for as long as another process makes it.
    pub(crate) fn prepare(environment: &Environment, release: Release) -> Result<Result<Self, Missing>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Err(Missing::Root));
        }
        if !is_installed("unshare") {
            return Ok(Err(Missing::Unshare));
        }
        let cache = environment.cache.as_deref().context("set HOME or XDG_CACHE_HOME: the servers are kept there")?;
        let root = Self { folder: cache.join(folder_name(&release)), release };
        if root.folder.exists() {
            return Ok(Ok(root));
        }
        if !is_installed("mmdebstrap") {
            return Ok(Err(Missing::Mmdebstrap));
        }
        fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
        build_once(cache, &root.folder, |partial| debootstrap(&release, partial))?;
        Ok(Ok(root))
    }
}

/// Runs `build` unless `folder` exists, alone among all processes that share the cache. What `build` makes under a
/// temporary name becomes `folder` only when it is complete.
fn build_once(cache: &Path, folder: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let lock = File::create(cache.join("lock")).context("cannot make the lock file of the cache")?;
    lock.lock().context("cannot lock the cache")?;
    if folder.exists() {
        return Ok(());
    }
    let partial = folder.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).context("cannot remove what an interrupted run left")?;
    }
    build(&partial)?;
    fs::rename(&partial, folder).context("cannot put the finished folder in its place")
}

fn debootstrap(release: &Release, folder: &Path) -> Result<()> {
    announce(&format!("making {} once: {} from {}", folder.display(), release.packages.join(", "), release.suite));
    let output = Command::new("mmdebstrap")
        .args(["--variant=minbase", &format!("--include={}", release.packages.join(","))])
        .arg(format!("--customize-hook={HOSTS_HOOK}"))
        .arg(release.suite)
        .arg(folder)
        .stdin(Stdio::null())
        .output()
        .context("mmdebstrap does not start")?;
    if !output.status.success() {
        bail!("mmdebstrap failed; is the package archive reachable?\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Another release, package list or hook is another folder.
fn folder_name(release: &Release) -> String {
    let mut hash = Sha256::new();
    for part in release.packages.iter().chain(&[HOSTS_HOOK]) {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    format!("servers-{}-{}", release.suite, hex::encode(&hash.finalize()[..6]))
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_after_all_that_is_in_it() {
        let other_suite = Release { suite: "bookworm", ..RELEASE };
        let other_packages = Release { packages: &["postgresql-17"], ..RELEASE };
        assert_eq!(folder_name(&RELEASE), folder_name(&RELEASE));
        assert_ne!(folder_name(&RELEASE), folder_name(&other_suite));
        assert_ne!(folder_name(&RELEASE), folder_name(&other_packages));
    }

    #[test]
    fn a_failed_build_leaves_nothing_that_looks_complete() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("servers-x");
        let half = |partial: &Path| {
            fs::create_dir(partial)?;
            bail!("the network is down")
        };
        build_once(cache.path(), &folder, half).unwrap_err();
        assert!(!folder.exists());
        build_once(cache.path(), &folder, |partial| Ok(fs::create_dir(partial)?)).unwrap();
        assert!(folder.exists());
    }

    #[test]
    fn two_builders_at_once_build_one_folder() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("servers-x");
        let builds = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    build_once(cache.path(), &folder, |partial| {
                        builds.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        Ok(fs::create_dir(partial)?)
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(builds.into_inner(), 1);
    }

    #[test]
    fn a_missing_part_names_the_cure() {
        for (missing, cure) in
            [(Missing::Root, "as root"), (Missing::Unshare, "util-linux"), (Missing::Mmdebstrap, "install mmdebstrap")]
        {
            let text = missing.to_string();
            assert!(text.contains(cure) && text.contains(crate::DATABASE_URL), "{text}");
        }
    }
}
