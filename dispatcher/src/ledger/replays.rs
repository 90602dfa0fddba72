//! Replays of many deliveries: what one asks for, and how far it has come.
//!
//! A replay looks at the deliveries of its time in the order of their identities, then, if it looks for what is missing, at
//! the events. Whoever drives it reads a page, decides, and commits a step: what is started, and the place up to which
//! that is decided, in one transaction that is compare-and-set on the number of the step. So a crash between two steps
//! repeats nothing, and of two drivers one wins.

use std::fmt;
use std::sync::Arc;

use dispatcher_core::delivery::{DeliveryKey, Target};
use dispatcher_core::event::Event;
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, ReplayId, SubscriptionId, TenantId};
use uuid::Uuid;

/// A replay that is to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewReplay {
    /// What it is named and what it asks for.
    pub replay: ReplayId,
    /// Whose deliveries.
    pub tenant: TenantId,
    /// End of the time that it asks for, in milliseconds since the Unix epoch.
    pub asked_until_unix_ms: u64,
    /// What it looks at first.
    pub first_stage: ReplayStage,
}

/// How far a replay has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayRecord {
    /// Which one.
    pub replay: ReplayId,
    /// Number of steps that were committed.
    pub step: u64,
    /// What comes next.
    pub cursor: ReplayCursor,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_at_unix_ms: u64,
    /// When everything that it started was finished, and nothing was left to look at.
    pub finished_at_unix_ms: Option<u64>,
    /// End of its time, in milliseconds since the Unix epoch: what was asked for, or when it began.
    pub until_unix_ms: u64,
    /// Deliveries found that are to be made again.
    pub matched: u64,
    /// Of these, the ones that were started.
    pub queued: u64,
    /// Of these, the ones that arrived.
    pub delivered: u64,
    /// Of these, the ones that were given up or cancelled.
    pub failed: u64,
}

impl ReplayRecord {
    /// Deliveries that it started and that it does not know to be finished.
    pub fn open(&self) -> u64 {
        self.queued.saturating_sub(self.delivered + self.failed)
    }
}

/// What a replay looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReplayStage {
    /// Deliveries that there are.
    Deliveries,
    /// Events, for deliveries that there are not.
    Events,
    /// Nothing any more.
    Done,
}

/// A place in a replay, opaque to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplayCursor {
    /// What is looked at.
    pub stage: ReplayStage,
    /// Identity of what was looked at last.
    pub after: Uuid,
}

impl ReplayCursor {
    /// The beginning of a stage.
    pub fn start_of(stage: ReplayStage) -> Self {
        Self { stage, after: Uuid::nil() }
    }
}

impl fmt::Display for ReplayCursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            ReplayStage::Deliveries => 'd',
            ReplayStage::Events => 'e',
            ReplayStage::Done => return formatter.write_str("end"),
        };
        write!(formatter, "{stage}{}", self.after.simple())
    }
}

/// Which deliveries a replay asks for, as far as the ledger decides it.
#[expect(clippy::struct_excessive_bools, reason = "each is asked for by itself")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayScope {
    /// Whose.
    pub tenant: TenantId,
    /// Only to this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Only by this subscription.
    pub subscription: Option<SubscriptionId>,
    /// Only of events accepted at this time or later, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// Only of events accepted before this time.
    pub until_unix_ms: u64,
    /// Those that were given up.
    pub dead: bool,
    /// Those that arrived.
    pub delivered: bool,
    /// Those that there never were.
    pub missing: bool,
    /// Whether deliveries come with their events; what is missing always does.
    pub with_events: bool,
}

impl ReplayScope {
    /// What is looked at first.
    pub fn first_stage(&self) -> ReplayStage {
        if self.dead || self.delivered { ReplayStage::Deliveries } else { self.stage_after(ReplayStage::Deliveries) }
    }

    /// What is looked at after all of a stage.
    pub fn stage_after(&self, stage: ReplayStage) -> ReplayStage {
        match stage {
            ReplayStage::Deliveries if self.missing => ReplayStage::Events,
            _ => ReplayStage::Done,
        }
    }

    /// The identities, without their ends, between which what is next lies.
    pub(super) fn bounds(&self, after: Uuid) -> (Uuid, Uuid) {
        let first_of = |unix_ms: u64| u128::from(unix_ms.min(TIME_MS_MAX)) << 80;
        let since = Uuid::from_u128(first_of(self.since_unix_ms).saturating_sub(1));
        (after.max(since), Uuid::from_u128(first_of(self.until_unix_ms)))
    }
}

