//! CEL transforms of subscriptions: an expression over `event` whose value is the JSON that is sent instead of the
//! payload.
//!
//! | Value | JSON |
//! |---|---|
//! | `null`, `true`, `false` | the same |
//! | int, uint | a number without point and exponent, every digit kept |
//! | double | a number with a point or an exponent, the shortest that reads back as the same double |
//! | string | a string |
//! | list | an array |
//! | map with strings as keys | an object, its members sorted by name, byte by byte |
//! | anything else | an error |
//!
//! The same event and transform yield the same bytes, whenever and wherever: what is sent again is what was sent.

mod json;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::event::{Attributes, Event};
use crate::expression::{Dialect, EvaluationBudget, EventInput, Expression, ExpressionError, ExpressionErrorReason};
use crate::limits::{TRANSFORM_BYTES_MAX, TRANSFORM_COST_MAX, TRANSFORM_NODES_MAX};

static DIALECT: Dialect = Dialect {
    noun: "transform",
    bytes_max: TRANSFORM_BYTES_MAX,
    nodes_max: TRANSFORM_NODES_MAX,
    cost_max: TRANSFORM_COST_MAX,
    // Out of the interpreter, and into JSON.
    result_copies: 2,
};

/// Media type of what transforms yield.
const CONTENT_TYPE: &str = "application/json";
/// The CloudEvents attribute that names the schema of the payload, and not of what a transform makes of it.
const DATA_SCHEMA: &str = "dataschema";

/// A compiled transform over `event`, which is what filters see.
#[derive(Debug)]
pub struct Transform(Expression);

impl Transform {
    /// Compiles a transform.
    pub fn compile(text: &str) -> Result<Self, ExpressionError> {
        Expression::compile(text, &DIALECT).map(Self)
    }

    /// The JSON that the transform makes of an event, at most [`crate::limits::TRANSFORM_RESULT_BYTES_MAX`] bytes.
    ///
    /// What this can cost at most on this very event is computed first and taken from the budget; above
    /// [`TRANSFORM_COST_MAX`], or above what the budget has left, nothing is evaluated.
    pub fn apply(&self, event: &Event, budget: &mut EvaluationBudget) -> Result<Bytes, ExpressionError> {
        let input = EventInput::read(event, budget)?;
        if input.is_rounded() {
            let message = "the payload holds a whole number that does not fit into 64 bits and would be sent rounded: \
                           let the producer send it as text";
            return Err(ExpressionError::new(ExpressionErrorReason::DataUnreadable, message));
        }
        json::write(&self.0.evaluate(&input, budget)?)
    }
}

/// The event that is rendered instead of `event`: the result of a transform is its payload, JSON of no known schema.
pub fn substitute(event: &Event, result: Bytes) -> Event {
    let mut attributes = event.attributes.0.clone();
    attributes.remove(DATA_SCHEMA);
    Event {
        id: event.id,
        tenant: event.tenant,
        event_type: event.event_type.clone(),
        recipient: event.recipient.clone(),
        content_type: CONTENT_TYPE.to_owned(),
        body: result,
        attributes: Attributes(attributes),
    }
}
