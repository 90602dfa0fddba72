//! CEL filters of subscriptions: compiled once, of bounded cost on every event.

#[cfg(test)]
mod tests;

use cel::Value;

use crate::expression::{Dialect, EvaluationBudget, EventInput, Expression, ExpressionError, ExpressionErrorReason};
use crate::limits::{FILTER_BYTES_MAX, FILTER_COST_MAX, FILTER_NODES_MAX};

static DIALECT: Dialect = Dialect {
    noun: "filter",
    bytes_max: FILTER_BYTES_MAX,
    nodes_max: FILTER_NODES_MAX,
    cost_max: FILTER_COST_MAX,
    result_copies: 0,
};

/// A compiled filter over `event`.
///
/// `event.type`, `event.source`, `event.subject`, `event.recipient`, `event.id` and `event.time` are strings,
/// `event.data` is the payload if it is JSON. What an event does not have is absent: `has(event.subject)` asks.
#[derive(Debug)]
pub struct Filter(Expression);

impl Filter {
    /// Compiles a filter.
    pub fn compile(text: &str) -> Result<Self, ExpressionError> {
        Expression::compile(text, &DIALECT).map(Self)
    }

    /// Whether the filter is true for an event. An error counts as no match, and is worth reporting.
    ///
    /// What evaluation can cost at most on this very event is computed first and taken from the budget; above
    /// [`FILTER_COST_MAX`], or above what the budget has left, nothing is evaluated.
    pub fn matches(&self, input: &EventInput, budget: &mut EvaluationBudget) -> Result<bool, ExpressionError> {
        if let Value::Bool(answer) = self.0.evaluate(input, budget)? {
            return Ok(answer);
        }
        Err(ExpressionError::new(ExpressionErrorReason::NotBoolean, "a filter must be true or false"))
    }
}
