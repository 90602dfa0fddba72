//! How many dispatchers a pool wants, from what is late, what arrives and what a busy dispatcher gets done. Pure: the
//! time is an argument, and what must be remembered stands in [`Scaler`].
//!
//! Needed are `(accepted + late / drain target) / rate`, where `rate` is what one busy dispatcher gets done. More of them
//! are added at once, with a tolerance; they are taken away slowly, and only when fewer would have been enough all through
//! the stabilisation window, with room to spare: between the two there is a gap that noise does not cross. Late is what
//! waits behind no gate: a receiver that is down closes its gate and so calls for nobody.

use std::collections::VecDeque;
use std::time::Duration;

use dispatcher_core::limits::{
    POOL_RATE_LIFETIME, POOL_RATE_LIFETIME_MAX, POOL_RATES_WINDOW, SCALE_DOWN_PAUSE, SCALE_SAMPLES_MAX, SCALE_UP_PAUSE,
    SCALE_UP_STEP_MIN,
};

/// Above this part of what is there, more are added.
const UP_TOLERANCE: f64 = 1.1;
/// Fewer must be enough when each of them is busy for at most this part of its time.
const DOWN_FILL: f64 = 0.8;
/// Taken away at once: this part of what is there, at least one.
const DOWN_STEP_PARTS: u32 = 4;
/// As many steps down fit into the stabilisation window at least: who has little patience has it with each step.
const DOWN_STEPS: u32 = 4;
/// Late deliveries from which on dispatchers can be busy all the time.
const BUSY_DELIVERIES_MIN: f64 = 20.0;
/// Seconds of work that are late when dispatchers are busy all the time.
const BUSY_SECONDS: f64 = 1.0;
/// For how long dispatchers must have been busy before their rate is believed.
const BUSY_SETTLED: Duration = Duration::from_secs(10);
/// How fast the known rate follows a higher one, and a lower one: a slow receiver may be slow for a moment only.
const RATE_RISES_WITHIN: Duration = Duration::from_secs(20);
/// See [`RATE_RISES_WITHIN`].
const RATE_FALLS_WITHIN: Duration = Duration::from_secs(90);
/// Rates that differ by less than this factor are the same.
const SAME_RATE_FACTOR: f64 = 1.5;
/// Attempts a second below which their results say nothing.
const ATTEMPTS_TELLING: f64 = 1.0;
/// What is needed for anything at all: more than nobody.
const SOMEBODY: f64 = 0.01;

/// Bounds of a pool, and how fast it follows the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalePolicy {
    /// Fewest dispatchers.
    pub replicas_min: u32,
    /// Most dispatchers; not smaller than the fewest.
    pub replicas_max: u32,
    /// Within which a backlog is to be worked off.
    pub drain_target: Duration,
    /// For which fewer must have been enough before some are taken away.
    pub stabilization: Duration,
}

/// What was measured of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Dispatchers that deliver.
    pub ready: u32,
    /// Deliveries that are late and wait behind no gate.
    pub due: u64,
    /// Deliveries that a dispatcher or the queue holds.
    pub held: u64,
    /// Deliveries accepted a second, over [`POOL_RATES_WINDOW`].
    pub accepted_per_second: f64,
    /// Attempts a second, over the same time.
    pub attempts_per_second: f64,
    /// Of these, the ones that succeeded.
    pub delivered_per_second: f64,
}

/// What a decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleVerdict {
    /// It follows the load.
    AsMeasured,
    /// The load asks for more than the upper bound.
    AtMaximum,
    /// More would be needed if attempts succeeded; most fail, and more dispatchers do not change that.
    NothingSucceeds,
    /// Nothing is known, so nothing changes.
    NotMeasured,
}

/// How many dispatchers there should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// As many as there should be now, step by step.
    pub replicas: u32,
    /// As many as the load asks for at this moment, within the bounds, without patience: for whoever has patience of
    /// their own.
    pub wanted: u32,
    /// As many as the load would ask for without bounds, with their fraction.
    pub needed: f64,
    /// Why.
    pub verdict: ScaleVerdict,
}

