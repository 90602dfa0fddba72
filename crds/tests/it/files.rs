use std::fs;
use std::path::Path;

use crds::admission::{Admitted, admit};
use crds::{Kind, yaml};
use serde_json::Value;

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn the_committed_definitions_are_the_generated_ones() {
    for kind in Kind::ALL {
        let path = folder("yaml").join(yaml::file_name(kind));
        let committed = fs::read_to_string(&path).unwrap_or_default();
        let generated = yaml::definition_yaml(kind).unwrap();
        assert!(
            committed == generated,
            "{} is out of date: run `cargo run -p crds --example generate`",
            path.display()
        );
    }
}

#[test]
fn a_printed_definition_reads_back_as_the_same_definition() {
    for kind in Kind::ALL {
        let text = yaml::definition_yaml(kind).unwrap();
        let read: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition =
            serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, crds::definition::definition(kind));
    }
}

#[test]
fn every_example_is_admitted() {
    let mut endpoints = 0;
    let mut replays = 0;
    let mut subscriptions = 0;
    let mut pools = 0;
    for entry in fs::read_dir(folder("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(&path).unwrap()).unwrap();
        for document in documents {
            match admit(&document) {
                Ok(Admitted::Endpoint(_)) => endpoints += 1,
                Ok(Admitted::Replay(_)) => replays += 1,
                Ok(Admitted::Subscription(_)) => subscriptions += 1,
                Ok(Admitted::DispatcherPool(_)) => pools += 1,
                Err(problems) => panic!("{}: {problems:?}", path.display()),
            }
        }
    }
    let all = format!("{endpoints} endpoints, {replays} replays, {subscriptions} subscriptions, {pools} pools");
    assert!(endpoints >= 4 && replays >= 2 && subscriptions >= 2 && pools >= 3, "{all}");
}
