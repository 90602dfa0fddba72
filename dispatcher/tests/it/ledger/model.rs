//! Random histories against a model that is small enough to be obviously right.
//!
//! Time is either over or an hour away, so the model needs no clock: what is held with a lease of zero may be
//! claimed at once, what is held for an hour may not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dispatcher::ledger::{DeliveryQuery, Hold, Ledger, NewEvent, Recorded, Replayed};
use dispatcher::queue::Work;
use dispatcher_core::delivery::{Attempt, DeliveryKey, DeliveryState, EndReason, Next, Outcome};
use dispatcher_core::id::DeliveryId;
use dispatcher_core::table::{EndpointState, TableChange};
use proptest::prelude::*;

use super::many::ModelledReplay;
use super::support::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// One step. Numbers choose among what is there, so that every history means something.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Accept {
        targets: u8,
        lease_over: bool,
    },
    AcceptAgain {
        event: usize,
    },
    Claim {
        lease_over: bool,
    },
    Take {
        hold: usize,
        lease_over: bool,
    },
    Record {
        hold: usize,
        outcomes: u8,
        lease_over: bool,
    },
    /// A holder that has lost its part reports on one of its targets, which it had in flight.
    FollowStale {
        hold: usize,
        target: usize,
        outcome: u8,
    },
    Replay {
        delivery: usize,
    },
    /// A step of a replay of many: a delivery again, in its run or in one that is over, and a target that may be missing.
    Advance {
        delivery: usize,
        stale: bool,
        event: usize,
        target: usize,
    },
    Gate {
        endpoint: usize,
        open: bool,
    },
    ExpireAll,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_u8..8, any::<bool>()).prop_map(|(targets, lease_over)| Step::Accept { targets, lease_over }),
        1 => any::<usize>().prop_map(|event| Step::AcceptAgain { event }),
        4 => any::<bool>().prop_map(|lease_over| Step::Claim { lease_over }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(hold, lease_over)| Step::Take { hold, lease_over }),
        8 => (any::<usize>(), any::<u8>(), any::<bool>())
            .prop_map(|(hold, outcomes, lease_over)| Step::Record { hold, outcomes, lease_over }),
        2 => (any::<usize>(), any::<usize>(), any::<u8>())
            .prop_map(|(hold, target, outcome)| Step::FollowStale { hold, target, outcome }),
        2 => any::<usize>().prop_map(|delivery| Step::Replay { delivery }),
        3 => (any::<usize>(), any::<bool>(), any::<usize>(), 0..NAMES.len())
            .prop_map(|(delivery, stale, event, target)| Step::Advance { delivery, stale, event, target }),
        1 => (0..NAMES.len(), any::<bool>()).prop_map(|(endpoint, open)| Step::Gate { endpoint, open }),
        1 => Just(Step::ExpireAll),
    ];
    prop::collection::vec(step, 1..40)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hands {
    Waiting,
    Queued,
    InFlight,
}

#[derive(Clone, Debug)]
struct Modelled {
    key: DeliveryKey,
    state: DeliveryState,
    run: u32,
    attempts: u32,
    r#gen: u32,
    hands: Hands,
    over: bool,
}

#[derive(Default)]
pub(crate) struct Model {
    events: Vec<NewEvent>,
    /// Generation of each event's part, and whether its lease is over; gone once it is recorded.
    outbox: BTreeMap<usize, (u32, bool)>,
    deliveries: BTreeMap<DeliveryId, Modelled>,
    /// Delivered by a stale holder of the part while a new one works on it.
    early_successes: BTreeSet<DeliveryId>,
    shut: BTreeSet<usize>,
    many: ModelledReplay,
    /// Every hold that anybody ever had, valid or stale, with the index of its event.
    holds: Vec<(usize, Hold)>,
}

impl Model {
    fn name_of(record: &Modelled) -> usize {
        NAMES.iter().position(|name| endpoint(name) == record.key.target.endpoint).unwrap()
    }

