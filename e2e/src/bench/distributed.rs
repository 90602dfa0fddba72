//! The distributed pair, PostgreSQL and RabbitMQ, beside the bare pipeline.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::counted::{Counts, Protocol, relay};
use super::history;
use super::load::{ClosedLoop, Subject, closed_loop, fixed_rate};
use super::report::{Row, median, percentile_milliseconds};
use super::run::{Effort, PERCENTILES, RATES};
use super::servers::Servers;
use super::sink::{PAYLOAD_BYTES, Sink};
use super::system::{Addresses, System};
use super::table::Route;
use crate::process::dispatcher;

/// Size of a large payload.
const LARGE_PAYLOAD_BYTES: usize = 16 * 1024;

/// A row that a closed loop measures.
struct Shape {
    row: &'static str,
    route: Route,
    payload_bytes: usize,
}

/// The closed loops, in this order.
const SHAPES: [Shape; 6] = [
    Shape { row: "ingest_only", route: Route::None, payload_bytes: PAYLOAD_BYTES },
    Shape { row: "one_to_one", route: Route::One, payload_bytes: PAYLOAD_BYTES },
    Shape { row: "one_to_ten", route: Route::Ten, payload_bytes: PAYLOAD_BYTES },
    Shape { row: "one_to_hundred", route: Route::Hundred, payload_bytes: PAYLOAD_BYTES },
    Shape { row: "one_to_one_16_kib", route: Route::One, payload_bytes: LARGE_PAYLOAD_BYTES },
    Shape { row: "one_to_one_tls", route: Route::OneOverTls, payload_bytes: PAYLOAD_BYTES },
];
/// Shapes of which it is told where the work is done.
const EXAMINED: [&str; 2] = ["one_to_one", "one_to_ten"];

/// What a closed loop came to.
struct Measured {
    per_second: f64,
    /// Microseconds of CPU for an event, by process: those of the system, then the servers.
    cpu: Vec<(&'static str, f64)>,
    wal_bytes_per_event: f64,
}

/// What was measured of one system in one repeat.
#[derive(Default)]
struct Figures {
    loops: Vec<Measured>,
    /// For each rate and percentile, in milliseconds.
    latencies: Vec<f64>,
    /// Of each process, in MiB.
    memory: Vec<(&'static str, f64)>,
}

/// One repeat.
struct Repeat {
    relay_limit: f64,
    pipeline: Figures,
    harborhook: Figures,
}

/// Measures everything and answers the rows.
pub async fn measure(sink: &Sink, effort: Effort) -> Result<Vec<Row>> {
    // Built before anything runs that it would disturb.
    dispatcher()?;
    let servers = Servers::start().await?;
    let mut repeats = Vec::new();
    for number in 0..effort.repeats {
        repeats.push(Box::pin(repeat(&servers, sink, effort, number % 2 == 0)).await?);
    }
    let mut rows = rows(&repeats);
    rows.extend(counted(&servers, sink, effort).await?);
    if effort.ledger_rows > 0 {
        rows.extend(full_ledger(&servers, sink, effort).await?);
    }
    Ok(rows)
}

/// Both systems, figure by figure, one after the other; who comes first alternates between the repeats.
async fn repeat(servers: &Servers, sink: &Sink, effort: Effort, pipeline_first: bool) -> Result<Repeat> {
    let storage = servers.storage().await?;
    let addresses = Addresses::of(&storage);
    let pipeline = System::pipeline(storage, &addresses, sink).await?;
    let storage = servers.storage().await?;
    let addresses = Addresses::of(&storage);
    let harborhook = System::harborhook(storage, &addresses, sink).await?;
    let url = format!("http://{}/relay", sink.address);
    let relay = Subject { url, event_type: None, fanout: 1, payload_bytes: PAYLOAD_BYTES };

    let mut duel = [(pipeline, Figures::default()), (harborhook, Figures::default())];
    if !pipeline_first {
        duel.reverse();
    }
    // Latencies first: they need a system that is not still busy with a closed loop's rest.
    for rate in RATES {
        for (system, figures) in &mut duel {
            let subject = system.subject(Route::One, PAYLOAD_BYTES);
            let mut latencies = fixed_rate(sink, &subject, rate, effort.measured).await?;
            let percentiles = PERCENTILES.map(|percent| percentile_milliseconds(&mut latencies, percent));
            figures.latencies.extend(percentiles);
            system.settle(sink).await?;
        }
    }
    let relay_limit = closed_loop(sink, &relay, effort.warm_up, effort.measured).await?;
    for shape in &SHAPES {
        for (system, figures) in &mut duel {
            servers.checkpoint().await?;
            figures.loops.push(examined_loop(servers, system, sink, shape, effort).await?);
            system.settle(sink).await?;
        }
    }
    for (system, figures) in &mut duel {
        for part in system.parts() {
            figures.memory.push((part.name, part.peak_memory_mebibytes()?));
        }
    }
    if !pipeline_first {
        duel.reverse();
    }
    let [(first, pipeline), (second, harborhook)] = duel;
    first.stop().await?;
    second.stop().await?;
    Ok(Repeat { relay_limit, pipeline, harborhook })
}

/// A closed loop with all that can be seen from outside while it runs.
async fn examined_loop(
    servers: &Servers,
    system: &System,
    sink: &Sink,
    shape: &Shape,
    effort: Effort,
) -> Result<Measured> {
    let subject = system.subject(shape.route, shape.payload_bytes);
    let load = ClosedLoop::start(sink, &subject);
    sleep(effort.warm_up).await;
    let before = Sample::take(servers, system, sink, &load).await?;
    sleep(effort.measured).await;
    let after = Sample::take(servers, system, sink, &load).await?;
    load.stop(sink).await?;
    Ok(before.until(&after, shape.route.fanout()))
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
            per_second: units / (after.at - self.at).as_secs_f64(),
            cpu: cpu
                .map(|(before, after)| (after.0, after.1.saturating_sub(before.1).as_secs_f64() * 1e6 / events))
                .collect(),
            wal_bytes_per_event: number(after.wal_bytes - self.wal_bytes) / events,
        }
    }
}

