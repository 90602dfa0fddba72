//! The operator starts: among resources that nobody has planned, and among those that are as they should be.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use super::installation::Installation;
use super::number;
use crate::bench::report::Row;

/// Longest time until an operator is ready that finds everything as it should be, in seconds.
const START_SECONDS_MAX: f64 = 30.0;
/// Most resident memory of it, in megabytes.
const MEMORY_MEGABYTES_MAX: f64 = 250.0;
/// The server tells what a connection wrote a while after it did.
const STATISTICS_DELAY: Duration = Duration::from_secs(11);

/// Nothing is planned yet: until every resource is ready and in effect.
pub(super) async fn first(prefix: &str, installation: &mut Installation) -> Result<Vec<Row>> {
    let (before, began) = (installation.api.writes().await?, Instant::now());
    installation.start_operator().await?;
    installation.wait_until_planned().await?;
    let planned = began.elapsed();
    installation.wait_until_told().await?;
    let told = began.elapsed();
    let writes = installation.api.writes().await?.since(before);
    let operator = installation.operator()?.child();
    let row = |name: &str, unit, value| Row::new(format!("{prefix}_first_{name}"), unit, value, None);
    let resources = number(2 * installation.fleet.endpoints as u64);
    Ok(vec![
        Row::new(format!("{prefix}_resources"), "resources", resources, None),
        row("plan", "s", planned.as_secs_f64()),
        row("all_ready", "s", told.as_secs_f64()),
        row("status_writes", "writes", writes.statuses()),
        row("secret_writes", "writes", writes.secrets()),
        row("event_writes", "writes", writes.events()),
        row("cpu", "s", operator.cpu()?.as_secs_f64()),
        row("peak_memory", "MB", operator.peak_memory_megabytes()?),
    ])
}

/// Everything is as it should be: until the operator is ready and has planned, and what it writes then.
pub(super) async fn again(prefix: &str, installation: &mut Installation, idle: Duration) -> Result<Vec<Row>> {
    installation.wait_until_quiet().await?;
    installation.stop_operator().await?;
    sleep(STATISTICS_DELAY).await;
    let (before, ledger_before) = (installation.api.writes().await?, installation.ledger().await?);
    let began = Instant::now();
    installation.start_operator().await?;
    installation.wait_until_planned().await?;
    let started = began.elapsed();
    sleep(idle.max(STATISTICS_DELAY)).await;
    let writes = installation.api.writes().await?.since(before);
    let ledger = installation.ledger().await?;
    let operator = installation.operator()?.child();
    ensure!(writes.leases() > 0.0, "the API server does not count what the operator writes");
    let row = |name: &str, unit, value| Row::new(format!("{prefix}_start{name}"), unit, value, None);
    let changes = ledger.table_version - ledger_before.table_version;
    let ledger_writes = changes + ledger.rows_written - ledger_before.rows_written;
    Ok(vec![
        row("", "s", started.as_secs_f64()).at_most(START_SECONDS_MAX),
        row("_api_writes", "writes", writes.all()).at_most(0.0),
        row("_status_writes", "writes", writes.statuses()),
        row("_lease_writes", "writes", writes.leases()),
        row("_table_writes", "rows", number(u64::try_from(ledger_writes)?)).at_most(0.0),
        row("_cpu", "s", operator.cpu()?.as_secs_f64()),
        row("_peak_memory", "MB", operator.peak_memory_megabytes()?).at_most(MEMORY_MEGABYTES_MAX),
    ])
}
