//! The run: which figures, in which order, how often.

use std::time::Duration;

use anyhow::Result;

use super::load::{Subject, closed_loop, fixed_rate};
use super::report::{Row, median, percentile_milliseconds};
use super::server::Server;
use super::sink::Sink;

/// Rates of the latency rows, in events a second.
const RATES: [u32; 3] = [200, 600, 2_000];
/// Percentiles of the latency rows.
const PERCENTILES: [usize; 2] = [50, 99];

/// How much a run does.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Repeats, of which medians are taken.
    pub repeats: usize,
    /// Before each measurement.
    pub warm_up: Duration,
    /// Each measurement.
    pub measured: Duration,
}

impl Effort {
    /// About two minutes.
    pub const FULL: Self = Self { repeats: 3, warm_up: Duration::from_secs(1), measured: Duration::from_secs(4) };
    /// About half a minute: one repeat, so no medians.
    pub const QUICK: Self = Self { repeats: 1, warm_up: Duration::from_millis(500), measured: Duration::from_secs(2) };
}

/// What one repeat measured: the bare client and the system, figure by figure.
#[derive(Default)]
struct Repeat {
    relay_limit: f64,
    one_to_one: f64,
    one_to_ten: f64,
    /// For each rate and percentile: the bare client's, then the system's.
    latencies: Vec<(f64, f64)>,
    peak_memory_mebibytes: f64,
}

/// Measures everything and answers the rows.
pub async fn run(effort: Effort) -> Result<Vec<Row>> {
    let sink = Sink::start().await?;
    let mut repeats = Vec::new();
    for _ in 0..effort.repeats {
        repeats.push(repeat(&sink, effort).await?);
    }
    Ok(rows(&repeats))
}

async fn repeat(sink: &Sink, effort: Effort) -> Result<Repeat> {
    let relay = Subject { url: format!("http://{}/relay", sink.address), event_type: None, fanout: 1 };
    let server = Server::start(sink.address).await?;
    let to_one = Subject { url: server.publish_url(), event_type: Some("bench.one"), fanout: 1 };
    let to_ten = Subject { url: server.publish_url(), event_type: Some("bench.ten"), fanout: 10 };
    let mut result = Repeat::default();
    // Latencies first: they need a system that is not still busy with a closed loop's rest.
    for rate in RATES {
        let mut bare = fixed_rate(sink, &relay, rate, effort.measured).await?;
        let mut ours = fixed_rate(sink, &to_one, rate, effort.measured).await?;
        for percent in PERCENTILES {
            let pair = (percentile_milliseconds(&mut bare, percent), percentile_milliseconds(&mut ours, percent));
            result.latencies.push(pair);
        }
    }
    result.relay_limit = closed_loop(sink, &relay, effort.warm_up, effort.measured).await?;
    result.one_to_one = closed_loop(sink, &to_one, effort.warm_up, effort.measured).await?;
    server.wait_until_idle().await?;
    result.one_to_ten = closed_loop(sink, &to_ten, effort.warm_up, effort.measured).await?;
    result.peak_memory_mebibytes = server.peak_memory_mebibytes()?;
    server.stop().await?;
    Ok(result)
}

fn rows(repeats: &[Repeat]) -> Vec<Row> {
    let middle = |figure: &dyn Fn(&Repeat) -> f64| median(repeats.iter().map(figure).collect());
    let relay = middle(&|repeat| repeat.relay_limit);
    let mut rows = vec![
        Row::new("relay_limit", "requests/s", relay, Some(relay)),
        Row::new("one_to_one", "deliveries/s", middle(&|repeat| repeat.one_to_one), Some(relay)),
        Row::new("one_to_ten", "deliveries/s", middle(&|repeat| repeat.one_to_ten), Some(relay)),
    ];
    let latency_rows = RATES.iter().flat_map(|rate| PERCENTILES.map(|percent| (rate, percent)));
    for (index, (rate, percent)) in latency_rows.enumerate() {
        let bare = middle(&|repeat| repeat.latencies[index].0);
        let ours = middle(&|repeat| repeat.latencies[index].1);
        rows.push(Row::new(format!("latency_{rate}_p{percent}"), "ms", ours, Some(bare)));
    }
    rows.push(Row::new("peak_memory", "MiB", middle(&|repeat| repeat.peak_memory_mebibytes), None));
    rows
}
