use operator::plan::pool::{APPLIED_ANNOTATION, object_name};
use serde_json::{Value, json};

use super::{carry_out, default_deployment, objects, plan, pool, world};

fn deployment(spec: &Value) -> Value {
    serde_json::to_value(objects(spec).deployment).unwrap()
}

fn container(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["spec"]["containers"][1]
}

#[test]
fn a_pools_pods_are_those_of_the_default_pool_but_for_the_pool() {
    let made = deployment(&json!({}));
    assert_eq!(made["metadata"]["name"], "release-dispatcher-slow");
    assert_eq!(made["spec"].get("replicas"), None, "whoever scales owns the number");
    let pod = &made["spec"]["template"]["spec"];
    let default = serde_json::to_value(default_deployment()).unwrap();
    let default_pod = &default["spec"]["template"]["spec"];
    for same in ["serviceAccountName", "automountServiceAccountToken", "securityContext", "nodeSelector"] {
        assert_eq!(pod[same], default_pod[same], "{same}");
    }
    assert_eq!(pod["containers"][0], default_pod["containers"][0]);
    let (own, default) = (container(&made), &default_pod["containers"][1]);
    for same in ["image", "command", "ports", "resources", "securityContext"] {
        assert_eq!(own[same], default[same], "{same}");
    }
    assert_eq!(own["args"], json!(["deliver", "--log=info", "--max-in-flight=64"]), "the variable is not overruled");
    assert_eq!(own["env"][1], json!({"name": "HARBORHOOK_POOL", "value": "slow"}));
    assert_eq!(own["env"].as_array().unwrap().len(), 2);
}

