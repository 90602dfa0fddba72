//! What every pod may, which is as little as Kubernetes can say.

use serde_json::{Value, json};

use super::support::{Helm, RELEASE, containers, distributed, matrix};

#[test]
fn every_pod_keeps_to_the_restricted_standard() {
    let Some(helm) = Helm::find() else { return };
    for values in matrix() {
        for (object, template) in helm.render(&values).workloads() {
            let pod = &template["spec"]["securityContext"];
            assert_eq!(pod["runAsNonRoot"], true, "{object}");
            assert_eq!(pod["runAsUser"], 65532, "{object}");
            assert_eq!(pod["seccompProfile"], json!({"type": "RuntimeDefault"}), "{object}");
            for container in containers(template) {
                let expected = json!({
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                });
                assert_eq!(container["securityContext"], expected, "{object}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{container}");
                assert!(container["resources"]["requests"]["cpu"].is_string(), "{container}");
            }
            for field in ["hostNetwork", "hostPID", "hostIPC", "hostUsers"] {
                assert_eq!(template["spec"][field], Value::Null, "{object}");
            }
            let is_of_host = |volume: &Value| volume.get("hostPath").is_some();
            assert!(!template["spec"]["volumes"].as_array().unwrap().iter().any(is_of_host), "{object}");
        }
    }
}

#[test]
fn a_platform_that_chooses_users_may() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&json!({"podSecurity": {"userId": null}}));
    let context = &objects.one("StatefulSet", RELEASE)["spec"]["template"]["spec"]["securityContext"];
    assert_eq!(context, &json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}));
}

#[test]
fn only_the_operators_container_sees_a_token_of_the_api_server() {
    let Some(helm) = Helm::find() else { return };
    for values in matrix() {
        let objects = helm.render(&values);
        for account in objects.of("ServiceAccount") {
            assert_eq!(account["automountServiceAccountToken"], false, "{account}");
        }
        let mut seen = 0;
        for (object, template) in objects.workloads() {
            assert_eq!(template["spec"]["automountServiceAccountToken"], false, "{object}");
            let volumes = template["spec"]["volumes"].as_array().unwrap();
            let holds_token = |volume: &&Value| volume.to_string().contains("serviceAccountToken");
            let tokens: Vec<&Value> = volumes.iter().filter(holds_token).map(|volume| &volume["name"]).collect();
            for container in containers(template) {
                let mounts = container["volumeMounts"].as_array().unwrap();
                let mounted = mounts.iter().filter(|mount| tokens.contains(&&mount["name"])).count();
                let expected = usize::from(container["name"] == "operator");
                assert_eq!(mounted, expected, "{container}");
                seen += mounted;
            }
            // A pod without the operator has not even the volume.
            let has_operator = containers(template).iter().any(|container| container["name"] == "operator");
            assert_eq!(tokens.is_empty(), !has_operator, "{object}");
        }
        assert_eq!(seen, 1);
    }
}

#[test]
fn every_container_is_probed_on_its_admin_port_and_liveness_never_asks_for_readiness() {
    let Some(helm) = Helm::find() else { return };
    for values in matrix() {
        for (_, template) in helm.render(&values).workloads() {
            for container in containers(template) {
                let port = if container["name"] == "operator" { "operator-admin" } else { "admin" };
                assert!(
                    container["ports"].as_array().unwrap().iter().any(|known| known["name"] == port),
                    "{container}"
                );
                for (probe, path) in
                    [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
                {
                    assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": port}), "{container}");
                }
            }
        }
    }
}

#[test]
fn a_stop_has_more_time_than_the_program_takes() {
    let Some(helm) = Helm::find() else { return };
    for values in [json!({"drainSeconds": 90}), distributed(&json!({"drainSeconds": 90}))] {
        for (object, template) in helm.render(&values).workloads() {
            let Some(container) = containers(template).iter().find(|container| container["command"][0] == "dispatcher")
            else {
                continue;
            };
            let pause = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or_default();
            let patience = template["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
            assert!(patience > pause + 90, "{object}");
            // Whoever serves requests waits until none are routed to it.
            assert_eq!(pause > 0, container["args"][0] != "deliver", "{container}");
        }
    }
}

#[test]
fn the_sealing_key_is_made_once_kept_and_cannot_be_overwritten() {
    let Some(helm) = Helm::find() else { return };
    let name = "harborhook-sealing-key";
    let key = |objects: &super::support::Objects| objects.one("Secret", name)["data"]["current"].clone();
    let (first, second) = (helm.render(&json!({})), helm.render(&json!({})));
    assert_ne!(key(&first), key(&second), "it is random");
    assert_eq!(key(&first).as_str().unwrap().len(), 44, "32 bytes in base64");
    let secret = first.one("Secret", name);
    assert_eq!(secret["immutable"], true, "a tool that renders without a cluster must not replace it");
    assert_eq!(secret["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");

    let own = helm.render(&json!({"sealingKey": {"existingSecret": "own"}}));
    assert!(own.of("Secret").next().is_none());
    for (object, template) in own.workloads() {
        let volumes = template["spec"]["volumes"].as_array().unwrap();
        assert!(volumes.iter().any(|volume| volume["secret"]["secretName"] == "own"), "{object}");
    }
}
