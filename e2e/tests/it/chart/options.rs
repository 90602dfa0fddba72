//! The programs' options, as the chart sets them.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::support::{Helm, containers, repository};

/// The rows of a page's table of options, each as its cells.
fn options(page: &str) -> Vec<Vec<String>> {
    let page = fs::read_to_string(repository().join(page)).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `--"));
    rows.map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()).collect()
}

/// Variables, each with the commands that have it.
fn documented() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for cells in options("docs/operations.md") {
        let commands = cells[3].replace("all four", "migrate, ingest, deliver, all");
        found.entry(cells[2].clone()).or_default().extend(commands.split(", ").map(str::to_owned));
    }
    for cells in options("docs/operator.md") {
        found.entry(cells[2].clone()).or_default().push("run".to_owned());
    }
    found
}

#[test]
fn every_variable_is_an_option_of_the_command_that_it_is_set_for() {
    let Some(helm) = Helm::find() else { return };
    let documented = documented();
    let mut checked = 0;
    for values in super::support::matrix() {
        for (_, template) in helm.render(&values).workloads() {
            for container in containers(template) {
                let command = container["args"][0].as_str().unwrap();
                for entry in container["env"].as_array().unwrap() {
                    let variable = entry["name"].as_str().unwrap();
                    let commands = documented.get(variable).unwrap_or_else(|| panic!("{variable} is no option"));
                    assert!(
                        commands.iter().any(|known| known == command),
                        "{variable} is of {commands:?}, not of {command}"
                    );
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 100, "{checked}");
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
