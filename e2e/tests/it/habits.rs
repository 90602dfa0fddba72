//! House rules that a reviewer would otherwise have to remember.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest source file, in lines. A file beyond it is usually two ideas.
const FILE_LINES_MAX: usize = 500;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn files_with_extension(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            files_with_extension(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files_with_extension(&repository(), "rs", &mut found);
    assert!(found.len() > 50, "only {} sources: is the walk broken?", found.len());
    found
}

#[test]
fn no_source_file_is_too_long_to_read() {
    let too_long: Vec<_> = sources()
        .into_iter()
        .map(|path| (fs::read_to_string(&path).unwrap().lines().count(), path))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .collect();
    assert!(too_long.is_empty(), "split these: {too_long:#?}");
}

#[test]
fn every_package_takes_the_lints_of_the_workspace() {
    let mut manifests = Vec::new();
    files_with_extension(&repository(), "toml", &mut manifests);
    for manifest in manifests.iter().filter(|path| path.ends_with("Cargo.toml")) {
        let text = fs::read_to_string(manifest).unwrap();
        if text.contains("[package]") {
            assert!(text.contains("[lints]\nworkspace = true"), "{}", manifest.display());
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut pages = Vec::new();
    files_with_extension(&repository(), "md", &mut pages);
    let mut checked = 0;
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            assert!(page.parent().unwrap().join(path).exists(), "{}: {target}", page.display());
            checked += 1;
        }
    }
    assert!(checked > 10, "only {checked} links: is the search broken?");
}

#[test]
fn every_package_and_role_has_its_place_in_the_architecture() {
    let architecture = fs::read_to_string(repository().join("docs/architecture.md")).unwrap();
    for place in
        ["crds/", "dispatcher/core/", "dispatcher/src/", "operator/", "harborctl/", "migrations/", "e2e/", "docs/"]
    {
        assert!(architecture.contains(place), "docs/architecture.md does not tell what {place} is");
    }
    let core = repository().join("dispatcher/core/src");
    for entry in fs::read_dir(core).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if stem != "lib" {
            assert!(architecture.contains(&format!("`{stem}`")), "docs/architecture.md does not name core's `{stem}`");
        }
    }
}