fn rows(repeats: &[Repeat]) -> Vec<Row> {
    let row = |name: String, unit: &'static str, figure: &dyn Fn(&Figures) -> f64| {
        let middle = |of: fn(&Repeat) -> &Figures| median(repeats.iter().map(|repeat| figure(of(repeat))).collect());
        Row::beside_pipeline(name, unit, middle(|repeat| &repeat.harborhook), middle(|repeat| &repeat.pipeline))
    };
    let relay = median(repeats.iter().map(|repeat| repeat.relay_limit).collect());
    let mut rows = vec![Row::new("distributed_relay_limit", "requests/s", relay, Some(relay))];
    for (index, shape) in SHAPES.iter().enumerate() {
        let unit = if shape.route == Route::None { "events/s" } else { "deliveries/s" };
        let name = format!("distributed_{}", shape.row);
        rows.push(row(name, unit, &|figures| figures.loops[index].per_second).with_relay(relay));
    }
    for (index, (rate, percent)) in RATES.iter().flat_map(|rate| PERCENTILES.map(|percent| (rate, percent))).enumerate()
    {
        let name = format!("distributed_latency_{rate}_p{percent}");
        rows.push(row(name, "ms", &|figures| figures.latencies[index]));
    }
    let examined = SHAPES.iter().enumerate().filter(|(_, shape)| EXAMINED.contains(&shape.row));
    for (index, shape) in examined {
        for (process, _) in &repeats[0].harborhook.loops[index].cpu {
            let name = format!("distributed_{}_cpu_{process}", shape.row);
            rows.push(row(name, "us/event", &|figures| of(process, &figures.loops[index].cpu)));
        }
        let name = format!("distributed_{}_wal", shape.row);
        rows.push(row(name, "bytes/event", &|figures| figures.loops[index].wal_bytes_per_event));
    }
    for (process, _) in &repeats[0].harborhook.memory {
        let name = format!("distributed_peak_memory_{process}");
        rows.push(row(name, "MiB", &|figures| of(process, &figures.memory)));
    }
    rows
}

