//! The schema's CEL rules.

use kube_cel::{CompiledSchema, ErrorKind, ValidationError, validate_compiled};
use serde_json::Value;

use super::FieldProblem;
use super::structure::Structural;

/// The rules that an object breaks. When its structure is wrong too, only what does not follow from that is reported:
/// a rule about a field of the wrong type says nothing that helps.
pub(super) fn check(
    rules: &CompiledSchema,
    object: &Value,
    old: Option<&Value>,
    structural: &Structural,
) -> Vec<FieldProblem> {
    if structural.oversize {
        // The cost of the rules is bounded by the limits, which the object exceeds.
        return Vec::new();
    }
    let Err(errors) = validate_compiled(rules, object, old) else {
        return Vec::new();
    };
    errors
        .into_iter()
        .filter(|error| !structural.problems.iter().any(|problem| follows_from(error, problem)))
        .map(|error| FieldProblem::new(error.field_path, error.message))
        .collect()
}

/// Whether a broken rule is only a consequence of a structural problem: of the same value, of a field that the rule reads,
/// or, when the rule could not be evaluated at all, of anything below.
fn follows_from(error: &ValidationError, problem: &FieldProblem) -> bool {
    if error.field_path == problem.field {
        return true;
    }
    let Some((parent, field)) = problem.field.rsplit_once('.') else {
        return false;
    };
    let same_object = error.field_path == parent || parent_of(&error.field_path) == parent;
    let is_read = mentions(&error.rule, &format!("self.{field}"));
    let below = is_below(&problem.field, &error.field_path);
    (same_object && is_read) || (below && error.kind != ErrorKind::ValidationFailure)
}

/// Whether a rule names a member of `self`; `self.url` is not named by `self.urlFrom`.
fn mentions(rule: &str, member: &str) -> bool {
    rule.match_indices(member).any(|(start, found)| {
        let next = rule[start + found.len()..].chars().next();
        !next.is_some_and(|next| next.is_ascii_alphanumeric() || next == '_')
    })
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

fn is_below(path: &str, ancestor: &str) -> bool {
    path.strip_prefix(ancestor).is_some_and(|rest| rest.starts_with(['.', '[']))
}
