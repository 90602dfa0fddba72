//! What the protocol promises, step by step and in a simulation.

mod simulation;

use super::*;

const TIMING: Timing = Timing {
    duration: Duration::from_secs(15),
    renew_every: Duration::from_secs(3),
    poll_every: Duration::from_millis(750),
};

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn holder(name: &str) -> Holder {
    Holder { identity: name.into(), instance: format!("{name}-run") }
}

fn record(holder_name: Option<&str>, transitions: u64) -> Record {
    Record { holder: holder_name.map(holder), duration: TIMING.duration, transitions }
}

fn present(version: &str, record: Record) -> Observed {
    Observed::Present { version: version.into(), record }
}

fn elector(name: &str) -> State {
    State::new(holder(name), TIMING)
}

fn write_of(step: Step) -> Write {
    let Step::Write(write) = step else { panic!("a write and not {step:?}") };
    write
}

fn done(version: &str) -> WriteEnd {
    WriteEnd::Done { version: version.into() }
}

/// An elector that found no Lease and made it at 0 s.
fn leader() -> State {
    let mut state = elector("a");
    state.looked(at(0), Observed::Absent, 0.0);
    let write = write_of(state.next(at(0)));
    assert_eq!(write, Write { expected: None, record: record(Some("a"), 1) });
    state.written((at(0), at(10)), write.record, done("1"), 0.0);
    state
}

#[test]
fn the_first_one_creates_the_lease_and_leads_until_two_thirds_of_it_are_over() {
    let state = leader();
    assert_eq!(state.leadership(at(9_999)), Leadership::Leader { epoch: 1 });
    assert_eq!(state.leadership(at(10_000)), Leadership::Follower);
    // It renews in time, with the version that it wrote and the same epoch.
    let Step::Wait(until) = state.next(at(10)) else { panic!("it waits") };
    assert!(until <= at(3_000), "{until:?}");
    let renewal = write_of(state.next(until));
    assert_eq!(renewal, Write { expected: Some("1".into()), record: record(Some("a"), 1) });
}

#[test]
fn another_waits_for_the_whole_duration_after_it_saw_the_last_renewal() {
    let mut state = elector("b");
    assert_eq!(state.next(at(0)), Step::Look);
    state.looked(at(100), present("7", record(Some("a"), 4)), 0.0);
    assert!(matches!(state.next(at(100)), Step::Wait(_)));
    // A renewal counts from when it is seen.
    state.looked(at(5_000), present("8", record(Some("a"), 4)), 0.0);
    state.looked(at(19_999), present("8", record(Some("a"), 4)), 0.0);
    assert_eq!(state.next(at(19_999)), Step::Wait(at(20_000)));
    state.looked(at(20_000), present("8", record(Some("a"), 4)), 0.0);
    let write = write_of(state.next(at(20_000)));
    assert_eq!(write, Write { expected: Some("8".into()), record: record(Some("b"), 5) });
    assert_eq!(state.leadership(at(20_000)), Leadership::Follower);
    state.written((at(20_000), at(20_010)), write.record, done("9"), 0.0);
    assert_eq!(state.leadership(at(20_010)), Leadership::Leader { epoch: 5 });
}

#[test]
fn a_holder_that_asks_for_longer_is_waited_for_within_reason() {
    for (asked_seconds, waited_seconds) in [(1, 15), (60, 60), (100_000, 120)] {
        let mut state = elector("b");
        let asked = Record { duration: Duration::from_secs(asked_seconds), ..record(Some("a"), 1) };
        state.looked(at(0), present("1", asked.clone()), 0.0);
        let last_moment = Duration::from_secs(waited_seconds);
        state.looked(last_moment.saturating_sub(at(1)), present("1", asked.clone()), 0.0);
        assert_eq!(state.next(last_moment.saturating_sub(at(1))), Step::Wait(last_moment));
        state.looked(last_moment, present("1", asked), 0.0);
        assert!(matches!(state.next(last_moment), Step::Write(_)), "{asked_seconds}");
    }
}

#[test]
fn a_lease_that_was_given_up_is_taken_at_once_with_another_epoch() {
    let mut state = leader();
    let given_up = state.give_up().unwrap();
    assert_eq!(given_up, Write { expected: Some("1".into()), record: record(None, 1) });
    assert_eq!(state.leadership(at(20)), Leadership::Follower);
    let mut other = elector("b");
    other.looked(at(30), present("2", given_up.record), 0.0);
    assert_eq!(write_of(other.next(at(30))).record, record(Some("b"), 2));
    // Who does not hold it has nothing to give up.
    assert_eq!(other.give_up(), None);
}

