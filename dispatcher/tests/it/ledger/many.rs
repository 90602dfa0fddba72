//! The model's one replay of many deliveries.

use std::collections::BTreeSet;
use std::sync::Arc;

use dispatcher::ledger::{Ledger, NewReplay, ReplayCursor, ReplayRecord, ReplayStage, ReplayStep};
use dispatcher_core::delivery::{DeliveryState, Target};
use dispatcher_core::id::{DeliveryId, EventId, ReplayId};

use super::support::shop;

/// What was committed last, and what is open of all that it has started.
#[derive(Default)]
pub(crate) struct ModelledReplay {
    record: Option<ReplayRecord>,
    open: BTreeSet<DeliveryId>,
}

impl ModelledReplay {
    async fn record(&self, ledger: &Arc<dyn Ledger>) -> ReplayRecord {
        match self.record {
            Some(record) => record,
            None => ledger
                .begin_replay(
                    NewReplay {
                        replay: ReplayId::derive(shop(), "many", &[0; 32]),
                        tenant: shop(),
                        asked_until_unix_ms: u64::MAX,
                        first_stage: ReplayStage::Deliveries,
                    },
                    None,
                )
                .await
                .unwrap(),
        }
    }

    /// Commits a step twice, as after an unclear commit: exactly what is to be started is counted, once.
    pub(crate) async fn advance(
        &mut self,
        ledger: &Arc<dyn Ledger>,
        again: Option<(DeliveryId, u32)>,
        missing: (EventId, Target),
        started: &[DeliveryId],
    ) {
        let before = self.record(ledger).await;
        let step = ReplayStep {
            replay: before.replay,
            tenant: shop(),
            after_step: before.step,
            cursor: ReplayCursor { stage: ReplayStage::Deliveries, after: missing.0.0 },
            matched: 2,
            again: again.into_iter().collect(),
            missing: vec![(missing.0, vec![missing.1])],
        };
        let after = ledger.advance_replay(step.clone(), None).await.unwrap().unwrap();
        assert_eq!((after.step, after.queued), (before.step + 1, before.queued + started.len() as u64));
        assert_eq!((after.cursor, after.matched), (step.cursor, before.matched + 2));
        assert_eq!(ledger.advance_replay(step, None).await.unwrap(), Some(after));
        self.open.extend(started);
        self.record = Some(after);
    }

    /// Exactly what is over is counted, by how it ended.
    pub(crate) async fn settle(&mut self, ledger: &Arc<dyn Ledger>, state_of: impl Fn(&DeliveryId) -> DeliveryState) {
        let Some(before) = self.record else { return };
        let (open, over): (BTreeSet<_>, BTreeSet<_>) =
            self.open.iter().copied().partition(|id| state_of(id) == DeliveryState::Open);
        let arrived = over.iter().filter(|id| state_of(id) == DeliveryState::Delivered).count() as u64;
        let settled = ledger.settle_replay(shop(), before.replay, None, 1000, None).await.unwrap().unwrap();
        assert_eq!(settled.ended as usize, over.len());
        let after = settled.record;
        assert_eq!(after.delivered, before.delivered + arrived);
        assert_eq!(after.failed, before.failed + over.len() as u64 - arrived);
        assert_eq!(after.open(), open.len() as u64);
        self.open = open;
        self.record = Some(after);
    }
}
