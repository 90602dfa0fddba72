//! Admission by backlog: accepting is faster than delivering, so what is open bounds what is accepted.

use std::collections::HashMap;
use std::sync::Arc;

use dispatcher_core::id::TenantId;
use dispatcher_core::limits::{BACKLOG_DELIVERIES_MAX, BACKLOG_POLL_INTERVAL, TENANT_BACKLOG_DELIVERIES_MAX};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ledger::{Backlog, Ledger};
use crate::metrics::{Metrics, Role};
use crate::problem::{Problem, ProblemKind};

/// How much may be open before no more is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Open deliveries of one tenant.
    pub tenant_deliveries_max: u64,
    /// Open deliveries in all, without those behind a closed gate.
    pub deliveries_max: u64,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self { tenant_deliveries_max: TENANT_BACKLOG_DELIVERIES_MAX, deliveries_max: BACKLOG_DELIVERIES_MAX }
    }
}

/// Decides by the backlog as it was counted last, at most about a second ago. Counting per request would cost more
/// than accepting; the limits are soft by what is accepted within that second.
#[derive(Clone)]
pub struct Admission {
    limits: AdmissionLimits,
    counted: watch::Receiver<Counted>,
}

/// Counts the backlog, again and again.
pub struct AdmissionTask {
    ledger: Arc<dyn Ledger>,
    metrics: Arc<Metrics>,
    sender: watch::Sender<Counted>,
}

/// The last count.
#[derive(Debug, Default)]
struct Counted {
    ungated: u64,
    by_tenant: HashMap<TenantId, u64>,
}

impl From<Backlog> for Counted {
    fn from(backlog: Backlog) -> Self {
        Self { ungated: backlog.ungated, by_tenant: backlog.by_tenant.into_iter().collect() }
    }
}

impl Admission {
    /// A handle and the task that keeps it up to date.
    pub fn new(ledger: Arc<dyn Ledger>, limits: AdmissionLimits, metrics: Arc<Metrics>) -> (Self, AdmissionTask) {
        let (sender, counted) = watch::channel(Counted::default());
        (Self { limits, counted }, AdmissionTask { ledger, metrics, sender })
    }

    /// Whether the tenant may publish now.
    pub fn admit(&self, tenant: TenantId) -> Result<(), Problem> {
        let counted = self.counted.borrow();
        if counted.ungated >= self.limits.deliveries_max {
            let detail = "The deliveries that are open in all have reached the limit. Try again later.";
            return Err(Problem::new(ProblemKind::Overloaded, detail));
        }
        let open = counted.by_tenant.get(&tenant).copied().unwrap_or(0);
        if open >= self.limits.tenant_deliveries_max {
            let detail = format!(
                "{open} deliveries of this tenant are open, and {} may be. Look for an endpoint that fails or is \
                 suspended, or try again later.",
                self.limits.tenant_deliveries_max
            );
            return Err(Problem::new(ProblemKind::TenantBacklog, detail));
        }
        Ok(())
    }
}

impl AdmissionTask {
    /// Counts until it is told to stop. While the ledger is down, the last count stays.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            match self.ledger.backlog().await {
                Ok(backlog) => {
                    self.metrics.set_backlog(backlog.ungated);
                    self.sender.send_replace(backlog.into());
                }
                Err(error) => {
                    self.metrics.ledger_failed(Role::Ingest);
                    tracing::debug!(%error, "the backlog could not be counted");
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(BACKLOG_POLL_INTERVAL) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(ungated: u64, tenant_open: u64) -> Admission {
        let tenant = TenantId::of_namespace_name("shop");
        let (_, counted) = watch::channel(Counted { ungated, by_tenant: HashMap::from([(tenant, tenant_open)]) });
        Admission { limits: AdmissionLimits { tenant_deliveries_max: 10, deliveries_max: 100 }, counted }
    }

    #[test]
    fn the_backlog_bounds_what_is_accepted() {
        let (full, other) = (TenantId::of_namespace_name("shop"), TenantId::of_namespace_name("other"));
        for (ungated, tenant_open, tenant, refused) in [
            (0, 0, full, None),
            (99, 9, full, None),
            (99, 10, full, Some(ProblemKind::TenantBacklog)),
            (99, 10, other, None),
            (100, 0, other, Some(ProblemKind::Overloaded)),
            (100, 10, full, Some(ProblemKind::Overloaded)),
        ] {
            let answer = admission(ungated, tenant_open).admit(tenant).err().map(|problem| problem.kind);
            assert_eq!(answer, refused, "{ungated} open, {tenant_open} of the tenant");
        }
    }
}
