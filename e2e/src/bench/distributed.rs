//! The distributed pair, PostgreSQL and RabbitMQ, beside the bare pipeline.

use std::sync::Arc;

use anyhow::Result;
use tokio::time::sleep;

use super::counted::{Counts, Protocol, relay};
use super::duel::{Duel, Figures, Measured, Shape, number, order};
use super::history;
use super::load::{ClosedLoop, Subject, closed_loop};
use super::report::{Row, median, percentile_milliseconds};
use super::run::{Effort, PERCENTILES, RATES};
use super::servers::Servers;
use super::sink::{PAYLOAD_BYTES, Sink};
use super::system::{Addresses, System};
use super::table::Route;
use crate::process::dispatcher;

/// Size of a large payload.
const LARGE_PAYLOAD_BYTES: usize = 16 * 1024;

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
/// The rate of the bare client.
const RELAY_LIMIT: &str = "relay_limit";
/// All that is counted by a relay.
const COUNTED: &str = "counted";
/// All that is measured on a ledger with rows.
const FULL_LEDGER: &str = "full_ledger";
/// Turns of each ledger in a repeat.
const LEDGER_TURNS: u32 = 8;

/// What can be asked for by itself.
pub fn names() -> Vec<String> {
    let rates = RATES.iter().map(|rate| latency_name(*rate));
    let shapes = SHAPES.iter().map(|shape| shape.row.to_owned());
    rates.chain([RELAY_LIMIT.to_owned()]).chain(shapes).chain([COUNTED.to_owned(), FULL_LEDGER.to_owned()]).collect()
}

fn latency_name(rate: u32) -> String {
    format!("latency_{rate}")
}

/// One repeat.
struct Repeat {
    relay_limit: Option<f64>,
    pipeline: Figures,
    harborhook: Figures,
}

/// Measures everything that is wanted and answers the rows.
pub async fn measure(sink: &Sink, effort: &Effort) -> Result<Vec<Row>> {
    // Built before anything runs that it would disturb.
    dispatcher()?;
    let servers = Servers::start().await?;
    let mut repeats = Vec::new();
    for number in 0..effort.repeats {
        repeats.push(Box::pin(repeat(&servers, sink, effort, u32::try_from(number)?)).await?);
    }
    let mut rows = rows(&repeats);
    if effort.wants(COUNTED) {
        rows.extend(counted(&servers, sink, effort).await?);
    }
    if effort.ledger_rows > 0 && effort.wants(FULL_LEDGER) {
        rows.extend(full_ledger(&servers, sink, effort).await?);
    }
    Ok(rows)
}

/// Both systems, figure by figure.
async fn repeat(servers: &Servers, sink: &Sink, effort: &Effort, number: u32) -> Result<Repeat> {
    let mut duel = Duel::start(servers, sink, effort, number).await?;
    // Latencies first: they need a system that is not still busy with a closed loop's rest.
    for rate in RATES {
        if effort.wants(&latency_name(rate)) {
            duel.latencies(rate).await?;
        }
    }
    let mut relay_limit = None;
    if effort.wants(RELAY_LIMIT) {
        let url = format!("http://{}/relay", sink.address);
        let relay = Subject { url, event_type: None, fanout: 1, payload_bytes: PAYLOAD_BYTES };
        relay_limit = Some(closed_loop(sink, &relay, effort.warm_up, effort.measured).await?);
    }
    for shape in &SHAPES {
        if effort.wants(shape.row) {
            duel.closed_loop(shape).await?;
        }
    }
    let [pipeline, harborhook] = Box::pin(duel.finish()).await?;
    Ok(Repeat { relay_limit, pipeline, harborhook })
}

