//! Feeds the queue with what is due: one loop a pool, from the ledger to the queue's second track.
//!
//! Never more than the queue has room for: a backlog stays in the ledger. What is claimed and not taken on by the queue
//! is due again when its lease is over.

use std::sync::Arc;
use std::time::Duration;

use dispatcher_core::limits::{
    CLAIM_DELIVERIES_MAX, DUE_FULL_PAUSE, DUE_IDLE_PAUSE_MIN, DUE_POLL_INTERVAL, LEASE, LEDGER_RETRY_PAUSE_MAX,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ledger::{Claim, Claimed, Ledger, LedgerError};
use crate::metrics::{Metrics, Role};
use crate::queue::{Queue, Track, pack};

/// The claiming loop of one pool.
pub struct Due {
    /// Where work waits.
    pub ledger: Arc<dyn Ledger>,
    /// Where it goes.
    pub queue: Arc<dyn Queue>,
    /// The pool.
    pub pool: String,
    /// Who claims.
    pub instance: Uuid,
    /// Notified when something may be due sooner than was known.
    pub changed: Arc<Notify>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl Due {
    /// Claims and publishes until it is told to stop.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut failing_pause = Duration::ZERO;
        loop {
            let turn = tokio::select! {
                () = shutdown.cancelled() => return,
                turn = self.turn() => turn,
            };
            let pause = match turn {
                Ok(None) => DUE_FULL_PAUSE,
                Ok(Some(pause)) => {
                    if !failing_pause.is_zero() {
                        tracing::info!("due work is claimed again");
                    }
                    failing_pause = Duration::ZERO;
                    pause
                }
                Err(error) => {
                    self.metrics.ledger_failed(Role::Due);
                    if failing_pause.is_zero() {
                        tracing::warn!(%error, "due work cannot be claimed");
                    }
                    failing_pause = (failing_pause * 2).clamp(DUE_POLL_INTERVAL, LEDGER_RETRY_PAUSE_MAX);
                    // A wake-up does not shorten it: the ledger is left alone for a while.
                    tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(failing_pause) => {} }
                    continue;
                }
            };
            if !pause.is_zero() {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }

    /// One claim. Answers how long nothing more is to be expected, zero if there was work and there is more; `None` if
    /// nothing was looked for, because the queue has no room.
    async fn turn(&self) -> Result<Option<Duration>, LedgerError> {
        let room = self.queue.room(&self.pool, Track::Due).min(CLAIM_DELIVERIES_MAX);
        if room == 0 {
            return Ok(None);
        }
        let claim = Claim { pool: self.pool.clone(), instance: self.instance, lease: LEASE, deliveries_max: room };
        let Claimed { items, next_due_in } = self.ledger.claim(claim).await?;
        self.metrics.work().claim_succeeded();
        let found = items.iter().map(|item| item.work.deliveries()).sum();
        if found > 0 {
            self.metrics.due_claimed(found);
            for result in self.queue.publish(&self.pool, Track::Due, pack(items)).await {
                match result {
                    Ok(()) => self.metrics.work().published(),
                    Err(error) => {
                        self.metrics.publish_failed(Role::Due);
                        tracing::debug!(%error, "claimed work was not taken on; it is due again when its lease is over");
                    }
                }
            }
        }
        let pause = next_due_in.unwrap_or(DUE_POLL_INTERVAL).min(DUE_POLL_INTERVAL);
        Ok(Some(if found > 0 { pause } else { pause.max(DUE_IDLE_PAUSE_MIN) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::sqlite::SqliteLedger;
    use crate::queue::memory::MemoryQueue;

    #[tokio::test]
    async fn what_is_not_looked_for_because_the_queue_is_full_counts_as_no_look() {
        let folder = tempfile::tempdir().unwrap();
        let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(folder.path()).await.unwrap());
        for (messages_max, looks) in [(0, 0), (1, 1)] {
            let due = Due {
                ledger: Arc::clone(&ledger),
                queue: Arc::new(MemoryQueue::new(messages_max)),
                pool: "default".to_owned(),
                instance: Uuid::nil(),
                changed: Arc::default(),
                metrics: Arc::new(Metrics::new()),
            };
            assert_eq!(due.turn().await.unwrap().is_some(), looks > 0);
            assert_eq!(due.metrics.work_counts().claims, looks);
        }
    }
}
