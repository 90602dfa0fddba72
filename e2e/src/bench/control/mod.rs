//! The control plane: a real operator on a real API server, with a PostgreSQL ledger and real dispatchers, among
//! thousands of resources.
//!
//! What is told: how soon an edit is in use, how soon an operator works that finds everything as it should be, what it
//! costs to make everything so in the first place, and how often statuses are written while events flow.

mod api;
mod counts;
mod edit;
mod fleet;
mod installation;
mod start;
mod traffic;

use std::time::Duration;

use anyhow::Result;

use super::report::Row;
use super::servers::Servers;
use super::sink::Sink;
use crate::process::binaries;
use installation::Installation;

/// Endpoints of a usual run, and as many Subscriptions.
pub const ENDPOINTS_DEFAULT: usize = 10_000;
/// Edits among very many resources: each takes longer, and no floor waits for their percentiles.
const STRESS_EDITS: usize = 20;

/// How much a run does.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Endpoints, and as many Subscriptions.
    pub endpoints: usize,
    /// Edits that are timed.
    pub edits: usize,
    /// For how long an operator that has nothing to do is watched.
    pub idle: Duration,
    /// For how long statuses are counted while events flow.
    pub traffic: Duration,
    /// Endpoints of the stress rows, and as many Subscriptions; zero leaves them out.
    pub stress_endpoints: usize,
}

impl Effort {
    /// About a quarter of an hour, and longer than that for the stress rows.
    pub const FULL: Self = Self {
        endpoints: ENDPOINTS_DEFAULT,
        edits: 100,
        idle: Duration::from_secs(30),
        traffic: Duration::from_mins(3),
        stress_endpoints: 50_000,
    };
    /// About twelve minutes.
    pub const QUICK: Self = Self {
        edits: 40,
        idle: Duration::from_secs(15),
        traffic: Duration::from_mins(1),
        stress_endpoints: 0,
        ..Self::FULL
    };
}

/// Measures everything and answers the rows.
pub async fn measure(sink: &Sink, effort: Effort) -> Result<Vec<Row>> {
    // Built before anything runs that it would disturb.
    binaries()?;
    let servers = Servers::start().await?;
    let mut installation = Installation::start(&servers, sink, effort.endpoints).await?;
    let mut rows = start::first("control", &mut installation).await?;
    rows.extend(start::again("control", &mut installation, effort.idle).await?);
    rows.extend(edit::measure("control", &installation, effort.edits).await?);
    rows.extend(traffic::measure(&installation, sink, effort.traffic).await?);
    installation.stop().await?;
    if effort.stress_endpoints > 0 {
        let mut installation = Installation::start(&servers, sink, effort.stress_endpoints).await?;
        rows.extend(start::first("control_stress", &mut installation).await?);
        rows.extend(start::again("control_stress", &mut installation, effort.idle).await?);
        rows.extend(edit::measure("control_stress", &installation, STRESS_EDITS).await?);
        installation.stop().await?;
    }
    Ok(rows)
}

#[expect(clippy::cast_precision_loss, reason = "what is counted is far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}