/// The figure of one process.
fn of(process: &str, figures: &[(&'static str, f64)]) -> f64 {
    figures.iter().find(|(name, _)| *name == process).map_or(f64::NAN, |(_, figure)| *figure)
}

/// The counted work of both systems. They go through a relay that counts, so nothing here is a rate.
async fn counted(servers: &Servers, sink: &Sink, effort: Effort) -> Result<Vec<Row>> {
    let pipeline = work(servers, sink, effort, Kind::Pipeline).await?;
    let harborhook = work(servers, sink, effort, Kind::Harborhook).await?;
    let rows = harborhook.into_iter().zip(pipeline);
    Ok(rows.map(|((name, ours), (_, bare))| Row::beside_pipeline(name, "/event", ours, bare)).collect())
}

#[derive(Clone, Copy)]
enum Kind {
    Pipeline,
    Harborhook,
}

/// What one system does for an event, by name.
async fn work(servers: &Servers, sink: &Sink, effort: Effort, kind: Kind) -> Result<Vec<(String, f64)>> {
    let counts = Arc::new(Counts::default());
    let storage = servers.storage().await?;
    let addresses = Addresses {
        database: relay(&storage.database(), Protocol::Postgres, Arc::clone(&counts)).await?,
        broker: relay(storage.broker(), Protocol::Amqp, Arc::clone(&counts)).await?,
    };
    let system = match kind {
        Kind::Pipeline => System::pipeline(storage, &addresses, sink).await?,
        Kind::Harborhook => System::harborhook(storage, &addresses, sink).await?,
    };
    let mut work = Vec::new();
    for shape in SHAPES.iter().filter(|shape| EXAMINED.contains(&shape.row)) {
        let load = ClosedLoop::start(sink, &system.subject(shape.route, shape.payload_bytes));
        sleep(effort.warm_up).await;
        let (before, accepted) = (counts.get(), load.accepted());
        sleep(effort.measured).await;
        let (after, events) = (counts.get(), number(load.accepted() - accepted));
        load.stop(sink).await?;
        system.settle(sink).await?;
        for (name, count) in [
            ("round_trips", after.round_trips - before.round_trips),
            ("transactions", after.transactions - before.transactions),
            ("frames", after.frames - before.frames),
            ("messages", after.messages - before.messages),
        ] {
            work.push((format!("distributed_{}_{name}", shape.row), number(count) / events));
        }
    }
    system.stop().await?;
    Ok(work)
}

/// Harborhook on a ledger that holds rows already, beside itself on an empty one.
async fn full_ledger(servers: &Servers, sink: &Sink, effort: Effort) -> Result<Vec<Row>> {
    let mut systems = Vec::new();
    for rows in [0, effort.ledger_rows] {
        let storage = servers.storage().await?;
        let addresses = Addresses::of(&storage);
        let system = System::harborhook(storage, &addresses, sink).await?;
        history::make(&system.storage().database(), rows).await?;
        systems.push(system);
    }
    let mut rows = Vec::new();
    for shape in SHAPES.iter().filter(|shape| EXAMINED.contains(&shape.row)) {
        let mut rates = [Vec::new(), Vec::new()];
        for number in 0..effort.repeats {
            for place in if number % 2 == 0 { [0, 1] } else { [1, 0] } {
                let (system, rates) = (&systems[place], &mut rates[place]);
                servers.checkpoint().await?;
                let subject = system.subject(shape.route, shape.payload_bytes);
                rates.push(closed_loop(sink, &subject, effort.warm_up, effort.measured).await?);
                system.settle(sink).await?;
            }
        }
        let [empty, full] = rates.map(median);
        rows.push(Row::new(format!("distributed_{}_empty_ledger", shape.row), "deliveries/s", empty, None));
        let name = format!("distributed_{}_full_ledger", shape.row);
        rows.push(Row::beside(name, "deliveries/s", full, empty));
    }
    for system in systems {
        system.stop().await?;
    }
    Ok(rows)
}

#[expect(clippy::cast_precision_loss, reason = "what is counted is far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}
