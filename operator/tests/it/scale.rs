//! How many dispatchers a pool wants: load shapes with bounds on what they lead to, and laws.

mod simulation;

use std::time::Duration;

use operator::plan::scale::{Measured, ScalePolicy, ScaleVerdict, Scaler};
use proptest::collection::vec;
use proptest::prelude::*;

use self::simulation::{Course, Load, noise, run};

const POLICY: ScalePolicy = ScalePolicy {
    replicas_min: 1,
    replicas_max: 20,
    drain_target: Duration::from_mins(1),
    stabilization: Duration::from_mins(5),
};

/// What one dispatcher does in a second unless a test says otherwise.
const RATE: f64 = 100.0;

fn of(arriving: &dyn Fn(u64) -> f64, seconds: u64) -> Course {
    run(&POLICY, &Load { arriving, rate: &|_| RATE, down: &|_| 0.0 }, seconds, 1)
}

/// What was added stays for the stabilisation window, and directions change a few times at most.
fn assert_no_flapping(course: &Course, turns_max: usize) {
    let taken_back = course.soonest_taken_back_seconds();
    assert!(taken_back.is_none_or(|seconds| seconds >= 300), "{:?}", course.changes);
    assert!(course.turns() <= turns_max, "{} turns: {:?}", course.turns(), course.changes);
}

#[test]
fn a_step_up_is_followed_at_once_and_a_step_down_after_the_window() {
    let course = of(&|second| if (600..2400).contains(&second) { 350.0 } else { 50.0 }, 6000);
    let first = course.changes[0];
    assert!((600..640).contains(&first.second), "{:?}", course.changes);
    assert!((4..=8).contains(&course.peak_replicas()), "{:?}", course.changes);
    let first_down = course.changes.iter().find(|change| change.to < change.from).unwrap();
    assert!(first_down.second >= first.second + 300, "{:?}", course.changes);
    assert!(course.peak_late() < 20_000.0, "{}", course.peak_late());
    assert!(course.replicas[2300] >= 4 && course.last_replicas() == 1, "{:?}", course.changes);
    assert!(course.changes.len() <= 12, "{:?}", course.changes);
    assert_no_flapping(&course, 3);
}

#[test]
fn a_ramp_is_followed_with_few_steps_and_little_that_is_late() {
    #[expect(clippy::cast_precision_loss, reason = "an hour")]
    let course = of(&|second| 50.0 + 750.0 * (second.min(3600) as f64 / 3600.0), 4500);
    assert!((8..=11).contains(&course.last_replicas()), "{:?}", course.changes);
    assert!(course.peak_late() < 6_000.0, "{}", course.peak_late());
    assert!(course.changes.len() <= 16, "{:?}", course.changes);
    assert_no_flapping(&course, 3);
}

#[test]
fn a_daily_wave_goes_up_and_down_with_it() {
    #[expect(clippy::cast_precision_loss, reason = "two days")]
    let wave = |second: u64| {
        let turn = second as f64 / 86_400.0 * std::f64::consts::TAU;
        (400.0 - 350.0 * turn.cos()) * (0.9 + 0.2 * noise(second))
    };
    let course = of(&wave, 2 * 86_400);
    assert!((7..=10).contains(&course.peak_replicas()), "{:?}", course.changes);
    assert!(course.changes.len() <= 36, "{:?}", course.changes);
    assert!(course.peak_late() < 6_000.0, "{}", course.peak_late());
    assert_no_flapping(&course, 6);
}

#[test]
fn bursts_that_come_again_within_the_window_keep_their_dispatchers() {
    // Half a minute of much every four minutes, for two hours.
    let course = of(&|second| if second % 240 < 30 { 600.0 } else { 20.0 }, 7200);
    let after_first: Vec<_> = course.changes.iter().filter(|change| change.second > 900).collect();
    assert!(after_first.len() <= 4, "{:?}", course.changes);
    assert!(course.peak_replicas() <= 8, "{:?}", course.changes);
    assert!(course.peak_late() < 18_000.0, "{}", course.peak_late());
    assert_no_flapping(&course, 3);
}

