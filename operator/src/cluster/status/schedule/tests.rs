//! What the budget promises.

use crds::endpoint::{DeliveryStatus, EndpointStatus};

use super::*;
use crate::plan::StatusBody;

const CONDITIONS: StatusChange = StatusChange::Conditions;

fn facts(steps: u16) -> StatusChange {
    StatusChange::Facts { steps }
}

/// A status of the endpoint of this name whose content is told apart by `text`.
fn status(name: &str, text: &str, change: StatusChange) -> ObjectStatus {
    let delivery = DeliveryStatus { success: Some(text.to_owned()), ..DeliveryStatus::default() };
    let body = StatusBody::Endpoint(EndpointStatus { delivery: Some(delivery), ..EndpointStatus::default() });
    ObjectStatus { namespace: "shop".into(), name: name.to_owned(), body, change, events: Vec::new() }
}

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What is to be written now, which must be something.
fn take(schedule: &mut Schedule, now: Duration) -> ObjectStatus {
    match schedule.next(now) {
        Next::Write(status) => *status,
        other => panic!("a write and not {other:?}"),
    }
}

fn end(schedule: &mut Schedule, status: &ObjectStatus, now: Duration, end: Result<(), FailureClass>) {
    schedule.ended(&Key::of(status), now, end);
}

/// Writes all that may be written now; answers the names.
fn drain(schedule: &mut Schedule, now: Duration) -> Vec<String> {
    let mut names = Vec::new();
    while let Next::Write(status) = schedule.next(now) {
        end(schedule, &status, now, Ok(()));
        names.push(status.name);
    }
    names
}

#[test]
fn a_storm_of_facts_keeps_to_its_rate_and_conditions_overtake_it() {
    let mut schedule = Schedule::new();
    for number in 0..10_000 {
        schedule.want(status(&format!("e{number}"), "99%", facts(1)), at(0));
    }
    assert_eq!(schedule.counts(), (0, 10_000));
    let (mut now, mut written) = (at(0), 0);
    while schedule.counts() != (0, 0) {
        match schedule.next(now) {
            Next::Write(facts) => {
                end(&mut schedule, &facts, now, Ok(()));
                written += 1;
                let urgent = status(&format!("urgent{written}"), "0%", CONDITIONS);
                schedule.want(urgent.clone(), now);
                assert_eq!(take(&mut schedule, now), urgent);
                end(&mut schedule, &urgent, now, Ok(()));
            }
            Next::Wait(until) => now = until,
            Next::Idle => panic!("facts wait"),
        }
    }
    assert_eq!(written, 10_000);
    assert!((499..=500).contains(&now.as_secs()), "{now:?}");
}

#[test]
fn conditions_go_at_once_in_the_order_in_which_they_came() {
    let mut schedule = Schedule::new();
    for number in 0..1_000 {
        schedule.want(status(&format!("e{number:03}"), "", CONDITIONS), at(number));
    }
    let names = drain(&mut schedule, at(1_000));
    assert_eq!(names.len(), 1_000);
    assert!(names.is_sorted());
}

#[test]
fn the_first_status_of_an_object_waits_for_the_next_one_but_not_long() {
    let mut schedule = Schedule::new();
    for name in ["fast", "slow"] {
        schedule.want(status(name, "0/3", StatusChange::Beginning), at(0));
    }
    assert_eq!(schedule.counts(), (2, 0));
    assert_eq!(schedule.next(at(0)), Next::Wait(STATUS_BEGINNING_PAUSE));
    schedule.want(status("fast", "3/3", CONDITIONS), at(1_000));
    schedule.want(status("slow", "1/3", StatusChange::Beginning), at(1_000));
    assert_eq!(take(&mut schedule, at(1_000)), status("fast", "3/3", CONDITIONS));
    assert_eq!(schedule.next(at(1_000)), Next::Wait(STATUS_BEGINNING_PAUSE));
    assert_eq!(take(&mut schedule, STATUS_BEGINNING_PAUSE), status("slow", "1/3", StatusChange::Beginning));
}

#[test]
fn the_largest_change_goes_first_and_a_small_one_does_not_wait_for_ever() {
    let mut schedule = Schedule::new();
    schedule.want(status("small", "99.9%", facts(1)), at(0));
    for number in 0..5 {
        schedule.want(status(&format!("large{number}"), "0%", facts(24)), at(0));
    }
    let first = drain(&mut schedule, at(0));
    assert_eq!(first.len(), STATUS_FACTS_BURST as usize);
    assert!(first.iter().all(|name| name.starts_with("large")), "{first:?}");
    // Large changes of other objects go on coming, twice as many as there is room for.
    let mut now = at(0);
    for number in 5.. {
        schedule.want(status(&format!("large{number}"), "0%", facts(24)), now);
        schedule.want(status(&format!("other{number}"), "0%", facts(24)), now);
        now += at(50);
        if drain(&mut schedule, now).contains(&"small".to_owned()) {
            break;
        }
        assert!(now < Duration::from_secs(500), "the small one starves");
    }
    assert!(now > Duration::from_secs(100), "{now:?}");
}