/// What is remembered of one pool between decisions.
#[derive(Clone, Debug, Default)]
pub struct Scaler {
    rate: Option<Rate>,
    /// The rate that was forgotten last, until another one is known.
    forgotten: Option<Rate>,
    busy_since_ms: Option<u64>,
    /// Dispatchers that delivered, when it was looked.
    ready: VecDeque<(u64, u32)>,
    /// What was needed, when it was looked: since the last change of the number, or for the stabilisation window.
    needs: VecDeque<(u64, f64)>,
    raised_ms: Option<u64>,
    changed_ms: Option<u64>,
}

/// What one busy dispatcher gets done.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: f64,
    measured_ms: u64,
    /// How long it is believed after the last measurement. Finding out costs a moment with too few dispatchers, so a rate
    /// that was found again as it had been is believed longer.
    lifetime: Duration,
}

impl Rate {
    fn found(per_second: f64, now_ms: u64, forgotten: Option<Self>) -> Self {
        let is_as_before = |rate: &Self| {
            (rate.per_second / SAME_RATE_FACTOR..=rate.per_second * SAME_RATE_FACTOR).contains(&per_second)
        };
        let lifetime = forgotten.filter(is_as_before).map_or(POOL_RATE_LIFETIME, |rate| rate.lifetime * 2);
        Self { per_second, measured_ms: now_ms, lifetime: lifetime.min(POOL_RATE_LIFETIME_MAX) }
    }

    fn is_over(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.measured_ms) > milliseconds(self.lifetime)
    }

    /// Follows a measurement.
    fn follow(&mut self, observed: f64, now_ms: u64) {
        let within = if observed > self.per_second { RATE_RISES_WITHIN } else { RATE_FALLS_WITHIN };
        let elapsed = Duration::from_millis(now_ms.saturating_sub(self.measured_ms)).min(BUSY_SETTLED);
        let share = 1.0 - (-elapsed.as_secs_f64() / within.as_secs_f64()).exp();
        self.per_second += (observed - self.per_second) * share;
        self.measured_ms = now_ms;
    }
}

impl Scaler {
    /// Decides. `replicas` is the number that is asked for at present, `now_ms` a time that never runs backwards.
    /// Call it every few seconds.
    pub fn decide(
        &mut self,
        policy: &ScalePolicy,
        replicas: u32,
        measured: Option<&Measured>,
        now_ms: u64,
    ) -> Decision {
        let bounded = |count: u32| count.clamp(policy.replicas_min, policy.replicas_max.max(policy.replicas_min));
        let Some(measured) = measured else {
            let replicas = bounded(replicas);
            let verdict = ScaleVerdict::NotMeasured;
            return Decision { replicas, wanted: replicas, needed: f64::from(replicas), verdict };
        };
        self.learn_rate(measured, now_ms);
        let needed = self.needed(policy, replicas, measured, now_ms);
        self.remember_need(needed, policy.stabilization, now_ms);

        let asks_for_more = needed > f64::from(replicas) * UP_TOLERANCE;
        let nothing_succeeds = is_failing(measured) || (measured.ready == 0 && replicas > 0);
        let next = if replicas == 0 {
            if measured.due + measured.held > 0 { whole(needed).max(1) } else { 0 }
        } else if asks_for_more && !nothing_succeeds {
            self.raised(replicas, whole(needed), now_ms)
        } else {
            self.lowered(policy, replicas, now_ms)
        };
        let next = bounded(next);
        self.remember_change(replicas, next, now_ms);
        let verdict = if is_failing(measured) && asks_for_more {
            ScaleVerdict::NothingSucceeds
        } else if needed > f64::from(policy.replicas_max) * UP_TOLERANCE {
            ScaleVerdict::AtMaximum
        } else {
            ScaleVerdict::AsMeasured
        };
        let wanted = if nothing_succeeds { whole(needed).min(replicas.max(1)) } else { whole(needed) };
        Decision { replicas: next, wanted: bounded(wanted), needed, verdict }
    }

