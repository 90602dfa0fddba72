//! What the filters of one event, and of all events of one request, may cost together.

use crate::limits::{EVENT_FILTERS_COST_MAX, FILTERS_INLINE_COST_MAX, REQUEST_FILTERS_COST_MAX};

/// Steps that filters may still take: those of the event at hand, and those of the whole request.
///
/// One filter is bounded by [`crate::limits::FILTER_COST_MAX`]; this bounds their number times their cost. A filter
/// that does not fit into what is left is not evaluated.
#[derive(Debug)]
pub struct FilterBudget {
    event_steps_max: u64,
    event_steps_left: u64,
    request_steps_left: u64,
    is_exceeded: bool,
}

impl FilterBudget {
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

    /// What a thread that has other requests to serve spends on one. If it does not suffice, start again elsewhere.
    pub fn inline() -> Self {
        Self::new(FILTERS_INLINE_COST_MAX, FILTERS_INLINE_COST_MAX)
    }

    /// Whether a filter was not evaluated because the others had taken its share.
    pub fn is_exceeded(&self) -> bool {
        self.is_exceeded
    }

    /// The next event has its own steps, within those of the request.
    pub(crate) fn begin_event(&mut self) {
        self.event_steps_left = self.event_steps_max;
    }

    pub(super) fn steps_left(&self) -> u64 {
        self.event_steps_left.min(self.request_steps_left)
    }

    pub(super) fn spend(&mut self, steps: u64) {
        self.event_steps_left = self.event_steps_left.saturating_sub(steps);
        self.request_steps_left = self.request_steps_left.saturating_sub(steps);
    }

    pub(super) fn exceed(&mut self) {
        self.is_exceeded = true;
    }
}
