//! Who may do what, as exact lists: what is added here is added on purpose.

use serde_json::{Value, json};

use super::support::{Helm, NAMESPACE, Objects, distributed, everything};

/// The rules of a role as lines: `groups/resources[names]: verbs`.
fn rules(holder: &Value) -> Vec<String> {
    let join = |value: &Value| {
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().map(|item| item.as_str().unwrap()).collect::<Vec<_>>().join(",")
    };
    let rule = |rule: &Value| {
        let names = rule["resourceNames"].as_array().map(|_| format!("[{}]", join(&rule["resourceNames"])));
        assert_eq!(rule["nonResourceURLs"], Value::Null);
        let names = names.unwrap_or_default();
        format!("{}/{}{names}: {}", join(&rule["apiGroups"]), join(&rule["resources"]), join(&rule["verbs"]))
    };
    holder["rules"].as_array().unwrap().iter().map(rule).collect()
}

/// The role of a kind and a name in a namespace.
fn role<'a>(objects: &'a Objects, name: &str, namespace: &str) -> &'a Value {
    let mut found = objects
        .of("Role")
        .filter(|role| role["metadata"]["name"] == name && role["metadata"]["namespace"] == namespace);
    found.next().unwrap_or_else(|| panic!("no Role {namespace}/{name}"))
}

const RESOURCES: [&str; 3] = [
    "harborhook.dev/hookendpoints,hooksubscriptions,hookreplays: get,list,watch",
    "harborhook.dev/hookendpoints/status,hooksubscriptions/status,hookreplays/status: patch",
    "events.k8s.io/events: create,patch",
];
const LEADER: [&str; 5] = [
    "coordination.k8s.io/leases[harborhook-operator]: get,update",
    "coordination.k8s.io/leases: create",
    "harborhook.dev/hookpools: get,list,watch",
    "harborhook.dev/hookpools/status: patch",
    "events.k8s.io/events: create,patch",
];
const POOLS: [&str; 5] = [
    "apps/deployments: get,list,watch,create,patch",
    "apps/deployments/scale: patch",
    "/pods: list",
    "policy/poddisruptionbudgets: get,list,watch,create,patch",
    "/services: get,list,watch,create,patch",
];

#[test]
fn the_operator_reads_resources_everywhere_and_secrets_nowhere() {
    let Some(helm) = Helm::find() else { return };
    for values in [json!({}), distributed(&json!({}))] {
        let objects = helm.render(&values);
        let expected = [&RESOURCES[..], &["/namespaces: get,list,watch"]].concat();
        assert_eq!(rules(objects.one("ClusterRole", "harborhook-operator")), expected);
        assert!(objects.of("Role").all(|role| !role.to_string().contains("\"secrets\"")));
    }
}

#[test]
fn in_its_own_namespace_it_leads_and_where_there_are_pools_looks_after_them() {
    let Some(helm) = Helm::find() else { return };
    let embedded = helm.render(&json!({}));
    assert_eq!(rules(role(&embedded, "harborhook-operator", NAMESPACE)), LEADER);
    let objects = helm.render(&distributed(&json!({"operator": {"leaseName": "mine"}})));
    let mut expected = [&LEADER[..], &POOLS].concat();
    expected[0] = "coordination.k8s.io/leases[mine]: get,update";
    assert_eq!(rules(role(&objects, "harborhook-operator", NAMESPACE)), expected);
}

#[test]
fn in_a_tenants_namespace_it_reads_the_secrets_that_are_named_and_more_only_where_asked() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&everything());
    for (namespace, expected) in [
        ("shop", vec!["/secrets[billing-hook]: get"]),
        ("bank", vec!["/secrets: get"]),
        ("club", vec!["/secrets: get", "/secrets: create,update"]),
    ] {
        assert_eq!(rules(role(&objects, "harborhook-secrets", namespace)), expected, "{namespace}");
    }
    assert_eq!(objects.of("Role").count(), 4);
}

#[test]
fn secrets_are_watched_in_every_namespace_that_is_served_or_in_none() {
    let Some(helm) = Helm::find() else { return };
    let tenant = |namespace: &str| json!({"namespace": namespace, "watchSecrets": true});
    let objects =
        helm.render(&json!({"watchNamespaces": ["shop", "bank"], "tenants": [tenant("bank"), tenant("shop")]}));
    for namespace in ["shop", "bank"] {
        assert_eq!(rules(role(&objects, "harborhook-secrets", namespace)), ["/secrets: get,list,watch"]);
    }
    let container = &objects.one("StatefulSet", "harborhook")["spec"]["template"]["spec"]["containers"][1];
    let variable = json!({"name": "HARBORHOOK_WATCH_SECRETS", "value": "true"});
    assert!(container["env"].as_array().unwrap().contains(&variable), "{container}");
    for values in [
        json!({"tenants": [tenant("shop")]}),
        json!({"watchNamespaces": ["shop", "bank"], "tenants": [tenant("shop")]}),
    ] {
        let refusal = helm.refuse(&values);
        assert!(refusal.contains("for all of watchNamespaces or for none"), "{refusal}");
    }
}

