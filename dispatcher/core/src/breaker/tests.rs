use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const START_MS: u64 = 1_700_000_000_000;

fn policy() -> BreakerPolicy {
    BreakerPolicy {
        failure_percent: 50,
        min_attempts: 4,
        window_seconds: 10,
        initial_pause_seconds: 10,
        max_pause_seconds: 40,
        probes: 2,
    }
}

fn attempt(breaker: &mut Breaker, success: bool, now_ms: u64) -> Option<Transition> {
    match breaker.admit(now_ms) {
        Admit::Go(ticket) | Admit::Probe(ticket) => breaker.record(ticket, success, now_ms),
        Admit::Wait(wait) => panic!("must wait {wait:?}"),
    }
}

fn probe(breaker: &mut Breaker, now_ms: u64) -> Ticket {
    match breaker.admit(now_ms) {
        Admit::Probe(ticket) => ticket,
        other => panic!("no probe but {other:?}"),
    }
}

/// A breaker that was opened at `START_MS`.
fn opened() -> Breaker {
    let mut breaker = Breaker::new(policy());
    for _ in 0..3 {
        assert_eq!(attempt(&mut breaker, false, START_MS), None);
    }
    assert_eq!(attempt(&mut breaker, false, START_MS), Some(opening(10)));
    breaker
}

fn opening(pause_seconds: u64) -> Transition {
    Transition::Opened { pause: Duration::from_secs(pause_seconds) }
}

fn reopening(pause_seconds: u64) -> Transition {
    Transition::Reopened { pause: Duration::from_secs(pause_seconds) }
}

#[test]
fn it_opens_at_the_ratio_and_not_before_enough_attempts() {
    for (results, opens) in [
        (&[false, false, false][..], false),
        (&[false, false, false, false], true),
        (&[true, true, false, false], true),
        (&[true, true, true, false, false], false),
        (&[true, true, true, false, false, false], true),
    ] {
        let mut breaker = Breaker::new(policy());
        let transitions: Vec<_> =
            results.iter().filter_map(|success| attempt(&mut breaker, *success, START_MS)).collect();
        assert_eq!(transitions, if opens { vec![opening(10)] } else { vec![] }, "{results:?}");
    }
}

#[test]
fn failures_older_than_the_window_do_not_count() {
    for (later_ms, opens) in [(8_999, true), (10_000, false), (1_000_000, false)] {
        let mut breaker = Breaker::new(policy());
        for _ in 0..3 {
            attempt(&mut breaker, false, START_MS);
        }
        assert_eq!(attempt(&mut breaker, false, START_MS + later_ms).is_some(), opens, "{later_ms}");
    }
}

#[test]
fn an_open_circuit_waits_for_its_pause_and_then_probes() {
    let mut breaker = opened();
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.admit(START_MS + 1), Admit::Wait(Duration::from_millis(9_999)));
    let first = probe(&mut breaker, START_MS + 10_000);
    let second = probe(&mut breaker, START_MS + 10_000);
    assert_eq!(breaker.admit(START_MS + 10_000), Admit::Wait(BREAKER_PROBE_WAIT));
    assert_eq!(breaker.record(first, true, START_MS + 10_001), None);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert_eq!(breaker.record(second, true, START_MS + 10_001), Some(Transition::Closed));
    assert!(matches!(breaker.admit(START_MS + 10_001), Admit::Go(_)));
}

#[test]
fn failed_probes_double_the_pause_up_to_the_largest_and_closing_resets_it() {
    let mut breaker = opened();
    let mut now_ms = START_MS + 10_000;
    for pause_seconds in [20, 40, 40] {
        assert_eq!(attempt(&mut breaker, false, now_ms), Some(reopening(pause_seconds)));
        now_ms += pause_seconds * 1_000;
    }
    assert_eq!(attempt(&mut breaker, true, now_ms), None);
    assert_eq!(attempt(&mut breaker, true, now_ms), Some(Transition::Closed));
    let transitions: Vec<_> = (0..4).filter_map(|_| attempt(&mut breaker, false, now_ms)).collect();
    assert_eq!(transitions, [opening(10)]);
}

