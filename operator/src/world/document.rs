//! YAML documents as values that know their lines.

use std::collections::BTreeMap;
use std::fmt;

use dispatcher_core::limits::{RESOURCE_DEPTH_MAX, RESOURCE_NODES_MAX};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// A part of a file between document markers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    /// Line of the file, from 1, at which it begins.
    pub(super) first_line: usize,
    /// Its text.
    pub(super) text: &'a str,
}

/// A value, the line of the file that it stands on, and those of what it holds.
pub(super) struct Node {
    line: usize,
    content: Content,
}

enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(String, usize, Node)>),
}

/// Why a document could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// Line of the file.
    pub(super) line: Option<usize>,
    /// What is wrong.
    pub(super) message: String,
}

/// Cuts a file at its document markers. A line that begins with `---` or `...` and a space or nothing is one wherever it
/// stands, inside of a block of text too (YAML 1.2.2, 9.1.2). Chunks without content are left out.
pub(super) fn split(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = ["---", "..."].iter().find_map(|marker| line.strip_prefix(marker));
        if marker.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
            chunks.push(Chunk { first_line, text: &text[start..offset] });
            // What follows on a marker's line belongs to the document; the marker itself may stand there too.
            start = if line.starts_with("---") { offset } else { offset + line.len() };
            first_line = if line.starts_with("---") { index + 1 } else { index + 2 };
        }
        offset += line.len();
    }
    chunks.push(Chunk { first_line, text: &text[start..] });
    chunks.retain(|chunk| has_content(chunk.text));
    chunks
}

fn has_content(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.strip_prefix("---").unwrap_or(line).trim_start();
        // Byte order mark, comments, directives.
        !matches!(line.trim_start_matches('\u{feff}').chars().next(), None | Some('#' | '%'))
    })
}

impl Node {
    /// Reads one document. Bounded in depth and in nodes, those that aliases repeat included.
    pub(super) fn parse(chunk: Chunk<'_>) -> Result<Self, SyntaxError> {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_depth: RESOURCE_DEPTH_MAX,
                max_nodes: RESOURCE_NODES_MAX,
                max_events: 4 * RESOURCE_NODES_MAX,
                max_recorded_anchor_events: RESOURCE_NODES_MAX,
                max_documents: 1,
            },
            alias_limits: serde_saphyr::alias_limits! {
                max_total_replayed_events: RESOURCE_NODES_MAX,
                max_replay_stack_depth: RESOURCE_DEPTH_MAX,
                max_alias_expansions_per_anchor: RESOURCE_NODES_MAX,
            },
            // A snippet would show the text around the mistake, which may be a Secret's.
            with_snippet: false,
        };
        let line_of = |line: u64| usize::try_from(line).unwrap_or(usize::MAX).saturating_add(chunk.first_line - 1);
        let spanned: Spanned<Self> = serde_saphyr::from_str_with_options(chunk.text, options).map_err(|error| {
            let line = error.location().map(|location| line_of(location.line()));
            SyntaxError { line, message: message_of(&error) }
        })?;
        let mut node = place(spanned);
        node.shift(chunk.first_line - 1);
        Ok(node)
    }

    /// The value alone.
    pub(super) fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Content::Map(fields) => Value::Object(
                fields.iter().map(|(name, _, node)| (name.clone(), node.to_value())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// Line at which the value begins.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The items, if it is a list.
    pub(super) fn items(&self) -> Option<&[Self]> {
        match &self.content {
            Content::List(items) => Some(items),
            _ => None,
        }
    }

    /// A field, if it is a map and has it.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        match &self.content {
            Content::Map(fields) => fields.iter().find(|field| field.0 == name).map(|field| &field.2),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether it is a map.
    pub(super) fn is_map(&self) -> bool {
        matches!(self.content, Content::Map(_))
    }

    /// Line of a field such as `spec.headers[0].name` or `metadata.labels[a.b/c]`; of the nearest one above if it is not
    /// there.
    pub(super) fn line_of(&self, field: &str) -> usize {
        let mut rest = field;
        let (mut node, mut line) = (self, self.line);
        while !rest.is_empty() {
            let (step, is_index, after) = next_step(rest);
            let next = match &node.content {
                Content::Map(fields) => {
                    fields.iter().find(|field| field.0 == step).map(|(_, line, node)| (*line, node))
                }
                Content::List(items) if is_index => {
                    step.parse::<usize>().ok().and_then(|index| items.get(index)).map(|node| (node.line, node))
                }
                _ => None,
            };
            let Some((next_line, next_node)) = next else { break };
            (line, node, rest) = (next_line, next_node, after);
        }
        line
    }

    /// Adds the lines of all that it holds, by the paths that [`Node::line_of`] takes; `path` is its own.
    pub(super) fn gather_lines(&self, path: &str, lines: &mut BTreeMap<String, usize>) {
        match &self.content {
            Content::Scalar(_) => {}
            Content::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    item.gather_lines(&path, lines);
                    lines.insert(path, item.line);
                }
            }
            Content::Map(fields) => {
                for (name, line, node) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    node.gather_lines(&path, lines);
                    lines.insert(path, *line);
                }
            }
        }
    }

    fn shift(&mut self, lines: usize) {
        self.line += lines;
        match &mut self.content {
            Content::Scalar(_) => {}
            Content::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Content::Map(fields) => {
                for (_, line, node) in fields {
                    *line += lines;
                    node.shift(lines);
                }
            }
        }
    }
}

