//! Two electors and a server in a world where messages are late or lost, clocks run at different rates, and processes
//! stand still: they are never leaders at the same time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

/// Milliseconds of the world's own time.
type WorldMs = u64;

/// How long the world lasts.
const END_MS: WorldMs = 120_000;
/// How long an elector waits for an answer, by its own clock.
const CALL_DEADLINE_MS: u64 = 3_000;

/// What chance decides.
#[derive(Clone, Debug)]
struct Chance {
    /// Of each elector, in percent of the world's: within the half that the protocol allows for.
    clock_percents: [u64; 2],
    /// Of each request in turn: how long until it arrives, how long until its answer does, and whether either is lost.
    messages: Vec<Message>,
    /// Times at which an elector stops as a process does, and begins anew.
    restarts: Vec<(WorldMs, usize, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    there_ms: u64,
    back_ms: u64,
    is_request_lost: bool,
    is_answer_lost: bool,
    random_unit: f64,
}

fn chance() -> impl Strategy<Value = Chance> {
    let delay = prop_oneof![4 => 0..50_u64, 1 => 0..20_000_u64];
    let lost = || prop::bool::weighted(0.15);
    let message = (delay.clone(), delay, lost(), lost(), 0.0..1.0).prop_map(
        |(there_ms, back_ms, is_request_lost, is_answer_lost, random_unit)| Message {
            there_ms,
            back_ms,
            is_request_lost,
            is_answer_lost,
            random_unit,
        },
    );
    let restart = (0..END_MS, 0..2_usize, any::<bool>());
    ([82..=122_u64, 82..=122_u64], prop::collection::vec(message, 1..60), prop::collection::vec(restart, 0..6))
        .prop_map(|(clock_percents, messages, restarts)| Chance { clock_percents, messages, restarts })
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    /// An elector acts if it has nothing on its way.
    Act { elector: usize },
    /// A request reaches the server.
    Arrive { request: usize },
    /// The answer to a request reaches the elector, or its deadline passes.
    Answer { request: usize },
    /// A process ends, and its successor begins. A graceful end gives the Lease up.
    Restart { elector: usize, is_graceful: bool },
}

struct Request {
    elector: usize,
    run: u64,
    started: Duration,
    write: Option<Write>,
    random_unit: f64,
    answer: Option<Answer>,
    is_answered: bool,
}

#[derive(Clone)]
enum Answer {
    Observed(Observed),
    Written(WriteEnd),
}

struct Elector {
    state: State,
    run: u64,
    waits_for: Option<usize>,
}

struct World {
    chance: Chance,
    now_ms: WorldMs,
    queue: BinaryHeap<Reverse<(WorldMs, u64, Happening)>>,
    sequence: u64,
    electors: Vec<Elector>,
    requests: Vec<Request>,
    /// The server's Lease.
    lease: Observed,
    versions: u64,
    /// The epochs that each leader led with, in the order in which they began.
    epochs: Vec<(usize, u64, u64)>,
}

impl World {
    fn new(chance: Chance) -> Self {
        let electors = (0..2).map(|index| Elector { state: fresh(index, 0), run: 0, waits_for: None }).collect();
        let mut world = Self {
            now_ms: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            electors,
            requests: Vec::new(),
            lease: Observed::Absent,
            versions: 0,
            epochs: Vec::new(),
            chance,
        };
        for elector in 0..2 {
            world.after(0, Happening::Act { elector });
        }
        for (at_ms, elector, is_graceful) in world.chance.restarts.clone() {
            world.after(at_ms, Happening::Restart { elector, is_graceful });
        }
        world
    }