#[test]
fn a_single_burst_is_drained_within_about_twice_the_target_and_paid_back() {
    let course = of(&|second| if (600..610).contains(&second) { 5_000.0 } else { 20.0 }, 3600);
    let drained = course.drained_at().unwrap();
    assert!((600..780).contains(&drained), "drained at {drained}: {:?}", course.changes);
    assert!(course.peak_replicas() <= 16 && course.last_replicas() == 1, "{:?}", course.changes);
    assert_no_flapping(&course, 3);
}

#[test]
fn a_receiver_that_is_down_adds_nobody_and_its_recovery_is_worked_off() {
    let down = |second| if (600..1800).contains(&second) { 0.8 } else { 0.0 };
    let course = run(&POLICY, &Load { arriving: &|_| 70.0, rate: &|_| RATE, down: &down }, 5400, 1);
    assert!(course.changes.iter().all(|change| change.second >= 1800), "{:?}", course.changes);
    // 56 a second for 20 minutes came late all at once.
    assert!(course.peak_late() > 60_000.0);
    assert!(course.drained_at().unwrap() < 1800 + 240, "{:?} {:?}", course.drained_at(), course.changes);
    assert!(course.last_replicas() == 1, "{:?}", course.changes);
    assert!(course.changes.len() <= 20, "{:?}", course.changes);
    assert_no_flapping(&course, 3);
}

#[test]
fn receivers_that_are_all_down_before_their_circuits_open_add_nobody() {
    let down = |second| if second >= 600 { 1.0 } else { 0.0 };
    let course = run(&POLICY, &Load { arriving: &|_| 90.0, rate: &|_| RATE, down: &down }, 3000, 1);
    assert_eq!(course.changes, [], "nothing helps");
}

#[test]
fn a_constant_load_with_noise_settles() {
    for level in [30.0, 95.0, 150.0, 195.0, 330.0] {
        let course = of(&|second| level * (0.7 + 0.6 * noise(second)), 6 * 3600);
        let late: Vec<_> = course.changes.iter().filter(|change| change.second > 1800).collect();
        assert!(late.len() <= 4, "{level}: {:?}", course.changes);
        assert!(course.peak_late() < 8_000.0, "{level}: {}", course.peak_late());
        assert!(f64::from(course.last_replicas()) * RATE >= level * 0.95, "{level}: {:?}", course.changes);
        assert!(f64::from(course.last_replicas()) * RATE <= level * 2.0 + RATE, "{level}: {:?}", course.changes);
        assert_no_flapping(&course, 3);
    }
}

#[test]
fn receivers_that_get_slow_for_a_while_do_not_end_in_a_flood_of_dispatchers() {
    let rate = |second| if (1200..1500).contains(&second) { RATE / 3.0 } else { RATE };
    let course = run(&POLICY, &Load { arriving: &|_| 150.0, rate: &rate, down: &|_| 0.0 }, 5400, 2);
    assert!(course.peak_replicas() <= 12, "{:?}", course.changes);
    // The lower rate is believed until dispatchers are busy again.
    assert!(course.last_replicas() <= 5, "{:?}", course.changes);
    assert_no_flapping(&course, 3);
}

#[test]
fn a_pool_that_may_be_empty_is_so_while_nothing_is_due_and_starts_at_once() {
    let policy = ScalePolicy { replicas_min: 0, ..POLICY };
    let arriving = |second| if (1200..1260).contains(&second) { 10.0 } else { 0.0 };
    let course = run(&policy, &Load { arriving: &arriving, rate: &|_| RATE, down: &|_| 0.0 }, 3000, 1);
    let steps: Vec<(u32, u32)> = course.changes.iter().map(|change| (change.from, change.to)).collect();
    assert_eq!(steps, [(1, 0), (0, 1), (1, 0)]);
    assert!(course.changes[1].second <= 1206, "{:?}", course.changes);
    assert!(course.changes[2].second >= 1260 + 300, "{:?}", course.changes);
}

