//! The circuit breaker of one endpoint: a state machine with time as an argument.
//!
//! ```text
//!            too many failures            pause is over
//!   Closed ───────────────────▶ Open ───────────────────▶ HalfOpen
//!     ▲                          ▲                          │  │
//!     │                          └── a probe failed ────────┘  │
//!     └───────────────── all probes succeeded ─────────────────┘
//! ```

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::limits::{BREAKER_BUCKETS, BREAKER_PROBE_WAIT};
use crate::table::BreakerPolicy;

/// Whether an attempt may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Yes. The ticket comes back with the result.
    Go(Ticket),
    /// Yes, and its result decides whether the circuit closes. The ticket comes back with the result, or to
    /// [`Breaker::abandon`].
    Probe(Ticket),
    /// No; ask again after this time.
    Wait(Duration),
}

/// Which period of the breaker an attempt was admitted in. A result counts only in its own period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// A change of state that is worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Failures opened the circuit.
    Opened {
        /// How long nothing is sent.
        pause: Duration,
    },
    /// A probe failed.
    Reopened {
        /// How long nothing is sent; twice the pause before, up to the largest.
        pause: Duration,
    },
    /// The probes succeeded.
    Closed,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Attempts go.
    Closed,
    /// No attempt goes.
    Open,
    /// Probes go.
    HalfOpen,
}

/// The circuit breaker of one endpoint. Its memory does not grow with traffic.
#[derive(Clone, Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    phase: Phase,
    /// Pause of the latest opening, in milliseconds.
    pause_ms: u64,
    /// Counts state changes; see [`Ticket`].
    period: u64,
}

#[derive(Clone, Debug)]
enum Phase {
    Closed(Counts),
    Open { until_ms: u64 },
    HalfOpen { in_flight: u32, succeeded: u32 },
}

impl Breaker {
    /// A closed circuit.
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { policy, phase: Phase::Closed(Counts::default()), pause_ms: 0, period: 0 }
    }

    /// Asks for an attempt. `now_ms` is in milliseconds of the clock that [`Breaker::record`] uses too.
    pub fn admit(&mut self, now_ms: u64) -> Admit {
        if let Phase::Open { until_ms } = self.phase {
            if now_ms < until_ms {
                return Admit::Wait(Duration::from_millis(until_ms - now_ms));
            }
            self.enter(Phase::HalfOpen { in_flight: 0, succeeded: 0 });
        }
        let ticket = Ticket(self.period);
        match &mut self.phase {
            Phase::HalfOpen { in_flight, succeeded } => {
                if in_flight.saturating_add(*succeeded) >= self.policy.probes.max(1) {
                    return Admit::Wait(BREAKER_PROBE_WAIT);
                }
                *in_flight += 1;
                Admit::Probe(ticket)
            }
            Phase::Closed(_) | Phase::Open { .. } => Admit::Go(ticket),
        }
    }

    /// Counts the result of an admitted attempt.
    ///
    /// A result from an earlier period changes nothing: what was sent before the circuit opened says nothing
    /// about the endpoint now.
    pub fn record(&mut self, ticket: Ticket, success: bool, now_ms: u64) -> Option<Transition> {
        if ticket.0 != self.period {
            return None;
        }
        match &mut self.phase {
            Phase::Closed(counts) => {
                counts.add(success, now_ms, &self.policy);
                (!success && counts.too_many_failures(&self.policy)).then(|| {
                    self.pause_ms = seconds_to_ms(self.policy.initial_pause_seconds);
                    Transition::Opened { pause: self.open(now_ms) }
                })
            }
            Phase::HalfOpen { .. } if !success => {
                self.pause_ms = self.pause_ms.saturating_mul(2);
                Some(Transition::Reopened { pause: self.open(now_ms) })
            }
            Phase::HalfOpen { in_flight, succeeded } => {
                *in_flight = in_flight.saturating_sub(1);
                *succeeded += 1;
                (*succeeded >= self.policy.probes.max(1)).then(|| {
                    self.enter(Phase::Closed(Counts::default()));
                    Transition::Closed
                })
            }
            Phase::Open { .. } => None,
        }
    }

    /// Gives back an admitted attempt that was not made, so that another may be made in its place.
    pub fn abandon(&mut self, ticket: Ticket) {
        if let Phase::HalfOpen { in_flight, .. } = &mut self.phase
            && ticket.0 == self.period
        {
            *in_flight = in_flight.saturating_sub(1);
        }
    }

    /// Where the breaker stands. An open circuit stays open until somebody asks after its pause.
    pub fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed(_) => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    fn open(&mut self, now_ms: u64) -> Duration {
        let longest_ms = seconds_to_ms(self.policy.max_pause_seconds);
        self.pause_ms = self.pause_ms.min(longest_ms);
        self.enter(Phase::Open { until_ms: now_ms.saturating_add(self.pause_ms) });
        Duration::from_millis(self.pause_ms)
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.period += 1;
    }
}

/// Results of the window, in a ring of buckets.
#[derive(Clone, Debug, Default)]
struct Counts([Bucket; BREAKER_BUCKETS]);

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Which stretch of time it counts: milliseconds divided by the length of a bucket.
    slot: u64,
    attempts: u32,
    failures: u32,
}

impl Counts {
    fn add(&mut self, success: bool, now_ms: u64, policy: &BreakerPolicy) {
        let slots = BREAKER_BUCKETS as u64;
        let bucket_ms = (seconds_to_ms(policy.window_seconds) / slots).max(1);
        let slot = now_ms / bucket_ms;
        for (index, bucket) in (0_u64..).zip(&mut self.0) {
            // Out of the window, or from before the clock jumped back.
            if bucket.slot + slots <= slot || bucket.slot > slot {
                *bucket = Bucket { slot, ..Bucket::default() };
            }
            if index == slot % slots {
                bucket.slot = slot;
                bucket.attempts = bucket.attempts.saturating_add(1);
                bucket.failures = bucket.failures.saturating_add(u32::from(!success));
            }
        }
    }

    fn too_many_failures(&self, policy: &BreakerPolicy) -> bool {
        let sum = |count: fn(&Bucket) -> u32| self.0.iter().map(|bucket| u64::from(count(bucket))).sum::<u64>();
        let (attempts, failures) = (sum(|bucket| bucket.attempts), sum(|bucket| bucket.failures));
        attempts >= policy.min_attempts.into() && failures * 100 >= attempts * u64::from(policy.failure_percent)
    }
}

fn seconds_to_ms(seconds: u32) -> u64 {
    u64::from(seconds) * 1_000
}