    /// The same where nobody has asked for the present number, which an API server gives to what asks for none. Nothing has
    /// to be waited for before it is given up, as long as nothing was ever needed.
    pub fn decide_at_first(
        &mut self,
        policy: &ScalePolicy,
        replicas: u32,
        measured: Option<&Measured>,
        now_ms: u64,
    ) -> Decision {
        let decision = self.decide(policy, replicas, measured, now_ms);
        let is_idle = !self.needs.is_empty() && self.needs.iter().all(|(_, needed)| *needed <= 0.0);
        if measured.is_none() || !is_idle || decision.replicas <= policy.replicas_min {
            return decision;
        }
        self.remember_change(replicas, policy.replicas_min, now_ms);
        Decision { replicas: policy.replicas_min, ..decision }
    }

    /// What one busy dispatcher gets done in a second, if that is known.
    pub fn rate_per_second(&self) -> Option<f64> {
        self.rate.map(|rate| rate.per_second)
    }

    /// Follows what dispatchers get done while they have more than enough to do. What idle ones get done says what
    /// arrives, not what they could do; what fails says what receivers can do.
    fn learn_rate(&mut self, measured: &Measured, now_ms: u64) {
        self.ready.push_back((now_ms, measured.ready));
        let window_ms = milliseconds(POOL_RATES_WINDOW);
        while self.ready.len() > SCALE_SAMPLES_MAX
            || self.ready.get(1).is_some_and(|(at_ms, _)| at_ms + window_ms <= now_ms)
        {
            self.ready.pop_front();
        }
        let attempts = finite(measured.attempts_per_second);
        #[expect(clippy::cast_precision_loss, reason = "a rough measure")]
        let is_busy = measured.due as f64 >= (attempts * BUSY_SECONDS).max(BUSY_DELIVERIES_MIN);
        if !is_busy || is_failing(measured) || attempts < ATTEMPTS_TELLING {
            self.busy_since_ms = None;
            if let Some(rate) = self.rate.take_if(|rate| rate.is_over(now_ms)) {
                self.forgotten = Some(rate);
            }
            return;
        }
        let busy_since_ms = *self.busy_since_ms.get_or_insert(now_ms);
        let ready = self.ready_on_average(now_ms, window_ms);
        if now_ms - busy_since_ms < milliseconds(BUSY_SETTLED) || ready < 0.5 {
            return;
        }
        let observed = attempts / ready;
        match &mut self.rate {
            Some(rate) => rate.follow(observed, now_ms),
            None => self.rate = Some(Rate::found(observed, now_ms, self.forgotten.take())),
        }
    }

    /// Dispatchers that delivered, on average over the window that attempts are counted over: one that has just started
    /// has not had the time to do its part.
    fn ready_on_average(&self, now_ms: u64, window_ms: u64) -> f64 {
        let from_ms = now_ms.saturating_sub(window_ms);
        let ends = self.ready.iter().skip(1).map(|(at_ms, _)| *at_ms).chain([now_ms]);
        let (mut time, mut sum) = (0.0, 0.0);
        for ((at_ms, ready), end_ms) in self.ready.iter().zip(ends) {
            let seconds = Duration::from_millis(end_ms.saturating_sub((*at_ms).max(from_ms))).as_secs_f64();
            time += seconds;
            sum += seconds * f64::from(*ready);
        }
        if time > 0.0 { sum / time } else { self.ready.back().map_or(0.0, |(_, ready)| f64::from(*ready)) }
    }

    /// Dispatchers that the load asks for. While their rate is unknown: as many as there are if they are busy, one fewer
    /// if they are not, which in the end makes them busy.
    fn needed(&self, policy: &ScalePolicy, replicas: u32, measured: &Measured, now_ms: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rough measure")]
        let late = measured.due as f64;
        let arriving = finite(measured.accepted_per_second);
        let drain_seconds = policy.drain_target.as_secs_f64().max(1.0);
        let is_anything_there = measured.due + measured.held > 0 || arriving > 0.0;
        let needed = match self.rate {
            Some(rate) if rate.per_second > 0.0 => (arriving + late / drain_seconds) / rate.per_second,
            _ if !is_anything_there => 0.0,
            _ if self.busy_since_ms.is_some() || late >= BUSY_DELIVERIES_MIN => f64::from(replicas.max(1)),
            _ if self.changed_ms.is_some_and(|changed| now_ms.saturating_sub(changed) < SETTLING_MS) => {
                f64::from(replicas)
            }
            _ => f64::from(replicas.saturating_sub(1)) * DOWN_FILL,
        };
        if is_anything_there { needed.max(SOMEBODY) } else { needed }
    }

