//! Names and labels, by which people and tools find what belongs together.

use serde_json::{Value, json};

use super::support::{Helm, NAMESPACE, containers, distributed, matrix};

const IN_CLUSTER: [&str; 5] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

#[test]
fn every_object_has_its_namespace_and_the_common_labels() {
    let Some(helm) = Helm::find() else { return };
    for values in matrix() {
        for object in &helm.render(&values).0 {
            let labels = &object["metadata"]["labels"];
            assert_eq!(labels["app.kubernetes.io/name"], "harborhook", "{object}");
            assert_eq!(labels["app.kubernetes.io/instance"], "harborhook", "{object}");
            assert_eq!(labels["app.kubernetes.io/managed-by"], "Helm", "{object}");
            assert!(labels["app.kubernetes.io/component"].is_string(), "{object}");
            assert_eq!(labels["app.kubernetes.io/version"], env!("CARGO_PKG_VERSION"), "the chart is of this release");
            let is_in_cluster = IN_CLUSTER.iter().any(|kind| object["kind"] == *kind);
            assert_eq!(object["metadata"]["namespace"].is_null(), is_in_cluster, "{object}");
        }
    }
}

#[test]
fn no_object_stands_twice() {
    let Some(helm) = Helm::find() else { return };
    for values in matrix() {
        let objects = helm.render(&values).0;
        let identity = |object: &Value| {
            let metadata = &object["metadata"];
            (object["kind"].to_string(), metadata["namespace"].to_string(), metadata["name"].to_string())
        };
        let mut identities: Vec<_> = objects.iter().map(identity).collect();
        let all = identities.len();
        identities.sort();
        identities.dedup();
        assert_eq!(identities.len(), all, "{values}");
    }
}

#[test]
fn every_pod_runs_under_an_account_of_its_own_that_is_there() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&distributed(&json!({})));
    for (object, template) in objects.workloads() {
        let account = template["spec"]["serviceAccountName"].as_str().unwrap();
        assert_eq!(objects.one("ServiceAccount", account)["metadata"]["namespace"], NAMESPACE);
        assert!(object["metadata"]["name"].as_str().unwrap().starts_with(account), "{object}");
    }
    assert_eq!(objects.names("ServiceAccount"), ["harborhook-dispatcher", "harborhook-ingest", "harborhook-operator"]);
}

#[test]
fn what_selects_pods_selects_those_of_its_own_component() {
    let Some(helm) = Helm::find() else { return };
    for values in matrix() {
        let objects = helm.render(&values);
        let pods: Vec<&Value> = objects.workloads().map(|(_, template)| &template["metadata"]["labels"]).collect();
        let selects = |selector: &Value| {
            let wanted = selector.as_object().unwrap();
            let matches = |labels: &&&Value| wanted.iter().all(|(name, value)| labels[name.as_str()] == *value);
            pods.iter().filter(matches).count()
        };
        for object in &objects.0 {
            let selector = match object["kind"].as_str().unwrap() {
                "Deployment" | "StatefulSet" | "PodDisruptionBudget" => &object["spec"]["selector"]["matchLabels"],
                "NetworkPolicy" => &object["spec"]["podSelector"]["matchLabels"],
                "Service" => &object["spec"]["selector"],
                _ => continue,
            };
            assert_eq!(selects(selector), 1, "{object}");
        }
    }
}

#[test]
fn pods_are_spread_and_placed_as_the_values_say() {
    let Some(helm) = Helm::find() else { return };
    let values = json!({
        "priorityClassName": "high", "imagePullSecrets": [{"name": "pull"}],
        "ingest": {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}], "affinity": {"nodeAffinity": {}}},
    });
    let objects = helm.render(&distributed(&values));
    for (object, template) in objects.workloads() {
        let spec = &template["spec"];
        assert_eq!(spec["priorityClassName"], "high");
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
        let is_ingest = object["metadata"]["name"] == "harborhook-ingest";
        assert_eq!(spec["nodeSelector"] == json!({"disk": "ssd"}), is_ingest, "{object}");
        assert_eq!(spec["affinity"].is_object(), is_ingest);
        assert_eq!(spec["tolerations"].is_array(), is_ingest);
        let spread = spec["topologySpreadConstraints"].as_array().unwrap();
        let keys: Vec<&Value> = spread.iter().map(|constraint| &constraint["topologyKey"]).collect();
        assert_eq!(keys, ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]);
        assert!(spread.iter().all(|constraint| constraint["labelSelector"]["matchLabels"].is_object()), "{object}");
    }
    let off = helm.render(&distributed(&json!({"topologySpread": {"enabled": false}})));
    assert!(off.workloads().all(|(_, template)| template["spec"]["topologySpreadConstraints"].is_null()));
}

#[test]
fn an_image_is_named_by_tag_or_by_digest() {
    let Some(helm) = Helm::find() else { return };
    let digest = format!("sha256:{}", "0".repeat(64));
    for (image, expected) in [
        (json!({}), concat!("ghcr.io/harborhook/harborhook:", env!("CARGO_PKG_VERSION")).to_owned()),
        (json!({"repository": "r.example/h", "tag": "x"}), "r.example/h:x".to_owned()),
        (json!({"repository": "r.example/h", "tag": "x", "digest": digest}), format!("r.example/h@{digest}")),
    ] {
        let objects = helm.render(&json!({ "image": image }));
        for (_, template) in objects.workloads() {
            assert!(containers(template).iter().all(|container| container["image"] == expected), "{template}");
        }
    }
}