#[test]
fn an_abandoned_probe_makes_room_for_another() {
    let mut breaker = opened();
    let now_ms = START_MS + 10_000;
    let (first, _second) = (probe(&mut breaker, now_ms), probe(&mut breaker, now_ms));
    breaker.abandon(first);
    probe(&mut breaker, now_ms);
    assert_eq!(breaker.admit(now_ms), Admit::Wait(BREAKER_PROBE_WAIT));
}

#[test]
fn a_late_result_changes_nothing_in_any_later_state() {
    let mut breaker = Breaker::new(policy());
    let Admit::Go(late) = breaker.admit(START_MS) else { panic!("a new circuit is closed") };
    for _ in 0..4 {
        attempt(&mut breaker, false, START_MS);
    }
    assert_eq!(breaker.record(late, true, START_MS), None);
    assert_eq!(breaker.state(), BreakerState::Open);
    let now_ms = START_MS + 10_000;
    let old_probe = probe(&mut breaker, now_ms);
    assert_eq!(breaker.record(late, false, now_ms), None);
    assert_eq!(breaker.record(late, true, now_ms), None);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert_eq!(attempt(&mut breaker, false, now_ms), Some(reopening(20)));
    probe(&mut breaker, now_ms + 20_000);
    breaker.abandon(old_probe);
    assert_eq!(breaker.record(old_probe, true, now_ms + 20_000), None);
    probe(&mut breaker, now_ms + 20_000);
    assert_eq!(breaker.admit(now_ms + 20_000), Admit::Wait(BREAKER_PROBE_WAIT));
}

#[derive(Clone, Debug)]
enum Step {
    Advance(u64),
    Admit,
    Finish(prop::sample::Index, bool),
    Abandon(prop::sample::Index),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u64..15_000).prop_map(Step::Advance),
        Just(Step::Admit),
        Just(Step::Admit),
        (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(index, success)| Step::Finish(index, success)),
        any::<prop::sample::Index>().prop_map(Step::Abandon),
    ]
}

proptest! {
    #[test]
    fn pauses_are_kept_and_probes_are_bounded(steps in vec(any_step(), 0..300)) {
        let mut breaker = Breaker::new(policy());
        let (mut now_ms, mut closed_until_ms) = (START_MS, 0);
        // Admitted and not yet finished; probes of the present half-open period that are out or succeeded.
        let (mut out, mut probes) = (Vec::new(), Vec::new());
        for step in steps {
            let transition = match step {
                Step::Advance(ms) => { now_ms += ms; None }
                Step::Admit => {
                    match breaker.admit(now_ms) {
                        Admit::Go(ticket) => out.push(ticket),
                        Admit::Probe(ticket) => { out.push(ticket); probes.push(ticket); }
                        Admit::Wait(_) => continue,
                    }
                    prop_assert!(now_ms >= closed_until_ms, "admitted during the pause");
                    None
                }
                Step::Finish(index, success) if !out.is_empty() => {
                    let ticket = out.swap_remove(index.index(out.len()));
                    breaker.record(ticket, success, now_ms)
                }
                Step::Abandon(index) if !out.is_empty() => {
                    let ticket = out.swap_remove(index.index(out.len()));
                    if let Some(position) = probes.iter().position(|probe| *probe == ticket) {
                        probes.swap_remove(position);
                    }
                    breaker.abandon(ticket);
                    None
                }
                Step::Finish(..) | Step::Abandon(_) => None,
            };
            match transition {
                Some(Transition::Opened { pause } | Transition::Reopened { pause }) => {
                    prop_assert!(pause >= Duration::from_secs(10) && pause <= Duration::from_secs(40));
                    closed_until_ms = now_ms + u64::try_from(pause.as_millis()).unwrap();
                    probes.clear();
                }
                Some(Transition::Closed) => probes.clear(),
                None => {}
            }
            prop_assert!(probes.len() <= 2, "more probes than allowed");
        }
    }
}
