//! When a failed delivery is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{RETRY_AGE_SECONDS_MAX, RETRY_ATTEMPTS_MAX, RETRY_DELAY_SECONDS_MAX, RETRY_SCHEDULE_ENTRIES_MAX};

/// How the delay grows from one attempt to the next. All values are seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "PascalCase", rename_all_fields = "camelCase")]
pub enum Backoff {
    /// Doubles from the initial delay up to the largest.
    Exponential {
        /// Delay after the first attempt.
        initial_delay_seconds: u32,
        /// Largest delay.
        max_delay_seconds: u32,
    },
    /// Grows by a step from the initial delay up to the largest.
    Linear {
        /// Delay after the first attempt.
        initial_delay_seconds: u32,
        /// Added after every further attempt.
        step_seconds: u32,
        /// Largest delay.
        max_delay_seconds: u32,
    },
    /// The same delay after every attempt.
    Fixed {
        /// The delay.
        delay_seconds: u32,
    },
    /// Explicit delays; when they are used up, the last one repeats for as long as attempts are left.
    Schedule {
        /// Delay after attempt 1, 2, 3, …
        schedule_seconds: Vec<u32>,
    },
}

/// A whole retry policy: the delays, their jitter, and when to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// The delays before jitter.
    pub backoff: Backoff,
    /// How far a delay may be lengthened or shortened at random, in percent of itself.
    pub jitter_percent: u8,
    /// Attempts in one run of a delivery, the first included.
    pub max_attempts: u32,
    /// Age of the run, in seconds, beyond which a failed attempt is the last.
    pub max_age_seconds: u32,
}

/// Delays of the default schedule: 1 s, 5 s, 10 s, 30 s, 1 m, 5 m, 30 m, 2 h, 5 h, 10 h, 24 h.
pub const DEFAULT_SCHEDULE_SECONDS: [u32; 11] = [1, 5, 10, 30, 60, 300, 1_800, 7_200, 18_000, 36_000, 86_400];

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            backoff: Backoff::Schedule { schedule_seconds: DEFAULT_SCHEDULE_SECONDS.to_vec() },
            jitter_percent: 10,
            max_attempts: 12,
            max_age_seconds: 3 * 24 * 60 * 60,
        }
    }
}

/// What is wrong with a retry policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetryPolicyError {
    /// A delay is zero or too long.
    #[error("{field} must be from 1 to {RETRY_DELAY_SECONDS_MAX} seconds, not {seconds}")]
    Delay {
        /// The field, as it stands in the resource.
        field: &'static str,
        /// Its value.
        seconds: u32,
    },
    /// The first delay exceeds the largest.
    #[error("initialDelaySeconds ({initial}) must not be larger than maxDelaySeconds ({max})")]
    InitialAboveMax {
        /// The first delay, in seconds.
        initial: u32,
        /// The largest delay, in seconds.
        max: u32,
    },
    /// The schedule is empty or too long.
    #[error("scheduleSeconds must have from 1 to {RETRY_SCHEDULE_ENTRIES_MAX} entries, not {0}")]
    ScheduleLength(usize),
    /// The jitter is more than the delay itself.
    #[error("jitterPercent must be from 0 to 100, not {0}")]
    Jitter(u8),
    /// No attempt at all, or too many.
    #[error("maxAttempts must be from 1 to {RETRY_ATTEMPTS_MAX}, not {0}")]
    Attempts(u32),
    /// No age at all, or too old.
    #[error("maxAgeSeconds must be from 1 to {RETRY_AGE_SECONDS_MAX}, not {0}")]
    Age(u32),
}

impl RetryPolicyError {
    /// The field at fault, as it stands in the resource.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Delay { field, .. } => field,
            Self::InitialAboveMax { .. } => "initialDelaySeconds",
            Self::ScheduleLength(_) => "scheduleSeconds",
            Self::Jitter(_) => "jitterPercent",
            Self::Attempts(_) => "maxAttempts",
            Self::Age(_) => "maxAgeSeconds",
        }
    }
}

impl RetryPolicy {
    /// Checks every bound; the first field at fault is reported.
    pub fn validate(&self) -> Result<(), RetryPolicyError> {
        self.backoff.validate()?;
        if self.jitter_percent > 100 {
            return Err(RetryPolicyError::Jitter(self.jitter_percent));
        }
        if !(1..=RETRY_ATTEMPTS_MAX).contains(&self.max_attempts) {
            return Err(RetryPolicyError::Attempts(self.max_attempts));
        }
        if !(1..=RETRY_AGE_SECONDS_MAX).contains(&self.max_age_seconds) {
            return Err(RetryPolicyError::Age(self.max_age_seconds));
        }
        Ok(())
    }

    /// The delay after attempt `attempt_number` (from 1) before jitter.
    ///
    /// At most [`RETRY_DELAY_SECONDS_MAX`], and for all but a `Schedule` that says otherwise never shorter than
    /// the one before.
    pub fn base_delay(&self, attempt_number: u32) -> Duration {
        let seconds = self.backoff.delay_seconds(attempt_number.saturating_sub(1));
        Duration::from_secs(seconds.min(RETRY_DELAY_SECONDS_MAX).into())
    }

