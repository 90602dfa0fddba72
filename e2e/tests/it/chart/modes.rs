//! The two installations: what is there, and what keeps them from being something in between.

use serde_json::{Value, json};

use super::support::{Helm, NAMESPACE, Objects, RELEASE, containers, distributed};

fn workload_names(objects: &Objects) -> Vec<String> {
    let mut names: Vec<String> = objects
        .workloads()
        .map(|(object, _)| {
            format!("{}/{}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
        })
        .collect();
    names.sort();
    names
}

#[test]
fn without_values_one_pod_is_the_whole_installation() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&json!({}));
    assert_eq!(workload_names(&objects), ["StatefulSet/harborhook"]);
    let set = objects.one("StatefulSet", RELEASE);
    assert_eq!(set["spec"]["replicas"], 1);
    let containers = containers(&set["spec"]["template"]);
    let started: Vec<_> = containers.iter().map(|container| (&container["command"], &container["args"])).collect();
    assert_eq!(started, [(&json!(["dispatcher"]), &json!(["all"])), (&json!(["operator"]), &json!(["run"]))]);
    for container in containers {
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert!(mounts.contains(&json!({"name": "ledger", "mountPath": "/var/lib/harborhook"})), "{container}");
        let environment = container["env"].as_array().unwrap();
        let database = json!({"name": "HARBORHOOK_DATABASE", "value": "sqlite:/var/lib/harborhook/ledger.db"});
        assert!(environment.contains(&database), "{container}");
    }
    assert_eq!(set["spec"]["volumeClaimTemplates"][0]["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    // The claim outlives the release.
    assert_eq!(set["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"], "Retain");
    assert!(objects.of("PodDisruptionBudget").next().is_none(), "it would only keep a node from being drained");
    // The only pod answers for itself, and does not depend on its operator.
    assert_eq!(objects.one("Service", RELEASE)["spec"]["publishNotReadyAddresses"], true);
}

#[test]
fn without_a_volume_the_ledger_goes_with_the_pod_and_the_notes_say_so() {
    let Some(helm) = Helm::find() else { return };
    let values = json!({"embedded": {"persistence": {"enabled": false}}});
    let set = helm.render(&values).one("StatefulSet", RELEASE).clone();
    assert_eq!(set["spec"]["volumeClaimTemplates"], Value::Null);
    let volumes = set["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.contains(&json!({"name": "ledger", "emptyDir": {}})), "{volumes:?}");
    assert!(helm.notes(&values).contains("WITHOUT A VOLUME"));
}

#[test]
fn with_two_secrets_every_part_is_a_deployment_of_its_own() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&distributed(&json!({})));
    let expected =
        ["Deployment/harborhook-dispatcher-default", "Deployment/harborhook-ingest", "Deployment/harborhook-operator"];
    assert_eq!(workload_names(&objects), expected);
    let replicas = |name: &str| objects.one("Deployment", name)["spec"]["replicas"].clone();
    assert_eq!((replicas("harborhook-operator"), replicas("harborhook-ingest")), (json!(2), json!(2)));
    // Whoever scales the pool would be undone by every upgrade.
    assert_eq!(replicas("harborhook-dispatcher-default"), Value::Null);
    assert_eq!(
        objects.names("PodDisruptionBudget"),
        ["harborhook-dispatcher-default", "harborhook-ingest", "harborhook-operator"]
    );
    let service = objects.one("Service", RELEASE);
    assert_eq!(service["spec"]["selector"]["app.kubernetes.io/component"], "ingest");
    assert_eq!(service["spec"]["publishNotReadyAddresses"], Value::Null);
}

#[test]
fn as_many_dispatchers_may_be_away_as_of_any_other_pool() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&distributed(&json!({})));
    for (name, most) in [
        ("harborhook-dispatcher-default", json!("25%")),
        ("harborhook-ingest", json!(1)),
        ("harborhook-operator", json!(1)),
    ] {
        assert_eq!(objects.one("PodDisruptionBudget", name)["spec"]["maxUnavailable"], most, "{name}");
    }
    assert!(
        helm.refuse(&distributed(&json!({"dispatcher": {"minReplicas": 5, "maxReplicas": 4}})))
            .contains("minReplicas must not be larger than maxReplicas")
    );
}

