//! What a real API server says to the chart.

mod add_ons;
mod installed;
mod policies;
mod roles;

use serde_json::json;

use self::installed::{Setting, apply};
use super::support::{Objects, distributed, everything};

/// Kinds that a cluster has only with add-ons.
const OF_ADD_ONS: [&str; 2] = ["PodMonitor", "HTTPRoute"];

#[tokio::test]
async fn every_object_is_taken_and_no_pod_breaks_the_restricted_standard() {
    let labels =
        [("pod-security.kubernetes.io/warn", "restricted"), ("pod-security.kubernetes.io/enforce", "restricted")];
    let Some(setting) = Setting::start(&labels).await else { return };
    let tenant = setting.cluster.kubectl().namespace("chart-tenant").await.unwrap();
    let mut full = everything();
    full["tenants"] = json!([{"namespace": tenant.name(), "secretNames": ["billing-hook"], "generateSecrets": true}]);
    for values in [
        json!({}),
        full.clone(),
        distributed(&full),
        distributed(&json!({"watchNamespaces": [tenant.name()], "addressPolicy": {"allowHttp": true}})),
    ] {
        let mut objects = setting.render(&values);
        objects.0.retain(|object| !OF_ADD_ONS.iter().any(|kind| object["kind"] == *kind));
        let arguments = ["apply", "--server-side", "--dry-run=server", "--force-conflicts", "--filename", "-"];
        let output = apply(&setting.cluster.kubectl(), &arguments, &objects).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        assert!(!told.to_lowercase().contains("warning"), "{told}");
    }
}

#[tokio::test]
async fn what_kustomize_builds_is_taken_as_well() {
    let Some(setting) = Setting::start(&[]).await else { return };
    let kubectl = setting.cluster.kubectl();
    for base in ["embedded", "distributed"] {
        let folder = super::support::repository().join("charts/kustomize").join(base);
        let built = kubectl.run(["kustomize".as_ref(), folder.as_os_str()]).await.unwrap();
        let mut objects = Objects::parse(&built);
        // It is made for a namespace of its own, which a dry run does not make.
        objects.0.retain(|object| object["kind"] != "Namespace");
        for object in &mut objects.0 {
            if !object["metadata"]["namespace"].is_null() {
                object["metadata"]["namespace"] = setting.namespace.name().into();
            }
        }
        let arguments = ["apply", "--server-side", "--dry-run=server", "--force-conflicts", "--filename", "-"];
        let output = apply(&kubectl, &arguments, &objects).await;
        assert!(output.status.success(), "{base}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
