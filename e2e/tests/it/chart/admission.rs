//! What is refused before it is stored.

use crds::Kind;
use crds::definition::openapi_schema;
use serde_json::{Value, json};

use super::support::Helm;

/// The paths of an endpoint's references to Secrets, as its schema has them.
fn secret_references(schema: &Value, path: &str, found: &mut Vec<String>) {
    for (name, node) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let lower = name.to_lowercase();
        if lower.ends_with("secretkeyref") || lower.ends_with("secretref") {
            found.push(path);
        } else {
            secret_references(node, &path, found);
        }
    }
    if schema["items"].is_object() {
        secret_references(&schema["items"], &format!("{path}[]"), found);
    }
}

/// A path as an expression writes it where every part may be missing.
fn as_optional(path: &str) -> String {
    format!("?object{}.?name", path.replace('.', ".?").replacen(".?spec", ".spec", 1))
}

#[test]
fn the_policy_asks_for_every_secret_that_an_endpoint_can_name() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&json!({}));
    let policy = objects.one("ValidatingAdmissionPolicy", "harborhook-secret-readers");
    let variables = policy["spec"]["variables"].as_array().unwrap();
    let named = variables.iter().find(|variable| variable["name"] == "named").unwrap()["expression"].as_str().unwrap();
    let mut references = Vec::new();
    secret_references(&openapi_schema(Kind::Endpoint)["properties"]["spec"], ".spec", &mut references);
    assert!(references.len() >= 9, "{references:?}");
    for path in references {
        let expected = match path.as_str() {
            ".spec.headers[].valueFrom.secretKeyRef" => "header.valueFrom.secretKeyRef.name".to_owned(),
            path => as_optional(path),
        };
        assert!(named.contains(&expected), "{path} is not asked for: {named}");
        // A change of what holds it is looked at, too.
        let top = path.split(['.', '[']).nth(2).unwrap();
        let condition = policy["spec"]["matchConditions"][0]["expression"].as_str().unwrap();
        assert!(condition.contains(&format!("object.spec.?{top} != oldObject.spec.?{top}")), "{top}: {condition}");
    }
}

#[test]
fn the_policy_spends_no_more_than_an_api_server_allows() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.render(&json!({}));
    let spec = &objects.one("ValidatingAdmissionPolicy", "harborhook-secret-readers")["spec"];
    // k8s.io/apiserver: 350,000 for a question, 1,000,000 for an expression, 10,000,000 for a policy.
    let questions = |expression: &Value| expression.as_str().unwrap_or_default().matches(".check(").count();
    let parts = spec["validations"].as_array().unwrap().iter().chain(spec["variables"].as_array().unwrap());
    let each: Vec<usize> = parts.map(|part| questions(&part["expression"])).collect();
    assert!(each.iter().all(|count| *count <= 1), "{each:?}");
    assert!(each.iter().sum::<usize>() * 350_000 < 9_000_000, "{each:?}");
}

#[test]
fn policies_deny_fail_closed_and_can_be_left_out() {
    let Some(helm) = Helm::find() else { return };
    let names = ["harborhook-https-only", "harborhook-secret-readers"];
    let objects = helm.render(&json!({}));
    assert_eq!(objects.names("ValidatingAdmissionPolicy"), names);
    for name in names {
        let policy = objects.one("ValidatingAdmissionPolicy", name);
        assert_eq!(policy["spec"]["failurePolicy"], "Fail");
        let rule = &policy["spec"]["matchConstraints"]["resourceRules"][0];
        assert_eq!(rule["resources"], json!([Kind::Endpoint.plural()]));
        assert_eq!(rule["operations"], json!(["CREATE", "UPDATE"]));
        let binding = objects.one("ValidatingAdmissionPolicyBinding", name);
        assert_eq!(binding["spec"], json!({"policyName": name, "validationActions": ["Deny"]}));
    }
    for (values, expected) in [
        (json!({"addressPolicy": {"allowHttp": true}}), &names[1..]),
        (json!({"admission": {"httpsOnly": false}}), &names[1..]),
        (json!({"admission": {"secretReaders": false}}), &names[..1]),
    ] {
        let objects = helm.render(&values);
        assert_eq!(objects.names("ValidatingAdmissionPolicy"), expected, "{values}");
        assert_eq!(objects.names("ValidatingAdmissionPolicyBinding"), expected, "{values}");
    }
    let objects = helm.render(&json!({"watchNamespaces": ["shop"]}));
    let binding = objects.one("ValidatingAdmissionPolicyBinding", "harborhook-secret-readers");
    let selector = &binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"][0];
    assert_eq!(selector["values"], json!(["shop"]));
}