/// The first step of a path, whether it stood in brackets, and what follows.
fn next_step(path: &str) -> (&str, bool, &str) {
    if let Some(inside) = path.strip_prefix('[')
        && let Some((step, after)) = inside.split_once(']')
    {
        return (step, true, after.strip_prefix('.').unwrap_or(after));
    }
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let after = &path[end..];
    (&path[..end], false, after.strip_prefix('.').unwrap_or(after))
}

/// What is wrong, on one line and without the position, which is the document's and not the file's.
fn message_of(error: &serde_saphyr::Error) -> String {
    let error = error.without_snippet();
    if let serde_saphyr::Error::DuplicateMappingKey { key, .. } = error {
        let key = key.as_deref().map_or_else(|| "a key".to_owned(), |key| format!("the key {key}"));
        return format!("{key} stands there twice; is a `---` missing between two objects?");
    }
    let text = error.to_string();
    let text = text.lines().next().unwrap_or_default();
    let text = text.split(" at line ").next().unwrap_or_default();
    format!("is not valid YAML: {}", text.strip_prefix("error: ").unwrap_or(text))
}

fn place(spanned: Spanned<Node>) -> Node {
    let line = usize::try_from(spanned.referenced.line()).unwrap_or(usize::MAX);
    Node { line, ..spanned.value }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

fn scalar(value: impl Into<Value>) -> Node {
    Node { line: 0, content: Content::Scalar(value.into()) }
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value that JSON can hold")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        Ok(scalar(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        Ok(scalar(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        Ok(scalar(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number must be finite"))?;
        Ok(scalar(Value::Number(number)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        Ok(scalar(value))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Node, E> {
        Ok(scalar(value))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(scalar(Value::Null))
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        Ok(scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Node>>()? {
            items.push(place(item));
        }
        Ok(Node { line: 0, content: Content::List(items) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = access.next_key::<Spanned<String>>()? {
            let line = usize::try_from(name.referenced.line()).unwrap_or(usize::MAX);
            fields.push((name.value, line, place(access.next_value::<Spanned<Node>>()?)));
        }
        Ok(Node { line: 0, content: Content::Map(fields) })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn parse(text: &str) -> Result<Node, SyntaxError> {
        Node::parse(split(text)[0])
    }

    #[test]
    fn documents_begin_where_their_markers_stand() {
        let text = "# a\n---\na: 1\n---\n\n# nothing\n---\nb: |\n  text\n---  # c\nc: 1\n...\n";
        let lines: Vec<usize> = split(text).iter().map(|chunk| chunk.first_line).collect();
        assert_eq!(lines, [2, 7, 10]);
        assert_eq!(split("").len(), 0);
        assert_eq!(split("%YAML 1.2\n---\na: 1\n").len(), 1);
        assert_eq!(split("a: 1\n----\n").len(), 1);
    }

    #[test]
    fn a_field_is_found_on_its_line() {
        let node = parse("a: 1\n---\n").unwrap();
        assert_eq!(node.to_value(), serde_json::json!({"a": 1}));
        let text = "# first\n---\nmetadata:\n  labels:\n    a.b/c: x\nspec:\n  headers:\n    - name: one\n      value: x\n    - name: two\n";
        let node = parse(text).unwrap();
        for (field, line) in [
            ("", 3),
            ("metadata", 3),
            ("metadata.labels[a.b/c]", 5),
            ("spec", 6),
            ("spec.headers[0].value", 9),
            ("spec.headers[1]", 10),
            ("spec.headers[1].value", 10),
            ("spec.headers[7]", 7),
            ("spec.absent.too", 6),
        ] {
            assert_eq!(node.line_of(field), line, "{field}");
        }
    }

    #[test]
    fn what_is_no_yaml_is_refused_on_its_line() {
        for (text, line) in [
            ("a: 1\nb: [1, 2\n", 2),
            ("a: 1\na: 2\n", 2),
            ("a: *nowhere\n", 1),
            ("a: .nan\n", 1),
            ("---\nok: 1\nb: 'x\n", 3),
        ] {
            let error = parse(text).err().unwrap();
            assert_eq!(error.line, Some(line), "{text:?}: {}", error.message);
            assert!(!error.message.contains("line ") && !error.message.contains('\n'), "{}", error.message);
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_told_without_the_librarys_advice() {
        let error = parse("kind: Endpoint\nspec: {}\nkind: Subscription\n").err().unwrap();
        let message = "the key kind stands there twice; is a `---` missing between two objects?";
        assert_eq!((error.line, error.message.as_str()), (Some(3), message));
    }

    #[test]
    fn aliases_cannot_multiply_without_end() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let below = format!("*a{}", level - 1);
            writeln!(text, "a{level}: &a{level} [{}]", [below.as_str(); 10].join(", ")).unwrap();
        }
        assert!(parse(&text).is_err());
        assert!(parse(&format!("a: {}1{}\n", "[".repeat(1000), "]".repeat(1000))).is_err());
    }

    #[test]
    fn json_is_read_too_with_tabs_and_repeated_values() {
        let node = parse("{\n\t\"a\": [1, true, null, \"x\\u00e9\"],\n\t\"b\": {\"c\": -1.5}\n}\n").unwrap();
        assert_eq!(node.to_value(), serde_json::json!({"a": [1, true, null, "xé"], "b": {"c": -1.5}}));
        let node = parse("a: &one {x: 1}\nb: *one\n").unwrap();
        assert_eq!(node.line_of("b.x"), 2);
    }
}