    /// The delay after attempt `attempt_number` (from 1) with jitter.
    ///
    /// `base * (1 + jitter * (2 * random_unit - 1))` for `random_unit` in `[0, 1)`: evenly spread on both sides
    /// of the base delay, so that the mean stays what the policy says.
    pub fn delay(&self, attempt_number: u32, random_unit: f64) -> Duration {
        let jitter = f64::from(self.jitter_percent.min(100)) / 100.0;
        let factor = 1.0 + jitter * (2.0 * random_unit.clamp(0.0, 1.0) - 1.0);
        self.base_delay(attempt_number).mul_f64(factor)
    }
}

impl Backoff {
    fn validate(&self) -> Result<(), RetryPolicyError> {
        match self {
            Self::Exponential { initial_delay_seconds: initial, max_delay_seconds: max } => {
                check_growth(*initial, *max)
            }
            Self::Linear { initial_delay_seconds: initial, step_seconds: step, max_delay_seconds: max } => {
                check_delay("stepSeconds", *step)?;
                check_growth(*initial, *max)
            }
            Self::Fixed { delay_seconds } => check_delay("delaySeconds", *delay_seconds),
            Self::Schedule { schedule_seconds } => {
                if !(1..=RETRY_SCHEDULE_ENTRIES_MAX).contains(&schedule_seconds.len()) {
                    return Err(RetryPolicyError::ScheduleLength(schedule_seconds.len()));
                }
                schedule_seconds.iter().try_for_each(|seconds| check_delay("scheduleSeconds", *seconds))
            }
        }
    }

    /// The delay, in seconds, after `earlier` attempts and one more.
    fn delay_seconds(&self, earlier: u32) -> u32 {
        match self {
            Self::Exponential { initial_delay_seconds, max_delay_seconds } => {
                let factor = 1_u32.checked_shl(earlier).unwrap_or(u32::MAX);
                initial_delay_seconds.saturating_mul(factor).min(*max_delay_seconds)
            }
            Self::Linear { initial_delay_seconds, step_seconds, max_delay_seconds } => {
                initial_delay_seconds.saturating_add(step_seconds.saturating_mul(earlier)).min(*max_delay_seconds)
            }
            Self::Fixed { delay_seconds } => *delay_seconds,
            Self::Schedule { schedule_seconds } => {
                let index = usize::try_from(earlier).unwrap_or(usize::MAX);
                // An empty schedule never passes validation; the longest delay is the harmless reading of it.
                schedule_seconds.get(index).or(schedule_seconds.last()).copied().unwrap_or(RETRY_DELAY_SECONDS_MAX)
            }
        }
    }
}

fn check_growth(initial: u32, max: u32) -> Result<(), RetryPolicyError> {
    check_delay("initialDelaySeconds", initial)?;
    check_delay("maxDelaySeconds", max)?;
    if initial > max { Err(RetryPolicyError::InitialAboveMax { initial, max }) } else { Ok(()) }
}

