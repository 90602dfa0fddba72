//! What is wrong with a resource in its world: pure, and all of it, not the first.

mod endpoint;
mod neighbours;
mod replay;
mod request;
mod subscription;
mod tls;
mod token;

use std::fmt;

use crds::condition::Reason;

pub use endpoint::{ValidatedEndpoint, validate_endpoint};
pub use neighbours::Neighbours;
pub use replay::validate_replay;
pub use subscription::{Resolution, ValidatedSubscription, resolve, validate_subscription};
pub(crate) use subscription::{check_subscription, resolved};
pub(crate) use tls::{CERTIFICATE_KEY, PRIVATE_KEY_KEY};

/// One thing that is wrong. Never repeats a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The reason that the `Ready` condition gives for it.
    pub reason: Reason,
    /// The field, for example `spec.url`; empty for the object as a whole.
    pub field: String,
    /// What is wrong, in words that tell what would be right.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(reason: Reason, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason, field: field.into(), message: message.into() }
    }
}

/// One line: `spec.url: message`.
impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(formatter, "{}: ", self.field)?;
        }
        formatter.write_str(&self.message)
    }
}

/// All that is wrong, in one line.
pub(crate) fn in_words(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Sorts problems so that the first gives its reason to the conditions: what only the owner can heal comes first.
fn in_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| match problem.reason {
        Reason::InvalidSpec => 0,
        Reason::InvalidFilter | Reason::InvalidTransform => 1,
        Reason::AddressBlocked => 2,
        Reason::Pending => 9,
        _ => 3,
    });
    problems
}

/// What the schema and its rules say; the API server has asked them too, but perhaps those of another release.
fn admission(object: &impl serde::Serialize) -> Vec<Problem> {
    let value = serde_json::to_value(object).unwrap_or_default();
    let problems = crds::admission::admit(&value).err().unwrap_or_default();
    problems.into_iter().map(|problem| Problem::new(Reason::InvalidSpec, problem.field, problem.message)).collect()
}
