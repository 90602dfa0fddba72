//! The table for people and the rows are the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_row_of_the_failure_table_is_a_test_and_every_test_is_a_row() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(package.join("../docs/failures.md")).unwrap();
    // The last cell of a row is the name of its test.
    let rows: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix("` |")?.rsplit_once("| `"))
        .map(|(_, name)| name.to_owned())
        .collect();
    let mut tests = BTreeSet::new();
    for entry in fs::read_dir(package.join("tests/it/faults")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().unwrap() == "table" {
            continue; // This file, which is no row.
        }
        let source = fs::read_to_string(path).unwrap();
        let after_attributes = source.split("#[tokio::test(").skip(1);
        let signatures = after_attributes.filter_map(|rest| rest.split_once("async fn ")?.1.split_once('('));
        tests.extend(signatures.map(|(name, _)| name.to_owned()));
    }
    assert!(tests.len() > 20, "only {} rows: is the search broken?", tests.len());
    assert_eq!(rows, tests);
}