#[test]
fn of_an_object_the_newest_waits_in_the_place_of_the_oldest() {
    let mut schedule = Schedule::new();
    schedule.want(status("a", "1", CONDITIONS), at(0));
    schedule.want(status("b", "1", CONDITIONS), at(1));
    schedule.want(status("a", "2", CONDITIONS), at(2));
    assert_eq!(schedule.counts(), (2, 0));
    assert_eq!(take(&mut schedule, at(3)), status("a", "2", CONDITIONS));
    assert_eq!(take(&mut schedule, at(3)).name, "b");
}

#[test]
fn facts_of_one_object_keep_their_interval_and_conditions_do_not_wait_for_it() {
    let mut schedule = Schedule::new();
    schedule.want(status("a", "1", facts(1)), at(0));
    assert_eq!(drain(&mut schedule, at(0)), ["a"]);
    schedule.want(status("a", "2", facts(1)), at(1_000));
    assert_eq!(schedule.next(at(1_000)), Next::Wait(FACTS_INTERVAL));
    schedule.want(status("a", "3", CONDITIONS), at(2_000));
    assert_eq!(take(&mut schedule, at(2_000)), status("a", "3", CONDITIONS));
    end(&mut schedule, &status("a", "3", CONDITIONS), at(2_000), Ok(()));
    schedule.want(status("a", "4", facts(1)), at(3_000));
    let again = at(2_000) + FACTS_INTERVAL;
    assert_eq!(schedule.next(at(3_000)), Next::Wait(again));
    assert_eq!(take(&mut schedule, again), status("a", "4", facts(1)));
}

#[test]
fn what_was_just_written_is_not_written_again() {
    let mut schedule = Schedule::new();
    let wanted = status("a", "1", CONDITIONS);
    schedule.want(wanted.clone(), at(0));
    assert_eq!(take(&mut schedule, at(0)), wanted);
    // While it is on its way, and until the watch must have told of it.
    schedule.want(wanted.clone(), at(1));
    assert_eq!(schedule.next(at(1)), Next::Idle);
    end(&mut schedule, &wanted, at(2), Ok(()));
    schedule.want(wanted.clone(), at(3));
    assert_eq!(schedule.next(at(3)), Next::Idle);
    // Later somebody else must have changed it.
    let later = at(2) + STATUS_SETTLE_TIME;
    schedule.want(wanted.clone(), later);
    assert_eq!(take(&mut schedule, later), wanted);
}

#[test]
fn what_comes_while_a_write_is_on_its_way_follows_it() {
    let mut schedule = Schedule::new();
    schedule.want(status("a", "1", CONDITIONS), at(0));
    let first = take(&mut schedule, at(0));
    schedule.want(status("a", "2", CONDITIONS), at(1));
    assert_eq!(schedule.next(at(1)), Next::Idle);
    end(&mut schedule, &first, at(2), Ok(()));
    assert_eq!(take(&mut schedule, at(2)), status("a", "2", CONDITIONS));
}

#[test]
fn what_came_and_went_before_it_was_written_is_not_written() {
    let mut schedule = Schedule::new();
    schedule.want(status("a", "1", facts(1)), at(0));
    let first = take(&mut schedule, at(0));
    schedule.want(status("a", "2", facts(1)), at(1));
    schedule.want(status("a", "1", facts(1)), at(2));
    end(&mut schedule, &first, at(3), Ok(()));
    assert_eq!(schedule.next(at(60_000)), Next::Idle);
    // The whole of what a plan wants: the rest is not wanted any more.
    schedule.want(status("b", "2", facts(1)), at(60_000));
    schedule.keep_only(&[Kind::Subscription], &[]);
    assert_eq!(schedule.counts(), (0, 1));
    schedule.keep_only(&[Kind::Endpoint], &[status("c", "2", facts(1))]);
    assert_eq!(schedule.next(at(60_000)), Next::Idle);
    assert_eq!(schedule.counts(), (0, 0));
}

#[test]
fn writes_in_flight_are_bounded() {
    let mut schedule = Schedule::new();
    for number in 0..100 {
        schedule.want(status(&format!("e{number}"), "", CONDITIONS), at(0));
    }
    let started: Vec<_> = (0..STATUS_WRITES_IN_FLIGHT_MAX).map(|_| take(&mut schedule, at(0))).collect();
    assert_eq!(schedule.next(at(0)), Next::Idle);
    end(&mut schedule, &started[0], at(1), Ok(()));
    take(&mut schedule, at(1));
    assert_eq!(schedule.next(at(1)), Next::Idle);
}