#[test]
fn too_many_dispatchers_of_an_unknown_rate_go_one_at_a_time_until_it_is_known() {
    let course = run(&POLICY, &Load { arriving: &|_| 250.0, rate: &|_| RATE, down: &|_| 0.0 }, 4 * 3600, 8);
    assert!((3..=4).contains(&course.last_replicas()), "{:?}", course.changes);
    assert!(course.peak_late() < 6_000.0, "{}", course.peak_late());
    assert!(course.changes.len() <= 10, "{:?}", course.changes);
    assert_no_flapping(&course, 3);
}

fn busy(ready: u32) -> Measured {
    Measured {
        ready,
        due: 50_000,
        held: 500,
        accepted_per_second: 500.0,
        attempts_per_second: 100.0 * f64::from(ready),
        delivered_per_second: 100.0 * f64::from(ready),
    }
}

/// Decides every five seconds until the last of the measurements.
fn settle(scaler: &mut Scaler, replicas: u32, measured: &Measured, times: u64) -> (u32, ScaleVerdict) {
    let mut last = (replicas, ScaleVerdict::NotMeasured);
    for time in 0..times {
        let decision = scaler.decide(&POLICY, last.0, Some(measured), time * 5_000);
        last = (decision.replicas, decision.verdict);
    }
    last
}

#[test]
fn who_has_little_patience_has_it_with_each_step_down_too() {
    let policy = ScalePolicy { stabilization: Duration::from_mins(1), ..POLICY };
    let arriving = |second| if second < 600 { 750.0 } else { 0.0 };
    let course = run(&policy, &Load { arriving: &arriving, rate: &|_| RATE, down: &|_| 0.0 }, 1200, 8);
    let down: Vec<_> = course.changes.iter().filter(|change| change.second > 600).collect();
    assert!(down.len() >= 6 && course.last_replicas() == 1, "{:?}", course.changes);
    assert!(down[0].second >= 660, "{:?}", course.changes);
    for pair in down.windows(2) {
        assert!((15..=25).contains(&(pair[1].second - pair[0].second)), "{:?}", course.changes);
    }
}

#[test]
fn a_number_that_nobody_asked_for_is_given_up_at_once_if_nothing_was_ever_needed() {
    let idle = Measured { ready: 1, ..Measured::default() };
    let may_be_empty = ScalePolicy { replicas_min: 0, ..POLICY };
    for (policy, measured, expected) in [
        (may_be_empty, Some(idle), 0),
        (may_be_empty, Some(Measured { held: 1, ..idle }), 1),
        (may_be_empty, Some(Measured { accepted_per_second: 0.1, ..idle }), 1),
        (may_be_empty, None, 1),
        (POLICY, Some(idle), 1),
        (ScalePolicy { replicas_min: 3, ..POLICY }, Some(idle), 3),
    ] {
        let decision = Scaler::default().decide_at_first(&policy, 1, measured.as_ref(), 0);
        assert_eq!(decision.replicas, expected, "{policy:?} {measured:?}");
    }
    // What was needed a moment ago may be needed again.
    let mut scaler = Scaler::default();
    scaler.decide_at_first(&may_be_empty, 1, Some(&Measured { due: 1, ..idle }), 0);
    assert_eq!(scaler.decide_at_first(&may_be_empty, 1, Some(&idle), 5_000).replicas, 1);
}

#[test]
fn nothing_measured_changes_nothing_but_the_bounds_hold() {
    let mut scaler = Scaler::default();
    for (replicas, expected) in [(3, 3), (0, 1), (50, 20)] {
        let decision = scaler.decide(&POLICY, replicas, None, 0);
        assert_eq!((decision.replicas, decision.verdict), (expected, ScaleVerdict::NotMeasured));
    }
}

#[test]
fn a_load_beyond_the_upper_bound_says_so() {
    let (replicas, verdict) = settle(&mut Scaler::default(), 2, &Measured { due: 200_000, ..busy(2) }, 100);
    assert_eq!((replicas, verdict), (20, ScaleVerdict::AtMaximum));
}

