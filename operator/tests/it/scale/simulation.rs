//! A pool in seconds: what arrives is delivered by whoever is ready, the rest is late.

use std::collections::VecDeque;
use std::time::Duration;

use dispatcher_core::limits::{POOL_LOOK_INTERVAL, POOL_RATES_WINDOW};
use operator::plan::scale::{Decision, Measured, ScalePolicy, Scaler};

/// Seconds from asking for a dispatcher until it delivers.
const START_SECONDS: u64 = 10;
/// Seconds of failing attempts before circuits open.
const CIRCUIT_SECONDS: u64 = 8;

/// What comes, as functions of the second.
pub(super) struct Load<'a> {
    /// Deliveries accepted.
    pub(super) arriving: &'a dyn Fn(u64) -> f64,
    /// Deliveries that one dispatcher could make.
    pub(super) rate: &'a dyn Fn(u64) -> f64,
    /// Part of what arrives whose receiver is down.
    pub(super) down: &'a dyn Fn(u64) -> f64,
}

/// One change of the number of dispatchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) second: u64,
    pub(super) from: u32,
    pub(super) to: u32,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) changes: Vec<Change>,
    /// Dispatchers asked for, each second.
    pub(super) replicas: Vec<u32>,
    /// Late deliveries without those behind a gate, each second.
    pub(super) late: Vec<f64>,
}

impl Course {
    pub(super) fn peak_late(&self) -> f64 {
        self.late.iter().copied().fold(0.0, f64::max)
    }

    pub(super) fn peak_replicas(&self) -> u32 {
        self.replicas.iter().copied().max().unwrap_or_default()
    }

    pub(super) fn last_replicas(&self) -> u32 {
        self.replicas.last().copied().unwrap_or_default()
    }

    /// How often a step in one direction followed one in the other.
    pub(super) fn turns(&self) -> usize {
        let is_turn = |pair: &&[Change]| (pair[0].to > pair[0].from) != (pair[1].to > pair[1].from);
        self.changes.windows(2).filter(is_turn).count()
    }

    /// Shortest time from a step up to one down.
    pub(super) fn soonest_taken_back_seconds(&self) -> Option<u64> {
        let is_taken_back = |pair: &&[Change]| pair[0].to > pair[0].from && pair[1].to < pair[1].from;
        self.changes.windows(2).filter(is_taken_back).map(|pair| pair[1].second - pair[0].second).min()
    }

    /// The first second from which on nothing is late.
    pub(super) fn drained_at(&self) -> Option<usize> {
        let last_late = self.late.iter().rposition(|late| *late >= 1.0);
        last_late.map_or(Some(0), |second| (second + 1 < self.late.len()).then_some(second + 1))
    }
}

/// What one second came to: accepted, attempted, delivered.
type Second = (f64, f64, f64);

/// Runs a load for some seconds, beginning with a number of dispatchers that are ready.
pub(super) fn run(policy: &ScalePolicy, load: &Load<'_>, seconds: u64, first: u32) -> Course {
    let mut scaler = Scaler::default();
    let mut ready_from: Vec<u64> = vec![0; first as usize];
    let (mut late, mut gated) = (0.0_f64, 0.0_f64);
    let mut window: VecDeque<Second> = VecDeque::new();
    let mut down_since: Option<u64> = None;
    let mut course = Course { changes: Vec::new(), replicas: Vec::new(), late: Vec::new() };
    for second in 0..seconds {
        let (arriving, down) = ((load.arriving)(second), (load.down)(second));
        down_since = if down > 0.0 { down_since.or(Some(second)) } else { None };
        let is_open_circuit = down_since.is_some_and(|since| second >= since + CIRCUIT_SECONDS);
        if is_open_circuit {
            // What failed and waits for a retry is behind the gate too.
            gated += arriving * down;
        } else if down > 0.0 {
            gated += arriving * down;
        } else {
            late += gated;
            gated = 0.0;
        }
        let ready = ready_from.iter().filter(|from| **from <= second).count();
        #[expect(clippy::cast_precision_loss, reason = "a few dispatchers")]
        let room = (load.rate)(second) * ready as f64;
        let failing = if down > 0.0 && !is_open_circuit { (arriving * down).min(room) } else { 0.0 };
        let work = late + arriving * (1.0 - down);
        let done = work.min(room - failing);
        late = work - done;
        window.push_back((arriving, done + failing, done));
        if window.len() > usize::try_from(POOL_RATES_WINDOW.as_secs()).unwrap() {
            window.pop_front();
        }
        if second % POOL_LOOK_INTERVAL.as_secs() == 0 {
            let replicas = u32::try_from(ready_from.len()).unwrap();
            let measured = measure(&window, ready, late, done);
            let now_ms = u64::try_from(Duration::from_secs(second).as_millis()).unwrap();
            let Decision { replicas: next, .. } = scaler.decide(policy, replicas, Some(&measured), now_ms);
            if next != replicas {
                course.changes.push(Change { second, from: replicas, to: next });
                ready_from.resize(next as usize, second + START_SECONDS);
            }
        }
        course.replicas.push(u32::try_from(ready_from.len()).unwrap());
        course.late.push(late);
    }
    course
}

fn measure(window: &VecDeque<Second>, ready: usize, late: f64, done: f64) -> Measured {
    #[expect(clippy::cast_precision_loss, reason = "half a minute")]
    let seconds = window.len() as f64;
    let per_second = |count: fn(&Second) -> f64| window.iter().map(count).sum::<f64>() / seconds;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and small")]
    let whole = |count: f64| count as u64;
    Measured {
        ready: u32::try_from(ready).unwrap(),
        due: whole(late),
        held: whole(done.min(100.0)),
        accepted_per_second: per_second(|second| second.0),
        attempts_per_second: per_second(|second| second.1),
        delivered_per_second: per_second(|second| second.2),
    }
}

/// Numbers between 0 and 1 that look random and are the same in every run: a linear congruence (Knuth, The Art of Computer
/// Programming 2, 3.3.4).
pub(super) fn noise(second: u64) -> f64 {
    let mut state = second.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    for _ in 0..3 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    }
    f64::from(u32::try_from(state >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}