/// The largest time that an identity carries: 48 bits.
const TIME_MS_MAX: u64 = (1 << 48) - 1;

/// What a replay finds in one look.
#[derive(Clone, Debug)]
pub struct ReplayPage {
    /// What it finds, in the order of its places.
    pub found: Vec<ReplayFound>,
    /// The place after everything that was looked at.
    pub next: ReplayCursor,
}

/// What a replay finds at a place.
#[derive(Clone, Debug)]
pub enum ReplayFound {
    /// A finished delivery, whose endpoint and subscription are in the routing table.
    Delivery {
        /// Which one.
        key: DeliveryKey,
        /// The run that is over.
        run: u32,
        /// Type of its event.
        event_type: String,
        /// Its event, if it was asked for.
        event: Option<Arc<Event>>,
    },
    /// An event, which may lack targets.
    Event {
        /// The event.
        event: Arc<Event>,
        /// Targets that it has.
        targets: Vec<Target>,
    },
}

impl ReplayFound {
    /// The place after this.
    pub fn place(&self) -> ReplayCursor {
        match self {
            Self::Delivery { key, .. } => ReplayCursor { stage: ReplayStage::Deliveries, after: key.delivery.0 },
            Self::Event { event, .. } => ReplayCursor { stage: ReplayStage::Events, after: event.id.0 },
        }
    }
}

/// A step of a replay: what is started, and the place up to which that is decided.
#[derive(Clone, Debug)]
pub struct ReplayStep {
    /// Which replay.
    pub replay: ReplayId,
    /// Whose.
    pub tenant: TenantId,
    /// The step that was committed last; with another nothing is done.
    pub after_step: u64,
    /// The place up to which everything is decided.
    pub cursor: ReplayCursor,
    /// Deliveries that were found, whether they are started or only counted.
    pub matched: u64,
    /// Finished deliveries to start, each with the run that is over. One that is open by now, or in a later run, is left
    /// alone.
    pub again: Vec<(DeliveryId, u32)>,
    /// Deliveries to make and start, by their events. One that there is by now is left alone.
    pub missing: Vec<(EventId, Vec<Target>)>,
}

/// What is known of runs that a replay started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplaySettled {
    /// How far the replay has come.
    pub record: ReplayRecord,
    /// Runs that were found to be over.
    pub ended: u32,
    /// Where to look next; `None` if the end was reached.
    pub next: Option<DeliveryId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(since_unix_ms: u64, until_unix_ms: u64) -> ReplayScope {
        ReplayScope {
            tenant: TenantId::of_namespace_name("shop"),
            endpoint: None,
            subscription: None,
            since_unix_ms,
            until_unix_ms,
            dead: true,
            delivered: false,
            missing: true,
            with_events: false,
        }
    }

    #[test]
    fn bounds_hold_exactly_the_identities_of_their_time() {
        let (after, before) = scope(1_000, 2_000).bounds(Uuid::nil());
        let within = |unix_ms: u64, random: u8| {
            let id = EventId::from_parts(unix_ms, [random; 10]).0;
            after < id && id < before
        };
        for (unix_ms, expected) in [(999, false), (1_000, true), (1_999, true), (2_000, false)] {
            assert_eq!((within(unix_ms, 0), within(unix_ms, 0xff)), (expected, expected), "{unix_ms}");
        }
        let place = EventId::from_parts(1_500, [7; 10]).0;
        assert_eq!(scope(1_000, 2_000).bounds(place).0, place);
        assert_eq!(scope(0, u64::MAX).bounds(Uuid::nil()).0, Uuid::nil());
    }

    #[test]
    fn stages_follow_what_is_looked_for() {
        let both = scope(0, 1);
        let only_missing = ReplayScope { dead: false, ..both };
        let only_dead = ReplayScope { missing: false, ..both };
        assert_eq!((both.first_stage(), only_missing.first_stage()), (ReplayStage::Deliveries, ReplayStage::Events));
        assert_eq!(both.stage_after(ReplayStage::Deliveries), ReplayStage::Events);
        assert_eq!(only_dead.stage_after(ReplayStage::Deliveries), ReplayStage::Done);
        assert_eq!(both.stage_after(ReplayStage::Events), ReplayStage::Done);
    }

    #[test]
    fn a_cursor_is_short_and_tells_its_place() {
        let after = Uuid::from_u128(0x0123_4567_89ab_cdef);
        assert_eq!(
            ReplayCursor { stage: ReplayStage::Deliveries, after }.to_string(),
            "d00000000000000000123456789abcdef"
        );
        assert_eq!(ReplayCursor { stage: ReplayStage::Done, after }.to_string(), "end");
    }
}
