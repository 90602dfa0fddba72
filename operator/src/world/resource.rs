//! Documents as resources: ours, Secrets, Namespaces; what else a folder of manifests holds is skipped.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use crds::admission::{Admitted, admit};
use crds::{DispatcherPool, Endpoint, Replay, Subscription};
use dispatcher_core::limits::{RESOURCE_DOCUMENTS_MAX, SECRET_BYTES_MAX};
use dispatcher_core::redacted::Redacted;
use serde_json::{Map, Value};

use super::SecretData;
use super::document::{Node, split};
use super::problem::FileProblem;

/// Namespace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The identity of an object among files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace; empty for a Namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        if namespace.is_empty() {
            write!(formatter, "{kind} {name}")
        } else {
            write!(formatter, "{kind} {namespace}/{name}")
        }
    }
}

/// An object that was understood.
#[derive(Clone, Debug)]
pub enum Resource {
    /// Where to deliver.
    Endpoint(Box<Endpoint>),
    /// What to deliver again.
    Replay(Box<Replay>),
    /// What to deliver.
    Subscription(Box<Subscription>),
    /// By which dispatchers.
    DispatcherPool(Box<DispatcherPool>),
    /// Values that endpoints may name.
    Secret(SecretData),
    /// A namespace.
    Namespace,
}

/// An object and the place that it was found at.
#[derive(Clone, Debug)]
pub struct Located {
    /// Its identity.
    pub key: ObjectKey,
    /// The object.
    pub resource: Resource,
    /// Line of its file, from 1.
    pub line: usize,
    /// Document of its file, from 1.
    pub document: usize,
    /// Lines of its fields by their paths, for example `spec.headers[0].name`; only of Endpoints, Replays and Subscriptions, whose
    /// statuses name fields.
    pub field_lines: BTreeMap<String, usize>,
}

impl Located {
    /// Line of a field such as `spec.filter`; of the nearest one above if it is not there.
    pub fn line_of(&self, field: &str) -> usize {
        let mut path = field;
        loop {
            match (self.field_lines.get(path), path.rfind(['.', '['])) {
                (Some(line), _) => return *line,
                (None, Some(end)) => path = &path[..end],
                (None, None) => return self.line,
            }
        }
    }
}

/// An object of a kind that is not for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What it is, for example `Deployment shop/web`.
    pub object: String,
}

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct LoadedFile {
    /// The file, as it was found; `-` for standard input.
    pub file: String,
    /// Objects that are right.
    pub objects: Vec<Located>,
    /// What is wrong.
    pub problems: Vec<FileProblem>,
    /// What is not for us.
    pub skipped: Vec<Skipped>,
}

/// Reads the text of a file: documents of YAML or JSON, Lists of objects among them. All problems, not the first.
pub fn read_text(file: &str, text: &str) -> LoadedFile {
    let mut reader =
        Reader { loaded: LoadedFile { file: file.to_owned(), ..LoadedFile::default() }, seen: BTreeMap::new() };
    let chunks = split(text);
    if chunks.len() > RESOURCE_DOCUMENTS_MAX {
        let message =
            format!("has {} documents; split it into files of at most {RESOURCE_DOCUMENTS_MAX}", chunks.len());
        reader.loaded.problems.push(FileProblem::of_file(file, message));
        return reader.loaded;
    }
    for (index, chunk) in chunks.into_iter().enumerate() {
        let document = index + 1;
        match Node::parse(chunk) {
            Ok(node) => reader.read(&node, document),
            Err(error) => {
                let problem = FileProblem { line: error.line, document, ..FileProblem::of_file(file, error.message) };
                reader.loaded.problems.push(problem);
            }
        }
    }
    reader.loaded
}

struct Reader {
    loaded: LoadedFile,
    seen: BTreeMap<ObjectKey, usize>,
}

/// An object on its way, with what its problems need to be found.
struct Object<'a> {
    node: &'a Node,
    document: usize,
    kind: &'a str,
    label: String,
}

