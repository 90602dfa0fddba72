//! `plan`: what changes between two trees, and the exit code that tells it.

mod pools;
mod replays;

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{run, run_with_input, told, write};

const BILLING: &str = "apiVersion: harborhook.dev/v1alpha1
kind: Endpoint
metadata: {name: billing, namespace: shop, labels: {team: money}}
spec:
  url: https://billing.example.com/hooks
  signing: {secretKeyRef: {name: billing-hook, key: key}}
";
const ORDERS: &str = "apiVersion: harborhook.dev/v1alpha1
kind: Subscription
metadata: {name: orders, namespace: shop}
spec:
  endpointSelector: {matchLabels: {team: money}}
  eventTypes: [\"order.*\"]
";

/// Two folders, each with these files.
fn trees(from: &[(&str, &str)], to: &[(&str, &str)]) -> (TempDir, TempDir) {
    let folders = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(folders.0.path(), from);
    write(folders.1.path(), to);
    folders
}

/// What is printed as JSON, which must end with this exit code.
fn plan(from: &Path, to: &Path, more: &[&str], exit: i32) -> Value {
    let arguments = ["--output", "json", "plan", "--from", from.to_str().unwrap(), "--to", to.to_str().unwrap()];
    let (code, stdout, stderr) = told(&run(&[&arguments[..], more].concat()));
    assert_eq!(code, exit, "{stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("not JSON: {stdout}{stderr}"))
}

fn plan_of(from: &[(&str, &str)], to: &[(&str, &str)], exit: i32) -> Value {
    let (from, to) = trees(from, to);
    plan(from.path(), to.path(), &[], exit)
}

/// The rows that people read, each line's cells by one space; it must end with this exit code.
fn rows_of(from: &[(&str, &str)], to: &[(&str, &str)], exit: i32) -> Vec<String> {
    let (from, to) = trees(from, to);
    let (from, to) = (from.path().to_str().unwrap(), to.path().to_str().unwrap());
    let (code, stdout, stderr) = told(&run(&["plan", "--from", from, "--to", to]));
    assert_eq!(code, exit, "{stdout}{stderr}");
    stdout.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn the_same_tree_in_other_files_changes_nothing() {
    let both = format!("{ORDERS}---\n{BILLING}");
    let answer = plan_of(&[("a.yaml", BILLING), ("b.yaml", ORDERS)], &[("all.yaml", &both)], 0);
    assert_eq!(answer["changes"], json!([]));
    assert_eq!(answer["assumed_secrets"], json!(["shop/billing-hook"]), "Secrets are not in the tree");
}

#[test]
fn what_comes_changes_and_goes_is_named() {
    let crm = BILLING.replace("billing", "crm");
    let billing = BILLING.replace("/hooks", "/v2").replace("spec:\n", "spec:\n  timeoutSeconds: 5\n");
    let orders = format!("{ORDERS}  filter: event.data.total > 5\n");
    let answer = plan_of(
        &[("a.yaml", BILLING), ("b.yaml", ORDERS)],
        &[("a.yaml", &billing), ("b.yaml", &orders), ("c.yaml", &crm)],
        1,
    );
    let expected = json!([
        {"change": "changed", "kind": "Endpoint", "namespace": "shop", "name": "billing",
         "host": "billing.example.com", "fields": ["spec.timeoutSeconds", "spec.url"]},
        {"change": "added", "kind": "Endpoint", "namespace": "shop", "name": "crm", "host": "crm.example.com",
         "fields": []},
        {"change": "changed", "kind": "Route", "namespace": "shop", "subscription": "orders", "endpoint": "billing",
         "event_types": ["order.*"], "fields": ["spec.filter"]},
        {"change": "added", "kind": "Route", "namespace": "shop", "subscription": "orders", "endpoint": "crm",
         "event_types": ["order.*"], "fields": []},
    ]);
    assert_eq!(answer["changes"], expected, "{answer}");

    let answer = plan_of(&[("a.yaml", BILLING), ("b.yaml", ORDERS)], &[("a.yaml", BILLING)], 1);
    let removed = json!([{"change": "removed", "kind": "Route", "namespace": "shop", "subscription": "orders",
        "endpoint": "billing", "event_types": ["order.*"], "fields": []}]);
    assert_eq!(answer["changes"], removed);
}

#[test]
fn a_label_changes_routes_without_a_change_of_any_spec() {
    let moved = BILLING.replace("team: money", "team: other");
    let answer = plan_of(&[("a.yaml", BILLING), ("b.yaml", ORDERS)], &[("a.yaml", &moved), ("b.yaml", ORDERS)], 2);
    assert_eq!(answer["changes"][0]["change"], "removed", "{answer}");
    assert_eq!(answer["not_ready"][0]["reason"], "EndpointNotFound", "{answer}");
}

#[test]
fn a_secret_that_is_in_both_trees_is_compared_and_never_shown() {
    let secret = |value: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: billing-hook, namespace: shop}}\nstringData: {{key: {value}}}\n"
        )
    };
    let (old, new) = (secret("first-key-first-key-first-key"), secret("second-key-second-key-second"));
    let answer = plan_of(&[("a.yaml", BILLING), ("s.yaml", &old)], &[("a.yaml", BILLING), ("s.yaml", &new)], 1);
    assert_eq!(answer["changes"][0]["fields"], json!(["secrets"]), "{answer}");
    assert_eq!(answer["assumed_secrets"], json!([]));
    assert!(!answer.to_string().contains("-key-"), "{answer}");
}

