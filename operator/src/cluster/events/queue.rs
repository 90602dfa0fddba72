//! Which Events are told: pure, with the time as an argument.
//!
//! [`EVENTS_PER_SECOND`] in all and one in [`OBJECT_EVENT_INTERVAL`] of an object, both after a burst; warnings before the
//! rest. The same Event again within [`EVENT_SERIES_TIME`] makes a series of the first: its count is told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dispatcher_core::limits::{
    EVENT_OBJECTS_MAX, EVENT_SERIES_MAX, EVENT_SERIES_TIME, EVENTS_BURST, EVENTS_PER_SECOND, EVENTS_WAITING_MAX,
    OBJECT_EVENT_INTERVAL, OBJECT_EVENTS_BURST,
};
use dispatcher_core::pace::Pace;
use dispatcher_core::table::RateLimit;

use super::bounded::BoundedMap;
use crate::cluster::failure::FailureClass;
use crate::plan::events::{EventType, PlannedEvent};

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// Tell this, and then [`Queue::ended`].
    Tell(Telling),
    /// Nothing before this time, unless an Event comes.
    Wait(Duration),
    /// Nothing until an Event comes.
    Idle,
}

/// An Event to tell.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Telling {
    pub(super) event: Arc<PlannedEvent>,
    /// Part of the Event's name, the same for all of a series.
    pub(super) number: u64,
    /// How often it happened until now. The first time it is created, then its count is told.
    pub(super) count: u32,
    /// Whether the API server has it already.
    pub(super) is_known: bool,
    /// When it happened last, in milliseconds since the Unix epoch.
    pub(super) last_unix_ms: u64,
}

/// Events that wait to be told.
#[derive(Debug)]
pub(super) struct Queue {
    warnings: VecDeque<Arc<PlannedEvent>>,
    others: VecDeque<Arc<PlannedEvent>>,
    series: BoundedMap<Arc<PlannedEvent>, Series>,
    objects: BoundedMap<String, Pace>,
    pace: Pace,
    next_number: u64,
    dropped: usize,
}

#[derive(Clone, Debug)]
struct Series {
    number: u64,
    count: u32,
    told_count: u32,
    last: Duration,
    last_unix_ms: u64,
    is_queued: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            warnings: VecDeque::new(),
            others: VecDeque::new(),
            series: BoundedMap::new(EVENT_SERIES_MAX),
            objects: BoundedMap::new(EVENT_OBJECTS_MAX),
            pace: Pace::new(RateLimit { per_second: EVENTS_PER_SECOND, burst: EVENTS_BURST }),
            next_number: 0,
            dropped: 0,
        }
    }

    /// Takes on an Event.
    pub(super) fn tell(&mut self, event: PlannedEvent, now: Duration, now_unix_ms: u64) {
        let event = Arc::new(event);
        if self.series.get_mut(&event).is_some_and(|series| now >= series.last + EVENT_SERIES_TIME && !series.is_queued)
        {
            self.series.remove(&event);
        }
        let number = &mut self.next_number;
        let series = self.series.entry(&event, || {
            *number += 1;
            Series { number: *number, count: 0, told_count: 0, last: now, last_unix_ms: now_unix_ms, is_queued: false }
        });
        series.count = series.count.saturating_add(1);
        (series.last, series.last_unix_ms) = (now, now_unix_ms);
        if !std::mem::replace(&mut series.is_queued, true) {
            self.push(event);
        }
    }

    /// What to do next.
    pub(super) fn next(&mut self, now: Duration) -> Next {
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        loop {
            let lane = if self.warnings.is_empty() { &mut self.others } else { &mut self.warnings };
            let Some(event) = lane.front().cloned() else { return Next::Idle };
            if let Err(wait) = self.pace.take(now_ms) {
                return Next::Wait(now + wait);
            }
            lane.pop_front();
            let object = self.objects.entry(&event.uid, || Pace::every(OBJECT_EVENT_INTERVAL, OBJECT_EVENTS_BURST));
            let is_allowed = object.take(now_ms).is_ok();
            let series = self.series.get_mut(&event);
            match series {
                Some(series) if is_allowed => {
                    series.is_queued = false;
                    let &mut Series { number, count, told_count, last_unix_ms, .. } = series;
                    return Next::Tell(Telling { event, number, count, is_known: told_count > 0, last_unix_ms });
                }
                // What is known goes on being counted; the count is told when it happens again.
                Some(series) if series.told_count > 0 => series.is_queued = false,
                _ => {
                    self.series.remove(&event);
                    self.dropped += 1;
                }
            }
            self.pace.give_back();
        }
    }

    /// The telling of an Event has ended.
    pub(super) fn ended(&mut self, telling: &Telling, end: Result<(), FailureClass>) {
        let Some(series) = self.series.get_mut(&telling.event) else { return };
        match end {
            Ok(()) => {
                // The first telling creates the Event and tells of one.
                series.told_count = if telling.is_known { telling.count } else { 1 };
                if series.count > series.told_count && !std::mem::replace(&mut series.is_queued, true) {
                    self.push(telling.event.clone());
                }
            }
            // A refused Event is not told again, and one that the API server has forgotten begins anew.
            Err(class) if !telling.is_known || class == FailureClass::NotFound => {
                self.series.remove(&telling.event);
            }
            Err(_) => {}
        }
    }

    /// How many Events were dropped since this was asked last.
    pub(super) fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    fn push(&mut self, event: Arc<PlannedEvent>) {
        let is_warning = event.type_ == EventType::Warning;
        if self.warnings.len() + self.others.len() >= EVENTS_WAITING_MAX {
            self.dropped += 1;
            let victim = if is_warning { self.others.pop_front() } else { None };
            let is_taken = victim.is_some();
            self.series.remove(&victim.unwrap_or_else(|| event.clone()));
            if !is_taken {
                return;
            }
        }
        if is_warning { self.warnings.push_back(event) } else { self.others.push_back(event) }
    }
}

#[cfg(test)]
mod tests;