fn check_delay(field: &'static str, seconds: u32) -> Result<(), RetryPolicyError> {
    if (1..=RETRY_DELAY_SECONDS_MAX).contains(&seconds) {
        Ok(())
    } else {
        Err(RetryPolicyError::Delay { field, seconds })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn policy(backoff: Backoff) -> RetryPolicy {
        RetryPolicy { backoff, ..RetryPolicy::default() }
    }

    fn exponential(initial_delay_seconds: u32, max_delay_seconds: u32) -> Backoff {
        Backoff::Exponential { initial_delay_seconds, max_delay_seconds }
    }

    #[test]
    fn every_type_grows_as_it_says() {
        let linear = Backoff::Linear { initial_delay_seconds: 5, step_seconds: 10, max_delay_seconds: 30 };
        for (backoff, expected) in [
            (exponential(2, 60), [2, 4, 8, 16, 32, 60, 60]),
            (linear, [5, 15, 25, 30, 30, 30, 30]),
            (Backoff::Fixed { delay_seconds: 7 }, [7; 7]),
            (Backoff::Schedule { schedule_seconds: vec![1, 5, 30] }, [1, 5, 30, 30, 30, 30, 30]),
        ] {
            let policy = policy(backoff);
            let delays = [1, 2, 3, 4, 5, 6, 7].map(|attempt_number| policy.base_delay(attempt_number).as_secs());
            assert_eq!(delays, expected, "{policy:?}");
        }
    }

    #[test]
    fn the_default_policy_is_valid_and_ends_with_a_day() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.validate(), Ok(()));
        let delays: Vec<_> = (1..=12).map(|attempt_number| policy.base_delay(attempt_number).as_secs()).collect();
        assert_eq!(delays, [1, 5, 10, 30, 60, 300, 1_800, 7_200, 18_000, 36_000, 86_400, 86_400]);
    }

    #[test]
    fn every_bound_is_checked() {
        let linear = |initial_delay_seconds, step_seconds, max_delay_seconds| {
            policy(Backoff::Linear { initial_delay_seconds, step_seconds, max_delay_seconds })
        };
        let schedule = |schedule_seconds| policy(Backoff::Schedule { schedule_seconds });
        let default = RetryPolicy::default;
        for (policy, field) in [
            (policy(exponential(0, 10)), "initialDelaySeconds"),
            (policy(exponential(11, 10)), "initialDelaySeconds"),
            (policy(exponential(1, RETRY_DELAY_SECONDS_MAX + 1)), "maxDelaySeconds"),
            (linear(1, 0, 10), "stepSeconds"),
            (linear(11, 1, 10), "initialDelaySeconds"),
            (policy(Backoff::Fixed { delay_seconds: 0 }), "delaySeconds"),
            (schedule(vec![]), "scheduleSeconds"),
            (schedule(vec![1, 0]), "scheduleSeconds"),
            (schedule(vec![1; RETRY_SCHEDULE_ENTRIES_MAX + 1]), "scheduleSeconds"),
            (RetryPolicy { jitter_percent: 101, ..default() }, "jitterPercent"),
            (RetryPolicy { max_attempts: 0, ..default() }, "maxAttempts"),
            (RetryPolicy { max_attempts: RETRY_ATTEMPTS_MAX + 1, ..default() }, "maxAttempts"),
            (RetryPolicy { max_age_seconds: 0, ..default() }, "maxAgeSeconds"),
            (RetryPolicy { max_age_seconds: RETRY_AGE_SECONDS_MAX + 1, ..default() }, "maxAgeSeconds"),
        ] {
            let error = policy.validate().unwrap_err();
            assert_eq!(error.field(), field, "{policy:?}");
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn jitter_spreads_evenly_on_both_sides() {
        let policy = RetryPolicy { jitter_percent: 20, ..policy(Backoff::Fixed { delay_seconds: 100 }) };
        for (random_unit, seconds) in [(0.0, 80), (0.25, 90), (0.5, 100), (0.75, 110), (1.0, 120)] {
            assert_eq!(policy.delay(1, random_unit), Duration::from_secs(seconds), "{random_unit}");
        }
    }

    fn any_policy() -> impl Strategy<Value = RetryPolicy> {
        let delay = || 1..=RETRY_DELAY_SECONDS_MAX;
        let sorted = |mut schedule_seconds: Vec<u32>| {
            schedule_seconds.sort_unstable();
            Backoff::Schedule { schedule_seconds }
        };
        let backoff = prop_oneof![
            (delay(), delay()).prop_map(|(a, b)| exponential(a.min(b), a.max(b))),
            (delay(), delay(), delay()).prop_map(|(a, b, step_seconds)| Backoff::Linear {
                initial_delay_seconds: a.min(b),
                step_seconds,
                max_delay_seconds: a.max(b),
            }),
            delay().prop_map(|delay_seconds| Backoff::Fixed { delay_seconds }),
            vec(delay(), 1..=RETRY_SCHEDULE_ENTRIES_MAX).prop_map(sorted),
        ];
        (backoff, 0_u8..=100).prop_map(|(backoff, jitter_percent)| RetryPolicy { jitter_percent, ..policy(backoff) })
    }

    proptest! {
        #[test]
        fn delays_are_bounded_and_never_shrink_before_jitter(policy in any_policy(), attempt_number: u32) {
            prop_assert_eq!(policy.validate(), Ok(()));
            let (delay, following) = (policy.base_delay(attempt_number), policy.base_delay(attempt_number.saturating_add(1)));
            prop_assert!(delay >= Duration::from_secs(1));
            prop_assert!(delay <= Duration::from_secs(RETRY_DELAY_SECONDS_MAX.into()));
            prop_assert!(following >= delay);
        }

        #[test]
        fn jitter_stays_within_its_percentage(policy in any_policy(), attempt_number in 1_u32..200, random_unit in 0.0..1.0) {
            let base = policy.base_delay(attempt_number).as_secs_f64();
            let delay = policy.delay(attempt_number, random_unit).as_secs_f64();
            let largest = base * f64::from(policy.jitter_percent) / 100.0;
            prop_assert!((delay - base).abs() <= largest + 1e-6, "{} of {}", delay, base);
        }

        #[test]
        fn any_policy_at_all_gives_a_bounded_delay(initial: u32, max: u32, step: u32, attempt_number: u32, random_unit: f64) {
            let linear = Backoff::Linear { initial_delay_seconds: initial, step_seconds: step, max_delay_seconds: max };
            for backoff in [exponential(initial, max), linear, Backoff::Schedule { schedule_seconds: vec![] }] {
                let policy = RetryPolicy { jitter_percent: 255, ..policy(backoff) };
                let random_unit = if random_unit.is_nan() { 0.5 } else { random_unit };
                prop_assert!(policy.delay(attempt_number, random_unit).as_secs() <= 2 * u64::from(RETRY_DELAY_SECONDS_MAX));
            }
        }
    }
}
