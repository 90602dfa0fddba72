//! Real input: GitHub's own webhook payloads, from the npm package that ships them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

const PACKAGE: &str = "@octokit/webhooks-examples";
const VERSION: &str = "7.6.1";

/// One payload, byte for byte as the package has it.
#[derive(Clone, Debug)]
pub struct Payload {
    /// GitHub's name of the event, for example `pull_request`.
    pub event_name: String,
    /// The JSON text, white space included.
    pub bytes: Bytes,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    examples: Vec<Box<RawValue>>,
}

/// All payloads of the package, or `None` if npm is not installed.
///
/// The package is installed once into the user's cache folder, outside any work tree, keyed by its version.
pub fn load() -> Result<Option<Vec<Payload>>> {
    let Some(package) = installed()? else { return Ok(None) };
    let mut payloads = Vec::new();
    let mut folders: Vec<_> = fs::read_dir(&package)?.collect::<Result<_, _>>()?;
    folders.sort_by_key(fs::DirEntry::file_name);
    for folder in folders {
        let index = folder.path().join("index.json");
        if index.is_file() {
            payloads.extend(read_index(&index)?);
        }
    }
    if payloads.is_empty() {
        bail!("{} holds no payloads; remove the folder to have it installed again", package.display());
    }
    Ok(Some(payloads))
}

fn read_index(index: &Path) -> Result<Vec<Payload>> {
    let text = fs::read_to_string(index)?;
    let groups: Vec<Group> = serde_json::from_str(&text).with_context(|| index.display().to_string())?;
    let payloads = groups.into_iter().flat_map(|group| {
        let name = group.name;
        group.examples.into_iter().map(move |example| Payload {
            event_name: name.clone(),
            bytes: Bytes::copy_from_slice(example.get().as_bytes()),
        })
    });
    Ok(payloads.collect())
}

fn installed() -> Result<Option<PathBuf>> {
    let prefix = cache_folder().join(format!("webhooks-examples-{VERSION}"));
    let package = prefix.join("node_modules").join(PACKAGE);
    if package.join("api.github.com/index.json").is_file() {
        return Ok(Some(package));
    }
    fs::create_dir_all(&prefix)?;
    let status = Command::new("npm")
        .args(["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix"])
        .arg(&prefix)
        .arg(format!("{PACKAGE}@{VERSION}"))
        .status();
    match status {
        Ok(status) if status.success() => Ok(Some(package)),
        Ok(status) => bail!("npm could not install {PACKAGE}@{VERSION}: {status}"),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("npm could not be started"),
    }
}

fn cache_folder() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    cache.or_else(home).unwrap_or_else(std::env::temp_dir).join("harborhook-e2e")
}
