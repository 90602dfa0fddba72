//! The programs of the cluster: built once from the Go modules beside this crate, and kept in the user's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::announce;
use crate::cache::{build_once, fingerprint};
use crate::environment::Environment;

/// Folder of the modules.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../cluster");
/// What every cluster needs. Each is a folder there, and what it builds is told by its `go.mod` alone.
const MODULES: &[&str] = &["kubernetes", "etcd", "tools"];

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    folders: Vec<PathBuf>,
}

impl Programs {
    /// Builds what is not in the cache: all of it takes minutes. Blocks also while another process builds it.
    pub(crate) fn prepare(environment: &Environment) -> Result<Self> {
        let folders = MODULES.iter().map(|module| prepare(environment, module)).collect::<Result<_>>()?;
        Ok(Self { folders })
    }

    /// Those that are built already.
    pub(crate) fn of_cache(environment: &Environment) -> Result<Self> {
        let cache = environment.cache_folder()?;
        let folders = MODULES.iter().map(|module| folder_of(cache, module)).collect::<Result<Vec<_>>>()?;
        Ok(Self { folders: folders.into_iter().filter(|folder| folder.exists()).collect() })
    }

    /// Absolute path of a program.
    pub(crate) fn path(&self, program: &str) -> Option<PathBuf> {
        self.folders.iter().map(|folder| folder.join(program)).find(|path| path.exists())
    }

    /// Names of their folders in the cache.
    pub(crate) fn folder_names(&self) -> impl Iterator<Item = &str> {
        self.folders.iter().filter_map(|folder| folder.file_name()?.to_str())
    }
}

/// Folder with the programs of a module, which is a folder of `e2e/cluster`: built now when they are not in the cache.
/// Blocks, for minutes; also while another process builds them.
pub(crate) fn prepare(environment: &Environment, module: &str) -> Result<PathBuf> {
    let folder = folder_of(environment.cache_folder()?, module)?;
    build_once(&folder, |partial| {
        announce(&format!("making {} once: the Go module {module}, which takes minutes", folder.display()));
        build(module, partial)
    })?;
    Ok(folder)
}

/// Folder with the files of a Go module, which Go keeps where it keeps those that it builds from.
pub(crate) async fn fetch(module: &str, version: &str) -> Result<PathBuf> {
    let mut go = tokio::process::Command::new("bash");
    // Outside of any module, so that no other one has a say.
    go.arg(Path::new(SOURCES).join("go.sh")).args(["mod", "download", "-json", &format!("{module}@{version}")]);
    let output = go.current_dir("/").stdin(Stdio::null()).output().await.context("bash does not start")?;
    let told: Value = serde_json::from_slice(&output.stdout).context("go mod download wrote no JSON")?;
    let folder = told["Dir"].as_str().map(PathBuf::from);
    folder.with_context(|| format!("the Go module {module} {version} cannot be fetched: {}", told["Error"]))
}

fn folder_of(cache: &Path, module: &str) -> Result<PathBuf> {
    let mut files = ["build.sh", "go.sh"].map(|script| Path::new(SOURCES).join(script)).to_vec();
    files_below(&Path::new(SOURCES).join(module), &mut files)?;
    let mut parts = Vec::new();
    for file in files {
        parts.push(fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    Ok(cache.join(format!("go-{module}-{}", fingerprint(parts))))
}

fn build(module: &str, folder: &Path) -> Result<()> {
    let work = folder.with_extension("building");
    fs::create_dir_all(&work)?;
    let output = Command::new("bash")
        .arg(Path::new(SOURCES).join("build.sh"))
        .arg(&work)
        .arg(module)
        .stdin(Stdio::null())
        .output()
        .context("bash does not start")?;
    if !output.status.success() {
        bail!("the Go module {module} does not build\n{}", String::from_utf8_lossy(&output.stderr));
    }
    fs::rename(work.join(module), folder)?;
    fs::remove_dir(&work).context("the build left something behind")
}

/// All regular files, in an order that is always the same.
fn files_below(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            files_below(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_has_a_folder_of_its_own_in_the_cache() {
        let cache = Path::new("/cache");
        let folders: std::collections::HashSet<_> =
            MODULES.iter().map(|module| folder_of(cache, module).unwrap()).collect();
        assert_eq!(folders.len(), MODULES.len());
        assert!(folders.iter().all(|folder| folder.starts_with(cache)));
    }

    #[test]
    fn every_file_of_a_module_counts() {
        let module = tempfile::tempdir().unwrap();
        fs::create_dir(module.path().join("inner")).unwrap();
        for name in ["b", "a", "inner/c"] {
            fs::write(module.path().join(name), name).unwrap();
        }
        let mut found = Vec::new();
        files_below(module.path(), &mut found).unwrap();
        assert_eq!(found, ["a", "b", "inner/c"].map(|name| module.path().join(name)));
    }
}