#[test]
fn what_the_resource_says_replaces_what_the_default_pool_says() {
    let made = deployment(&json!({
        "maxInFlight": 512,
        "template": {
            "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}},
            "nodeSelector": {},
            "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
        },
    }));
    let pod = &made["spec"]["template"]["spec"];
    assert_eq!(pod.get("nodeSelector"), None);
    let toleration = json!({"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
    assert_eq!(pod["tolerations"], json!([toleration]));
    let own = container(&made);
    assert_eq!(own["resources"], json!({"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}}));
    assert_eq!(own["args"], json!(["deliver", "--log=info"]));
    assert_eq!(own["env"][2], json!({"name": "HARBORHOOK_MAX_IN_FLIGHT", "value": "512"}));
}

#[test]
fn pods_are_told_apart_and_spread_by_their_pool() {
    let made = deployment(&json!({}));
    let selector = json!({
        "app.kubernetes.io/name": "harborhook", "app.kubernetes.io/instance": "release",
        "app.kubernetes.io/component": "dispatcher", "harborhook.dev/pool": "slow",
    });
    assert_eq!(made["spec"]["selector"]["matchLabels"], selector);
    let pod = &made["spec"]["template"]["spec"];
    let spread = &pod["topologySpreadConstraints"][0];
    assert_eq!(spread["labelSelector"]["matchLabels"], selector);
    assert_eq!(spread["matchLabelKeys"], json!(["pod-template-hash"]));
    assert_eq!(pod["affinity"], json!({"nodeAffinity": {}}), "what keeps the default pool's pods apart does not apply");
    let objects = objects(&json!({}));
    let budget = serde_json::to_value(objects.disruption_budget).unwrap();
    assert_eq!(budget["spec"]["selector"]["matchLabels"], selector);
    assert_eq!(budget["spec"]["maxUnavailable"], "25%");
    let service = serde_json::to_value(objects.service.unwrap()).unwrap();
    assert_eq!(service["spec"]["selector"], selector);
    assert_eq!((&service["spec"]["clusterIP"], &service["spec"]["ports"][0]["port"]), (&json!("None"), &json!(8081)));
}

#[test]
fn objects_belong_to_the_resource_and_have_none_of_its_labels_and_annotations() {
    let objects = objects(&json!({}));
    let owner = json!([{
        "apiVersion": "harborhook.dev/v1alpha1", "kind": "DispatcherPool", "name": "slow", "controller": true,
        "uid": "5b4d9e0c-0000-4000-8000-000000000001",
    }]);
    for object in [
        serde_json::to_value(&objects.deployment).unwrap(),
        serde_json::to_value(&objects.disruption_budget).unwrap(),
        serde_json::to_value(&objects.service).unwrap(),
    ] {
        let metadata = &object["metadata"];
        assert_eq!(metadata["ownerReferences"], owner);
        assert_eq!(metadata["namespace"], "harborhook");
        assert_eq!(metadata["labels"]["app.kubernetes.io/managed-by"], "harborhook");
        assert_eq!(metadata["labels"]["harborhook.dev/pool"], "slow");
        let annotations: Vec<&String> = metadata["annotations"].as_object().unwrap().keys().collect();
        assert_eq!(annotations, [APPLIED_ANNOTATION]);
        let text = object.to_string();
        for foreign in ["argocd", "note", "private", "helm.sh", "team", "restartedAt"] {
            assert!(!text.contains(foreign), "{foreign} in {text}");
        }
    }
    let template = &deployment(&json!({}))["spec"]["template"]["metadata"];
    assert_eq!(template["annotations"], json!({"checksum/sealing": "abc"}), "a new key restarts every pool");
}

#[test]
fn names_are_those_of_the_default_pool_and_never_too_long() {
    let long = "a".repeat(50);
    for (default, name, expected) in
        [("hh-dispatcher-default", "slow", "hh-dispatcher-slow"), ("dispatchers", "slow", "dispatchers-slow")]
    {
        assert_eq!(object_name(default, name), expected);
    }
    let cut = object_name(&long, "a-rather-long-name-of-a-pool");
    let other = object_name(&long, "a-rather-long-name-of-another");
    assert!(cut.len() <= 63 && cut != other && cut.starts_with(&long), "{cut} {other}");
}

#[test]
fn a_resource_without_identity_owns_nothing() {
    let mut pool = pool(&json!({}));
    pool.metadata.uid = None;
    assert_eq!(operator::plan::pool::pool_objects(&pool, &default_deployment()), None);
}

#[test]
fn what_was_applied_is_not_applied_again_and_what_changed_is() {
    let spec = json!({"template": {"nodeSelector": {"disk": "fast"}, "resources": {"requests": {"cpu": "1000m"}}}});
    let mut world = world(&spec);
    let first = plan(&world);
    assert!(first.apply[0].1.deployment.is_some() && first.apply[0].1.service.is_some());
    carry_out(&mut world, &first);
    // An API server writes quantities in its own way.
    let made = world.deployments.get_mut("release-dispatcher-slow").unwrap();
    let containers = &mut made.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers;
    let requests = containers[1].resources.as_mut().unwrap().requests.as_mut().unwrap();
    requests.get_mut("cpu").unwrap().0 = "1".to_owned();
    assert_eq!(plan(&world).apply, []);

    let mut drifted = world.clone();
    let made = drifted.deployments.get_mut("release-dispatcher-slow").unwrap();
    made.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[1].image = Some("other:1".to_owned());
    let (_, change) = plan(&drifted).apply.remove(0);
    assert!(change.deployment.is_some() && change.service.is_none() && change.disruption_budget.is_none());

    // A field that is no longer asked for leaves no trace but the digest.
    world.pools = vec![pool(&json!({"template": {"resources": {"requests": {"cpu": "1000m"}}}}))];
    world
        .deployments
        .get_mut("release-dispatcher-default")
        .unwrap()
        .spec
        .as_mut()
        .unwrap()
        .template
        .spec
        .as_mut()
        .unwrap()
        .node_selector = None;
    assert!(plan(&world).apply[0].1.deployment.is_some());

    // An upgrade of the installation upgrades every pool.
    let default = world.deployments.get_mut("release-dispatcher-default").unwrap();
    default.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[1].image =
        Some("harborhook:2".to_owned());
    let (_, change) = plan(&world).apply.remove(0);
    assert!(serde_json::to_string(&change.deployment).unwrap().contains("harborhook:2"));
}
