//! CEL filters of subscriptions: compiled once, of bounded cost on every event.

#[cfg(test)]
mod tests;

use cel::Value;
use thiserror::Error;

use crate::expression::{
    Dialect, EvaluationBudget, EventInput, Expression, ExpressionError, ExpressionErrorReason as Reason,
};
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

/// Why a filter does not compile, or does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct FilterError {
    /// The class, from a closed set.
    pub reason: FilterErrorReason,
    /// What is wrong and what to do. Never holds values of the event.
    pub message: String,
}

/// Classes of [`FilterError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FilterErrorReason {
    /// Longer, deeper or with more parts than a filter may be.
    TooLarge,
    /// Not CEL.
    Syntax,
    /// A variable other than `event`, a function that filters do not have, or a construct without meaning for them.
    Unsupported,
    /// On this event the filter could take longer than a filter may, or than all filters of an event may together.
    CostExceeded,
    /// The filter cannot be evaluated on this event: a missing key, a wrong type, an overflow.
    Evaluation,
    /// The filter answered with something that is neither true nor false.
    NotBoolean,
    /// The payload says that it is JSON and cannot be read as such.
    DataUnreadable,
}

impl FilterErrorReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::TooLarge,
        Self::Syntax,
        Self::Unsupported,
        Self::CostExceeded,
        Self::Evaluation,
        Self::NotBoolean,
        Self::DataUnreadable,
    ];

    /// The stable label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Syntax => "syntax",
            Self::Unsupported => "unsupported",
            Self::CostExceeded => "cost_exceeded",
            Self::Evaluation => "evaluation",
            Self::NotBoolean => "not_boolean",
            Self::DataUnreadable => "data_unreadable",
        }
    }
}

impl From<ExpressionError> for FilterError {
    fn from(error: ExpressionError) -> Self {
        let reason = match error.reason {
            Reason::TooLarge => FilterErrorReason::TooLarge,
            Reason::Syntax => FilterErrorReason::Syntax,
            Reason::Unsupported => FilterErrorReason::Unsupported,
            Reason::CostExceeded => FilterErrorReason::CostExceeded,
            Reason::Evaluation => FilterErrorReason::Evaluation,
            Reason::DataUnreadable => FilterErrorReason::DataUnreadable,
        };
        Self { reason, message: error.message }
    }
}

impl Filter {
    /// Compiles a filter.
    pub fn compile(text: &str) -> Result<Self, FilterError> {
        Ok(Self(Expression::compile(text, &DIALECT)?))
    }

    /// Whether the filter is true for an event. An error counts as no match, and is worth reporting.
    ///
    /// What evaluation can cost at most on this very event is computed first and taken from the budget; above
    /// [`FILTER_COST_MAX`], or above what the budget has left, nothing is evaluated.
    pub fn matches(&self, input: &EventInput, budget: &mut EvaluationBudget) -> Result<bool, FilterError> {
        if let Value::Bool(answer) = self.0.evaluate(input, budget)? {
            return Ok(answer);
        }
        let message = "a filter must be true or false".to_owned();
        Err(FilterError { reason: FilterErrorReason::NotBoolean, message })
    }
}
