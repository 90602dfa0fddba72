//! What an API server with strict field validation would say to an object, without an API server.
//!
//! [`admit`] and [`admit_update`] find every problem, not the first: unknown fields and wrong types by the schema (`structure`), names and
//! labels (`metadata`), and the schema's CEL rules (`rules`).

mod metadata;
mod rules;
mod structure;

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{API_VERSION, DispatcherPool, Endpoint, Kind, Replay, Subscription, definition};

/// An object that an API server would store.
#[derive(Clone, Debug, PartialEq)]
pub enum Admitted {
    /// Where to deliver.
    Endpoint(Box<Endpoint>),
    /// What to deliver again.
    Replay(Box<Replay>),
    /// What to deliver.
    Subscription(Box<Subscription>),
    /// By which dispatchers.
    DispatcherPool(Box<DispatcherPool>),
}

/// One thing that is wrong with an object. Never repeats a value, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldProblem {
    /// Path of the field, such as `spec.headers[0].name`; empty for the object as a whole.
    pub field: String,
    /// What is wrong, in words that tell what would be right.
    pub message: String,
}

impl FieldProblem {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "{}: {}", self.field, self.message)
        }
    }
}

impl std::error::Error for FieldProblem {}

/// Checks an object as an API server would when it is created.
///
/// As there, `null` is the same as absent, and a `status` in the object is replaced by the default status.
///
/// # Errors
/// All problems, sorted by field, without duplicates; never empty.
pub fn admit(object: &Value) -> Result<Admitted, Vec<FieldProblem>> {
    admit_over(object, None)
}

/// Checks an object as an API server would when it takes the place of another one.
///
/// # Errors
/// As [`admit`], and what may not change.
pub fn admit_update(object: &Value, old: &Value) -> Result<Admitted, Vec<FieldProblem>> {
    admit_over(object, Some(old))
}

fn admit_over(object: &Value, old: Option<&Value>) -> Result<Admitted, Vec<FieldProblem>> {
    let Value::Object(fields) = object else {
        return Err(vec![FieldProblem::new("", "must be an object with apiVersion, kind, metadata and spec")]);
    };
    let kind = kind_of(fields)?;
    let compiled = definition::compiled(kind);

    let mut object = object.clone();
    structure::drop_nulls(&compiled.schema, &mut object);
    let mut problems = metadata::check(object.get("metadata"));
    structure::unknown_fields(&compiled.schema, &object, &mut problems);
    replace_status(&mut object);
    let structural = structure::check(&compiled.schema, &object);
    problems.extend(rules::check(&compiled.rules, &object, old, &structural));
    problems.extend(structural.problems);
    if problems.is_empty() {
        return match kind {
            Kind::Endpoint => typed(object).map(|endpoint| Admitted::Endpoint(Box::new(endpoint))),
            Kind::Replay => typed(object).map(|replay| Admitted::Replay(Box::new(replay))),
            Kind::Subscription => typed(object).map(|subscription| Admitted::Subscription(Box::new(subscription))),
            Kind::DispatcherPool => typed(object).map(|pool| Admitted::DispatcherPool(Box::new(pool))),
        };
    }
    problems.sort();
    problems.dedup();
    Err(problems)
}

fn kind_of(fields: &Map<String, Value>) -> Result<Kind, Vec<FieldProblem>> {
    let mut problems = Vec::new();
    if fields.get("apiVersion").and_then(Value::as_str) != Some(API_VERSION) {
        problems.push(FieldProblem::new("apiVersion", format!("must be {API_VERSION}")));
    }
    let name = fields.get("kind").and_then(Value::as_str);
    let kind = Kind::ALL.into_iter().find(|kind| Some(kind.as_str()) == name);
    match kind {
        Some(kind) if problems.is_empty() => Ok(kind),
        Some(_) => Err(problems),
        None => {
            let [others @ .., last] = Kind::ALL.map(Kind::as_str);
            problems.push(FieldProblem::new("kind", format!("must be {} or {last}", others.join(", "))));
            Err(problems)
        }
    }
}

fn replace_status(object: &mut Value) {
    if let Value::Object(fields) = object {
        fields.insert("status".to_owned(), definition::default_status());
    }
}

/// The schema is made from the types, so what it admits deserializes; were it ever not so, it is a problem of the object.
fn typed<T: DeserializeOwned>(object: Value) -> Result<T, Vec<FieldProblem>> {
    serde_json::from_value(object).map_err(|error| {
        let class = error.classify();
        vec![FieldProblem::new("", format!("the schema admits this object but its type does not ({class:?} error)"))]
    })
}