    pub(crate) async fn step(&mut self, ledger: &Arc<dyn Ledger>, step: &Step) {
        match *step {
            Step::Accept { targets, lease_over } => {
                let names: Vec<&str> = (0..3).filter(|bit| targets & (1 << bit) != 0).map(|bit| NAMES[bit]).collect();
                let new = new_event(&names, lease(lease_over));
                accept(ledger, &new).await;
                let place = self.events.len();
                self.outbox.insert(place, (1, lease_over));
                self.holds.push((place, Hold::Part { event: new.event.id, part: 0, r#gen: 1 }));
                self.events.push(new);
            }
            Step::AcceptAgain { event } if !self.events.is_empty() => {
                accept(ledger, &self.events[event % self.events.len()]).await;
            }
            Step::Claim { lease_over } => self.claim(ledger, lease_over).await,
            Step::Take { hold, lease_over } if !self.holds.is_empty() => {
                let (event, hold) = self.holds[hold % self.holds.len()];
                let taken = ledger.take(vec![hold], lease(lease_over)).await.unwrap()[0];
                assert_eq!(taken, self.take(event, hold, lease_over), "{hold:?}");
            }
            Step::Record { hold, outcomes, lease_over } if !self.holds.is_empty() => {
                let (event, hold) = self.holds[hold % self.holds.len()];
                self.record(ledger, event, hold, (outcomes, lease_over)).await;
            }
            Step::FollowStale { hold, target, outcome } if !self.holds.is_empty() => {
                let (event, hold) = self.holds[hold % self.holds.len()];
                self.follow_stale(ledger, event, hold, (target, outcome)).await;
            }
            Step::Replay { delivery } if !self.deliveries.is_empty() => {
                let id = *self.deliveries.keys().nth(delivery % self.deliveries.len()).unwrap();
                let replayed = ledger.replay(shop(), id).await.unwrap();
                let record = self.deliveries.get_mut(&id).unwrap();
                if record.state == DeliveryState::Open {
                    assert_eq!(replayed, Replayed::StillOpen);
                } else {
                    record.run += 1;
                    assert_eq!(replayed, Replayed::Started { run: record.run });
                    (record.state, record.attempts, record.r#gen) = (DeliveryState::Open, 0, 0);
                    (record.hands, record.over) = (Hands::Waiting, true);
                }
            }
            Step::Advance { delivery, stale, event, target } if !self.events.is_empty() => {
                self.advance(ledger, (delivery, stale), (event, NAMES[target])).await;
            }
            Step::Gate { endpoint, open } => {
                let state = if open { EndpointState::Active } else { EndpointState::Suspended };
                let put = vec![endpoint_row(NAMES[endpoint], "1", state)];
                ledger.publish_table(TableChange { put, drop: vec![] }, None).await.unwrap();
                let _ = if open { self.shut.remove(&endpoint) } else { self.shut.insert(endpoint) };
            }
            Step::ExpireAll => {
                ledger.expire_all_leases().await.unwrap();
                for (r#gen, over) in self.outbox.values_mut().filter(|(_, over)| !over) {
                    (*r#gen, *over) = (*r#gen + 1, true);
                }
                for record in self.deliveries.values_mut().filter(|record| record.hands != Hands::Waiting) {
                    if record.state == DeliveryState::Open {
                        (record.r#gen, record.hands, record.over) = (record.r#gen + 1, Hands::Waiting, true);
                    }
                }
            }
            _ => {}
        }
    }

    /// Everything that may be claimed is claimed: the bounds of a claim are far away.
    async fn claim(&mut self, ledger: &Arc<dyn Ledger>, lease_over: bool) {
        let mut expected = Vec::new();
        for (place, (r#gen, over)) in self.outbox.iter_mut().filter(|(_, (_, over))| *over) {
            (*r#gen, *over) = (*r#gen + 1, lease_over);
            expected.push((*place, Hold::Part { event: self.events[*place].event.id, part: 0, r#gen: *r#gen }));
        }
        for record in self.deliveries.values_mut() {
            let open = record.state == DeliveryState::Open && record.over;
            if open && !self.shut.contains(&Self::name_of(record)) {
                (record.r#gen, record.hands, record.over) = (record.r#gen + 1, Hands::Queued, lease_over);
                let place = self.events.iter().position(|new| new.event.id == record.key.event).unwrap();
                let hold = Hold::Delivery { delivery: record.key.delivery, run: record.run, r#gen: record.r#gen };
                expected.push((place, hold));
            }
        }
        let claimed = claim(ledger, 10_000, lease(lease_over)).await;
        let mut seen = parts(&claimed);
        for item in &claimed.items {
            if let Work::Due(deliveries) = &item.work {
                for due in deliveries {
                    let record = &self.deliveries[&due.delivery];
                    assert_eq!((due.attempts, due.target), (record.attempts, record.key.target));
                    assert_eq!(record.key.event, item.event.id);
                    seen.push(Hold::Delivery { delivery: due.delivery, run: due.run, r#gen: due.r#gen });
                }
            }
        }
        let as_set = |holds: Vec<Hold>| holds.iter().map(|hold| format!("{hold:?}")).collect::<BTreeSet<_>>();
        assert_eq!(as_set(seen), as_set(expected.iter().map(|(_, hold)| *hold).collect()));
        self.holds.extend(expected);
    }

    async fn advance(&mut self, ledger: &Arc<dyn Ledger>, again: (usize, bool), missing: (usize, &str)) {
        let new = &self.events[missing.0 % self.events.len()];
        let key = key(new, target(missing.1));
        let again = (!self.deliveries.is_empty()).then(|| {
            let (id, record) = self.deliveries.iter().nth(again.0 % self.deliveries.len()).unwrap();
            (*id, record.run - u32::from(again.1))
        });
        let mut started = Vec::new();
        if let Some((id, run)) = again
            && let Some(record) = self.deliveries.get_mut(&id)
            && (record.run, record.state == DeliveryState::Open) == (run, false)
        {
            (record.state, record.run, record.attempts, record.r#gen) = (DeliveryState::Open, run + 1, 0, 0);
            (record.hands, record.over) = (Hands::Waiting, true);
            started.push(id);
        }
        let was_target = new.parts.iter().any(|part| part.targets.contains(&key.target));
        if !was_target && !self.deliveries.contains_key(&key.delivery) {
            let (state, hands) = (DeliveryState::Open, Hands::Waiting);
            let record = Modelled { key, state, run: 1, attempts: 0, r#gen: 0, hands, over: true };
            self.deliveries.insert(key.delivery, record);
            started.push(key.delivery);
        }
        self.many.advance(ledger, again, (key.event, key.target), &started).await;
    }

    fn take(&mut self, event: usize, hold: Hold, lease_over: bool) -> Option<u32> {
        let taken = match hold {
            Hold::Part { r#gen, .. } => {
                let (present, over) = self.outbox.get_mut(&event).filter(|(present, _)| *present == r#gen)?;
                (*present, *over) = (*present + 1, lease_over);
                *present
            }
            Hold::Delivery { delivery, run, r#gen } => {
                let record = self.deliveries.get_mut(&delivery)?;
                let valid = record.state == DeliveryState::Open && (record.run, record.r#gen) == (run, r#gen);
                if !valid || record.hands != Hands::Queued {
                    return None;
                }
                (record.r#gen, record.over) = (record.r#gen + 1, lease_over);
                record.r#gen
            }
        };
        let hold = match hold {
            Hold::Part { event, part, .. } => Hold::Part { event, part, r#gen: taken },
            Hold::Delivery { delivery, run, .. } => Hold::Delivery { delivery, run, r#gen: taken },
        };
        self.holds.push((event, hold));
        Some(taken)
    }

    async fn record(&mut self, ledger: &Arc<dyn Ledger>, event: usize, hold: Hold, chosen: (u8, bool)) {
        let new = self.events[event].clone();
        match hold {
            Hold::Part { r#gen, .. } => {
                let what = what(chosen.0, chosen.1, 1);
                let applied = record(ledger, part_change(&new, 0, r#gen, &what)).await;
                let valid = self.outbox.get(&event).is_some_and(|(present, _)| *present == r#gen);
                assert_eq!(applied == Recorded::Applied, valid, "{hold:?}");
                for target in new.parts[0].targets.clone() {
                    let key = key(&new, target);
                    if valid {
                        self.first_result(key, r#gen, &what, (chosen.1, event));
                    } else {
                        self.late_result(key, 1, &what);
                    }
                }
                if valid {
                    self.outbox.remove(&event);
                }
            }
            Hold::Delivery { delivery, run, r#gen } => {
                let key = self.deliveries[&delivery].key;
                let attempts = self.deliveries[&delivery].attempts;
                let what = what(chosen.0, chosen.1, attempts + 1);
                let applied = record(ledger, delivery_change(key, run, r#gen, what.clone())).await;
                let record = self.deliveries.get_mut(&delivery).unwrap();
                let valid = record.state == DeliveryState::Open
                    && (record.run, record.r#gen) == (run, r#gen)
                    && record.hands != Hands::Waiting;
                assert_eq!(applied == Recorded::Applied, valid, "{hold:?}");
                if valid {
                    record.apply(&what, chosen.1);
                } else {
                    self.late_result(key, run, &what);
                }
            }
        }
    }

    async fn follow_stale(&mut self, ledger: &Arc<dyn Ledger>, event: usize, hold: Hold, chosen: (usize, u8)) {
        let Hold::Part { r#gen, .. } = hold else { return };
        let new = self.events[event].clone();
        let targets = &new.parts[0].targets;
        let key = key(&new, targets[chosen.0 % targets.len()]);
        let is_stale = match (self.outbox.get(&event), self.deliveries.get(&key.delivery)) {
            (Some((present, _)), _) => *present != r#gen,
            (None, Some(record)) => (record.run, record.r#gen) != (1, r#gen),
            (None, None) => false,
        };
        if is_stale {
            let what = what(chosen.1, false, 1);
            assert_eq!(record(ledger, delivery_change(key, 1, r#gen, what.clone())).await, Recorded::Superseded);
            self.late_result(key, 1, &what);
        }
    }

    fn first_result(
        &mut self,
        key: DeliveryKey,
        r#gen: u32,
        what: &(Option<Attempt>, Next),
        (over, event): (bool, usize),
    ) {
        let early = self.early_successes.contains(&key.delivery);
        let mut record =
            Modelled { key, state: DeliveryState::Open, run: 1, attempts: 0, r#gen, hands: Hands::InFlight, over };
        record.apply(what, over);
        if early && record.state != DeliveryState::Delivered {
            (record.state, record.attempts) = (DeliveryState::Delivered, record.attempts + 1);
        }
        if record.hands == Hands::InFlight {
            self.holds.push((event, Hold::Delivery { delivery: key.delivery, run: 1, r#gen }));
        }
        self.deliveries.insert(key.delivery, record);
    }

    fn late_result(&mut self, key: DeliveryKey, run: u32, what: &(Option<Attempt>, Next)) {
        if what.0.as_ref().is_none_or(|attempt| attempt.outcome != Outcome::Delivered) {
            return;
        }
        match self.deliveries.get_mut(&key.delivery) {
            Some(record) if record.state == DeliveryState::Open && record.run == run => {
                record.state = DeliveryState::Delivered;
                record.attempts += 1;
            }
            Some(_) => {}
            None => {
                self.early_successes.insert(key.delivery);
            }
        }
    }

    /// The ledger shows exactly what the model says, in every listing, and balances.
    pub(crate) async fn compare(&mut self, ledger: &Arc<dyn Ledger>) {
        assert_balanced(ledger).await;
        let state_of = |id: &DeliveryId| self.deliveries[id].state;
        self.many.settle(ledger, state_of).await;
        let mut expected = BTreeMap::new();
        for place in self.outbox.keys() {
            let new = &self.events[*place];
            for target in &new.parts[0].targets {
                expected.insert(target.delivery(new.event.id), (DeliveryState::Open, 1, 0));
            }
        }
        for (id, record) in &self.deliveries {
            expected.insert(*id, (record.state, record.run, record.attempts));
        }
        let query = DeliveryQuery { rows_max: 5, ..DeliveryQuery::default() };
        let seen = all_deliveries(ledger, query).await;
        assert!(seen.is_sorted_by(|a, b| a.key.delivery > b.key.delivery));
        let seen: BTreeMap<_, _> =
            seen.into_iter().map(|record| (record.key.delivery, (record.state, record.run, record.attempts))).collect();
        assert_eq!(seen, expected);
    }
}

impl Modelled {
    fn apply(&mut self, what: &(Option<Attempt>, Next), over: bool) {
        self.attempts += u32::from(what.0.is_some());
        self.over = over;
        (self.state, self.hands) = match what.1 {
            Next::Delivered => (DeliveryState::Delivered, Hands::Waiting),
            Next::Dead(_) => (DeliveryState::Dead, Hands::Waiting),
            Next::Cancelled(_) => (DeliveryState::Cancelled, Hands::Waiting),
            Next::Waiting { .. } => (DeliveryState::Open, Hands::Waiting),
            Next::InFlight { .. } => (DeliveryState::Open, Hands::InFlight),
        };
    }
}

fn lease(over: bool) -> Duration {
    if over { NOW } else { HOUR }
}

fn what(choice: u8, over: bool, number: u32) -> (Option<Attempt>, Next) {
    match choice % 6 {
        0 | 1 => delivered(number),
        2 => failed(number, lease(over)),
        3 => waits(lease(over)),
        4 => (None, Next::InFlight { lease: lease(over) }),
        _ => (Some(attempt(number, Outcome::Http410)), Next::Dead(EndReason::Gone)),
    }
}

/// Runs the model over `$open`, an async function that answers `(Arc<dyn Ledger>, guard)`, or an option of it.
macro_rules! model_suite {
    ($open:path) => {
        proptest::proptest! {
            #![proptest_config(proptest::prelude::ProptestConfig { cases: 32, failure_persistence: None, ..Default::default() })]
            #[test]
            fn random_histories_agree_with_the_model(steps in crate::ledger::model::steps()) {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let opened: Option<(_, _)> = $open().await.into();
                    let Some((ledger, _guard)) = opened else { return };
                    let mut model = crate::ledger::model::Model::default();
                    for step in &steps {
                        model.step(&ledger, step).await;
                        model.compare(&ledger).await;
                    }
                });
            }
        }
    };
}

pub(crate) use model_suite;
