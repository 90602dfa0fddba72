//! When a replay does what: rate, bounds and order of its steps. Times are of any clock that does not go back.

use std::time::Duration;

use dispatcher_core::limits::{
    REPLAY_OPEN_MAX, REPLAY_SETTLE_INTERVAL, REPLAY_SETTLE_INTERVAL_MAX, REPLAY_STEP_DELIVERIES_MAX,
    REPLAY_STEP_INTERVAL,
};

/// How many deliveries may be started now: a token bucket that holds what a second brings, and is empty at first, so that
/// however often it begins anew the rate is kept.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    tokens: f64,
    filled_at: Duration,
}

impl Allowance {
    /// An empty bucket.
    pub fn new(now: Duration) -> Self {
        Self { tokens: 0.0, filled_at: now }
    }

    /// Tokens that are there.
    pub fn available(&mut self, per_second: u32, now: Duration) -> usize {
        let rate = f64::from(per_second.max(1));
        let brought = now.saturating_sub(self.filled_at).as_secs_f64() * rate;
        self.tokens = (self.tokens + brought).min(rate);
        self.filled_at = self.filled_at.max(now);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to the highest rate")]
        let whole = self.tokens as usize;
        whole
    }

    /// Takes tokens that were there.
    pub fn take(&mut self, count: usize) {
        self.tokens = (self.tokens - f64::from(u32::try_from(count).unwrap_or(u32::MAX))).max(0.0);
    }

    /// How long until so many tokens are there.
    fn wait_for(&self, count: usize, per_second: u32) -> Duration {
        let missing = f64::from(u32::try_from(count).unwrap_or(u32::MAX)) - self.tokens;
        let wait = Duration::from_secs_f64((missing / f64::from(per_second.max(1))).max(0.0));
        // What is missing may be less than a nanosecond brings; a wait of none would be asked for again and again.
        wait.max(Duration::from_nanos(1))
    }
}

/// When to look again at runs that are not over. A whole round that finds none makes the next one come later.
#[derive(Clone, Copy, Debug)]
pub struct SettleClock {
    due_at: Duration,
    pause: Duration,
    /// Whether the round has found one so far.
    has_found: bool,
}

impl SettleClock {
    /// Due after the shortest pause.
    pub fn new(now: Duration) -> Self {
        Self { due_at: now + REPLAY_SETTLE_INTERVAL, pause: REPLAY_SETTLE_INTERVAL, has_found: false }
    }

    /// After a look: how many runs were over, and whether the round is at its end.
    pub fn looked(&mut self, ended: u32, is_round_over: bool, now: Duration) {
        self.has_found |= ended > 0;
        if !is_round_over {
            self.due_at = now;
            return;
        }
        self.pause =
            if self.has_found { REPLAY_SETTLE_INTERVAL } else { (self.pause * 2).min(REPLAY_SETTLE_INTERVAL_MAX) };
        self.due_at = now + self.pause;
        self.has_found = false;
    }

    /// After something was started.
    pub fn started(&mut self, now: Duration) {
        self.pause = REPLAY_SETTLE_INTERVAL;
        self.due_at = self.due_at.min(now + self.pause);
    }
}

/// Where a replay stands.
#[expect(clippy::struct_excessive_bools, reason = "each holds or not, whatever the others do")]
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Whether its place is known.
    pub has_begun: bool,
    /// Whether it is complete.
    pub is_complete: bool,
    /// Whether it looks for deliveries.
    pub is_looking: bool,
    /// Deliveries that it started and that are not known to be finished.
    pub open: u64,
    /// What the last look found and is not decided yet; `None`: it has to look first.
    pub found: Option<usize>,
    /// Whether nothing is started.
    pub dry_run: bool,
    /// Most deliveries a second.
    pub per_second: u32,
}

/// What a replay does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Begin, or find out how far it was.
    Begin,
    /// Look for deliveries.
    Look,
    /// Decide so many of what was found, and commit.
    Commit(usize),
    /// Look whether runs are over.
    Settle,
    /// Nothing until then.
    Wait(Duration),
    /// Nothing any more.
    Nothing,
}

/// What a replay does next.
pub fn next_step(standing: &Standing, allowance: &mut Allowance, settle: &SettleClock, now: Duration) -> NextStep {
    if !standing.has_begun {
        return NextStep::Begin;
    }
    if standing.is_complete {
        return NextStep::Nothing;
    }
    let settle_in = (standing.open > 0).then(|| settle.due_at.saturating_sub(now));
    if settle_in == Some(Duration::ZERO) {
        return NextStep::Settle;
    }
    let wait = |other: Option<Duration>| {
        [settle_in, other].into_iter().flatten().min().map_or(NextStep::Nothing, NextStep::Wait)
    };
    if !standing.is_looking {
        return wait(None);
    }
    let Some(found) = standing.found else { return NextStep::Look };
    if standing.dry_run || found == 0 {
        return NextStep::Commit(found);
    }
    let room = usize::try_from(REPLAY_OPEN_MAX.saturating_sub(standing.open)).unwrap_or(usize::MAX);
    // Several at once rather than one a commit, but no more than a step starts or a second brings.
    let wanted = found.min(room).min(REPLAY_STEP_DELIVERIES_MAX).min(in_an_interval(standing.per_second));
    if wanted == 0 {
        return wait(None);
    }
    let available = allowance.available(standing.per_second, now);
    if available < wanted {
        return wait(Some(allowance.wait_for(wanted, standing.per_second)));
    }
    NextStep::Commit(available.min(found).min(room).min(REPLAY_STEP_DELIVERIES_MAX))
}

