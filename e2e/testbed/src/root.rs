//! The root folder that private servers run in: a small Debian, made once and kept in the user's cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::announce;
use crate::cache::{build_once, fingerprint};
use crate::environment::Environment;
use crate::missing::{Missing, missing};

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

/// What is made of Debian packages is made with this.
pub(crate) const MMDEBSTRAP: (&str, &str) = ("mmdebstrap", "apt-get install mmdebstrap debian-archive-keyring");
/// What servers run in.
pub(crate) const UNSHARE: (&str, &str) = ("unshare", "apt-get install util-linux");

impl Root {
    /// The root folder of a release, made now when it is not in the cache. Blocks: for about half a minute when it is
    /// made, and for as long as another process makes it.
    pub(crate) fn prepare(environment: &Environment, release: Release) -> Result<Result<Self, Missing>> {
        if let Some(missing) = missing(&[UNSHARE]) {
            return Ok(Err(missing));
        }
        let folder = environment.cache_folder()?.join(folder_name(&release));
        if !folder.exists() {
            if let Some(missing) = missing(&[MMDEBSTRAP]) {
                return Ok(Err(missing));
            }
            build_once(&folder, |partial| debootstrap(&release, partial))?;
        }
        Ok(Ok(Self { folder, release }))
    }
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
    let parts = release.packages.iter().chain(&[HOSTS_HOOK]);
    format!("servers-{}-{}", release.suite, fingerprint(parts))
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
}
