//! What is made once and kept: folders of the user's cache whose names tell what is in them.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// A short name for all of these parts: others have another one.
pub(crate) fn fingerprint<Part: AsRef<[u8]>>(parts: impl IntoIterator<Item = Part>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_ref());
        hash.update([0]);
    }
    hex::encode(&hash.finalize()[..6])
}

/// Runs `build` unless `folder` exists, alone among all processes that share the cache. What `build` makes under a
/// temporary name becomes `folder` only when it is complete.
pub(crate) fn build_once(folder: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let cache = folder.parent().context("the cache has no root folder")?;
    fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let lock = File::create(folder.with_extension("lock")).context("cannot make a lock file in the cache")?;
    lock.lock().context("cannot lock a part of the cache")?;
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

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_failed_build_leaves_nothing_that_looks_complete() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("new/servers-x");
        let half = |partial: &Path| {
            fs::create_dir(partial)?;
            bail!("the network is down")
        };
        build_once(&folder, half).unwrap_err();
        assert!(!folder.exists());
        build_once(&folder, |partial| Ok(fs::create_dir(partial)?)).unwrap();
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
                    build_once(&folder, |partial| {
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
    fn the_order_and_the_ends_of_parts_are_told_apart() {
        let names = [&["a", "b"][..], &["b", "a"], &["ab"], &["a", "b", ""]].map(|parts| fingerprint(parts.iter()));
        let different: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
        assert_eq!(fingerprint(["a", "b"]), names[0]);
    }
}
