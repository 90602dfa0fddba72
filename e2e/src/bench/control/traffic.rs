//! Statuses while events flow: every Endpoint gets some, so that every one has facts that change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use dispatcher_core::limits::{STATUS_FACTS_BURST, STATUS_FACTS_PER_SECOND};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::counts::count;
use super::fleet::{event_type, namespace};
use super::installation::Installation;
use super::number;
use crate::bench::report::Row;
use crate::bench::sink::{PAYLOAD_BYTES, Sink};
use crate::http::Client;

/// Events a second: with ten thousand Endpoints, each gets one in fifty seconds.
const EVENTS_PER_SECOND: u32 = 200;
const SETTLE_DEADLINE: Duration = Duration::from_mins(10);
const SECONDS_PER_HOUR: f64 = 3600.0;

/// Lets events flow to all Endpoints; counts what is written until all have told of them, and then for a while.
pub(super) async fn measure(installation: &Installation, sink: &Sink, measured: Duration) -> Result<Vec<Row>> {
    let before = installation.api.writes().await?;
    let traffic = Traffic::start(installation);
    wait_until_all_tell(installation, sink).await?;
    let (all_told, began, arrivals) = (installation.api.writes().await?, Instant::now(), sink.arrivals());
    let metrics = installation.operator()?.metrics().await?;
    sleep(measured).await;
    let metrics_after = installation.operator()?.metrics().await?;
    let (ended, elapsed) = (installation.api.writes().await?, began.elapsed().as_secs_f64());
    let delivered = number(sink.arrivals() - arrivals);
    traffic.stop().await?;
    let writes = ended.since(all_told);
    let written = |change: &str| {
        let series = format!("harborhook_operator_status_writes_total{{change=\"{change}\"}}");
        count(&metrics_after, &series) - count(&metrics, &series)
    };
    let per_hour = |name: &str, writes: f64| {
        Row::new(format!("control_traffic_{name}"), "writes/h", writes / elapsed * SECONDS_PER_HOUR, None)
    };
    let operator = installation.operator()?.child();
    Ok(vec![
        Row::new("control_traffic_deliveries", "deliveries/s", delivered / elapsed, None),
        Row::new("control_traffic_begin_status_writes", "writes", all_told.since(before).statuses(), None),
        per_hour("status_writes", writes.statuses()),
        per_hour("status_writes_facts", written("facts")).at_most(facts_per_hour_max(elapsed)),
        per_hour("status_writes_conditions", written("conditions")),
        per_hour("event_writes", writes.events()),
        per_hour("lease_writes", writes.leases()),
        per_hour("other_writes", writes.all() - writes.statuses() - writes.events()).at_most(0.0),
        Row::new("control_traffic_peak_memory", "MB", operator.peak_memory_megabytes()?, None),
    ])
}

/// Writes an hour for nothing but facts, if in so many seconds as many are written as their rate and its burst allow.
fn facts_per_hour_max(seconds: f64) -> f64 {
    let writes = f64::from(STATUS_FACTS_BURST) + f64::from(STATUS_FACTS_PER_SECOND) * seconds;
    writes / seconds * SECONDS_PER_HOUR
}

/// Until every Endpoint has got an event, and no status waits to tell of more than numbers.
async fn wait_until_all_tell(installation: &Installation, sink: &Sink) -> Result<()> {
    let endpoints = installation.fleet.endpoints as u64;
    let (arrivals, deadline) = (sink.arrivals(), Instant::now() + SETTLE_DEADLINE);
    let delivering = "Delivering";
    loop {
        sleep(Duration::from_secs(1)).await;
        ensure!(Instant::now() < deadline, "not all Endpoints tell of their events within {SETTLE_DEADLINE:?}");
        if sink.arrivals() - arrivals < endpoints {
            continue;
        }
        let telling = installation
            .api
            .count(crds::Kind::Endpoint, |endpoint| endpoint["status"]["delivery"]["state"] == delivering)
            .await?;
        if telling == installation.fleet.endpoints {
            return Ok(());
        }
        sleep(Duration::from_secs(4)).await;
    }
}

/// Events that are published at a fixed rate, to one Endpoint after the other.
struct Traffic {
    publishing: JoinSet<()>,
    refused: Arc<AtomicU64>,
}

impl Traffic {
    fn start(installation: &Installation) -> Self {
        let (ingest, endpoints) = (installation.ingest, installation.fleet.endpoints);
        let (refused, mut publishing) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        let counted = Arc::clone(&refused);
        publishing.spawn(async move {
            let (client, mut posts) = (Client::default(), JoinSet::new());
            let mut ticks = interval(Duration::from_secs(1) / EVENTS_PER_SECOND);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for resource in (0..endpoints).cycle() {
                ticks.tick().await;
                while posts.try_join_next().is_some() {}
                let url = format!("http://{ingest}/v1/tenants/{}/events:publish", namespace(resource));
                let (client, body, counted) = (client.clone(), body(resource), Arc::clone(&counted));
                posts.spawn(async move {
                    let answer = client.post_json(&url, body).await;
                    if !answer.is_ok_and(|(status, _)| status.is_success()) {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self { publishing, refused }
    }

    async fn stop(mut self) -> Result<()> {
        self.publishing.shutdown().await;
        let refused = self.refused.load(Ordering::Relaxed);
        ensure!(refused == 0, "{refused} events were refused");
        Ok(())
    }
}

fn body(resource: usize) -> Bytes {
    let payload = String::from_utf8_lossy(&Sink::payload(Duration::ZERO, PAYLOAD_BYTES)).into_owned();
    format!(r#"{{"event_type":"{}","payload":{payload}}}"#, event_type(resource)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_of_facts_is_their_rate_and_the_burst_of_the_time_measured() {
        assert!((facts_per_hour_max(60.0) - 72_300.0).abs() < 1e-6);
        assert!((facts_per_hour_max(3600.0) - 72_005.0).abs() < 1e-6);
    }
}
