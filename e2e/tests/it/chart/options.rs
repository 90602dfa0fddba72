//! The programs' options, as the chart sets them.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::support::{Helm, containers, distributed, repository};

/// The dispatcher's variables by the pages of options, each with the commands that have it.
fn documented() -> BTreeMap<String, String> {
    let page = fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `--"));
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    rows.map(|row| (cells(row)[2].trim_matches('`').to_owned(), cells(row)[3].clone())).collect()
}

#[test]
fn every_variable_of_the_data_plane_is_an_option_of_its_command() {
    let Some(helm) = Helm::find() else { return };
    let documented = documented();
    let policy = json!({"addressPolicy": {
        "allowAddresses": ["10.7.0.0/16"], "clusterCidrs": ["10.96.0.0/12"], "allowHosts": ["svc"], "allowPorts": ["any"],
    }});
    let mut checked = 0;
    for values in [policy.clone(), distributed(&policy)] {
        for (_, template) in helm.render(&values).workloads() {
            for container in containers(template).iter().filter(|container| container["command"][0] == "dispatcher") {
                let command = container["args"][0].as_str().unwrap();
                for entry in container["env"].as_array().unwrap() {
                    let variable = entry["name"].as_str().unwrap();
                    let commands = documented.get(variable).unwrap_or_else(|| panic!("{variable} is no option"));
                    let has = commands == "all four" || commands.split(", ").any(|known| known == command);
                    assert!(has, "{variable} is of {commands}, not of {command}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 30, "{checked}");
}

#[test]
fn a_variable_is_set_once() {
    let Some(helm) = Helm::find() else { return };
    for values in super::support::matrix() {
        for (_, template) in helm.render(&values).workloads() {
            for container in containers(template) {
                let mut names: Vec<&Value> =
                    container["env"].as_array().unwrap().iter().map(|entry| &entry["name"]).collect();
                let all = names.len();
                names.sort_by_key(|name| name.as_str());
                names.dedup();
                assert_eq!(names.len(), all, "{container}");
            }
        }
    }
}
