//! The way of one edit: from the moment at which it is sent to the API server until every dispatcher works with it, and
//! until the resource says so.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::Kind;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::fleet::{event_type, is_true, path};
use super::installation::Installation;
use crate::bench::report::{Row, percentile_milliseconds};

/// Most time until an edit is in use everywhere, at the 95th percentile, in milliseconds.
const LIVE_MILLISECONDS_MAX: f64 = 1000.0;
/// How often dispatchers and the resource are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
const DEADLINE: Duration = Duration::from_mins(1);
/// Far from one edited resource to the next, and in the end everywhere: a prime.
const STRIDE: usize = 7_919;
/// Between edits, pauses of different lengths, so that no timer beats together with them.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(210), Duration::from_millis(730), Duration::from_millis(470), Duration::from_millis(1_050)];

/// What is told of the durations.
const PERCENTILES: [(usize, &str); 3] = [(50, "p50"), (95, "p95"), (100, "max")];

/// Edits Endpoints and Subscriptions in turn, one after the other.
pub(super) async fn measure(prefix: &str, installation: &Installation, edits: usize) -> Result<Vec<Row>> {
    let (mut live, mut told) = (Vec::new(), Vec::new());
    for edit in 0..edits {
        let resource = edit * STRIDE % installation.fleet.endpoints;
        let kind = [Kind::Endpoint, Kind::Subscription][edit % 2];
        let spec = match kind {
            Kind::Endpoint => json!({"timeoutSeconds": 11 + edit % 10}),
            _ => json!({"eventTypes": [event_type(resource), format!("bench.edit{edit}")]}),
        };
        let (is_live, is_told) = one(installation, &path(kind, resource), &json!({"spec": spec})).await?;
        live.push(is_live);
        told.push(is_told);
        sleep(PAUSES[edit % PAUSES.len()]).await;
    }
    let mut rows = Vec::new();
    for (name, durations) in [("live", &mut live), ("programmed", &mut told)] {
        for (percent, label) in PERCENTILES {
            let value = percentile_milliseconds(durations, percent);
            let row = Row::new(format!("{prefix}_edit_{name}_{label}"), "ms", value, None);
            // The floor is for the usual number of resources, and for what dispatchers do.
            let has_floor = prefix == "control" && (name, percent) == ("live", 95);
            rows.push(if has_floor { row.at_most(LIVE_MILLISECONDS_MAX) } else { row });
        }
    }
    Ok(rows)
}

/// One edit: the time until it is live, and the time until its resource says so.
async fn one(installation: &Installation, path: &str, change: &Value) -> Result<(Duration, Duration)> {
    let before = installation.ledger().await?.table_version;
    let began = Instant::now();
    let edited = installation.api.patch(path, change).await?;
    let generation = &edited["metadata"]["generation"];
    #[expect(clippy::cast_precision_loss, reason = "versions are far below 2^52")]
    let version_before = before as f64;
    for dispatcher in &installation.dispatchers {
        while dispatcher.table_version().await? <= version_before {
            ensure!(began.elapsed() < DEADLINE, "{path}: a dispatcher does not load the edit");
            sleep(LOOK_INTERVAL).await;
        }
    }
    let live = began.elapsed();
    let after = installation.ledger().await?.table_version;
    ensure!(after == before + 1, "one edit made {} versions of the table", after - before);
    loop {
        let object = installation.api.get(path).await.context("the resource is there")?;
        let is_present = object["metadata"]["generation"] == *generation;
        ensure!(is_present, "{path}: somebody else has edited it");
        if is_true(&object, "Programmed") {
            return Ok((live, began.elapsed()));
        }
        ensure!(began.elapsed() < DEADLINE, "{path}: the edit does not become Programmed");
        sleep(LOOK_INTERVAL * 2).await;
    }
}
