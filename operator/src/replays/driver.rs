//! One replay at work.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dispatcher::ledger::{
    Ledger, LedgerError, NewReplay, ReplayCursor, ReplayRecord, ReplayScope, ReplayStage, ReplayStep,
};
use dispatcher_core::id::{DeliveryId, ReplayId};
use dispatcher_core::limits::{REPLAY_PAGE_ROWS_MAX, REPLAY_RETRY_PAUSE, REPLAY_SETTLE_ROWS_MAX};
use tokio::task;

use super::choice::{Chosen, Question, What};
use super::routes::Routes;
use crate::plan::replay::pace::{Allowance, NextStep, SettleClock, Standing, next_step};
use crate::plan::replay::{ReplayJob, ReplayProgress};

/// Where replays work.
pub(super) struct Ground<'a> {
    /// The ledger.
    pub(super) ledger: &'a dyn Ledger,
    /// Epoch of the leader in whose name it is written to.
    pub(super) epoch: Option<u64>,
}

/// What a replay does, and where it stands.
pub(super) struct Driver {
    job: ReplayJob,
    question: Arc<Question>,
    record: Option<ReplayRecord>,
    /// What was found and is not decided yet.
    page: Option<Page>,
    allowance: Allowance,
    settle: SettleClock,
    /// Where the round of looks at runs has come to.
    settled_until: Option<DeliveryId>,
    retry_at: Duration,
    trouble: Option<String>,
}

struct Page {
    chosen: VecDeque<Chosen>,
    /// The place after all of it.
    end: ReplayCursor,
}

impl Driver {
    /// `None` if what it asks for cannot be understood, which planning excludes.
    pub(super) fn new(job: ReplayJob, now: Duration) -> Option<Self> {
        let question = match Question::of(&job) {
            Ok(question) => Arc::new(question),
            Err(error) => {
                tracing::error!(namespace = job.namespace, name = job.name, error, "a replay cannot be worked on");
                return None;
            }
        };
        Some(Self {
            job,
            question,
            record: None,
            page: None,
            allowance: Allowance::new(now),
            settle: SettleClock::new(now),
            settled_until: None,
            retry_at: Duration::ZERO,
            trouble: None,
        })
    }

    /// The same replay with another rate, suspended, or resumed. What was found before it rested is looked for again: the
    /// routes may have changed since.
    pub(super) fn with(mut self, job: ReplayJob) -> Self {
        self.page = self.page.filter(|_| job.is_looking);
        Self { job, ..self }
    }

    pub(super) fn replay(&self) -> ReplayId {
        self.job.replay
    }

    pub(super) fn progress(&self) -> Option<ReplayProgress> {
        Some(ReplayProgress { record: self.record?, trouble: self.trouble.clone() })
    }

    /// Takes one step. Answers how long until the next, if there is one.
    pub(super) async fn step(&mut self, ground: &Ground<'_>, routes: &mut Routes, now: Duration) -> Option<Duration> {
        let rest = self.retry_at.saturating_sub(now);
        if !rest.is_zero() {
            return Some(rest);
        }
        let standing = self.standing();
        let done = match next_step(&standing, &mut self.allowance, &self.settle, now) {
            NextStep::Wait(wait) => return Some(wait),
            NextStep::Nothing => return None,
            NextStep::Begin => self.begin(ground).await,
            NextStep::Look => self.look(ground.ledger, routes).await,
            NextStep::Commit(count) => self.commit(ground, count, now).await,
            NextStep::Settle => self.settle(ground, now).await,
        };
        match done {
            Ok(()) => {
                self.trouble = None;
                Some(Duration::ZERO)
            }
            Err(error) => {
                let ReplayJob { namespace, name, .. } = &self.job;
                tracing::warn!(namespace, name, %error, "a step of a replay failed; it is tried again");
                self.trouble = Some("The ledger does not do it; it is tried again every few seconds".to_owned());
                self.retry_at = now + REPLAY_RETRY_PAUSE;
                Some(REPLAY_RETRY_PAUSE)
            }
        }
    }

