//! Who may know whom, read from cargo itself.

use std::collections::BTreeSet;
use std::process::Command;

use cargo_metadata::MetadataCommand;

/// The names of all packages that these are built from, on any platform.
///
/// It is the tree that is asked: in it a package is resolved by what it asks for itself, while the metadata has for
/// each dependency the features that the whole workspace asks for, and what no feature turns on.
fn built_from(selection: &[&str]) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--all-features", "--target", "all", "--edges", "normal,build"])
        .args(["--prefix", "none", "--format", "{p}"])
        .args(selection)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    tree.lines().filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// What a workspace package is built from, with all features that it has, itself excluded.
fn closure(package: &str) -> BTreeSet<String> {
    let mut names = built_from(&["--package", package]);
    assert!(names.remove(package), "{package} is not in its own tree");
    names
}

#[test]
fn the_core_knows_nobody() {
    let closure = closure("dispatcher-core");
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
    let closure = closure("dispatcher");
    for stranger in ["kube", "kube-core", "kube-client", "k8s-openapi", "crds", "operator"] {
        assert!(!closure.contains(stranger), "dispatcher depends on {stranger}");
    }
}

#[test]
fn the_resource_types_know_only_the_derive_of_kube() {
    let closure = closure("crds");
    assert!(closure.contains("kube-derive"));
    for stranger in
        ["tokio", "kube-client", "kube-runtime", "reqwest", "sqlx", "dispatcher", "dispatcher-core", "operator"]
    {
        assert!(!closure.contains(stranger), "crds depends on {stranger}");
    }
}

#[test]
fn there_is_one_tls_provider() {
    let built = built_from(&["--workspace"]);
    for stranger in ["ring", "native-tls", "openssl", "openssl-sys"] {
        assert!(!built.contains(stranger), "the workspace ships {stranger}");
    }
    assert!(built.contains("aws-lc-rs"));
}

#[test]
fn every_dependency_of_a_package_comes_from_the_one_table() {
    let metadata =
        MetadataCommand::new().manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).exec().unwrap();
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
