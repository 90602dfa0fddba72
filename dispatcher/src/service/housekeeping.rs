//! What keeps the ledger in order beside its use. None of it ever ends.

use std::sync::Arc;
use std::time::Duration;

use dispatcher_core::limits::{
    DELETION_GRACE, HOUSEKEEPING_INTERVAL, HOUSEKEEPING_ROWS_MAX, LEDGER_RETRY_PAUSE_MAX, LEDGER_RETRY_PAUSE_MIN,
    MAINTENANCE_INTERVAL, MAINTENANCE_RETRY_PAUSE,
};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::ledger::postgres::PostgresLedger;
use crate::ledger::{Ledger, Maintained};
use crate::metrics::{Metrics, Role};

/// Removes what is over, a bounded number of rows at a time.
pub(super) async fn remove_what_is_over(ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>) {
    loop {
        let cancelled = ledger.cancel_orphans(DELETION_GRACE, HOUSEKEEPING_ROWS_MAX).await;
        let expired = ledger.expire_idempotency_keys(HOUSEKEEPING_ROWS_MAX).await;
        let mut pause = HOUSEKEEPING_INTERVAL;
        for removed in [cancelled, expired] {
            match removed {
                Ok(rows) if rows >= HOUSEKEEPING_ROWS_MAX.into() => pause = Duration::ZERO,
                Ok(_) => {}
                Err(error) => {
                    metrics.ledger_failed(Role::Housekeeping);
                    tracing::debug!(%error, "what is over could not be removed");
                }
            }
        }
        sleep(pause).await;
    }
}

/// Makes room for the days to come and drops those that are over, at once and then every few minutes.
pub(super) async fn maintain(ledger: Arc<dyn Ledger>, retention: Duration, metrics: Arc<Metrics>) {
    loop {
        let pause = match ledger.maintain(retention).await {
            Ok(maintained) => {
                tell(&maintained);
                MAINTENANCE_INTERVAL
            }
            Err(error) => {
                metrics.ledger_failed(Role::Housekeeping);
                tracing::warn!(%error, "the ledger's days could not be looked after; trying again");
                MAINTENANCE_RETRY_PAUSE
            }
        };
        sleep(pause).await;
    }
}

fn tell(maintained: &Maintained) {
    let Maintained { days_made, days_dropped, deliveries_ended, events_outside } = *maintained;
    if days_made > 0 || days_dropped > 0 {
        tracing::info!(days_made, days_dropped, "the ledger's days were looked after");
    }
    if deliveries_ended > 0 {
        tracing::warn!(deliveries_ended, "deliveries were given up because their day is over");
    }
    if events_outside > 0 {
        tracing::warn!(events_outside, "events lie outside of every day: the clock of a process that ingests is wrong");
    }
}

/// Has the routing table loaded as soon as anybody publishes one. While that does not work, the table is looked at
/// again and again all the same.
pub(super) async fn watch_table(ledger: Arc<PostgresLedger>, changed: Arc<Notify>) {
    let mut pause = LEDGER_RETRY_PAUSE_MIN;
    loop {
        let began = Instant::now();
        if let Err(error) = ledger.watch_table(Arc::clone(&changed)).await {
            tracing::debug!(%error, "changes of the routing table are not told; it is polled");
        }
        // One that has worked for a while begins anew.
        pause = if began.elapsed() > LEDGER_RETRY_PAUSE_MAX { LEDGER_RETRY_PAUSE_MIN } else { pause * 2 };
        pause = pause.min(LEDGER_RETRY_PAUSE_MAX);
        sleep(pause).await;
    }
}