    fn standing(&self) -> Standing {
        let record = self.record.as_ref();
        Standing {
            has_begun: record.is_some(),
            is_complete: record.is_some_and(|record| record.finished_at_unix_ms.is_some()),
            is_looking: self.job.is_looking && record.is_some_and(|record| record.cursor.stage != ReplayStage::Done),
            open: record.map_or(0, ReplayRecord::open),
            found: self.page.as_ref().map(|page| page.chosen.len()),
            dry_run: self.job.dry_run,
            per_second: self.job.per_second,
        }
    }

    async fn begin(&mut self, ground: &Ground<'_>) -> Result<(), LedgerError> {
        let scope = &self.job.scope;
        let new = NewReplay {
            replay: self.job.replay,
            tenant: scope.tenant,
            asked_until_unix_ms: scope.until_unix_ms,
            first_stage: scope.first_stage(),
        };
        self.record = Some(ground.ledger.begin_replay(new, ground.epoch).await?);
        Ok(())
    }

    /// Reads a page and chooses from it. Filters may take their time, so that is done elsewhere.
    async fn look(&mut self, ledger: &dyn Ledger, routes: &mut Routes) -> Result<(), LedgerError> {
        let Some(record) = self.record else { return Ok(()) };
        let scope = ReplayScope { until_unix_ms: record.until_unix_ms, ..self.job.scope };
        let index = match record.cursor.stage {
            ReplayStage::Events => Some(routes.of(ledger, scope.tenant).await?),
            ReplayStage::Deliveries | ReplayStage::Done => None,
        };
        let page = ledger.replay_page(scope, record.cursor, REPLAY_PAGE_ROWS_MAX).await?;
        let (question, end) = (Arc::clone(&self.question), page.next);
        let choosing = task::spawn_blocking(move || question.choose(record.cursor, page, index.as_deref()));
        let chosen = choosing.await.map_err(|_| LedgerError::Unavailable("a filter did not come to its end".into()))?;
        self.page = Some(Page { chosen, end });
        Ok(())
    }

    /// Commits that the first of what was found are started, or counted.
    async fn commit(&mut self, ground: &Ground<'_>, count: usize, now: Duration) -> Result<(), LedgerError> {
        let (Some(record), Some(page)) = (self.record, &mut self.page) else { return Ok(()) };
        let step = step_of(&self.job, &record, page, count);
        if !self.job.dry_run {
            self.allowance.take(count);
        }
        let cursor = step.cursor;
        let after = ground.ledger.advance_replay(step, ground.epoch).await?;
        let is_ours = after.is_some_and(|after| (after.step, after.cursor) == (record.step + 1, cursor));
        page.chosen.drain(..count);
        if !is_ours || page.chosen.is_empty() {
            self.page = None;
        }
        self.settle.started(now);
        self.record = after;
        Ok(())
    }

    async fn settle(&mut self, ground: &Ground<'_>, now: Duration) -> Result<(), LedgerError> {
        let (tenant, replay) = (self.job.scope.tenant, self.job.replay);
        let (after, rows_max) = (self.settled_until, REPLAY_SETTLE_ROWS_MAX);
        let settled = ground.ledger.settle_replay(tenant, replay, after, rows_max, ground.epoch).await?;
        if let Some(settled) = settled {
            self.settled_until = settled.next;
            self.settle.looked(settled.ended, settled.next.is_none(), now);
        }
        self.record = settled.map(|settled| settled.record);
        Ok(())
    }
}

/// The step that decides the first `count` of a page.
fn step_of(job: &ReplayJob, record: &ReplayRecord, page: &Page, count: usize) -> ReplayStep {
    let decided = page.chosen.iter().take(count);
    let cursor = match decided.clone().next_back() {
        Some(last) if count < page.chosen.len() => last.after,
        _ => page.end,
    };
    let mut step = ReplayStep {
        replay: job.replay,
        tenant: job.scope.tenant,
        after_step: record.step,
        cursor,
        matched: count as u64,
        again: Vec::new(),
        missing: Vec::new(),
    };
    for chosen in decided.filter(|_| !job.dry_run) {
        match chosen.what {
            What::Again(delivery, run) => step.again.push((delivery, run)),
            What::Missing(event, target) => match step.missing.last_mut() {
                Some((last, targets)) if *last == event => targets.push(target),
                _ => step.missing.push((event, vec![target])),
            },
        }
    }
    step
}
