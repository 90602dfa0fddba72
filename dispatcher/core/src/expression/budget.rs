//! What the expressions on one event, and on all events of one request, may cost together.

use super::{ExpressionError, ExpressionErrorReason};
use crate::limits::{
    EVENT_BODY_BYTES_MAX, EVENT_FILTERS_COST_MAX, EXPRESSION_INPUT_BYTES_PER_STEP, EXPRESSIONS_INLINE_COST_MAX,
    REQUEST_FILTERS_COST_MAX, TRANSFORM_COST_MAX,
};

/// Steps that expressions may still take: those of the event at hand, and those of the whole request.
///
/// One expression is bounded by its own limit, such as [`crate::limits::FILTER_COST_MAX`]; this bounds their number
/// times their cost. One that does not fit into what is left is not evaluated.
#[derive(Debug)]
pub struct EvaluationBudget {
    event_steps_max: u64,
    event_steps_left: u64,
    request_steps_left: u64,
    is_exceeded: bool,
}

impl EvaluationBudget {
    /// A budget of so many steps for each event, and for all of them.
    pub fn new(event_steps_max: u64, request_steps_max: u64) -> Self {
        Self {
            event_steps_max,
            event_steps_left: event_steps_max,
            request_steps_left: request_steps_max,
            is_exceeded: false,
        }
    }

    /// What a request may cost: for a thread that may work for a while.
    pub fn of_request() -> Self {
        Self::new(EVENT_FILTERS_COST_MAX, REQUEST_FILTERS_COST_MAX)
    }

    /// What one transform may cost, the largest payload read: for a thread that may work for a while.
    pub fn of_transform() -> Self {
        let steps = (EVENT_BODY_BYTES_MAX / EXPRESSION_INPUT_BYTES_PER_STEP) as u64 + TRANSFORM_COST_MAX;
        Self::new(steps, steps)
    }

    /// What the next transform of a request may cost: as much as each may, whatever the event has cost so far, but no
    /// more than the request has left. It is taken from the request by [`EvaluationBudget::settle`].
    #[must_use]
    pub fn of_next_transform(&self) -> Self {
        let steps = Self::of_transform().event_steps_max.min(self.request_steps_left);
        Self::new(steps, steps)
    }

    /// Takes from the request what one of its transforms has spent.
    pub fn settle(&mut self, transform: &Self) {
        let spent = transform.event_steps_max - transform.event_steps_left;
        self.request_steps_left = self.request_steps_left.saturating_sub(spent);
        self.is_exceeded |= transform.is_exceeded;
    }

    /// What a thread that has others to serve spends on one. If it does not suffice, start again elsewhere.
    pub fn inline() -> Self {
        Self::new(EXPRESSIONS_INLINE_COST_MAX, EXPRESSIONS_INLINE_COST_MAX)
    }

    /// Whether an expression was not evaluated because the others had taken its share.
    pub fn is_exceeded(&self) -> bool {
        self.is_exceeded
    }

    /// The next event has its own steps, within those of the request.
    pub(crate) fn begin_event(&mut self) {
        self.event_steps_left = self.event_steps_max;
    }

    pub(crate) fn steps_left(&self) -> u64 {
        self.event_steps_left.min(self.request_steps_left)
    }

    pub(super) fn spend(&mut self, steps: u64) {
        self.event_steps_left = self.event_steps_left.saturating_sub(steps);
        self.request_steps_left = self.request_steps_left.saturating_sub(steps);
    }

    /// An expression for which the others have left no steps.
    pub(super) fn exceeded(&mut self) -> ExpressionError {
        self.is_exceeded = true;
        let message = "the filters and transforms together could take too many steps on this event, and this one was \
                       not evaluated: make the tenant's filters and transforms simpler, or have fewer of them";
        ExpressionError::new(ExpressionErrorReason::CostExceeded, message)
    }
}