#[test]
fn an_object_that_is_gone_is_forgotten() {
    let mut schedule = Schedule::new();
    schedule.want(status("a", "1", CONDITIONS), at(0));
    let first = take(&mut schedule, at(0));
    end(&mut schedule, &first, at(1), Err(FailureClass::NotFound));
    assert_eq!((schedule.next(at(1)), schedule.counts()), (Next::Idle, (0, 0)));
}

#[test]
fn a_conflict_is_tried_again_soon_and_then_less_often() {
    let mut schedule = Schedule::new();
    schedule.want(status("a", "1", CONDITIONS), at(0));
    let mut now = at(0);
    for pause_ms in [250, 500, 1_000] {
        let tried = take(&mut schedule, now);
        end(&mut schedule, &tried, now, Err(FailureClass::Conflict));
        assert_eq!(schedule.next(now), Next::Wait(now + at(pause_ms)));
        now += at(pause_ms);
    }
    assert_eq!(take(&mut schedule, now).name, "a");
}

#[test]
fn a_missing_permission_stops_its_namespace_and_no_other() {
    let mut schedule = Schedule::new();
    for number in 0..100 {
        schedule.want(status(&format!("e{number}"), "", CONDITIONS), at(0));
    }
    schedule.want(ObjectStatus { namespace: "other".into(), ..status("b", "", CONDITIONS) }, at(0));
    let refused = take(&mut schedule, at(0));
    end(&mut schedule, &refused, at(0), Err(FailureClass::Forbidden));
    assert_eq!(drain(&mut schedule, at(0)), ["b"]);
    assert_eq!(schedule.next(at(0)), Next::Wait(STATUS_REFUSED_PAUSE));
    assert_eq!(schedule.counts(), (100, 0));
    // The permission is there again.
    assert_eq!(drain(&mut schedule, STATUS_REFUSED_PAUSE).len(), 100);
}

#[test]
fn a_refused_status_waits_and_another_one_of_the_object_does_not() {
    let mut schedule = Schedule::new();
    schedule.want(status("a", "wrong", CONDITIONS), at(0));
    let refused = take(&mut schedule, at(0));
    end(&mut schedule, &refused, at(0), Err(FailureClass::Invalid));
    schedule.want(status("a", "wrong", CONDITIONS), at(1));
    assert_eq!(schedule.next(at(1)), Next::Wait(STATUS_REFUSED_PAUSE));
    schedule.want(status("a", "right", CONDITIONS), at(2));
    assert_eq!(take(&mut schedule, at(2)), status("a", "right", CONDITIONS));
}

#[test]
fn an_api_server_that_is_away_is_asked_ever_less_and_nothing_is_lost() {
    let mut schedule = Schedule::new();
    for number in 0..1_000 {
        schedule.want(status(&format!("e{number}"), "", CONDITIONS), at(0));
    }
    let (mut now, mut attempts) = (at(0), 0);
    while now < Duration::from_mins(10) {
        match schedule.next(now) {
            Next::Write(status) => {
                attempts += 1;
                end(&mut schedule, &status, now, Err(FailureClass::Unavailable));
            }
            Next::Wait(until) => now = until,
            Next::Idle => panic!("statuses wait"),
        }
    }
    assert!((20..40).contains(&attempts), "{attempts}");
    let mut written = 0;
    while schedule.counts() != (0, 0) {
        match schedule.next(now) {
            Next::Write(status) => {
                written += 1;
                end(&mut schedule, &status, now, Ok(()));
            }
            Next::Wait(until) => now = until,
            Next::Idle => panic!("statuses wait"),
        }
    }
    assert_eq!(written, 1_000);
}

#[test]
fn one_object_that_cannot_be_written_does_not_hold_up_the_others() {
    let mut schedule = Schedule::new();
    let (mut now, mut written) = (at(0), 0);
    schedule.want(status("broken", "", CONDITIONS), now);
    for number in 0..1_000 {
        schedule.want(status(&format!("e{number}"), "", CONDITIONS), now);
    }
    while written < 1_000 {
        match schedule.next(now) {
            Next::Write(status) => {
                let result = if status.name == "broken" { Err(FailureClass::Unavailable) } else { Ok(()) };
                written += usize::from(result.is_ok());
                end(&mut schedule, &status, now, result);
            }
            Next::Wait(until) => now = until,
            Next::Idle => panic!("statuses wait"),
        }
    }
    assert!(now < Duration::from_secs(1), "{now:?}");
}

#[test]
fn what_waits_is_forgotten_when_another_leads() {
    let mut schedule = Schedule::new();
    schedule.want(status("a", "1", CONDITIONS), at(0));
    schedule.want(status("b", "1", facts(1)), at(0));
    schedule.clear();
    assert_eq!((schedule.next(at(0)), schedule.counts()), (Next::Idle, (0, 0)));
}
