use super::*;

/// A process to which nothing is wrong.
fn well(role: DispatcherRole) -> Observation {
    Observation {
        role,
        ledger: Finding::Ok,
        queue: Finding::Ok,
        table: Some(TableVersion(3)),
        stalls: Stalls::default(),
        heartbeat_age: Some(Duration::from_secs(1)),
        clock_offset_ms: -900,
        stopping: false,
    }
}

const ROLES: [DispatcherRole; 3] = [DispatcherRole::Ingest, DispatcherRole::Deliver, DispatcherRole::All];

/// The checks that are not well.
fn wrong(readiness: &Readiness) -> Vec<(Check, Finding)> {
    readiness.checks.iter().copied().filter(|(_, finding)| *finding != Finding::Ok).collect()
}

#[test]
fn a_process_to_which_nothing_is_wrong_is_ready() {
    for role in ROLES {
        let readiness = judge(&well(role));
        assert!(readiness.ready && wrong(&readiness).is_empty(), "{readiness:?}");
        assert_eq!(readiness.table, Some(TableVersion(3)));
    }
}

#[test]
fn each_thing_that_is_wrong_is_named_and_makes_the_process_unready() {
    type Change = fn(&mut Observation);
    let cases: [(Change, Check, Finding); 13] = [
        (|seen| seen.ledger = Finding::Unreachable, Check::Ledger, Finding::Unreachable),
        (|seen| seen.ledger = Finding::SchemaTooOld, Check::Ledger, Finding::SchemaTooOld),
        (|seen| seen.table = None, Check::Table, Finding::NotLoaded),
        (|seen| seen.heartbeat_age = None, Check::Heartbeat, Finding::NotAccepted),
        (|seen| seen.heartbeat_age = Some(HEARTBEAT_DEAD_AFTER), Check::Heartbeat, Finding::NotAccepted),
        (|seen| seen.clock_offset_ms = 1_001, Check::Clock, Finding::Skewed),
        (|seen| seen.clock_offset_ms = -1_001, Check::Clock, Finding::Skewed),
        (|seen| seen.stopping = true, Check::Serving, Finding::Stopping),
        (|seen| seen.stalls.accepting = PROGRESS_DEADLINE, Check::Accepting, Finding::Stalled),
        (|seen| seen.stalls.consuming = PROGRESS_DEADLINE, Check::Consuming, Finding::Stalled),
        (|seen| seen.stalls.recording = PROGRESS_DEADLINE, Check::Recording, Finding::Stalled),
        (|seen| seen.stalls.claiming = PROGRESS_DEADLINE, Check::Claiming, Finding::Stalled),
        (|seen| seen.stalls.publishing = PROGRESS_DEADLINE, Check::Publishing, Finding::Stalled),
    ];
    for (change, check, finding) in cases {
        for role in ROLES {
            let mut seen = well(role);
            change(&mut seen);
            let readiness = judge(&seen);
            assert_eq!(readiness.ready, !check.concerns(role), "{check:?} of {role:?}");
            assert_eq!(wrong(&readiness).contains(&(check, finding)), check.concerns(role), "{check:?} of {role:?}");
        }
    }
}

#[test]
fn without_a_queue_what_ingests_goes_on_and_says_so_and_what_only_delivers_is_not_ready() {
    for role in ROLES {
        let readiness = judge(&Observation { queue: Finding::Unreachable, ..well(role) });
        assert_eq!(readiness.ready, role.ingests());
        assert_eq!(wrong(&readiness), [(Check::Queue, Finding::Unreachable)]);
    }
}

#[test]
fn work_that_waits_for_less_than_the_deadline_is_no_stall() {
    let almost = PROGRESS_DEADLINE.saturating_sub(Duration::from_millis(1));
    let stalls =
        Stalls { accepting: almost, consuming: almost, recording: almost, claiming: almost, publishing: almost };
    assert!(judge(&Observation { stalls, ..well(DispatcherRole::All) }).ready);
}

#[test]
fn work_stalls_only_while_it_is_there_and_none_of_it_gets_done() {
    let second = Duration::from_secs;
    let mut stall = Stall::default();
    for (now, has_work, done, expected) in [
        (0, false, 0, 0),
        (5, true, 0, 0),
        (9, true, 0, 4),
        (10, true, 1, 0),
        (12, true, 1, 2),
        (13, false, 1, 0),
        (20, true, 1, 0),
        (23, true, 1, 3),
        // Something got done and more came at once.
        (24, true, 9, 0),
        (25, true, 9, 1),
    ] {
        assert_eq!(stall.sample(second(now), has_work, done), second(expected), "at {now}");
    }
}

#[test]
fn the_page_has_every_check_with_its_roles() {
    let page = include_str!("../../../docs/operations.md");
    for (check, _) in judge(&well(DispatcherRole::All)).checks {
        let of: Vec<&str> =
            ROLES.into_iter().filter(|role| check.concerns(*role)).map(DispatcherRole::as_str).collect();
        let of = if of.len() == ROLES.len() { "every role".to_owned() } else { of.join(", ") };
        let row = format!("| `{}` | {of} |", check.as_str());
        assert!(page.contains(&row), "docs/operations.md has no row {row}");
    }
}

#[test]
fn claimed_work_stalls_while_it_is_claimed_again_in_vain_and_is_not_waited_for_by_a_process_that_claims_no_more() {
    let (mut unpublished, mut stall) = (Unpublished::default(), Stall::default());
    for (now, claimed, published, expected) in [
        (0, 0, 0, 0),
        (1, 5, 1, 0),
        // The queue confirms nothing, and the same is claimed again when its lease is over.
        (10, 6, 1, 0),
        (15, 7, 1, 5),
        (20, 8, 1, 10),
        (21, 8, 2, 0),
        // It confirms nothing once, and another process claims what that was.
        (30, 9, 2, 0),
        (37, 9, 2, 7),
        (38, 9, 2, 0),
        (60, 9, 2, 0),
    ] {
        let now = Duration::from_secs(now);
        let waits = unpublished.sample(now, claimed, published);
        assert_eq!(stall.sample(now, waits, published), Duration::from_secs(expected), "at {now:?}");
    }
}