/// Deliveries that the shortest time between two steps brings, at least one.
fn in_an_interval(per_second: u32) -> usize {
    let brought = u128::from(per_second) * REPLAY_STEP_INTERVAL.as_millis() / 1000;
    usize::try_from(brought).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(100);

    fn standing() -> Standing {
        Standing {
            has_begun: true,
            is_complete: false,
            is_looking: true,
            open: 0,
            found: Some(1000),
            dry_run: false,
            per_second: 100,
        }
    }

    fn next(standing: Standing, after: Duration) -> NextStep {
        next_step(&standing, &mut Allowance::new(START), &SettleClock::new(START), START + after)
    }

    #[test]
    fn steps_follow_from_where_a_replay_stands() {
        let second = Duration::from_secs(1);
        let ms = Duration::from_millis;
        for (standing, after, expected) in [
            (Standing { has_begun: false, ..standing() }, ms(0), NextStep::Begin),
            (Standing { is_complete: true, ..standing() }, second, NextStep::Nothing),
            (Standing { found: None, ..standing() }, ms(0), NextStep::Look),
            (Standing { found: Some(0), ..standing() }, ms(0), NextStep::Commit(0)),
            (Standing { dry_run: true, ..standing() }, ms(0), NextStep::Commit(1000)),
            (standing(), ms(0), NextStep::Wait(ms(250))),
            (standing(), ms(250), NextStep::Commit(25)),
            (standing(), 60 * second, NextStep::Commit(100)),
            (Standing { found: Some(7), ..standing() }, 60 * second, NextStep::Commit(7)),
            (Standing { per_second: 10_000, ..standing() }, 60 * second, NextStep::Commit(500)),
            (Standing { per_second: 1, ..standing() }, ms(999), NextStep::Wait(ms(1))),
            (Standing { per_second: 1, ..standing() }, 60 * second, NextStep::Commit(1)),
            (Standing { is_looking: false, ..standing() }, second, NextStep::Nothing),
            (Standing { is_looking: false, open: 1, ..standing() }, ms(400), NextStep::Wait(ms(600))),
            (Standing { open: 1, ..standing() }, second, NextStep::Settle),
            (Standing { open: REPLAY_OPEN_MAX, ..standing() }, ms(999), NextStep::Wait(ms(1))),
            (Standing { open: REPLAY_OPEN_MAX - 3, ..standing() }, ms(900), NextStep::Commit(3)),
        ] {
            assert_eq!(next(standing, after), expected, "{standing:?} after {after:?}");
        }
    }

    /// Deliveries started, and the seconds that passed, when the worker starts again after each of these numbers of steps.
    fn run(steps_between_restarts: impl Iterator<Item = usize>) -> (f64, f64) {
        let (mut now, mut started) = (START, 0);
        for steps in steps_between_restarts {
            let (mut allowance, settle) = (Allowance::new(now), SettleClock::new(now));
            for _ in 0..steps {
                match next_step(&standing(), &mut allowance, &settle, now) {
                    NextStep::Commit(count) => {
                        allowance.take(count);
                        started += count;
                    }
                    NextStep::Wait(pause) => now += pause,
                    other => panic!("{other:?}"),
                }
            }
        }
        (f64::from(u32::try_from(started).unwrap()), now.saturating_sub(START).as_secs_f64())
    }

    #[test]
    fn a_wait_for_the_smallest_part_of_a_token_takes_time() {
        let mut allowance = Allowance { tokens: 7.0 - f64::EPSILON * 4.0, filled_at: START };
        let standing = Standing { per_second: 30, ..standing() };
        let mut next = |now| next_step(&standing, &mut allowance, &SettleClock::new(START), now);
        let NextStep::Wait(wait) = next(START) else { panic!("nothing to wait for") };
        assert_eq!(next(START + wait), NextStep::Commit(7));
    }

    #[test]
    fn the_rate_is_kept_over_any_time() {
        let (started, seconds) = run([16_000].into_iter());
        assert!(seconds > 60.0 && started <= 100.0 * seconds + 1.0, "{started} in {seconds} s");
        assert!(started >= 95.0 * seconds, "{started} in {seconds} s");
    }

    /// What had been saved up is forfeited by a restart.
    #[test]
    fn the_rate_is_not_exceeded_through_any_number_of_restarts() {
        let (started, seconds) = run((0..4000).map(|round| round % 9));
        assert!(seconds > 60.0 && started <= 100.0 * seconds + 1.0, "{started} in {seconds} s");
        assert!(started >= 50.0 * seconds, "{started} in {seconds} s");
    }

    #[test]
    fn a_lower_rate_counts_at_once() {
        let mut allowance = Allowance::new(START);
        assert_eq!(allowance.available(1000, START + Duration::from_mins(1)), 1000);
        assert_eq!(allowance.available(5, START + Duration::from_mins(1)), 5);
        assert_eq!(allowance.available(5, START), 5, "the clock may be read late");
    }

    #[test]
    fn rounds_that_find_nothing_come_ever_later() {
        let mut clock = SettleClock::new(START);
        let mut pauses = Vec::new();
        let mut now = START;
        for (ended, is_round_over) in [(0, true), (0, true), (0, true), (0, true), (0, false), (3, false), (0, true)] {
            clock.looked(ended, is_round_over, now);
            pauses.push(clock.due_at.saturating_sub(now).as_secs());
            now = clock.due_at;
        }
        assert_eq!(pauses, [2, 4, 8, 15, 0, 0, 1]);
        clock.looked(0, true, now);
        clock.started(now);
        assert_eq!(clock.due_at, now + REPLAY_SETTLE_INTERVAL);
    }
}