#[test]
fn failing_attempts_and_dispatchers_that_never_start_add_nobody() {
    let mut scaler = Scaler::default();
    settle(&mut scaler, 20, &busy(20), 4);
    for (measured, verdict) in [
        (Measured { delivered_per_second: 10.0, ..busy(2) }, ScaleVerdict::NothingSucceeds),
        (
            Measured { ready: 0, attempts_per_second: 0.0, delivered_per_second: 0.0, ..busy(2) },
            ScaleVerdict::AsMeasured,
        ),
    ] {
        let decision = scaler.decide(&POLICY, 2, Some(&measured), 20_000);
        assert_eq!((decision.replicas, decision.verdict), (2, verdict));
    }
}

#[test]
fn rates_that_are_no_numbers_are_taken_for_nothing() {
    let odd = Measured {
        accepted_per_second: f64::NAN,
        attempts_per_second: f64::INFINITY,
        delivered_per_second: -1.0,
        ..busy(1)
    };
    let decision = Scaler::default().decide(&POLICY, 1, Some(&odd), 0);
    assert!(decision.needed.is_finite() && decision.replicas == 1, "{decision:?}");
}

fn measured() -> impl Strategy<Value = Option<Measured>> {
    let rates = (0.0..2_000.0_f64, 0.0..2_000.0_f64, 0.0..=1.0_f64);
    let counts = (prop_oneof![Just(0), 0..200_000_u64], prop_oneof![Just(0), 0..1_000_u64]);
    (0..30_u32, counts, rates, prop::bool::weighted(0.9)).prop_map(
        |(ready, (due, held), (accepted, attempts, share), is_known)| {
            is_known.then_some(Measured {
                ready,
                due,
                held,
                accepted_per_second: accepted,
                attempts_per_second: attempts,
                delivered_per_second: attempts * share,
            })
        },
    )
}

proptest! {
    #[test]
    fn whatever_is_measured_the_bounds_hold_and_no_step_is_taken_back_at_once(
        steps in vec((measured(), 1..20_u64), 1..300),
        (replicas_min, more) in (0..3_u32, 0..20_u32),
        first in 0..25_u32,
    ) {
        let policy = ScalePolicy { replicas_min, replicas_max: (replicas_min + more).max(1), ..POLICY };
        let (mut scaler, mut now_ms) = (Scaler::default(), 0);
        let mut replicas = first.clamp(policy.replicas_min, policy.replicas_max);
        let mut raised_ms = None;
        for (measured, seconds) in steps {
            now_ms += seconds * 1_000;
            let decision = scaler.decide(&policy, replicas, measured.as_ref(), now_ms);
            let next = decision.replicas;
            prop_assert!((policy.replicas_min..=policy.replicas_max).contains(&next));
            prop_assert!((policy.replicas_min..=policy.replicas_max).contains(&decision.wanted));
            prop_assert!(decision.needed.is_finite() && decision.needed >= 0.0);
            match measured {
                None => prop_assert_eq!(next, replicas),
                Some(measured) if measured.due + measured.held > 0 => prop_assert!(next >= 1),
                Some(_) => {}
            }
            if next < replicas {
                prop_assert!(raised_ms.is_none_or(|raised| now_ms - raised >= 300_000), "taken back");
                prop_assert!(replicas - next <= (replicas / 4).max(1), "too many at once");
            }
            if next > replicas {
                raised_ms = Some(now_ms);
            }
            replicas = next;
        }
    }

    #[test]
    fn more_that_is_late_never_wants_fewer(less in 0..100_000_u64, more in 0..100_000_u64, accepted in 0.0..500.0_f64) {
        let mut scaler = Scaler::default();
        settle(&mut scaler, 2, &busy(2), 4);
        let wanted = |due| {
            let measured = Measured { due, accepted_per_second: accepted, ..busy(2) };
            scaler.clone().decide(&POLICY, 2, Some(&measured), 20_000).wanted
        };
        prop_assert!(wanted(less) <= wanted(less + more));
    }

    #[test]
    fn what_waits_behind_gates_alone_never_adds_anybody(ready in 1..10_u32, times in 1..200_u64) {
        let gated = Measured { ready, ..Measured::default() };
        let (replicas, _) = settle(&mut Scaler::default(), ready, &gated, times);
        prop_assert!(replicas <= ready);
    }
}
