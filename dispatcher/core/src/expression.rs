//! CEL expressions over `event`: compiled once, of bounded cost on every event. Filters and transforms are made of
//! them.

mod budget;
mod cost;
mod error;
#[cfg(test)]
pub(crate) mod fixtures;
mod input;
mod numbers;
mod program;

use std::sync::{Arc, LazyLock};

use cel::objects::Opaque;
use cel::{Context, Value};

pub use budget::EvaluationBudget;
pub use error::{ExpressionError, ExpressionErrorReason};
pub use input::EventInput;
use program::Program;

/// What distinguishes one use of expressions from another.
#[derive(Debug)]
pub(crate) struct Dialect {
    /// What an expression is called, for people.
    pub(crate) noun: &'static str,
    /// Longest text.
    pub(crate) bytes_max: usize,
    /// Most nodes of the tree.
    pub(crate) nodes_max: usize,
    /// Most steps on one event.
    pub(crate) cost_max: u64,
    /// How often the whole result is copied after evaluation.
    pub(crate) result_copies: u64,
}

/// A compiled expression.
///
/// `event.type`, `event.source`, `event.subject`, `event.recipient`, `event.id` and `event.time` are strings,
/// `event.data` is the payload if it is JSON. What an event does not have is absent: `has(event.subject)` asks.
#[derive(Debug)]
pub(crate) struct Expression {
    program: Program,
    dialect: &'static Dialect,
}

impl Expression {
    /// Compiles an expression.
    pub(crate) fn compile(text: &str, dialect: &'static Dialect) -> Result<Self, ExpressionError> {
        if text.len() > dialect.bytes_max {
            let message = format!("a {} has at most {} bytes", dialect.noun, dialect.bytes_max);
            return Err(ExpressionError::new(ExpressionErrorReason::TooLarge, message));
        }
        Ok(Self { program: program::compile(text, dialect)?, dialect })
    }

    /// The expression's value for an event.
    ///
    /// What evaluation can cost at most on this very event is computed first and taken from the budget; above the
    /// dialect's bound, or above what the budget has left, nothing is evaluated.
    pub(crate) fn evaluate(&self, input: &EventInput, budget: &mut EvaluationBudget) -> Result<Value, ExpressionError> {
        let data = input.readable()?;
        let Dialect { noun, cost_max, result_copies, .. } = self.dialect;
        let steps_max = (*cost_max).min(budget.steps_left());
        let estimate = cost::of(&self.program, data, steps_max, *result_copies);
        budget.spend(estimate.steps.unwrap_or(estimate.looked));
        if estimate.steps.is_none() {
            if steps_max < *cost_max {
                return Err(budget.exceeded());
            }
            let message = format!("the {noun} could take more than {cost_max} steps on this event: make it simpler");
            return Err(ExpressionError::new(ExpressionErrorReason::CostExceeded, message));
        }
        let mut context = input.context().new_inner_scope();
        for (number, pattern) in self.program.patterns.iter().enumerate() {
            let pattern: Arc<dyn Opaque> = Arc::clone(pattern) as _;
            context.add_variable_from_value(program::pattern_name(number), Value::Opaque(pattern));
        }
        Value::resolve(&self.program.expression, &context).map_err(|error| program::evaluation_error(&error))
    }
}

/// The interpreter's functions. Built once: registering them costs more than most expressions.
static FUNCTIONS: LazyLock<Context<'static>> = LazyLock::new(program::functions);