fn rows(repeats: &[Repeat]) -> Vec<Row> {
    let row = |name: String, unit: &'static str, figure: &dyn Fn(&Figures) -> f64| {
        let middle = |of: fn(&Repeat) -> &Figures| median(repeats.iter().map(|repeat| figure(of(repeat))).collect());
        Row::beside_pipeline(name, unit, middle(|repeat| &repeat.harborhook), middle(|repeat| &repeat.pipeline))
    };
    let relays: Vec<f64> = repeats.iter().filter_map(|repeat| repeat.relay_limit).collect();
    let relay = (!relays.is_empty()).then(|| median(relays));
    let mut rows: Vec<Row> =
        relay.map(|relay| Row::new("distributed_relay_limit", "requests/s", relay, Some(relay))).into_iter().collect();
    let measured = &repeats[0].harborhook;
    let shapes: Vec<&Shape> = SHAPES.iter().filter(|shape| measured.loops.contains_key(shape.row)).collect();
    for shape in &shapes {
        let unit = if shape.route == Route::None { "events/s" } else { "deliveries/s" };
        let row = row(format!("distributed_{}", shape.row), unit, &|figures| figures.loops[shape.row].per_second());
        rows.push(Row { relay, ..row });
    }
    for (rate, percent) in measured.latencies.keys().flat_map(|rate| PERCENTILES.map(|percent| (rate, percent))) {
        let name = format!("distributed_{}_p{percent}", latency_name(*rate));
        rows.push(row(name, "ms", &|figures| percentile_milliseconds(&mut figures.latencies[rate].clone(), percent)));
    }
    for shape in shapes.iter().filter(|shape| EXAMINED.contains(&shape.row)) {
        for (process, _) in measured.loops[shape.row].cpu_per_event() {
            let name = format!("distributed_{}_cpu_{process}", shape.row);
            rows.push(row(name, "us/event", &|figures| of(process, figures.loops[shape.row].cpu_per_event())));
        }
        let name = format!("distributed_{}_wal", shape.row);
        rows.push(row(name, "bytes/event", &|figures| figures.loops[shape.row].wal_bytes_per_event()));
    }
    for (process, _) in &measured.memory {
        let name = format!("distributed_peak_memory_{process}");
        rows.push(row(name, "MiB", &|figures| of(process, figures.memory.iter().copied())));
    }
    rows
}

/// The figure of one process.
fn of(process: &str, mut figures: impl Iterator<Item = (&'static str, f64)>) -> f64 {
    figures.find(|(name, _)| *name == process).map_or(f64::NAN, |(_, figure)| figure)
}

/// The counted work of both systems. They go through a relay that counts, so nothing here is a rate.
async fn counted(servers: &Servers, sink: &Sink, effort: &Effort) -> Result<Vec<Row>> {
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
async fn work(servers: &Servers, sink: &Sink, effort: &Effort, kind: Kind) -> Result<Vec<(String, f64)>> {
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
async fn full_ledger(servers: &Servers, sink: &Sink, effort: &Effort) -> Result<Vec<Row>> {
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
        let mut turns = [Vec::new(), Vec::new()];
        for turn in 0..LEDGER_TURNS * u32::try_from(effort.repeats)? {
            for place in order(turn) {
                let duration = effort.measured / 2;
                turns[place].push(servers.turn(sink, &systems[place], shape, effort.warm_up, duration).await?);
            }
        }
        for system in &systems {
            system.prove().await?;
        }
        rows.extend(beside_empty(shape.row, &turns));
    }
    for system in systems {
        system.stop().await?;
    }
    Ok(rows)
}

/// The rows of a shape on two ledgers: the empty one, then the full one. Figures are medians of all turns, and ratios
/// medians of the ratios of two turns that follow each other: what slows the machine down for a while is in both.
fn beside_empty(shape: &str, [empty, full]: &[Vec<Measured>; 2]) -> Vec<Row> {
    let middle = |turns: &[Measured], figure: &dyn Fn(&Measured) -> f64| median(turns.iter().map(figure).collect());
    let row = |name: String, unit, figure: &dyn Fn(&Measured) -> f64| {
        let ratios = full.iter().zip(empty).map(|(full, empty)| figure(full) / figure(empty)).collect();
        Row { ratio: Some(median(ratios)), ..Row::new(name, unit, middle(full, figure), None) }
    };
    let rate = Measured::per_second;
    let mut rows = vec![
        Row::new(format!("distributed_{shape}_empty_ledger"), "deliveries/s", middle(empty, &rate), None),
        row(format!("distributed_{shape}_full_ledger"), "deliveries/s", &rate),
    ];
    for (process, _) in empty[0].cpu_per_event() {
        let name = format!("distributed_{shape}_full_ledger_cpu_{process}");
        rows.push(row(name, "us/event", &|measured| of(process, measured.cpu_per_event())));
    }
    rows.push(row(format!("distributed_{shape}_full_ledger_wal"), "bytes/event", &Measured::wal_bytes_per_event));
    rows
}
