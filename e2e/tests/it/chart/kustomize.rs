//! The kustomize bases and components, which are made from the chart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::support::{Helm, Objects, program, repository, succeeded};

fn folder() -> PathBuf {
    repository().join("charts/kustomize")
}

/// What `kubectl kustomize` makes of a folder.
fn build(kubectl: &Path, folder: &Path) -> Objects {
    let output =
        Command::new(kubectl).arg("kustomize").arg("--load-restrictor=LoadRestrictionsNone").arg(folder).output();
    Objects::parse(&succeeded(&output.unwrap()))
}

fn kubectl() -> Option<PathBuf> {
    program("HARBORHOOK_KUBECTL", "kubectl", &["version", "--client"])
}

/// A folder with a kustomization that may name those of the repository by `BASE`.
fn overlay(text: &str) -> tempfile::TempDir {
    let overlay = tempfile::tempdir().unwrap();
    // kustomize takes only relative paths, from where the folder really is.
    let real = overlay.path().canonicalize().unwrap();
    let up = "../".repeat(real.components().count() - 1);
    let base = format!("{up}{}", folder().canonicalize().unwrap().strip_prefix("/").unwrap().display());
    fs::write(overlay.path().join("kustomization.yaml"), text.replace("BASE", &base)).unwrap();
    overlay
}

#[test]
fn the_committed_files_are_those_that_the_chart_makes() {
    let Some(helm) = Helm::find() else { return };
    let fresh = tempfile::tempdir().unwrap();
    let output = Command::new("bash")
        .arg(folder().join("render.sh"))
        .arg(fresh.path())
        .env("HARBORHOOK_HELM", helm.path())
        .output()
        .unwrap();
    succeeded(&output);
    for file in [
        "embedded/harborhook.yaml",
        "distributed/harborhook.yaml",
        "components/tenant-watch/role.yaml",
        "components/tenant-secrets/role.yaml",
    ] {
        let (made, committed) = (fs::read_to_string(fresh.path().join(file)), fs::read_to_string(folder().join(file)));
        assert!(made.unwrap() == committed.unwrap(), "{file} is out of date: run `charts/kustomize/render.sh`");
    }
}

#[test]
fn a_base_holds_what_the_chart_installs_and_nothing_that_only_helm_reads() {
    let Some(kubectl) = kubectl() else { return };
    for (base, workloads) in [("embedded", 1), ("distributed", 3)] {
        let objects = build(&kubectl, &folder().join(base));
        assert_eq!(objects.workloads().count(), workloads, "{base}");
        assert!(objects.of("Secret").next().is_none(), "a rendered key would be everybody's");
        assert!(objects.0.iter().all(|object| !object.to_string().contains("helm")), "{base}");
        let namespace = objects.one("Namespace", "harborhook");
        assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    }
}

#[test]
fn an_installation_of_some_namespaces_needs_no_role_of_the_operator_in_the_cluster() {
    let Some(kubectl) = kubectl() else { return };
    for (base, kind, name) in
        [("embedded", "StatefulSet", "harborhook"), ("distributed", "Deployment", "harborhook-operator")]
    {
        let text = format!(
            "namespace: hooks\nresources: [BASE/{base}]\ncomponents: [BASE/components/namespaced]\nconfigMapGenerator:\n  \
             - {{name: harborhook-namespaces, literals: [\"HARBORHOOK_WATCH_NAMESPACE=shop,bank\"]}}\n"
        );
        let objects = build(&kubectl, overlay(&text).path());
        assert!(!objects.names("ClusterRole").contains(&"harborhook-operator"));
        assert_eq!(objects.names("ClusterRoleBinding"), [""; 0]);
        let generated = objects.of("ConfigMap").next().unwrap();
        let workload = objects.one(kind, name);
        let containers = workload["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        for container in containers {
            let reference = &container["envFrom"][0]["configMapRef"]["name"];
            let expected = if container["name"] == "operator" { &generated["metadata"]["name"] } else { &Value::Null };
            assert_eq!(reference, expected, "{container}");
        }
        // The account follows the namespace, and so do the bindings.
        assert_eq!(objects.one("RoleBinding", "harborhook-operator")["subjects"][0]["namespace"], "hooks");
    }
}

#[test]
fn a_tenants_namespace_takes_its_roles_as_components() {
    let Some(kubectl) = kubectl() else { return };
    let overlay = overlay(
        "namespace: shop\ncomponents: [BASE/components/tenant-watch, BASE/components/tenant-secrets]\npatches:\n  \
         - target: {kind: Role, name: harborhook-secrets}\n    patch: |-\n      \
         - {op: replace, path: /rules/0/resourceNames, value: [billing-hook]}\n",
    );
    let objects = build(&kubectl, overlay.path());
    assert_eq!(objects.names("Role"), ["harborhook-secrets", "harborhook-watch"]);
    assert!(objects.0.iter().all(|object| object["metadata"]["namespace"] == "shop"));
    let secrets =
        json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["billing-hook"], "verbs": ["get"]}]);
    assert_eq!(objects.one("Role", "harborhook-secrets")["rules"], secrets);
    for binding in objects.of("RoleBinding") {
        assert_eq!(binding["subjects"][0]["namespace"], "harborhook", "{binding}");
    }
}
