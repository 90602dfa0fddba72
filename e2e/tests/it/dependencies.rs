//! Who may know whom, read from cargo itself.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).exec().unwrap()
}

/// Everything that a workspace package is built from, itself excluded, by package name.
fn closure(metadata: &Metadata, root: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().unwrap();
    let names: BTreeMap<_, _> = metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let start =
        resolve.nodes.iter().find(|node| names[&node.id] == root && metadata.workspace_members.contains(&node.id));
    let mut open = vec![start.unwrap_or_else(|| panic!("{root} is no workspace package"))];
    let mut seen = BTreeSet::new();
    while let Some(node) = open.pop() {
        for dependency in &node.deps {
            let shipped = dependency.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development);
            if shipped && seen.insert(names[&dependency.pkg].to_owned()) {
                open.push(resolve.nodes.iter().find(|node| node.id == dependency.pkg).unwrap());
            }
        }
    }
    seen
}

#[test]
fn the_core_knows_nobody() {
    let closure = closure(&metadata(), "dispatcher-core");
    let strangers =
        ["tokio", "kube", "kube-core", "k8s-openapi", "sqlx", "lapin", "reqwest", "hyper", "axum", "rand", "tracing"];
    for stranger in strangers {
        assert!(!closure.contains(stranger), "dispatcher-core depends on {stranger}");
    }
    for package in ["crds", "dispatcher", "operator", "harborctl"] {
        assert!(!closure.contains(package), "dispatcher-core depends on {package}");
    }
}

#[test]
fn the_data_plane_has_never_heard_of_kubernetes() {
    let closure = closure(&metadata(), "dispatcher");
    for stranger in ["kube", "kube-core", "kube-client", "k8s-openapi", "crds", "operator"] {
        assert!(!closure.contains(stranger), "dispatcher depends on {stranger}");
    }
}

#[test]
fn the_resource_types_know_only_the_derive_of_kube() {
    let closure = closure(&metadata(), "crds");
    for stranger in
        ["tokio", "kube-client", "kube-runtime", "reqwest", "sqlx", "dispatcher", "dispatcher-core", "operator"]
    {
        assert!(!closure.contains(stranger), "crds depends on {stranger}");
    }
}

#[test]
fn there_is_one_tls_provider() {
    // The metadata also lists what no feature turns on; the tree is what is built.
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--target", "all", "--edges", "normal,build"])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let built: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    for stranger in ["ring", "native-tls", "openssl", "openssl-sys"] {
        assert!(!built.contains(stranger), "the workspace ships {stranger}");
    }
    assert!(built.contains("aws-lc-rs"));
}

#[test]
fn every_dependency_of_a_package_comes_from_the_one_table() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        let mut section = String::new();
        for line in manifest.lines().map(str::trim) {
            if line.starts_with('[') {
                line.clone_into(&mut section);
            } else if section.contains("dependencies") && line.contains('=') {
                assert!(line.contains("workspace = true"), "{}: {line}", package.manifest_path);
            }
        }
    }
}
