//! The resource definitions in the chart.

use std::fs;

use crds::{Kind, yaml};
use serde_json::json;

use super::support::{Helm, chart, repository};

#[test]
fn the_chart_has_the_very_definitions_of_the_resource_types() {
    let ours = repository().join("crds/yaml");
    let theirs = chart().join("files/crds");
    let names = |folder| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&ours), names(&theirs), "run `cargo run -p crds --example generate`");
    assert_eq!(names(&theirs).len(), Kind::ALL.len());
    for kind in Kind::ALL {
        let name = yaml::file_name(kind);
        let is_same = fs::read_to_string(ours.join(&name)).unwrap() == fs::read_to_string(theirs.join(&name)).unwrap();
        assert!(is_same, "{name} is out of date: run `cargo run -p crds --example generate`");
    }
}

#[test]
fn a_rendered_definition_differs_by_its_labels_and_the_wish_to_be_kept_alone() {
    let Some(helm) = Helm::find() else { return };
    for keep in [true, false] {
        let objects = helm.render(&json!({"crds": {"keep": keep}}));
        assert_eq!(objects.of("CustomResourceDefinition").count(), Kind::ALL.len());
        for kind in Kind::ALL {
            let mut rendered =
                objects.one("CustomResourceDefinition", &format!("{}.{}", kind.plural(), crds::GROUP)).clone();
            let metadata = rendered["metadata"].as_object_mut().unwrap();
            let annotations = metadata.remove("annotations");
            assert_eq!(annotations, keep.then(|| json!({"helm.sh/resource-policy": "keep"})));
            assert!(metadata.remove("labels").is_some());
            let ours: serde_json::Value = serde_saphyr::from_str(&yaml::definition_yaml(kind).unwrap()).unwrap();
            assert_eq!(rendered, ours, "{kind:?}");
        }
    }
    let none = helm.render(&json!({"crds": {"install": false}}));
    assert!(none.of("CustomResourceDefinition").next().is_none());
}
