//! An event as expressions see it.

use cel::Context;
use serde_json::Value;

use super::numbers::{self, Read};
use super::{EvaluationBudget, ExpressionError, ExpressionErrorReason, FUNCTIONS, program};
use crate::event::{Event, is_json, render};
use crate::limits::EXPRESSION_INPUT_BYTES_PER_STEP;

/// An event as expressions see it. Parsed once, for any number of them.
pub struct EventInput {
    context: Context<'static>,
    event: Value,
    data: DataState,
}

/// What became of the payload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DataState {
    /// It is `event.data`, or is not JSON.
    Readable,
    /// It is `event.data`, with whole numbers beyond 64 bits rounded.
    Rounded,
    /// It says that it is JSON and cannot be read.
    Unreadable,
}

impl EventInput {
    /// Reads an event for expressions, if the budget has the steps that this takes.
    pub fn read(event: &Event, budget: &mut EvaluationBudget) -> Result<Self, ExpressionError> {
        let steps = (event.body.len() / EXPRESSION_INPUT_BYTES_PER_STEP) as u64;
        if steps > budget.steps_left() {
            return Err(budget.exceeded());
        }
        budget.spend(steps);
        Ok(Self::new(event))
    }

    pub(crate) fn new(event: &Event) -> Self {
        let mut fields = serde_json::Map::new();
        for (name, text) in render::context_attributes(event) {
            if matches!(name, "id" | "source" | "type" | "time" | "subject" | "recipient") {
                fields.insert(name.to_owned(), text.into());
            }
        }
        let mut data = DataState::Readable;
        if is_json(&event.content_type) && !event.body.is_empty() {
            match numbers::read(&event.body) {
                Ok(Read { value, is_rounded }) => {
                    fields.insert("data".to_owned(), value);
                    if is_rounded {
                        data = DataState::Rounded;
                    }
                }
                Err(_) => data = DataState::Unreadable,
            }
        }
        let event = Value::Object(fields);
        let mut context = FUNCTIONS.new_inner_scope();
        context.add_variable_from_value(program::EVENT, program::value(&event));
        Self { context, event, data }
    }

    /// Whether `event.data` holds a whole number that had to be rounded: it fits neither 64-bit type.
    pub(crate) fn is_rounded(&self) -> bool {
        self.data == DataState::Rounded
    }

    /// The event as JSON, unless its payload cannot be read.
    pub(super) fn readable(&self) -> Result<&Value, ExpressionError> {
        if self.data == DataState::Unreadable {
            let message = "the payload is declared as JSON and cannot be read: it is malformed, too deep, or holds a \
                           number out of range";
            return Err(ExpressionError::new(ExpressionErrorReason::DataUnreadable, message));
        }
        Ok(&self.event)
    }

    pub(super) fn context(&self) -> &Context<'static> {
        &self.context
    }
}