#[test]
fn names_of_a_release_with_the_longest_name_are_names() {
    let Some(helm) = Helm::find() else { return };
    let release = format!("a{}", "-long-name".repeat(5)) + "er";
    assert_eq!(release.len(), 53, "helm takes no longer one");
    for values in [json!({}), distributed(&json!({}))] {
        for object in &helm.render_as(&release, NAMESPACE, &values).0 {
            let name = object["metadata"]["name"].as_str().unwrap();
            let most = match object["kind"].as_str().unwrap() {
                // A label of its pods has eleven more.
                "StatefulSet" => 52,
                "Service" => 63,
                _ => 253,
            };
            assert!(name.len() <= most && !name.ends_with('-') && !name.contains("--"), "{name}");
        }
    }
}

#[test]
fn the_pool_is_found_by_its_label_and_only_its_pods_have_it() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&distributed(&json!({})));
    for (object, template) in objects.workloads() {
        let is_pool = object["metadata"]["name"] == "harborhook-dispatcher-default";
        let expected = if is_pool { json!("default") } else { Value::Null };
        assert_eq!(template["metadata"]["labels"]["harborhook.dev/pool"], expected);
        assert_eq!(object["spec"]["selector"]["matchLabels"]["harborhook.dev/pool"], expected);
    }
}

#[test]
fn secrets_reach_the_pods_by_reference_alone() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&distributed(&json!({"postgres": {"key": "uri"}})));
    for (object, template) in objects.workloads() {
        let container = &containers(template)[0];
        let of = |name: &str| container["env"].as_array().unwrap().iter().find(|entry| entry["name"] == name);
        let database =
            json!({"name": "HARBORHOOK_DATABASE", "valueFrom": {"secretKeyRef": {"name": "pg", "key": "uri"}}});
        assert_eq!(of("HARBORHOOK_DATABASE"), Some(&database), "{object}");
        let queue = json!({"name": "HARBORHOOK_QUEUE", "valueFrom": {"secretKeyRef": {"name": "mq", "key": "url"}}});
        let needs_queue = object["metadata"]["name"] != "harborhook-operator";
        assert_eq!(of("HARBORHOOK_QUEUE"), needs_queue.then_some(&queue), "{object}");
    }
}

#[test]
fn one_of_the_two_servers_alone_and_more_than_one_embedded_pod_are_refused() {
    let Some(helm) = Helm::find() else { return };
    for (values, place) in [
        (json!({"postgres": {"existingSecret": "pg"}}), "/rabbitmq/existingSecret"),
        (json!({"rabbitmq": {"existingSecret": "mq"}}), "/rabbitmq/existingSecret"),
        (json!({"ingest": {"replicas": 2}}), "/ingest/replicas"),
        (json!({"operator": {"replicas": 2}}), "/operator/replicas"),
        (json!({"embedded": {"replicas": 2}}), "'replicas' not allowed"),
        (json!({"replicas": 2}), "'replicas' not allowed"),
    ] {
        let refusal = helm.refuse(&values);
        assert!(refusal.contains(place), "{values}: {refusal}");
    }
    // What is refused there is fine with servers.
    helm.render(&distributed(&json!({"ingest": {"replicas": 5}, "operator": {"replicas": 3}})));
}

#[test]
fn the_notes_say_what_to_do_next_and_what_the_embedded_installation_is_not() {
    let Some(helm) = Helm::find() else { return };
    let embedded = helm.notes(&json!({}));
    for text in [
        "rollout status statefulset/harborhook",
        "kubectl apply -n shop",
        "What this installation is not",
        "tenants[0]",
    ] {
        assert!(embedded.contains(text), "{text}: {embedded}");
    }
    let tenants = json!({"tenants": [{"namespace": "bank", "generateSecrets": true}]});
    let notes = helm.notes(&distributed(&tenants));
    assert!(notes.contains("deployment/harborhook-operator") && notes.contains("in: bank."), "{notes}");
    assert!(!notes.contains("What this installation is not"), "{notes}");
}
