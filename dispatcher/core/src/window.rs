//! How many exchanges may be in flight to one endpoint: additive increase, multiplicative decrease.

/// What an exchange says about the endpoint's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowResult {
    /// It coped.
    Success,
    /// It did not.
    Failure,
    /// Nothing: the exchange was not made, or failed for reasons of ours.
    Neutral,
}

/// A bound on exchanges in flight that adapts between one and a largest value.
///
/// A full window of successes widens it by one; a failure halves it. Exchanges that were in flight together fail
/// together and are one piece of news, so after halving the failures of those already in flight change nothing.
#[derive(Clone, Debug)]
pub struct Window {
    max: u32,
    limit: u32,
    in_flight: u32,
    /// Successes since the limit last changed.
    successes: u32,
    /// Exchanges still out that began before the limit was last halved.
    unsettled: u32,
}

impl Window {
    /// A window that begins at its largest value, at least one.
    pub fn new(max: u32) -> Self {
        let max = max.max(1);
        Self { max, limit: max, in_flight: 0, successes: 0, unsettled: 0 }
    }

    /// Applies an edited largest value. What is in flight stays.
    pub fn set_max(&mut self, max: u32) {
        let max = max.max(1);
        // A window that nothing had narrowed follows the wish at once; a narrowed one has to earn it.
        self.limit = if self.limit == self.max { max } else { self.limit.min(max) };
        self.max = max;
    }

    /// Counts one more exchange in flight, or returns `false` when the window is full.
    pub fn try_enter(&mut self) -> bool {
        let free = self.in_flight < self.limit;
        self.in_flight += u32::from(free);
        free
    }

    /// Counts one exchange less, and learns from its result.
    pub fn leave(&mut self, result: WindowResult) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let settled = self.unsettled == 0;
        self.unsettled = self.unsettled.saturating_sub(1);
        match result {
            WindowResult::Success => self.widen(),
            WindowResult::Failure if settled => self.narrow(self.limit / 2),
            WindowResult::Failure => self.successes = 0,
            WindowResult::Neutral => {}
        }
    }

    /// Narrows to one exchange at a time, as after the circuit was open: a recovering endpoint is not flooded.
    pub fn collapse(&mut self) {
        self.narrow(1);
    }

    /// Exchanges in flight. After narrowing it can exceed the limit until they end.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The present bound, between one and the largest value.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    fn widen(&mut self) {
        self.successes += 1;
        if self.successes >= self.limit {
            self.successes = 0;
            self.limit = (self.limit + 1).min(self.max);
        }
    }

    fn narrow(&mut self, limit: u32) {
        self.limit = limit.max(1);
        self.successes = 0;
        self.unsettled = self.in_flight;
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn fill(window: &mut Window) -> u32 {
        let before = window.in_flight();
        while window.try_enter() {}
        window.in_flight() - before
    }

    fn leave_all(window: &mut Window, result: WindowResult) {
        while window.in_flight() > 0 {
            window.leave(result);
        }
    }

    #[test]
    fn it_begins_at_its_largest_value_and_is_never_shut() {
        for (max, limit) in [(0, 1), (1, 1), (32, 32)] {
            let mut window = Window::new(max);
            assert_eq!(fill(&mut window), limit, "{max}");
            assert!(!window.try_enter());
        }
    }

    #[test]
    fn exchanges_that_fail_together_halve_it_once() {
        let mut window = Window::new(32);
        for limit in [16, 8, 4, 2, 1, 1] {
            fill(&mut window);
            leave_all(&mut window, WindowResult::Failure);
            assert_eq!(window.limit(), limit);
        }
    }

    #[test]
    fn a_full_window_of_successes_widens_it_by_one_up_to_the_largest_value() {
        let mut window = Window::new(3);
        window.collapse();
        for limit in [2, 3, 3] {
            fill(&mut window);
            leave_all(&mut window, WindowResult::Success);
            assert_eq!(window.limit(), limit);
        }
    }

    #[test]
    fn a_neutral_end_changes_nothing_but_the_count() {
        let mut window = Window::new(4);
        assert!(window.try_enter());
        window.leave(WindowResult::Neutral);
        assert_eq!((window.limit(), window.in_flight()), (4, 0));
    }

    #[test]
    fn after_a_collapse_one_at_a_time_goes() {
        let mut window = Window::new(8);
        fill(&mut window);
        window.collapse();
        assert_eq!((window.limit(), window.in_flight()), (1, 8));
        leave_all(&mut window, WindowResult::Neutral);
        assert_eq!(fill(&mut window), 1);
    }

    #[test]
    fn an_edited_largest_value_applies_at_once_unless_the_window_is_narrowed() {
        let mut window = Window::new(8);
        window.set_max(16);
        assert_eq!(window.limit(), 16);
        window.set_max(4);
        assert_eq!(window.limit(), 4);
        window.collapse();
        window.set_max(64);
        assert_eq!(window.limit(), 1);
    }

    proptest! {
        #[test]
        fn the_limit_stays_within_bounds_and_no_more_enter_than_it_says(max in 1_u32..40, steps in vec(0_u8..6, 0..400)) {
            let mut window = Window::new(max);
            for step in steps {
                let full = window.in_flight() >= window.limit();
                match step {
                    0 | 1 => prop_assert_eq!(window.try_enter(), !full),
                    2 => window.leave(WindowResult::Success),
                    3 => window.leave(WindowResult::Failure),
                    4 => window.leave(WindowResult::Neutral),
                    _ => window.collapse(),
                }
                prop_assert!((1..=max).contains(&window.limit()));
                prop_assert!(window.in_flight() <= max);
            }
        }
    }
}
