//! The two systems side by side, measured in turns: what slows the machine down for a while meets both alike.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::load::{ClosedLoop, FixedRate};
use super::run::Effort;
use super::servers::Servers;
use super::sink::{PAYLOAD_BYTES, Sink};
use super::system::{Addresses, System};
use super::table::Route;

/// Turns of each system in a row of latencies.
const LATENCY_TURNS: u32 = 4;
/// Turns of each system in a closed loop. With two, who is first in one is second in the other.
const LOOP_TURNS: u32 = 2;

/// A row that a closed loop measures.
pub struct Shape {
    /// Its name.
    pub row: &'static str,
    /// Where events go.
    pub route: Route,
    /// Size of a payload.
    pub payload_bytes: usize,
}

/// What the turns of a closed loop came to.
#[derive(Default)]
pub struct Measured {
    /// Deliveries, or events of a route without any.
    units: f64,
    events: f64,
    elapsed: Duration,
    /// CPU time by process: those of the system, then the servers.
    cpu: Vec<(&'static str, Duration)>,
    wal_bytes: f64,
}

impl Measured {
    /// Deliveries a second, or events of a route without any.
    pub fn per_second(&self) -> f64 {
        self.units / self.elapsed.as_secs_f64()
    }

    /// Microseconds of CPU for an event, by process.
    pub fn cpu_per_event(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.cpu.iter().map(|(process, time)| (*process, time.as_secs_f64() * 1e6 / self.events))
    }

    /// Bytes of WAL for an event.
    pub fn wal_bytes_per_event(&self) -> f64 {
        self.wal_bytes / self.events
    }

    fn add(&mut self, turn: Self) {
        self.units += turn.units;
        self.events += turn.events;
        self.elapsed += turn.elapsed;
        self.wal_bytes += turn.wal_bytes;
        if self.cpu.is_empty() {
            self.cpu = turn.cpu;
        } else {
            self.cpu.iter_mut().zip(turn.cpu).for_each(|(sum, (_, time))| sum.1 += time);
        }
    }
}

/// What was measured of one system.
#[derive(Default)]
pub struct Figures {
    /// Closed loops, by the name of the row.
    pub loops: BTreeMap<&'static str, Measured>,
    /// Latencies, by events a second.
    pub latencies: BTreeMap<u32, Vec<Duration>>,
    /// Largest memory of each process, in MiB.
    pub memory: Vec<(&'static str, f64)>,
}

/// Both systems, running: the bare pipeline, then Harborhook.
pub struct Duel<'a> {
    servers: &'a Servers,
    sink: &'a Sink,
    effort: &'a Effort,
    sides: [(System, Figures); 2],
    /// Who has the first turn.
    first: u32,
}

impl<'a> Duel<'a> {
    /// Starts both on storage of their own.
    pub async fn start(servers: &'a Servers, sink: &'a Sink, effort: &'a Effort, first: u32) -> Result<Self> {
        let storage = servers.storage().await?;
        let addresses = Addresses::of(&storage);
        let pipeline = System::pipeline(storage, &addresses, sink).await?;
        let storage = servers.storage().await?;
        let addresses = Addresses::of(&storage);
        let harborhook = System::harborhook(storage, &addresses, sink).await?;
        let sides = [(pipeline, Figures::default()), (harborhook, Figures::default())];
        Ok(Self { servers, sink, effort, sides, first })
    }

    /// Measures the latencies of both at a rate.
    pub async fn latencies(&mut self, per_second: u32) -> Result<()> {
        let Self { sink, effort, .. } = *self;
        let loads: Vec<FixedRate> = self
            .sides
            .iter()
            .map(|(system, _)| FixedRate::new(system.subject(Route::One, PAYLOAD_BYTES), per_second))
            .collect();
        for turn in 0..LATENCY_TURNS {
            for place in order(self.first + turn) {
                let (system, figures) = &mut self.sides[place];
                let measured = loads[place].duration(effort.measured) / LATENCY_TURNS;
                let latencies = loads[place].run(sink, effort.warm_up, measured).await?;
                figures.latencies.entry(per_second).or_default().extend(latencies);
                system.settle(sink).await?;
            }
        }
        Ok(())
    }

