//! The run: what is measured, how often, how long.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use super::report::Row;
use super::sink::Sink;
use super::{control, distributed, embedded};

/// Rates of the latency rows, in events a second.
pub const RATES: [u32; 3] = [200, 600, 2_000];
/// Percentiles of the latency rows.
pub const PERCENTILES: [usize; 2] = [50, 99];

/// Half of Harborhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Plane {
    /// Events: accepted and delivered.
    Data,
    /// Resources: planned and told of.
    Control,
}

/// What the data plane is measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pair {
    /// SQLite and the in-process queue.
    Embedded,
    /// PostgreSQL and RabbitMQ.
    Distributed,
}

/// What is measured, and how much of it.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Pairs of the data plane, in this order.
    pub pairs: Vec<Pair>,
    /// How much is done for each.
    pub effort: Effort,
    /// How much is done for the control plane; `None` leaves it out.
    pub control: Option<control::Effort>,
}

/// How much a run of the data plane does.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Repeats, of which medians are taken.
    pub repeats: usize,
    /// Before each measurement.
    pub warm_up: Duration,
    /// Each measurement; one of latencies takes longer where that would be few events.
    pub measured: Duration,
    /// Rows of a ledger that is measured beside an empty one; zero leaves that out.
    pub ledger_rows: u64,
    /// Only these rows of the distributed pair, by [`distributed::names`]; empty for all.
    pub only: Vec<String>,
}

impl Effort {
    /// About three minutes for the embedded pair, a quarter of an hour for the distributed one.
    pub const FULL: Self = Self {
        repeats: 3,
        warm_up: Duration::from_secs(1),
        measured: Duration::from_secs(4),
        ledger_rows: 0,
        only: Vec::new(),
    };
    /// About one minute and four: one repeat, so no medians.
    pub const QUICK: Self = Self {
        repeats: 1,
        warm_up: Duration::from_millis(500),
        measured: Duration::from_secs(3),
        ledger_rows: 0,
        only: Vec::new(),
    };

    /// Whether a row is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

/// Measures what is selected and answers the rows.
pub async fn run(selection: Selection) -> Result<Vec<Row>> {
    let Selection { pairs, effort, control } = selection;
    let names = distributed::names();
    for only in &effort.only {
        ensure!(names.contains(only), "there is no row {only}: use {}", names.join(", "));
    }
    let sink = Sink::start().await?;
    let mut rows = Vec::new();
    for pair in pairs {
        rows.extend(match pair {
            Pair::Embedded => embedded::measure(&sink, &effort).await?,
            Pair::Distributed => Box::pin(distributed::measure(&sink, &effort)).await?,
        });
    }
    if let Some(effort) = control {
        rows.extend(Box::pin(control::measure(&sink, effort)).await?);
    }
    Ok(rows)
}
