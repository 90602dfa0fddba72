//! The page on the operator and the tests that it names.

use std::fs;
use std::path::Path;

#[test]
fn every_failure_of_the_page_has_a_test_that_is_there() {
    let page = include_str!("../../../docs/operator.md");
    let table = page.split("## What each failure looks like").nth(1).unwrap().split("\n## ").next().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cluster");
    let sources: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    for row in &rows {
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let tests: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test of {row}");
        for test in tests {
            let function = format!("async fn {test}()");
            assert!(sources.iter().any(|source| source.contains(&function)), "no test is named {test}");
        }
    }
    assert!(rows.len() > 15, "{} rows", rows.len());
}
