//! Why expressions fail.

use thiserror::Error;

/// Why an expression does not compile, or has no value that can be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// The class, from a closed set.
    pub reason: ExpressionErrorReason,
    /// What is wrong and what to do. Never holds values of the event.
    pub message: String,
}

/// Classes of [`ExpressionError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExpressionErrorReason {
    /// Longer, deeper or with more parts than the expression may be.
    TooLarge,
    /// Not CEL.
    Syntax,
    /// A variable other than `event`, a function that expressions do not have, or a construct without meaning.
    Unsupported,
    /// On this event evaluation could take longer than it may, alone or together with others.
    CostExceeded,
    /// The expression cannot be evaluated on this event: a missing key, a wrong type, an overflow.
    Evaluation,
    /// The payload says that it is JSON and cannot be read as such, or not without loss.
    DataUnreadable,
    /// A filter answered with something that is neither true nor false.
    NotBoolean,
    /// The result of a transform has no form in JSON: an infinite number, a map with keys that are no strings.
    NotJson,
    /// The result of a transform is longer or deeper than it may be.
    ResultTooLarge,
}

impl ExpressionErrorReason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::TooLarge,
        Self::Syntax,
        Self::Unsupported,
        Self::CostExceeded,
        Self::Evaluation,
        Self::DataUnreadable,
        Self::NotBoolean,
        Self::NotJson,
        Self::ResultTooLarge,
    ];

    /// The stable label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Syntax => "syntax",
            Self::Unsupported => "unsupported",
            Self::CostExceeded => "cost_exceeded",
            Self::Evaluation => "evaluation",
            Self::DataUnreadable => "data_unreadable",
            Self::NotBoolean => "not_boolean",
            Self::NotJson => "not_json",
            Self::ResultTooLarge => "result_too_large",
        }
    }
}

impl ExpressionError {
    pub(crate) fn new(reason: ExpressionErrorReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}
