//! Reading resources.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use dispatcher_core::limits::{RESOURCE_DOCUMENTS_MAX, RESOURCE_FILE_BYTES_MAX};
use operator::world::SecretState;
use operator::world::files::{load_path, load_stream};
use operator::world::resource::{ObjectKey, read_text};
use operator::world::store::FileStore;

use crate::fixtures::{endpoint, good, subscription};

fn problems_of(text: &str) -> Vec<String> {
    read_text("a.yaml", text).problems.iter().map(ToString::to_string).collect()
}

fn names(store: &FileStore) -> Vec<String> {
    let mut names: Vec<String> =
        store.world().endpoints.into_iter().filter_map(|endpoint| endpoint.metadata.name.clone()).collect();
    names.sort();
    names
}

fn named(name: &str) -> String {
    endpoint("url: https://example.com/").replace("name: e,", &format!("name: {name},"))
}

fn write(folder: &Path, file: &str, text: &str) {
    fs::write(folder.join(file), text).unwrap();
}

#[test]
fn every_problem_names_file_line_object_and_field() {
    let text = format!(
        "# first\n{}{}",
        endpoint("urll: https://example.com/\ntimeoutSeconds: 900"),
        subscription("eventTypes: ['**']")
    );
    let problems = problems_of(&text);
    assert!(
        problems.contains(&"a.yaml:8: Endpoint shop/e: spec.timeoutSeconds: must be from 1 to 60".to_owned()),
        "{problems:#?}"
    );
    assert!(
        problems.iter().any(|problem| problem.starts_with("a.yaml:7: Endpoint shop/e: spec.urll: unknown field")),
        "{problems:#?}"
    );
    assert!(
        problems.iter().any(|problem| problem.starts_with("a.yaml:13: Subscription shop/s: spec: ")),
        "{problems:#?}"
    );
}

#[test]
fn one_bad_document_does_not_hide_the_others() {
    let loaded = read_text("a.yaml", &format!("{}---\na: [1\n{}", named("first"), named("second")));
    assert_eq!(loaded.objects.len(), 2);
    assert_eq!(loaded.problems.len(), 1);
    assert_eq!(loaded.problems[0].document, 2);
}

#[test]
fn what_is_no_object_is_refused() {
    for text in
        ["just text", "[1, 2]", "a: 1", "kind: Endpoint", "apiVersion: v1\nkind: Secret\n", "a: &a [*a]", "a: *b"]
    {
        assert_eq!(problems_of(text).len(), 1, "{text}");
    }
    assert!(problems_of("# nothing\n---\n---\n").is_empty());
}

#[test]
fn a_duplicate_names_both_places() {
    assert_eq!(
        problems_of(&format!("{}{}", named("x"), named("x"))),
        ["a.yaml:8: Endpoint shop/x: stands already at a.yaml:2; remove one of the two"],
    );
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "b.yaml", &named("x"));
    let mut store = FileStore::default();
    assert!(store.update(load_path(folder.path())).is_empty());
    // A file that comes later does not take the object over, though its name comes first.
    write(folder.path(), "a.yaml", &named("x").replace("example.com", "elsewhere.example.com"));
    let problems = store.update(load_path(folder.path()));
    assert_eq!(problems.len(), 1);
    assert!(problems[0].file.ends_with("a.yaml") && problems[0].message.contains("b.yaml:2"), "{}", problems[0]);
    assert_eq!(store.world().endpoints[0].spec.url.as_deref(), Some("https://example.com/"));
}

#[test]
fn an_object_is_found_at_its_place_and_its_fields_on_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", &format!("# first\n{}", named("x")));
    let mut store = FileStore::default();
    assert!(store.update(load_path(folder.path())).is_empty());
    let key = ObjectKey { kind: "Endpoint", namespace: "shop".into(), name: "x".into() };
    let (file, object) = store.find(&key).unwrap();
    assert!(file.ends_with("a.yaml") && store.has_file(file), "{file}");
    let text = std::fs::read_to_string(file).unwrap();
    let line = |start: &str| 1 + text.lines().position(|line| line.trim_start().starts_with(start)).unwrap();
    for (field, expected) in [
        ("spec.url", line("url")),
        ("spec", line("spec")),
        ("spec.headers[0].name", line("spec")),
        ("", object.line),
        ("status.absent", object.line),
    ] {
        assert_eq!(object.line_of(field), expected, "{field}: {text}");
    }
    assert!(store.find(&ObjectKey { name: "y".into(), ..key }).is_none());
    assert!(!store.has_file("b.yaml"));
}

