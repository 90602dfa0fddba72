//! Which of what a replay finds it wants.

use std::collections::{HashSet, VecDeque};

use dispatcher::ledger::{ReplayCursor, ReplayFound, ReplayPage, ReplayScope};
use dispatcher_core::delivery::Target;
use dispatcher_core::event::Event;
use dispatcher_core::expression::{EvaluationBudget, EventInput};
use dispatcher_core::filter::Filter;
use dispatcher_core::id::{DeliveryId, EventId};
use dispatcher_core::pattern::TypePattern;
use dispatcher_core::route::RoutingIndex;

use crate::plan::replay::ReplayJob;

/// What a replay wants, compiled.
pub(super) struct Question {
    scope: ReplayScope,
    patterns: Vec<TypePattern>,
    filter: Option<Filter>,
}

/// Something that a replay wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) what: What,
    /// The place up to which everything is decided once this is, and all before it.
    pub(super) after: ReplayCursor,
}

/// What is to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A delivery whose run is over.
    Again(DeliveryId, u32),
    /// A delivery that there never was.
    Missing(EventId, Target),
}

impl Question {
    /// Compiles it, or answers what is wrong.
    pub(super) fn of(job: &ReplayJob) -> Result<Self, String> {
        let patterns = job.event_types.iter().map(|pattern| TypePattern::parse(pattern));
        Ok(Self {
            scope: job.scope,
            patterns: patterns.collect::<Result<_, _>>().map_err(|error| error.to_string())?,
            filter: job.filter.as_deref().map(Filter::compile).transpose().map_err(|error| error.to_string())?,
        })
    }

    /// Chooses from a page that begins at a place, in its order. `index` is needed where a page has events.
    pub(super) fn choose(
        &self,
        start: ReplayCursor,
        page: ReplayPage,
        index: Option<&RoutingIndex>,
    ) -> VecDeque<Chosen> {
        let (mut chosen, mut before) = (VecDeque::new(), start);
        for found in page.found {
            let place = found.place();
            match found {
                ReplayFound::Delivery { key, run, event_type, event } => {
                    if self.takes_type(&event_type) && self.takes_event(event.as_deref()) {
                        chosen.push_back(Chosen { what: What::Again(key.delivery, run), after: place });
                    }
                }
                ReplayFound::Event { event, targets } => {
                    if self.takes_type(&event.event_type) && self.takes_event(Some(&event)) {
                        let missing = self.missing(&event, &targets, index);
                        // A part of an event's targets does not decide the event.
                        let last = missing.len().saturating_sub(1);
                        chosen.extend(missing.into_iter().enumerate().map(|(number, target)| Chosen {
                            what: What::Missing(event.id, target),
                            after: if number == last { place } else { before },
                        }));
                    }
                }
            }
            before = place;
        }
        chosen
    }

    fn takes_type(&self, event_type: &str) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(event_type))
    }

    /// As for subscriptions, an event on which the filter fails does not match.
    fn takes_event(&self, event: Option<&Event>) -> bool {
        let Some(filter) = &self.filter else { return true };
        let Some(event) = event else { return false };
        let mut budget = EvaluationBudget::of_request();
        let Ok(input) = EventInput::read(event, &mut budget) else { return false };
        filter.matches(&input, &mut budget).unwrap_or(false)
    }

    /// Where the event would go now and was not to go then.
    fn missing(&self, event: &Event, targets: &[Target], index: Option<&RoutingIndex>) -> Vec<Target> {
        let Some(index) = index else { return Vec::new() };
        let present: HashSet<&Target> = targets.iter().collect();
        let routed = index.route(event, &mut EvaluationBudget::of_request());
        let wanted = |target: &Target| {
            self.scope.endpoint.is_none_or(|endpoint| endpoint == target.endpoint)
                && self.scope.subscription.is_none_or(|subscription| subscription == target.subscription)
                && !present.contains(target)
        };
        routed.targets.into_iter().map(|(_, target)| target).filter(wanted).collect()
    }
}