#[test]
fn the_same_name_after_a_restart_is_somebody_else() {
    let mut state = State::new(Holder { identity: "a".into(), instance: "second-run".into() }, TIMING);
    state.looked(at(0), present("7", record(Some("a"), 4)), 0.0);
    assert!(matches!(state.next(at(0)), Step::Wait(_)));
    state.looked(at(15_000), present("7", record(Some("a"), 4)), 0.0);
    assert_eq!(write_of(state.next(at(15_000))).record.transitions, 5);
}

#[test]
fn a_leader_that_finds_another_in_the_lease_stops_at_once() {
    let mut state = leader();
    state.written((at(3_000), at(3_010)), record(Some("a"), 1), WriteEnd::Refused, 0.0);
    assert_eq!(state.next(at(3_010)), Step::Look);
    assert_eq!(state.leadership(at(3_010)), Leadership::Leader { epoch: 1 });
    state.looked(at(3_020), present("2", record(Some("b"), 2)), 0.0);
    assert_eq!(state.leadership(at(3_020)), Leadership::Follower);
}

#[test]
fn a_leader_goes_on_when_somebody_only_touched_the_lease_or_an_answer_was_lost() {
    let mut state = leader();
    state.written((at(3_000), at(6_000)), record(Some("a"), 1), WriteEnd::Unknown, 0.0);
    assert_eq!(state.leadership(at(6_000)), Leadership::Leader { epoch: 1 });
    state.written((at(6_500), at(6_510)), record(Some("a"), 1), WriteEnd::Refused, 0.0);
    state.looked(at(6_520), present("5", record(Some("a"), 1)), 0.0);
    let write = write_of(state.next(at(6_520)));
    assert_eq!(write, Write { expected: Some("5".into()), record: record(Some("a"), 1) });
    state.written((at(6_520), at(6_530)), write.record, done("6"), 0.0);
    assert_eq!(state.leadership(at(16_519)), Leadership::Leader { epoch: 1 });
}

#[test]
fn a_leader_whose_lease_was_deleted_stops_and_another_waits_as_before() {
    let mut state = leader();
    state.looked(at(3_000), Observed::Absent, 0.0);
    assert_eq!(state.leadership(at(3_000)), Leadership::Follower);
    assert_eq!(write_of(state.next(at(3_000))), Write { expected: None, record: record(Some("a"), 2) });
    let mut other = elector("b");
    other.looked(at(0), present("1", record(Some("a"), 1)), 0.0);
    other.looked(at(3_000), Observed::Absent, 0.0);
    assert!(matches!(other.next(at(3_000)), Step::Wait(_)));
    other.looked(at(15_000), Observed::Absent, 0.0);
    assert_eq!(write_of(other.next(at(15_000))), Write { expected: None, record: record(Some("b"), 2) });
}

#[test]
fn an_epoch_that_others_used_is_left_behind_once_the_lease_is_confirmed() {
    let mut state = leader();
    state.raise_floor(40, at(100));
    assert_eq!(state.leadership(at(100)), Leadership::Leader { epoch: 1 });
    let write = write_of(state.next(at(100)));
    assert_eq!(write, Write { expected: Some("1".into()), record: record(Some("a"), 41) });
    state.written((at(100), at(110)), write.record, done("2"), 0.0);
    assert_eq!(state.leadership(at(110)), Leadership::Leader { epoch: 41 });
    // A smaller one changes nothing.
    state.raise_floor(3, at(120));
    assert!(matches!(state.next(at(120)), Step::Wait(_)));
    // One that takes over goes beyond it too.
    let mut other = elector("b");
    other.raise_floor(40, at(0));
    other.looked(at(0), present("2", record(None, 1)), 0.0);
    assert_eq!(write_of(other.next(at(0))).record.transitions, 41);
}

#[test]
fn electors_that_begin_together_do_not_look_together() {
    let looks_at = |random_unit| {
        let mut state = elector("b");
        state.looked(at(0), present("7", record(Some("a"), 4)), random_unit);
        state.next(at(0))
    };
    assert_eq!(looks_at(0.0), Step::Wait(at(450)));
    assert_eq!(looks_at(0.5), Step::Wait(at(600)));
}
