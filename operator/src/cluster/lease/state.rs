//! Who leads: decided from what was seen of the Lease and from the process's own clock. No I/O.
//!
//! The protocol. The Lease is written only by compare-and-set: with the version that was seen last, or by creation. A
//! leader leads from a confirmed write for two thirds of the Lease's duration, counted from *before* that write was sent.
//! Another takes over when it has seen the same version for the whole duration, counted from *after* it first saw it.
//! Times are those of each process's own clock and are never compared between processes, so two of them lead at once
//! only if one's clock runs more than one and a half times as fast as the other's.
//!
//! A write whose answer was lost may have happened, or may happen yet. It is recognised by the instance that it names: an
//! instance that finds itself in the Lease renews. The same name under another instance is somebody else, who may live.
//!
//! Times are durations since a moment that is the same throughout the process.

use std::time::Duration;

use dispatcher_core::limits::LEASE_DURATION_MAX;

use super::Leadership;

/// Who holds the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// Name, for people.
    pub(super) identity: String,
    /// One run of a process; tells it from another run under the same name.
    pub(super) instance: String,
}

/// What a Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// `None`: it was given up.
    pub(super) holder: Option<Holder>,
    /// How long it holds after a renewal.
    pub(super) duration: Duration,
    /// How often its holder changed: the epoch.
    pub(super) transitions: u64,
}

/// What was found where the Lease should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Observed {
    /// Nothing.
    Absent,
    /// A Lease, with the version that the next write must name.
    Present {
        /// Opaque; another one means that somebody wrote.
        version: String,
        /// What it says.
        record: Record,
    },
}

/// A write that happens only if nobody else wrote meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    /// The version that must still be there; `None`: there must be none, it is created.
    pub(super) expected: Option<String>,
    /// What it will say.
    pub(super) record: Record,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing before this time.
    Wait(Duration),
    /// Look at the Lease.
    Look,
    /// Write it.
    Write(Write),
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WriteEnd {
    /// It happened.
    Done {
        /// The new version.
        version: String,
    },
    /// It did not: somebody else wrote before.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// The times of the protocol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// How long the Lease holds.
    pub(super) duration: Duration,
    /// How often a leader renews it.
    pub(super) renew_every: Duration,
    /// How often one who waits looks at it.
    pub(super) poll_every: Duration,
}

impl Timing {
    /// How long a leader leads after a renewal was sent.
    fn hold(self) -> Duration {
        self.duration * 2 / 3
    }
}

/// One elector's knowledge.
#[derive(Clone, Debug)]
pub(super) struct State {
    me: Holder,
    timing: Timing,
    /// An epoch must be larger than this.
    floor: u64,
    /// Version of the Lease; `None`: there is none, or it was never looked at.
    version: Option<String>,
    /// What the Lease said last, also if it is gone since.
    last: Option<Last>,
    lead_until: Option<Duration>,
    epoch: u64,
    intent: Intent,
    act_at: Duration,
}

#[derive(Clone, Debug)]
struct Last {
    record: Record,
    /// When this version of it was first seen.
    since: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intent {
    Look,
    Write,
}

impl State {
    /// Knows nothing, and looks at once.
    pub(super) fn new(me: Holder, timing: Timing) -> Self {
        Self {
            me,
            timing,
            floor: 0,
            version: None,
            last: None,
            lead_until: None,
            epoch: 0,
            intent: Intent::Look,
            act_at: Duration::ZERO,
        }
    }

    /// Whether this elector leads now.
    pub(super) fn leadership(&self, now: Duration) -> Leadership {
        match self.lead_until {
            Some(until) if now < until => Leadership::Leader { epoch: self.epoch },
            _ => Leadership::Follower,
        }
    }

    /// When it stops leading unless the Lease is renewed; `None` if it does not lead.
    pub(super) fn leads_until(&self, now: Duration) -> Option<Duration> {
        self.lead_until.filter(|until| now < *until)
    }

    /// Epochs up to this one were used by others: a Lease that was deleted, or another cluster's, counted further.
    pub(super) fn raise_floor(&mut self, floor: u64, now: Duration) {
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        if self.leads_until(now).is_some() && self.epoch <= floor {
            self.act_at = now;
        }
    }

