//! Which status is written next: pure, with the time as an argument.
//!
//! Conditions go at once, in the order in which they came; the first ones of an object that is about to be in effect wait
//! for [`STATUS_BEGINNING_PAUSE`], since others follow if nothing is in the way. Facts go at [`STATUS_FACTS_PER_SECOND`] in
//! all and once in [`FACTS_INTERVAL`] for each object, the largest change first; each step of a change is worth
//! [`STATUS_FACTS_STEP_BONUS`] of waiting, so that a small change is overtaken, but not for ever. Of an object one status
//! waits, the newest.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use crds::Kind;
use dispatcher_core::limits::{
    FACTS_INTERVAL, STATUS_BEGINNING_PAUSE, STATUS_FACTS_BURST, STATUS_FACTS_PER_SECOND, STATUS_FACTS_STEP_BONUS,
    STATUS_FACTS_STEPS_MAX, STATUS_REFUSED_PAUSE, STATUS_RETRY_PAUSE_MAX, STATUS_RETRY_PAUSE_MIN, STATUS_SETTLE_TIME,
    STATUS_WRITES_IN_FLIGHT_MAX, STATUSES_WAITING_MAX,
};
use dispatcher_core::pace::Pace;
use dispatcher_core::table::RateLimit;

use super::patch::digest;
use crate::cluster::failure::FailureClass;
use crate::plan::{ObjectStatus, StatusChange};

/// Whose status it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn of(status: &ObjectStatus) -> Self {
        Self { kind: status.body.kind(), namespace: status.namespace.clone(), name: status.name.clone() }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// Write this status, and tell [`Schedule::ended`].
    Write(Box<ObjectStatus>),
    /// Nothing before this time, unless a status comes.
    Wait(Duration),
    /// Nothing until a status comes, or a write ends.
    Idle,
}

/// Statuses that wait to be written.
#[derive(Debug)]
pub(super) struct Schedule {
    waiting: HashMap<Key, Waiting>,
    lanes: BTreeMap<Place, Key>,
    in_flight: HashMap<Key, Flight>,
    written: HashMap<Key, Written>,
    /// The same as `written`, in the order of time.
    written_order: VecDeque<(Duration, Key)>,
    blocked: HashMap<(Kind, String), Duration>,
    pace: Pace,
    /// Failures to reach the API server without a success between.
    failures: u32,
    paused_until: Duration,
    sequence: u64,
    conditions_waiting: usize,
}

/// Where a status waits: lanes are served in this order, and within a lane by time, then by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Conditions { since: Duration, sequence: u64 },
    Facts { due: Duration, sequence: u64 },
    Later { not_before: Duration, sequence: u64 },
}

#[derive(Debug)]
struct Waiting {
    status: ObjectStatus,
    digest: u64,
    since: Duration,
    sequence: u64,
    /// `None` while another write of the object is in flight.
    place: Option<Place>,
    retry: Retry,
}

/// What earlier attempts to write an object's status leave behind.
#[derive(Clone, Copy, Debug, Default)]
struct Retry {
    failures: u32,
    not_before: Duration,
    /// The content that was refused: another one need not wait.
    refused_digest: Option<u64>,
}

#[derive(Debug)]
struct Flight {
    status: ObjectStatus,
    digest: u64,
    since: Duration,
    failures: u32,
}

#[derive(Clone, Copy, Debug)]
struct Written {
    digest: u64,
    at: Duration,
}

impl Schedule {
    pub(super) fn new() -> Self {
        let limit = RateLimit { per_second: STATUS_FACTS_PER_SECOND, burst: STATUS_FACTS_BURST };
        Self {
            waiting: HashMap::new(),
            lanes: BTreeMap::new(),
            in_flight: HashMap::new(),
            written: HashMap::new(),
            written_order: VecDeque::new(),
            blocked: HashMap::new(),
            pace: Pace::new(limit),
            failures: 0,
            paused_until: Duration::ZERO,
            sequence: 0,
            conditions_waiting: 0,
        }
    }

    /// Takes on a status. It replaces the one that waits for the same object, and takes its place in the line.
    pub(super) fn want(&mut self, status: ObjectStatus, now: Duration) {
        let key = Key::of(&status);
        let digest = digest(&status.body);
        let before = self.remove(&key);
        if self.is_done(&key, digest, now) {
            return;
        }
        if before.is_none() && self.waiting.len() >= STATUSES_WAITING_MAX {
            return;
        }
        let (since, sequence, mut retry) = match before {
            Some(before) => (before.since, before.sequence, before.retry),
            None => (now, self.next_sequence(), Retry::default()),
        };
        if retry.refused_digest.is_some_and(|refused| refused != digest) {
            retry = Retry::default();
        }
        self.insert(key, Waiting { status, digest, since, sequence, place: None, retry }, now);
    }

