//! When everything is finished, and how it ended.

use dispatcher::ledger::{DeliveryQuery, DeliveryRecord, Ledger, LedgerError};
use dispatcher::snapshot::{NotDeliverable, Snapshot};
use dispatcher_core::delivery::DeliveryState;
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, TenantId};
use dispatcher_core::limits::PAGE_ROWS_MAX;

/// What is waited for: the deliveries of sample events, and those that an earlier run left open.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    events: Vec<(TenantId, EventId)>,
    deliveries: Vec<(TenantId, DeliveryId)>,
}

/// Where the awaited deliveries stand.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Some will be attempted again.
    Unfinished,
    /// All are delivered.
    AllDelivered,
    /// None will be attempted again, and not all are delivered.
    Failed {
        /// Ended without being delivered.
        ended: usize,
        /// Held: the endpoints that would have to change first.
        held: Vec<EndpointId>,
    },
}

impl Awaited {
    /// Awaits the deliveries that are open now.
    pub(super) async fn open_now(ledger: &dyn Ledger, tenants: &[TenantId]) -> Result<Self, LedgerError> {
        let mut awaited = Self::default();
        for tenant in tenants {
            let query = DeliveryQuery { state: Some(DeliveryState::Open), ..DeliveryQuery::default() };
            let open = deliveries(ledger, *tenant, query).await?;
            awaited.deliveries.extend(open.into_iter().map(|record| (*tenant, record.key.delivery)));
        }
        Ok(awaited)
    }

    /// Awaits all deliveries of an event too.
    pub(super) fn event(&mut self, tenant: TenantId, event: EventId) {
        self.events.push((tenant, event));
    }

    /// Where they stand by the ledger.
    pub(super) async fn standing(&self, ledger: &dyn Ledger, snapshot: &Snapshot) -> Result<Standing, LedgerError> {
        let mut records = Vec::new();
        for (tenant, event) in &self.events {
            let query = DeliveryQuery { event: Some(*event), ..DeliveryQuery::default() };
            records.extend(deliveries(ledger, *tenant, query).await?);
        }
        for (tenant, delivery) in &self.deliveries {
            records.extend(ledger.delivery(*tenant, *delivery).await?);
        }
        Ok(standing(&records, |endpoint| snapshot.may_deliver(endpoint).err()))
    }
}

async fn deliveries(
    ledger: &dyn Ledger,
    tenant: TenantId,
    query: DeliveryQuery,
) -> Result<Vec<DeliveryRecord>, LedgerError> {
    let mut query = DeliveryQuery { rows_max: PAGE_ROWS_MAX, ..query };
    let mut records = Vec::new();
    loop {
        let page = ledger.deliveries(tenant, query.clone()).await?;
        records.extend(page.rows);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(records),
        }
    }
}

fn standing(records: &[DeliveryRecord], held: impl Fn(EndpointId) -> Option<NotDeliverable>) -> Standing {
    let mut ended = 0;
    let mut held_by = Vec::new();
    for record in records {
        match record.state {
            DeliveryState::Delivered => {}
            DeliveryState::Dead | DeliveryState::Cancelled => ended += 1,
            DeliveryState::Open if held(record.key.target.endpoint).is_some() => {
                held_by.push(record.key.target.endpoint);
            }
            DeliveryState::Open => return Standing::Unfinished,
        }
    }
    if ended == 0 && held_by.is_empty() {
        return Standing::AllDelivered;
    }
    held_by.sort();
    held_by.dedup();
    Standing::Failed { ended, held: held_by }
}

#[cfg(test)]
mod tests {
    use dispatcher_core::delivery::{DeliveryKey, Target};
    use dispatcher_core::id::SubscriptionId;
    use uuid::Uuid;

    use super::*;

    const ACTIVE: EndpointId = EndpointId(Uuid::from_u128(1));
    const SUSPENDED: EndpointId = EndpointId(Uuid::from_u128(2));

    fn record(endpoint: EndpointId, state: DeliveryState) -> DeliveryRecord {
        let target = Target { subscription: SubscriptionId(Uuid::nil()), endpoint };
        DeliveryRecord {
            key: DeliveryKey::new(TenantId(Uuid::nil()), EventId(Uuid::nil()), target),
            event_type: "a".into(),
            state,
            reason: None,
            run: 1,
            attempts: 1,
            due_at_unix_ms: None,
            last_outcome: None,
            last_status_code: None,
        }
    }

    #[test]
    fn only_what_will_be_attempted_again_is_waited_for() {
        use DeliveryState::{Cancelled, Dead, Delivered, Open};
        let held = |endpoint| (endpoint == SUSPENDED).then_some(NotDeliverable::Suspended);
        for (records, expected) in [
            (vec![], Standing::AllDelivered),
            (vec![record(ACTIVE, Delivered)], Standing::AllDelivered),
            (vec![record(ACTIVE, Dead), record(ACTIVE, Open)], Standing::Unfinished),
            (vec![record(ACTIVE, Dead), record(ACTIVE, Cancelled)], Standing::Failed { ended: 2, held: vec![] }),
            (
                vec![record(SUSPENDED, Open), record(SUSPENDED, Open), record(ACTIVE, Delivered)],
                Standing::Failed { ended: 0, held: vec![SUSPENDED] },
            ),
        ] {
            assert_eq!(standing(&records, held), expected);
        }
    }
}