    /// What to do next.
    pub(super) fn next(&self, now: Duration) -> Step {
        if now < self.act_at {
            return Step::Wait(self.leads_until(now).map_or(self.act_at, |until| until.min(self.act_at)));
        }
        match self.intent {
            Intent::Look => Step::Look,
            Intent::Write => Step::Write(Write {
                expected: self.version.clone(),
                record: Record {
                    holder: Some(self.me.clone()),
                    duration: self.timing.duration,
                    transitions: self.transitions(),
                },
            }),
        }
    }

    /// The Lease was looked at. `random_unit` is in `[0, 1)`.
    pub(super) fn looked(&mut self, now: Duration, observed: Observed, random_unit: f64) {
        match observed {
            Observed::Absent => self.version = None,
            Observed::Present { version, record } => {
                if self.version.as_ref() != Some(&version) {
                    self.last = Some(Last { record, since: now });
                }
                self.version = Some(version);
            }
        }
        let is_mine = self.version.is_some() && self.is_held_by_me();
        if !is_mine {
            self.lead_until = None;
        }
        let free_at = self.free_at();
        if is_mine || free_at <= now {
            (self.intent, self.act_at) = (Intent::Write, now);
        } else {
            let poll_at = now + shortened(self.timing.poll_every, random_unit);
            (self.intent, self.act_at) = (Intent::Look, poll_at.min(free_at));
        }
    }

    /// The Lease could not be looked at.
    pub(super) fn looked_in_vain(&mut self, now: Duration, random_unit: f64) {
        self.act_at = now + self.retry_pause(now, random_unit);
    }

    /// A write that was sent at `started` has ended.
    pub(super) fn written(
        &mut self,
        (started, now): (Duration, Duration),
        record: Record,
        end: WriteEnd,
        random_unit: f64,
    ) {
        match end {
            WriteEnd::Done { version } => {
                self.epoch = record.transitions;
                self.version = Some(version);
                self.last = Some(Last { record, since: now });
                self.lead_until = Some(started + self.timing.hold());
                self.intent = Intent::Write;
                self.act_at = started + shortened(self.timing.renew_every, random_unit);
            }
            WriteEnd::Refused => {
                self.intent = Intent::Look;
                self.act_at = now + (self.timing.poll_every / 8).mul_f64(random_unit);
            }
            WriteEnd::Unknown => {
                if self.leads_until(now).is_none() {
                    self.intent = Intent::Look;
                }
                self.act_at = now + self.retry_pause(now, random_unit);
            }
        }
    }

    /// Stops leading, and answers the write that gives the Lease up if it is held.
    pub(super) fn give_up(&mut self) -> Option<Write> {
        self.lead_until = None;
        let last = self.last.as_ref().filter(|last| last.record.holder.as_ref() == Some(&self.me))?;
        let record = Record { holder: None, ..last.record.clone() };
        self.version.clone().map(|version| Write { expected: Some(version), record })
    }

    fn is_held_by_me(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.record.holder.as_ref() == Some(&self.me))
    }

    /// When the Lease may be taken, as far as is known.
    fn free_at(&self) -> Duration {
        match &self.last {
            Some(Last { record: Record { holder: Some(holder), duration, .. }, since }) if *holder != self.me => {
                *since + (*duration).clamp(self.timing.duration, LEASE_DURATION_MAX.max(self.timing.duration))
            }
            _ => Duration::ZERO,
        }
    }

    /// The epoch of the next write: the same while the holder is.
    fn transitions(&self) -> u64 {
        let seen = self.last.as_ref().map_or(0, |last| last.record.transitions);
        if self.version.is_some() && self.is_held_by_me() && seen > self.floor {
            seen
        } else {
            seen.max(self.floor).saturating_add(1)
        }
    }

    /// A leader has little time; one who waits has no reason to hurry.
    fn retry_pause(&self, now: Duration, random_unit: f64) -> Duration {
        let pause = if self.leads_until(now).is_some() { self.timing.poll_every } else { self.timing.renew_every };
        shortened(pause, random_unit)
    }
}

/// Between six and ten tenths of a time, so that electors that began together do not stay together.
fn shortened(time: Duration, random_unit: f64) -> Duration {
    time.mul_f64(0.6 + 0.4 * random_unit)
}

#[cfg(test)]
mod tests;