    /// Forgets the statuses of these kinds that wait, except those of the given objects: nobody wants them any more.
    pub(super) fn keep_only(&mut self, kinds: &[Kind], statuses: &[ObjectStatus]) {
        let wanted: HashSet<Key> = statuses.iter().map(Key::of).collect();
        let unwanted: Vec<Key> =
            self.waiting.keys().filter(|key| kinds.contains(&key.kind) && !wanted.contains(*key)).cloned().collect();
        for key in unwanted {
            self.remove(&key);
        }
    }

    /// Forgets all that waits.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.lanes.clear();
        self.conditions_waiting = 0;
    }

    /// Statuses that wait with changed conditions, and with nothing but facts.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.conditions_waiting, self.waiting.len() - self.conditions_waiting)
    }

    /// What to do next.
    pub(super) fn next(&mut self, now: Duration) -> Next {
        self.forget_written(now);
        self.bring_later(now);
        loop {
            let Some((place, key)) = self.lanes.first_key_value() else { return Next::Idle };
            let (place, gate) = (*place, (key.kind, key.namespace.clone()));
            if self.in_flight.len() >= STATUS_WRITES_IN_FLIGHT_MAX {
                return Next::Idle;
            }
            if now < self.paused_until {
                return Next::Wait(self.paused_until);
            }
            if let Place::Later { not_before, .. } = place {
                return Next::Wait(not_before);
            }
            if let Some(until) = self.blocked.get(&gate).copied().filter(|until| now < *until) {
                self.postpone(place, until);
                continue;
            }
            if matches!(place, Place::Facts { .. })
                && let Err(wait) = self.pace.take(milliseconds(now))
            {
                // A status that waits for its own time may come before.
                let later = self.lanes.range(Place::Later { not_before: Duration::ZERO, sequence: 0 }..).next();
                let later = later.map_or(Duration::MAX, |(place, _)| place.time());
                return Next::Wait(later.min(now + wait));
            }
            return self.start(place);
        }
    }

    /// A write has ended.
    pub(super) fn ended(&mut self, key: &Key, now: Duration, end: Result<(), FailureClass>) {
        let Some(flight) = self.in_flight.remove(key) else { return };
        let newer = self.remove(key);
        let retry = match end {
            Ok(()) => {
                self.failures = 0;
                self.written.insert(key.clone(), Written { digest: flight.digest, at: now });
                self.written_order.push_back((now, key.clone()));
                None
            }
            Err(class) => self.retry_after(class, key, &flight, now),
        };
        // What has come meanwhile is wanted, not what was tried.
        let (status, digest) = match (newer, retry.is_some()) {
            (Some(newer), _) => (newer.status, newer.digest),
            (None, true) => (flight.status, flight.digest),
            (None, false) => return,
        };
        let mut retry = retry.unwrap_or_default();
        if retry.refused_digest.is_some_and(|refused| refused != digest) {
            retry = Retry::default();
        }
        let sequence = self.next_sequence();
        let since = if end.is_ok() { now } else { flight.since };
        self.insert(key.clone(), Waiting { status, digest, since, sequence, place: None, retry }, now);
    }

    /// What a failure means for the object, and for others; `None`: the status is forgotten.
    fn retry_after(&mut self, class: FailureClass, key: &Key, flight: &Flight, now: Duration) -> Option<Retry> {
        let failures = flight.failures.saturating_add(1);
        let pause = backoff(failures);
        match class {
            FailureClass::NotFound => None,
            FailureClass::Conflict | FailureClass::Exists => {
                Some(Retry { failures, not_before: now + pause, refused_digest: None })
            }
            FailureClass::Forbidden => {
                // The permission is missing for all objects of the kind in the namespace: the others need not ask.
                let until = now + STATUS_REFUSED_PAUSE;
                self.blocked.insert((key.kind, key.namespace.clone()), until);
                Some(Retry { failures, not_before: until, refused_digest: None })
            }
            FailureClass::Invalid => {
                Some(Retry { failures, not_before: now + STATUS_REFUSED_PAUSE, refused_digest: Some(flight.digest) })
            }
            FailureClass::Unavailable => {
                self.failures = self.failures.saturating_add(1);
                self.paused_until = self.paused_until.max(now + backoff(self.failures));
                Some(Retry { failures, not_before: now + pause, refused_digest: None })
            }
        }
    }

    fn start(&mut self, place: Place) -> Next {
        let Some(key) = self.lanes.remove(&place) else { return Next::Idle };
        let Some(waiting) = self.take(&key) else { return Next::Idle };
        let Waiting { status, digest, since, retry, .. } = waiting;
        self.in_flight.insert(key, Flight { status: status.clone(), digest, since, failures: retry.failures });
        Next::Write(Box::new(status))
    }

    fn postpone(&mut self, place: Place, until: Duration) {
        let Some(key) = self.lanes.remove(&place) else { return };
        if let Some(waiting) = self.waiting.get_mut(&key) {
            waiting.retry.not_before = until;
            let later = Place::Later { not_before: until, sequence: waiting.sequence };
            waiting.place = Some(later);
            self.lanes.insert(later, key);
        }
    }

    /// Moves what waited for its time into its lane.
    fn bring_later(&mut self, now: Duration) {
        let begin = Place::Later { not_before: Duration::ZERO, sequence: 0 };
        while let Some((place, key)) = self.lanes.range(begin..).next() {
            if place.time() > now {
                break;
            }
            let key = key.clone();
            if let Some(waiting) = self.remove(&key) {
                self.insert(key, waiting, now);
            }
        }
    }

    /// Whether this content is being written, or was written so lately that the plan cannot have known.
    fn is_done(&self, key: &Key, digest: u64, now: Duration) -> bool {
        match self.in_flight.get(key) {
            Some(flight) => flight.digest == digest,
            None => {
                self.written.get(key).is_some_and(|last| last.digest == digest && now < last.at + STATUS_SETTLE_TIME)
            }
        }
    }

    fn insert(&mut self, key: Key, mut waiting: Waiting, now: Duration) {
        if waiting.status.change.is_of_conditions() {
            self.conditions_waiting += 1;
        }
        if !self.in_flight.contains_key(&key) {
            let place = self.place(&key, &waiting, now);
            waiting.place = Some(place);
            self.lanes.insert(place, key.clone());
        }
        self.waiting.insert(key, waiting);
    }

    fn remove(&mut self, key: &Key) -> Option<Waiting> {
        let waiting = self.take(key)?;
        if let Some(place) = waiting.place {
            self.lanes.remove(&place);
        }
        Some(waiting)
    }

    fn take(&mut self, key: &Key) -> Option<Waiting> {
        let waiting = self.waiting.remove(key)?;
        if waiting.status.change.is_of_conditions() {
            self.conditions_waiting -= 1;
        }
        Some(waiting)
    }

    fn place(&self, key: &Key, waiting: &Waiting, now: Duration) -> Place {
        let Waiting { since, sequence, retry, .. } = *waiting;
        let change = waiting.status.change;
        let not_before = retry.not_before.max(match change {
            StatusChange::Conditions => Duration::ZERO,
            StatusChange::Beginning => since + STATUS_BEGINNING_PAUSE,
            StatusChange::Facts { .. } => self.written.get(key).map_or(Duration::ZERO, |last| last.at + FACTS_INTERVAL),
        });
        match change {
            _ if now < not_before => Place::Later { not_before, sequence },
            StatusChange::Conditions | StatusChange::Beginning => Place::Conditions { since, sequence },
            StatusChange::Facts { steps } => {
                let missing = STATUS_FACTS_STEPS_MAX.saturating_sub(steps);
                Place::Facts { due: since + STATUS_FACTS_STEP_BONUS * u32::from(missing), sequence }
            }
        }
    }

    fn forget_written(&mut self, now: Duration) {
        while let Some((at, key)) = self.written_order.front() {
            if now < *at + FACTS_INTERVAL {
                break;
            }
            if self.written.get(key).is_some_and(|written| written.at == *at) {
                self.written.remove(key);
            }
            self.written_order.pop_front();
        }
        self.blocked.retain(|_, until| now < *until);
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

impl Place {
    fn time(self) -> Duration {
        match self {
            Self::Conditions { since, .. } => since,
            Self::Facts { due, .. } => due,
            Self::Later { not_before, .. } => not_before,
        }
    }
}

/// The pause after so many failures in a row.
fn backoff(failures: u32) -> Duration {
    let doubled = STATUS_RETRY_PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(STATUS_RETRY_PAUSE_MAX)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