#[test]
fn lists_secrets_and_foreign_kinds_are_understood() {
    let text = "apiVersion: v1\nkind: List\nitems:\n\
        - {apiVersion: v1, kind: Namespace, metadata: {name: empty}}\n\
        - {apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}}\n\
        - apiVersion: v1\n  kind: Secret\n  metadata: {name: keys}\n  data: {a: aGVsbG8=, b: aGVsbG8=}\n  stringData: {b: plain}\n\
        - {apiVersion: harborhook.dev/v1alpha1, kind: Endpoint, metadata: {name: x}, spec: {url: 'https://example.com/'}}\n";
    let mut store = FileStore::default();
    assert!(store.update(load_stream(&mut text.as_bytes())).is_empty());
    let world = store.world();
    let tenants: Vec<&str> = world.tenants.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(tenants, ["default", "empty"]);
    let Some(SecretState::Present(data)) = world.secrets.get("default", "keys") else { panic!("no Secret") };
    assert_eq!((data["a"].expose().as_slice(), data["b"].expose().as_slice()), (&b"hello"[..], &b"plain"[..]));
    assert_eq!(world.endpoints[0].metadata.namespace.as_deref(), Some("default"));
    let skipped: Vec<_> = store.skipped().map(|skipped| (skipped.line, skipped.object.as_str())).collect();
    assert_eq!(skipped, [(5, "Deployment shop/web")]);
}

#[test]
fn no_problem_repeats_a_secret() {
    let head = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\n";
    for tail in [
        "data: {a: 'hunter2!'}",
        "data: [hunter2]",
        "stringData: {a: [hunter2]}",
        "stringData: {a: 'hunter2",
        "stringData:\n  a: hunter2: hunter2",
        "data:\n  a: hunter2\n b: 1",
        "stringData: {a: !!int hunter2}",
        "stringData: {a: *hunter}",
    ] {
        let problems = problems_of(&format!("{head}{tail}\n"));
        assert!(!problems.is_empty(), "{tail}");
        assert!(problems.iter().all(|problem| !problem.contains("hunter2")), "{problems:?}");
    }
}

#[test]
fn sizes_are_bounded() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let below = format!("*a{}", level - 1);
        writeln!(bomb, "a{level}: &a{level} [{}]", [below.as_str(); 10].join(", ")).unwrap();
    }
    assert_eq!(problems_of(&bomb).len(), 1);
    assert_eq!(problems_of(&"---\na: 1\n".repeat(RESOURCE_DOCUMENTS_MAX + 1)).len(), 1);
    let problems: Vec<_> = load_stream(&mut std::io::repeat(b' ')).files.remove(0).problems;
    assert!(problems[0].message.contains(&RESOURCE_FILE_BYTES_MAX.to_string()), "{}", problems[0]);
    assert!(load_stream(&mut &b"\xff\xfe"[..]).files[0].problems[0].message.contains("UTF-8"));
}

#[test]
fn a_file_that_becomes_wrong_keeps_its_last_good_content() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = FileStore::default();
    write(folder.path(), "a.yaml", &named("a"));
    write(folder.path(), "b.yaml", &named("b"));
    assert!(store.update(load_path(folder.path())).is_empty());

    write(folder.path(), "a.yaml", "apiVersion: [");
    write(folder.path(), "b.yaml", &named("c"));
    assert_eq!(store.update(load_path(folder.path())).len(), 1);
    assert_eq!(names(&store), ["a", "c"]);

    fs::remove_file(folder.path().join("a.yaml")).unwrap();
    assert!(store.update(load_path(folder.path())).is_empty());
    assert_eq!(names(&store), ["c"]);

    // A folder that cannot be read is not a folder without files.
    assert_eq!(store.update(load_path(&folder.path().join("absent"))).len(), 1);
    assert_eq!(names(&store), ["c"]);
}

#[test]
fn folders_are_read_to_their_depth_and_hidden_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("below/further");
    fs::create_dir_all(&below).unwrap();
    fs::create_dir_all(folder.path().join(".git")).unwrap();
    write(folder.path(), "a.yaml", &named("a"));
    write(folder.path(), "notes.txt", "no resource");
    write(&folder.path().join(".git"), "hidden.yaml", &named("hidden"));
    write(&below, "b.yml", &named("b"));
    write(
        &below,
        "c.json",
        r#"{"apiVersion": "harborhook.dev/v1alpha1", "kind": "Endpoint", "metadata": {"name": "c"}, "spec": {"url": "https://example.com"}}"#,
    );
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path(), below.join("circle")).unwrap();
    let mut store = FileStore::default();
    let problems = store.update(load_path(folder.path()));
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(names(&store), ["a", "b", "c"]);
}

#[test]
fn the_examples_are_right() {
    for example in ["quickstart", "transform"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(example);
        let mut store = FileStore::default();
        let problems = store.update(load_path(&folder));
        assert!(problems.is_empty(), "{example}: {problems:?}");
        assert!(!store.world().subscriptions.is_empty(), "{example}");
    }
    assert!(problems_of(&good("")).is_empty());
}