#[test]
fn what_would_not_be_ready_is_told_with_its_reason_and_what_holds_meanwhile() {
    let broken = format!("{ORDERS}  filter: event.data.total >\n");
    let internal = BILLING.replace("billing.example.com", "10.1.2.3");
    let (from, to) = trees(&[("a.yaml", BILLING), ("b.yaml", ORDERS)], &[("a.yaml", &internal), ("b.yaml", &broken)]);
    let answer = plan(from.path(), to.path(), &[], 2);
    let told: Vec<_> = answer["not_ready"].as_array().unwrap().iter().map(|row| &row["reason"]).collect();
    assert_eq!(told, ["AddressBlocked", "InvalidFilter"], "{answer}");
    assert_eq!(answer["not_ready"][0]["meanwhile"], "what waits is held");
    assert_eq!(answer["not_ready"][1]["meanwhile"], "its last good route stays");
    // So it is no change of routes.
    assert!(answer["changes"].as_array().unwrap().iter().all(|row| row["kind"] == "Endpoint"), "{answer}");

    // Where the installation allows it, it is a change like any other; and what was wrong before is not new.
    let fixed = ["--allow-address", "10.0.0.0/8"];
    assert_eq!(plan(from.path(), to.path(), &fixed, 2)["not_ready"][0]["reason"], "InvalidFilter");
    assert_eq!(plan(to.path(), to.path(), &[], 0)["not_ready"][0]["is_new"], false);
}

#[test]
fn what_an_api_server_would_refuse_is_told_with_its_place() {
    let wrong = BILLING.replace("url: https", "url: ftp");
    let answer =
        plan_of(&[("a.yaml", BILLING)], &[("a.yaml", BILLING), ("b.yaml", &wrong.replace("billing,", "b,"))], 2);
    let refused = &answer["refused"][0];
    assert!(refused["file"].as_str().unwrap().ends_with("b.yaml"), "{answer}");
    assert_eq!((&refused["object"], &refused["field"]), (&json!("Endpoint shop/b"), &json!("spec.url")), "{answer}");
}

#[test]
fn people_read_a_table_and_a_stream_is_a_tree() {
    let (from, to) = trees(&[("a.yaml", BILLING)], &[("a.yaml", BILLING), ("b.yaml", ORDERS)]);
    let (from, to) = (from.path().to_str().unwrap(), to.path().to_str().unwrap());
    let (code, stdout, stderr) = told(&run(&["plan", "--from", from, "--to", to]));
    let lines: Vec<Vec<&str>> = stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let expected = [
        vec!["CHANGE", "KIND", "NAMESPACE", "NAME", "WHAT"],
        vec!["added", "Route", "shop", "orders", "->", "billing", "order.*"],
    ];
    assert_eq!((code, &lines[..]), (1, &expected[..]), "{stdout}");
    assert!(stderr.contains("taken to be there and right: Secret shop/billing-hook"), "{stderr}");

    let (code, stdout, _) = told(&run_with_input(&["plan", "--from", from, "--to", "-"], BILLING));
    assert_eq!((code, stdout.as_str()), (0, "nothing changes\n"));
    let (code, _, stderr) = told(&run(&["plan", "--from", "/nowhere", "--to", to]));
    assert_eq!(code, 2);
    assert!(stderr.contains("/nowhere"), "{stderr}");
}

#[test]
fn all_that_a_secret_may_give_is_taken_to_be_there() {
    let endpoint = "apiVersion: harborhook.dev/v1alpha1
kind: Endpoint
metadata: {name: all, namespace: shop}
spec:
  urlFrom: {secretKeyRef: {name: s, key: url}}
  signing: {scheme: StandardWebhooksEd25519, secretKeyRef: {name: s, key: private}}
  headers: [{name: X-Key, valueFrom: {secretKeyRef: {name: s, key: header}}}]
  auth:
    type: OAuth2
    oauth2:
      tokenUrl: https://login.example.com/token
      clientIdSecretKeyRef: {name: s, key: id}
      clientSecretSecretKeyRef: {name: s, key: secret}
  tls: {caSecretKeyRef: {name: ca, key: ca.crt}, clientCertificateSecretRef: {name: pair}}
  poolRef: {name: slow}
";
    let answer = plan_of(&[], &[("a.yaml", endpoint)], 1);
    assert_eq!(answer["not_ready"], json!([]), "{answer}");
    assert_eq!(answer["changes"][0]["host"], Value::Null, "only the Secret knows it");
    assert_eq!(answer["assumed_secrets"], json!(["shop/ca", "shop/pair", "shop/s"]));
}
