//! What the chart has for add-ons of a cluster, as their own definitions see it.

use serde_json::{Value, json};

use super::OF_ADD_ONS;
use super::installed::{Setting, apply};
use crate::chart::support::{distributed, everything};

/// Go module, version and file of each definition.
const DEFINITIONS: [(&str, &str, &str); 2] = [
    ("sigs.k8s.io/gateway-api", "v1.4.0", "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"),
    (
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
    ),
];
/// Their names.
const NAMES: [&str; 2] = ["crd/httproutes.gateway.networking.k8s.io", "crd/podmonitors.monitoring.coreos.com"];

#[tokio::test]
async fn what_is_for_add_ons_is_taken_where_they_are() {
    let Some(setting) = Setting::start(&[]).await else { return };
    let kubectl = setting.cluster.kubectl();
    for ((module, version, file), name) in DEFINITIONS.into_iter().zip(NAMES) {
        let Some(folder) = testbed::go_module(module, version).await.unwrap() else { return };
        // A cluster that has the add-on keeps its own.
        if !kubectl.output(["get", name]).await.unwrap().status.success() {
            let file = folder.join(file);
            kubectl.run(["create".as_ref(), "--filename".as_ref(), file.as_os_str()]).await.unwrap();
        }
        kubectl.run(["wait", "--for=condition=Established", "--timeout=60s", name]).await.unwrap();
    }
    for values in [everything(), distributed(&everything())] {
        let mut objects = setting.render(&values);
        objects.0.retain(|object| OF_ADD_ONS.iter().any(|kind| object["kind"] == *kind));
        assert_eq!(objects.0.len(), OF_ADD_ONS.len());
        // Strictly: a field that the definition does not have is an error, not left out.
        let arguments = ["create", "--dry-run=server", "--validate=strict", "--filename", "-"];
        let output = apply(&kubectl, &arguments, &objects).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        let route = |object: &&mut Value| object["kind"] == "HTTPRoute";
        objects.0.iter_mut().find(route).unwrap()["spec"]["rules"] = json!([{"backends": []}]);
        let output = apply(&kubectl, &arguments, &objects).await;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        // Said by kubectl where it has read the definition by then, and else by the API server, with the whole path.
        assert!(told.contains("unknown field") && told.contains("backends\""), "{told}");
    }
}