impl Reader {
    fn read(&mut self, node: &Node, document: usize) {
        let text = |name: &str| node.get(name).and_then(Node::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if let Some(items) = node.get("items").and_then(Node::items).filter(|_| kind.ends_with("List")) {
            for item in items {
                self.read(item, document);
            }
            return;
        }
        let metadata = |name: &str| node.get("metadata").and_then(|metadata| metadata.get(name)).and_then(Node::as_str);
        let namespace = metadata("namespace").unwrap_or(DEFAULT_NAMESPACE);
        let name = metadata("name").unwrap_or("(without a name)");
        let label = match kind {
            "" => String::new(),
            "Namespace" => format!("{kind} {name}"),
            _ => format!("{kind} {namespace}/{name}"),
        };
        let object = Object { node, document, kind, label };
        if !node.is_map() || kind.is_empty() || api_version.is_empty() {
            return self.problem(&object, None, "must be an object with apiVersion and kind");
        }
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        match (group, kind) {
            (crds::GROUP, _) => self.read_ours(&object),
            ("", "Secret") if api_version == "v1" => self.read_secret(&object, namespace),
            ("", "Namespace") if api_version == "v1" => self.add(&object, "Namespace", None, Resource::Namespace),
            _ => self.loaded.skipped.push(Skipped {
                file: self.loaded.file.clone(),
                line: node.line(),
                object: object.label,
            }),
        }
    }

    fn read_ours(&mut self, object: &Object<'_>) {
        match admit(&object.node.to_value()) {
            Ok(Admitted::Endpoint(mut endpoint)) => {
                let namespace = endpoint.metadata.namespace.get_or_insert_with(|| DEFAULT_NAMESPACE.to_owned()).clone();
                self.add(object, "Endpoint", Some(&namespace), Resource::Endpoint(endpoint));
            }
            Ok(Admitted::Replay(mut replay)) => {
                let namespace = replay.metadata.namespace.get_or_insert_with(|| DEFAULT_NAMESPACE.to_owned()).clone();
                self.add(object, "Replay", Some(&namespace), Resource::Replay(replay));
            }
            Ok(Admitted::Subscription(mut subscription)) => {
                let namespace =
                    subscription.metadata.namespace.get_or_insert_with(|| DEFAULT_NAMESPACE.to_owned()).clone();
                self.add(object, "Subscription", Some(&namespace), Resource::Subscription(subscription));
            }
            Ok(Admitted::DispatcherPool(mut pool)) => {
                let namespace = pool.metadata.namespace.get_or_insert_with(|| DEFAULT_NAMESPACE.to_owned()).clone();
                self.add(object, "DispatcherPool", Some(&namespace), Resource::DispatcherPool(pool));
            }
            Err(problems) => {
                for problem in problems {
                    let field = (!problem.field.is_empty()).then_some(problem.field.as_str());
                    self.problem(object, field, problem.message);
                }
            }
        }
    }

    fn read_secret(&mut self, object: &Object<'_>, namespace: &str) {
        let problems_before = self.loaded.problems.len();
        let value = object.node.to_value();
        let Value::Object(fields) = &value else { return };
        let known = ["apiVersion", "kind", "metadata", "type", "data", "stringData", "immutable"];
        for field in fields.keys().filter(|field| !known.contains(&field.as_str())) {
            self.problem(object, Some(field), "unknown field");
        }
        let mut data = SecretData::new();
        for (key, text) in self.texts(object, fields, "data") {
            match BASE64.decode(text.split_ascii_whitespace().collect::<String>()) {
                Ok(bytes) => drop(data.insert(key, Redacted::new(bytes))),
                Err(_) => self.problem(
                    object,
                    Some(&format!("data[{key}]")),
                    "must be base64; plain text belongs into stringData",
                ),
            }
        }
        for (key, text) in self.texts(object, fields, "stringData") {
            data.insert(key, Redacted::new(text.into_bytes()));
        }
        if data.values().map(|bytes| bytes.expose().len()).sum::<usize>() > SECRET_BYTES_MAX {
            self.problem(object, None, format!("has more than {SECRET_BYTES_MAX} bytes of values"));
        }
        if self.loaded.problems.len() == problems_before {
            self.add(object, "Secret", Some(namespace), Resource::Secret(data));
        }
    }

    /// The entries of a map of texts; whatever is not one is a problem.
    fn texts(&mut self, object: &Object<'_>, fields: &Map<String, Value>, name: &str) -> Vec<(String, String)> {
        let entries = match fields.get(name) {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Object(entries)) => entries,
            Some(_) => {
                self.problem(object, Some(name), "must be a map of strings");
                return Vec::new();
            }
        };
        let mut texts = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            match value {
                Value::String(text) => texts.push((key.clone(), text.clone())),
                Value::Null => texts.push((key.clone(), String::new())),
                _ => self.problem(object, Some(&format!("{name}[{key}]")), "must be a string; put it in quotes"),
            }
        }
        texts
    }

    fn add(&mut self, object: &Object<'_>, kind: &'static str, namespace: Option<&str>, resource: Resource) {
        let metadata = object.node.get("metadata");
        let Some(name) =
            metadata.and_then(|metadata| metadata.get("name")).and_then(Node::as_str).filter(|name| !name.is_empty())
        else {
            return self.problem(object, Some("metadata.name"), "is required");
        };
        let key = ObjectKey { kind, namespace: namespace.unwrap_or_default().to_owned(), name: name.to_owned() };
        let line = object.node.line();
        if let Some(first_line) = self.seen.get(&key) {
            let message = format!("stands already at {}:{first_line}; remove one of the two", self.loaded.file);
            return self.problem(object, None, message);
        }
        self.seen.insert(key.clone(), line);
        let mut field_lines = BTreeMap::new();
        let is_ours = matches!(
            resource,
            Resource::Endpoint(_) | Resource::Subscription(_) | Resource::Replay(_) | Resource::DispatcherPool(_)
        );
        if is_ours {
            object.node.gather_lines("", &mut field_lines);
        }
        self.loaded.objects.push(Located { key, resource, line, document: object.document, field_lines });
    }

    fn problem(&mut self, object: &Object<'_>, field: Option<&str>, message: impl Into<String>) {
        let line = field.map_or(object.node.line(), |field| object.node.line_of(field));
        self.loaded.problems.push(FileProblem {
            line: Some(line),
            document: object.document,
            object: (!object.kind.is_empty()).then(|| object.label.clone()),
            field: field.map(ToOwned::to_owned),
            ..FileProblem::of_file(&self.loaded.file, message)
        });
    }
}