    /// Measures both in a closed loop.
    pub async fn closed_loop(&mut self, shape: &Shape) -> Result<()> {
        for turn in 0..LOOP_TURNS {
            for place in order(self.first + turn) {
                let (system, figures) = &mut self.sides[place];
                let duration = self.effort.measured / LOOP_TURNS;
                let measured = self.servers.turn(self.sink, system, shape, self.effort.warm_up, duration).await?;
                figures.loops.entry(shape.row).or_default().add(measured);
                system.prove().await?;
            }
        }
        Ok(())
    }

    /// Ends both, and answers what was measured.
    pub async fn finish(self) -> Result<[Figures; 2]> {
        let mut all = [Figures::default(), Figures::default()];
        for ((system, mut figures), place) in self.sides.into_iter().zip(&mut all) {
            for part in system.parts() {
                figures.memory.push((part.name, part.peak_memory_mebibytes()?));
            }
            system.stop().await?;
            *place = figures;
        }
        Ok(all)
    }
}

impl Servers {
    /// A closed loop, from a checkpoint until everything has arrived, with all that can be seen from outside meanwhile.
    /// What the ledger says of it is for the caller to ask.
    pub(super) async fn turn(
        &self,
        sink: &Sink,
        system: &System,
        shape: &Shape,
        warm_up: Duration,
        measured: Duration,
    ) -> Result<Measured> {
        self.checkpoint().await?;
        let load = ClosedLoop::start(sink, &system.subject(shape.route, shape.payload_bytes));
        sleep(warm_up).await;
        let before = Sample::take(self, system, sink, &load).await?;
        sleep(measured).await;
        let after = Sample::take(self, system, sink, &load).await?;
        load.stop(sink).await?;
        system.drain(sink).await?;
        Ok(before.until(&after, shape.route.fanout()))
    }
}

/// Who goes first and who second.
pub(super) fn order(turn: u32) -> [usize; 2] {
    if turn.is_multiple_of(2) { [0, 1] } else { [1, 0] }
}

/// Everything that counts up, at one moment.
struct Sample {
    at: Instant,
    arrivals: u64,
    accepted: u64,
    cpu: Vec<(&'static str, Duration)>,
    wal_bytes: u64,
}

impl Sample {
    async fn take(servers: &Servers, system: &System, sink: &Sink, load: &ClosedLoop) -> Result<Self> {
        let (at, arrivals, accepted) = (Instant::now(), sink.arrivals(), load.accepted());
        let mut cpu = Vec::new();
        for part in system.parts() {
            cpu.push((part.name, part.cpu()?));
        }
        let used = servers.used().await?;
        cpu.extend([("postgres", used.postgres_cpu), ("rabbitmq", used.rabbitmq_cpu)]);
        Ok(Self { at, arrivals, accepted, cpu, wal_bytes: used.wal_bytes })
    }

    fn until(&self, after: &Self, fanout: u64) -> Measured {
        let arrivals = number(after.arrivals - self.arrivals);
        let (units, events) = match fanout {
            0 => (number(after.accepted - self.accepted), number(after.accepted - self.accepted)),
            fanout => (arrivals, arrivals / number(fanout)),
        };
        let cpu = self.cpu.iter().zip(&after.cpu);
        Measured {
            units,
            events,
            elapsed: after.at - self.at,
            cpu: cpu.map(|(before, after)| (after.0, after.1.saturating_sub(before.1))).collect(),
            wal_bytes: number(after.wal_bytes - self.wal_bytes),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "what is counted is far below 2^52")]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_add_up_to_a_rate_and_to_shares_of_an_event() {
        let turn = |units: f64, milliseconds| Measured {
            units,
            events: units / 10.0,
            elapsed: Duration::from_millis(milliseconds),
            cpu: vec![("deliver", Duration::from_millis(milliseconds / 2))],
            wal_bytes: units,
        };
        let mut measured = Measured::default();
        measured.add(turn(1_000.0, 1_000));
        measured.add(turn(3_000.0, 1_000));
        assert!((measured.per_second() - 2_000.0).abs() < 1e-9);
        assert!((measured.wal_bytes_per_event() - 10.0).abs() < 1e-9);
        let cpu: Vec<_> = measured.cpu_per_event().collect();
        assert!(matches!(cpu[..], [("deliver", microseconds)] if (microseconds - 2_500.0).abs() < 1e-6), "{cpu:?}");
    }

    #[test]
    fn each_of_the_two_goes_first_as_often_as_the_other() {
        assert_eq!([order(0), order(1)], [[0, 1], [1, 0]]);
    }
}