#[test]
fn a_tenant_is_never_the_namespace_that_holds_the_sealing_key() {
    let Some(helm) = Helm::find() else { return };
    let refusal = helm.refuse(&json!({"tenants": [{"namespace": NAMESPACE, "allSecrets": true}]}));
    assert!(refusal.contains("is the release's own namespace"), "{refusal}");
    // An entry that says no Secret would be a list without names, which allows all.
    let refusal = helm.refuse(&json!({"tenants": [{"namespace": "shop", "secretNames": []}]}));
    assert!(refusal.contains("/tenants/0"), "{refusal}");
}

#[test]
fn an_operator_of_some_namespaces_has_no_role_in_the_cluster() {
    let Some(helm) = Helm::find() else { return };
    let values = json!({
        "watchNamespaces": ["shop", "bank"], "rbac": {"people": false}, "crds": {"install": false},
        "admission": {"httpsOnly": false, "secretReaders": false},
    });
    let objects = helm.render(&distributed(&values));
    let in_cluster: Vec<&str> = objects
        .0
        .iter()
        .filter(|object| object["metadata"]["namespace"].is_null())
        .map(|object| object["kind"].as_str().unwrap())
        .collect();
    assert_eq!(in_cluster, [""; 0], "whoever has one namespace can install it");
    let expected = [&RESOURCES[..], &["/namespaces: get"]].concat();
    for namespace in ["shop", "bank"] {
        assert_eq!(rules(role(&objects, "harborhook-watch", namespace)), expected);
    }
    let container = &objects.one("Deployment", "harborhook-operator")["spec"]["template"]["spec"]["containers"][0];
    let environment = container["env"].as_array().unwrap();
    assert!(environment.contains(&json!({"name": "HARBORHOOK_WATCH_NAMESPACE", "value": "shop,bank"})), "{container}");
}

#[test]
fn every_role_of_the_operator_is_bound_to_its_account_alone() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&distributed(&everything()));
    let subject = json!([{"kind": "ServiceAccount", "name": "harborhook-operator", "namespace": NAMESPACE}]);
    let mut bound = 0;
    for binding in objects.of("RoleBinding").chain(objects.of("ClusterRoleBinding")) {
        assert_eq!(binding["subjects"], subject, "{binding}");
        assert_eq!(binding["roleRef"]["name"], binding["metadata"]["name"]);
        let kind = binding["roleRef"]["kind"].as_str().unwrap();
        let is_bound = |role: &Value| {
            role["metadata"]["name"] == binding["roleRef"]["name"]
                && role["metadata"]["namespace"] == binding["metadata"]["namespace"]
        };
        assert!(objects.of(kind).any(is_bound), "{binding}");
        bound += 1;
    }
    assert_eq!(bound, 5);
}

#[test]
fn people_get_endpoints_and_subscriptions_with_their_namespace_and_replays_by_a_role_of_their_own() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&json!({}));
    let aggregated = |name: &str| -> Vec<String> {
        let labels = objects.one("ClusterRole", name)["metadata"]["labels"].as_object().unwrap().clone();
        let prefix = "rbac.authorization.k8s.io/aggregate-to-";
        let mut found: Vec<String> =
            labels.keys().filter_map(|label| label.strip_prefix(prefix)).map(str::to_owned).collect();
        found.sort();
        found
    };
    for (name, expected_rules, expected_labels) in [
        (
            "harborhook-view",
            vec!["harborhook.dev/hookendpoints,hooksubscriptions,hookpools,hookreplays: get,list,watch"],
            vec!["admin", "edit", "view"],
        ),
        (
            "harborhook-edit",
            vec!["harborhook.dev/hookendpoints,hooksubscriptions: create,update,patch,delete,deletecollection"],
            vec!["admin", "edit"],
        ),
        (
            "harborhook-replay",
            vec!["harborhook.dev/hookreplays: get,list,watch,create,update,patch,delete,deletecollection"],
            vec![],
        ),
    ] {
        assert_eq!(rules(objects.one("ClusterRole", name)), expected_rules, "{name}");
        assert_eq!(aggregated(name), expected_labels, "{name}");
    }
}
