//! CEL filters of subscriptions: compiled once, of bounded cost on every event.

mod budget;
mod cost;
mod program;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use cel::objects::Opaque;
use cel::{Context, Value};
use thiserror::Error;

pub use budget::FilterBudget;
use program::Program;

use crate::event::{Event, is_json, render};
use crate::limits::{FILTER_BYTES_MAX, FILTER_COST_MAX, FILTER_INPUT_BYTES_PER_STEP};

/// A compiled filter over `event`.
///
/// `event.type`, `event.source`, `event.subject`, `event.recipient`, `event.id` and `event.time` are strings,
/// `event.data` is the payload if it is JSON. What an event does not have is absent: `has(event.subject)` asks.
#[derive(Debug)]
pub struct Filter {
    program: Program,
}

/// An event as filters see it. Parsed once, for any number of filters.
pub struct FilterInput {
    context: Context<'static>,
    event: serde_json::Value,
    data_is_unreadable: bool,
}

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

impl FilterError {
    fn new(reason: FilterErrorReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl Filter {
    /// Compiles a filter.
    pub fn compile(text: &str) -> Result<Self, FilterError> {
        if text.len() > FILTER_BYTES_MAX {
            let message = format!("a filter has at most {FILTER_BYTES_MAX} bytes");
            return Err(FilterError::new(FilterErrorReason::TooLarge, message));
        }
        Ok(Self { program: program::compile(text)? })
    }

    /// Whether the filter is true for an event. An error counts as no match, and is worth reporting.
    ///
    /// What evaluation can cost at most on this very event is computed first and taken from the budget; above
    /// [`FILTER_COST_MAX`], or above what the budget has left, nothing is evaluated.
    pub fn matches(&self, input: &FilterInput, budget: &mut FilterBudget) -> Result<bool, FilterError> {
        if input.data_is_unreadable {
            let message = "the payload is declared as JSON and cannot be read: it is malformed, too deep, or holds a number out of range";
            return Err(FilterError::new(FilterErrorReason::DataUnreadable, message));
        }
        let steps_max = FILTER_COST_MAX.min(budget.steps_left());
        let estimate = cost::of(&self.program, &input.event, steps_max);
        budget.spend(estimate.steps.unwrap_or(estimate.looked));
        if estimate.steps.is_none() {
            if steps_max < FILTER_COST_MAX {
                return Err(exceeded(budget));
            }
            let message =
                format!("the filter could take more than {FILTER_COST_MAX} steps on this event: make it simpler");
            return Err(FilterError::new(FilterErrorReason::CostExceeded, message));
        }
        let mut context = input.context.new_inner_scope();
        for (number, pattern) in self.program.patterns.iter().enumerate() {
            let pattern: Arc<dyn Opaque> = Arc::clone(pattern) as _;
            context.add_variable_from_value(program::pattern_name(number), Value::Opaque(pattern));
        }
        match Value::resolve(&self.program.expression, &context) {
            Ok(Value::Bool(answer)) => Ok(answer),
            Ok(_) => Err(FilterError::new(FilterErrorReason::NotBoolean, "a filter must be true or false")),
            Err(error) => Err(program::evaluation_error(&error)),
        }
    }
}

/// A filter for which the others have left no steps.
fn exceeded(budget: &mut FilterBudget) -> FilterError {
    budget.exceed();
    let message = "the filters together could take too many steps on this event, and this one was not evaluated: \
                   make the tenant's filters simpler, or have fewer of them";
    FilterError::new(FilterErrorReason::CostExceeded, message)
}

impl FilterInput {
    /// Reads an event for filters, if the budget has the steps that this takes.
    pub fn read(event: &Event, budget: &mut FilterBudget) -> Result<Self, FilterError> {
        let steps = (event.body.len() / FILTER_INPUT_BYTES_PER_STEP) as u64;
        if steps > budget.steps_left() {
            return Err(exceeded(budget));
        }
        budget.spend(steps);
        Ok(Self::new(event))
    }

    fn new(event: &Event) -> Self {
        let mut fields = serde_json::Map::new();
        for (name, text) in render::context_attributes(event) {
            if matches!(name, "id" | "source" | "type" | "time" | "subject" | "recipient") {
                fields.insert(name.to_owned(), text.into());
            }
        }
        let mut data_is_unreadable = false;
        if is_json(&event.content_type) && !event.body.is_empty() {
            match serde_json::from_slice(&event.body) {
                Ok(data) => _ = fields.insert("data".to_owned(), data),
                Err(_) => data_is_unreadable = true,
            }
        }
        let event = serde_json::Value::Object(fields);
        let mut context = FUNCTIONS.new_inner_scope();
        context.add_variable_from_value(program::EVENT, program::value(&event));
        Self { context, event, data_is_unreadable }
    }
}

/// The interpreter's functions. Built once: registering them costs more than most filters.
static FUNCTIONS: LazyLock<Context<'static>> = LazyLock::new(program::functions);