    fn remember_need(&mut self, needed: f64, stabilization: Duration, now_ms: u64) {
        self.needs.push_back((now_ms, needed));
        let window_ms = milliseconds(stabilization);
        // One from before the window stays: it tells that the window is known from its beginning.
        while self.needs.get(1).is_some_and(|(at_ms, _)| at_ms + window_ms <= now_ms) {
            self.needs.pop_front();
        }
        if self.needs.len() > SCALE_SAMPLES_MAX {
            self.thin_needs();
        }
    }

    /// Halves the samples and keeps the larger of each two: the peak stays.
    fn thin_needs(&mut self) {
        let (last, older) = (self.needs.pop_back(), std::mem::take(&mut self.needs));
        let older: Vec<(u64, f64)> = older.into_iter().collect();
        self.needs.extend(older.chunks(2).map(|pair| {
            let peak = pair.iter().map(|(_, needed)| *needed).fold(0.0, f64::max);
            (pair[0].0, peak)
        }));
        self.needs.extend(last);
    }

    fn raised(&self, replicas: u32, needed: u32, now_ms: u64) -> u32 {
        if self.raised_ms.is_some_and(|raised| now_ms.saturating_sub(raised) < milliseconds(SCALE_UP_PAUSE)) {
            return replicas;
        }
        needed.min(replicas.saturating_add(replicas.max(SCALE_UP_STEP_MIN)))
    }

    fn lowered(&self, policy: &ScalePolicy, replicas: u32, now_ms: u64) -> u32 {
        let stabilization_ms = milliseconds(policy.stabilization);
        let is_known = self.needs.front().is_some_and(|(at_ms, _)| at_ms + stabilization_ms <= now_ms);
        let is_long_since = |at_ms: Option<u64>, pause_ms| at_ms.is_none_or(|at_ms| now_ms >= at_ms + pause_ms);
        if !is_known
            || !is_long_since(self.raised_ms, stabilization_ms)
            || !is_long_since(self.changed_ms, milliseconds(SCALE_DOWN_PAUSE.min(policy.stabilization / DOWN_STEPS)))
        {
            return replicas;
        }
        let peak = self.needs.iter().map(|(_, needed)| *needed).fold(0.0, f64::max);
        let enough = whole(peak / DOWN_FILL);
        let step = (replicas / DOWN_STEP_PARTS).max(1);
        if enough < replicas { enough.max(replicas - step) } else { replicas }
    }

    fn remember_change(&mut self, replicas: u32, next: u32, now_ms: u64) {
        if next == replicas {
            return;
        }
        self.changed_ms = Some(now_ms);
        if next > replicas {
            self.raised_ms = Some(now_ms);
        }
        if self.rate.is_none() {
            // What was needed was guessed from the number that is no longer.
            self.needs.clear();
        }
    }
}

/// After a change with an unknown rate, how long nothing is guessed from the new number.
const SETTLING_MS: u64 = 30_000;

/// Whether most attempts fail.
fn is_failing(measured: &Measured) -> bool {
    let attempts = finite(measured.attempts_per_second);
    attempts >= ATTEMPTS_TELLING && finite(measured.delivered_per_second) * 2.0 < attempts
}

/// The next whole number, of anything that is not negative.
fn whole(needed: f64) -> u32 {
    // A hair above a whole number is rounding.
    let ceiling = (needed - 1e-6).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range")]
    let whole = ceiling.clamp(0.0, f64::from(u32::MAX)) as u32;
    whole
}

fn finite(rate: f64) -> f64 {
    if rate.is_finite() { rate.max(0.0) } else { 0.0 }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