    fn after(&mut self, delay_ms: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now_ms + delay_ms, self.sequence, happening)));
    }

    /// An elector's clock, which began at another time and runs at another rate.
    fn clock(&self, elector: usize) -> Duration {
        let offset_ms = [0, 77_777][elector];
        Duration::from_millis(offset_ms + self.now_ms * self.chance.clock_percents[elector] / 100)
    }

    /// World time until an elector's clock shows a time: rounded up.
    fn until(&self, elector: usize, time: Duration) -> u64 {
        let left = time.saturating_sub(self.clock(elector));
        u64::try_from(left.as_millis()).unwrap() * 100 / self.chance.clock_percents[elector] + 2
    }

    fn run(&mut self) {
        while let Some(Reverse((at_ms, _, happening))) = self.queue.pop() {
            if at_ms > END_MS {
                break;
            }
            self.now_ms = at_ms;
            match happening {
                Happening::Act { elector } => self.act(elector),
                Happening::Arrive { request } => self.arrive(request),
                Happening::Answer { request } => self.answer(request),
                Happening::Restart { elector, is_graceful } => self.restart(elector, is_graceful),
            }
            self.check();
        }
    }

    fn act(&mut self, elector: usize) {
        if self.electors[elector].waits_for.is_some() {
            return;
        }
        let now = self.clock(elector);
        match self.electors[elector].state.next(now) {
            Step::Wait(until) => {
                let delay_ms = self.until(elector, until);
                self.after(delay_ms, Happening::Act { elector });
            }
            Step::Look => self.send(elector, None),
            Step::Write(write) => self.send(elector, Some(write)),
        }
    }

    fn send(&mut self, elector: usize, write: Option<Write>) {
        let request = self.requests.len();
        let message = self.chance.messages[request % self.chance.messages.len()];
        let (run, started) = (self.electors[elector].run, self.clock(elector));
        let random_unit = message.random_unit;
        self.requests.push(Request { elector, run, started, write, random_unit, answer: None, is_answered: false });
        self.electors[elector].waits_for = Some(request);
        if !message.is_request_lost {
            self.after(message.there_ms, Happening::Arrive { request });
            if !message.is_answer_lost {
                self.after(message.there_ms + message.back_ms, Happening::Answer { request });
            }
        }
        let state = &self.electors[elector].state;
        let deadline = state.leads_until(started).map_or(Duration::MAX, |until| until.saturating_sub(started));
        let deadline_ms = self.until(elector, started + deadline.min(Duration::from_millis(CALL_DEADLINE_MS)));
        self.after(deadline_ms, Happening::Answer { request });
    }

    /// The server: reads, and writes by compare-and-set. A request whose sender has given up takes effect all the same.
    fn arrive(&mut self, request: usize) {
        let answer = match self.requests[request].write.clone() {
            None => Answer::Observed(self.lease.clone()),
            Some(write) => {
                let version = match &self.lease {
                    Observed::Absent => None,
                    Observed::Present { version, .. } => Some(version.clone()),
                };
                if write.expected == version {
                    self.versions += 1;
                    let version = self.versions.to_string();
                    self.lease = Observed::Present { version: version.clone(), record: write.record };
                    Answer::Written(WriteEnd::Done { version })
                } else {
                    Answer::Written(WriteEnd::Refused)
                }
            }
        };
        self.requests[request].answer = Some(answer);
    }

    fn answer(&mut self, index: usize) {
        let request = &mut self.requests[index];
        let elector = request.elector;
        if std::mem::replace(&mut request.is_answered, true) || request.run != self.electors[elector].run {
            return;
        }
        let (started, random_unit, write) = (request.started, request.random_unit, request.write.take());
        // At its deadline an answer that is on its way is as good as lost.
        let answer = request.answer.take();
        let now = self.clock(elector);
        let is_late = now >= started + Duration::from_millis(CALL_DEADLINE_MS);
        let answer = answer.filter(|_| !is_late);
        let elector_state = &mut self.electors[elector];
        elector_state.waits_for = None;
        match (write, answer) {
            (None, Some(Answer::Observed(observed))) => elector_state.state.looked(now, observed, random_unit),
            (None, _) => elector_state.state.looked_in_vain(now, random_unit),
            (Some(write), Some(Answer::Written(end))) => {
                elector_state.state.written((started, now), write.record, end, random_unit);
            }
            (Some(write), _) => {
                elector_state.state.written((started, now), write.record, WriteEnd::Unknown, random_unit);
            }
        }
        self.act(elector);
    }

    fn restart(&mut self, index: usize, is_graceful: bool) {
        let elector = &mut self.electors[index];
        let release = elector.state.give_up().filter(|_| is_graceful);
        elector.run += 1;
        let run = elector.run;
        elector.state = fresh(index, run);
        elector.waits_for = None;
        if let Some(write) = release {
            // The last request of the old run; nobody waits for its answer.
            let (started, run) = (self.clock(index), run - 1);
            let request = self.requests.len();
            self.requests.push(Request {
                elector: index,
                run,
                started,
                write: Some(write),
                random_unit: 0.0,
                answer: None,
                is_answered: true,
            });
            self.after(5, Happening::Arrive { request });
        }
        self.after(1, Happening::Act { elector: index });
    }

    /// At most one leads, and epochs grow from leader to leader.
    fn check(&mut self) {
        let leads = |index: usize| self.electors[index].state.leadership(self.clock(index));
        let (first, second) = (leads(0), leads(1));
        assert!(
            first == Leadership::Follower || second == Leadership::Follower,
            "both lead at {} ms: {first:?} and {second:?}",
            self.now_ms
        );
        for (index, leadership) in [first, second].into_iter().enumerate() {
            let Leadership::Leader { epoch } = leadership else { continue };
            let run = self.electors[index].run;
            match self.epochs.last() {
                Some((last_index, last_run, last_epoch)) if (*last_index, *last_run) == (index, run) => {
                    assert!(epoch >= *last_epoch);
                }
                Some((_, _, last_epoch)) => assert!(epoch > *last_epoch, "{epoch} follows {last_epoch}"),
                None => {}
            }
            if self.epochs.last() != Some(&(index, run, epoch)) {
                self.epochs.push((index, run, epoch));
            }
        }
    }
}

fn fresh(index: usize, run: u64) -> State {
    State::new(Holder { identity: format!("elector-{index}"), instance: format!("{index}-{run}") }, TIMING)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn two_electors_never_lead_at_the_same_time(chance in chance()) {
        World::new(chance).run();
    }

    /// Once messages arrive in time and nobody restarts, one of them leads.
    #[test]
    fn one_of_them_leads_when_nothing_is_lost(delays in prop::collection::vec(0..100_u64, 4..20)) {
        let message = |ms: &u64| Message {
            there_ms: *ms, back_ms: *ms, is_request_lost: false, is_answer_lost: false, random_unit: 0.3,
        };
        let messages = delays.iter().map(message).collect();
        let chance = Chance { clock_percents: [100, 110], messages, restarts: vec![(60_000, 0, false), (61_000, 1, false)] };
        let mut world = World::new(chance);
        world.run();
        let leaders = (0..2).filter(|index| {
            world.electors[*index].state.leadership(world.clock(*index)) != Leadership::Follower
        });
        prop_assert_eq!(leaders.count(), 1);
    }
}

#[test]
fn the_simulation_finds_what_it_looks_for() {
    // Clocks further apart than the protocol allows for: the leader's stands almost still.
    let message = Message { there_ms: 1, back_ms: 1, is_request_lost: false, is_answer_lost: false, random_unit: 0.5 };
    let chance = Chance { clock_percents: [10, 300], messages: vec![message], restarts: Vec::new() };
    let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| World::new(chance).run()));
    assert!(broken.is_err());
}
