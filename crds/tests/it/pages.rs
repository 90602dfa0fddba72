//! The pages for people say everything that the contract says.

use std::fs;
use std::path::Path;

use crds::Kind;
use crds::admission::admit;
use crds::condition::ConditionType;
use crds::definition::openapi_schema;
use serde_json::Value;

use crate::support::walk;

fn page(kind: Kind) -> String {
    let name = format!("../docs/{}.md", kind.as_str().to_lowercase());
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("every kind has a page")
}

/// The rows of the page's tables that are about this field: `name` alone or at the end of a path.
fn rows_about<'a>(page: &'a str, field: &str) -> Vec<&'a str> {
    let alone = format!("| `{field}` |");
    let in_path = format!(".{field}` |");
    page.lines().filter(|line| line.contains(&alone) || line.contains(&in_path)).collect()
}

#[test]
fn every_field_has_a_row_with_its_default_and_its_values() {
    for kind in Kind::ALL {
        let page = page(kind);
        walk(&openapi_schema(kind), "", &mut |path, node| {
            let inside = path.starts_with("spec.") || path.starts_with("status.");
            if !inside || path.ends_with([']', '}']) || path.contains("conditions[]") {
                return;
            }
            let field = path.rsplit('.').next().unwrap_or_default();
            let rows = rows_about(&page, field);
            assert!(!rows.is_empty(), "{kind:?}: {path} has no row");
            let description = node["description"].as_str().unwrap_or_default();
            let default = description.split_once("Default: ").map(|(_, rest)| rest.trim_end_matches('.'));
            if let Some(number) = default.filter(|default| default.parse::<i64>().is_ok()) {
                assert!(rows.iter().any(|row| row.contains(&format!("| {number} |"))), "{path}: default {number}");
            }
            for value in node["enum"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                assert!(page.contains(&format!("`{value}`")), "{path}: value {value}");
            }
        });
    }
}

#[test]
fn every_condition_and_reason_is_explained() {
    for kind in Kind::ALL {
        let page = page(kind);
        for type_ in ConditionType::ALL {
            for reason in type_.reasons(kind) {
                let row = format!("| `{}` | `{}` |", type_.as_str(), reason.as_str());
                assert!(page.contains(&row), "{kind:?}: no row {row}");
            }
        }
    }
}

#[test]
fn every_resource_on_a_page_is_admitted() {
    for kind in Kind::ALL {
        let page = page(kind);
        let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let mut admitted = 0;
        for block in blocks {
            for document in serde_saphyr::from_multiple::<Value>(block).unwrap() {
                if document["apiVersion"] == crds::API_VERSION {
                    assert_eq!(admit(&document).err(), None, "{kind:?}: {block}");
                    admitted += 1;
                }
            }
        }
        assert!(admitted >= 1, "{kind:?} has no example");
    }
}
