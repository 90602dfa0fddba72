//! What the queue of Events promises.

use crds::Kind;
use crds::condition::Reason;

use super::*;

fn event(uid: &str, type_: EventType, note: &str) -> PlannedEvent {
    PlannedEvent {
        kind: Kind::Endpoint,
        namespace: "shop".into(),
        name: "e".into(),
        uid: uid.into(),
        type_,
        reason: Reason::Failing,
        note: note.into(),
    }
}

fn warning(uid: &str, note: &str) -> PlannedEvent {
    event(uid, EventType::Warning, note)
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Tells all that may be told now, successfully.
fn drain(queue: &mut Queue, now: Duration) -> Vec<(String, u32, bool)> {
    let mut told = Vec::new();
    while let Next::Tell(telling) = queue.next(now) {
        queue.ended(&telling, Ok(()));
        told.push((telling.event.note.clone(), telling.count, telling.is_known));
    }
    told
}

fn told(note: &str, count: u32, is_known: bool) -> (String, u32, bool) {
    (note.to_owned(), count, is_known)
}

#[test]
fn the_same_event_again_is_counted_and_another_is_told() {
    let mut queue = Queue::new();
    queue.tell(warning("u", "a"), at(0), 0);
    assert_eq!(drain(&mut queue, at(0)), [told("a", 1, false)]);
    queue.tell(warning("u", "a"), at(1), 1_000);
    queue.tell(warning("u", "a"), at(1), 1_000);
    queue.tell(warning("u", "b"), at(1), 1_000);
    assert_eq!(drain(&mut queue, at(1)), [told("a", 3, true), told("b", 1, false)]);
    // Much later it is news again.
    let later = at(2) + EVENT_SERIES_TIME;
    queue.tell(warning("u", "a"), later, 2_000);
    assert_eq!(drain(&mut queue, later), [told("a", 1, false)]);
}

#[test]
fn an_event_that_came_twice_before_it_was_told_is_created_and_then_counted() {
    let mut queue = Queue::new();
    queue.tell(warning("u", "a"), at(0), 0);
    queue.tell(warning("u", "a"), at(0), 5);
    let Next::Tell(first) = queue.next(at(0)) else { panic!("it is told") };
    assert_eq!((first.is_known, first.last_unix_ms), (false, 5));
    queue.ended(&first, Ok(()));
    let Next::Tell(second) = queue.next(at(0)) else { panic!("its count is told") };
    assert_eq!((second.count, second.is_known, second.number), (2, true, first.number));
    queue.ended(&second, Ok(()));
    assert_eq!(queue.next(at(0)), Next::Idle);
}

#[test]
fn one_object_cannot_use_up_what_others_need() {
    let mut queue = Queue::new();
    for number in 0..30 {
        queue.tell(warning("loud", &number.to_string()), at(0), 0);
    }
    queue.tell(event("quiet", EventType::Normal, "quiet"), at(0), 0);
    let first = drain(&mut queue, at(0));
    assert_eq!(first.len(), OBJECT_EVENTS_BURST as usize + 1);
    assert_eq!(first.last(), Some(&told("quiet", 1, false)));
    assert_eq!(queue.take_dropped(), 30 - OBJECT_EVENTS_BURST as usize);
    // One more for each interval.
    let later = OBJECT_EVENT_INTERVAL;
    queue.tell(warning("loud", "31"), later, 0);
    queue.tell(warning("loud", "32"), later, 0);
    assert_eq!(drain(&mut queue, later), [told("31", 1, false)]);
}

#[test]
fn all_objects_together_have_a_rate_and_warnings_go_first() {
    let mut queue = Queue::new();
    for number in 0..100 {
        queue.tell(event(&number.to_string(), EventType::Normal, "normal"), at(0), 0);
    }
    queue.tell(warning("w", "warning"), at(0), 0);
    let first = drain(&mut queue, at(0));
    assert_eq!((first.len(), first[0].0.as_str()), (EVENTS_BURST as usize, "warning"));
    assert_eq!(queue.next(at(0)), Next::Wait(Duration::from_secs(1) / EVENTS_PER_SECOND));
    assert_eq!(drain(&mut queue, at(2)).len(), 2 * EVENTS_PER_SECOND as usize);
}

#[test]
fn a_full_queue_drops_and_counts_and_keeps_warnings() {
    let mut queue = Queue::new();
    for number in 0..EVENTS_WAITING_MAX + 5 {
        queue.tell(event(&number.to_string(), EventType::Normal, "normal"), at(0), 0);
    }
    assert_eq!(queue.take_dropped(), 5);
    queue.tell(warning("w", "warning"), at(0), 0);
    assert_eq!(queue.take_dropped(), 1);
    assert_eq!(drain(&mut queue, at(0))[0].0, "warning");
}

#[test]
fn a_refused_event_is_not_told_again() {
    let mut queue = Queue::new();
    queue.tell(warning("u", "a"), at(0), 0);
    let Next::Tell(telling) = queue.next(at(0)) else { panic!("it is told") };
    queue.ended(&telling, Err(FailureClass::Forbidden));
    assert_eq!(queue.next(at(100)), Next::Idle);
    // Nor is it taken for one that the API server knows.
    queue.tell(warning("u", "a"), at(101), 0);
    assert_eq!(drain(&mut queue, at(101)), [told("a", 1, false)]);
}

#[test]
fn a_series_that_the_api_server_has_forgotten_begins_anew() {
    let mut queue = Queue::new();
    queue.tell(warning("u", "a"), at(0), 0);
    drain(&mut queue, at(0));
    queue.tell(warning("u", "a"), at(1), 0);
    let Next::Tell(telling) = queue.next(at(1)) else { panic!("its count is told") };
    assert!(telling.is_known);
    queue.ended(&telling, Err(FailureClass::NotFound));
    queue.tell(warning("u", "a"), at(2), 0);
    assert_eq!(drain(&mut queue, at(2)), [told("a", 1, false)]);
}
