//! The main loop: whatever changes is planned, at once if it is the first change in a while, together with what follows if
//! it is one of many. Only the leader writes; the others keep everything at hand.

use std::sync::Arc;
use std::time::Duration;

use crds::Kind;
use dispatcher::ledger::LedgerError;
use dispatcher_core::limits::{
    CONFIRMATION_LOOK_INTERVAL, LEDGER_LOOK_INTERVAL, LEDGER_RETRY_PAUSE_MAX, LEDGER_RETRY_PAUSE_MIN, PLAN_INTERVAL_MIN,
};
use dispatcher_core::table::IssuerRow;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::confirmation::Confirmation;
use super::control::{Control, Look};
use super::generating::SecretMaker;
use super::lease::{EpochFloor, Lead, Leadership};
use super::metrics::OperatorMetrics;
use super::pools::DeclaredPools;
use super::readiness::Readiness;
use super::sources::Sources;
use super::status::StatusWriter;
use crate::plan::removal::Withheld;
use crate::replays::ReplayDesk;
use crate::world::World;

/// The kinds whose statuses the loop writes. Pools have a loop of their own.
const PLANNED_KINDS: [Kind; 3] = [Kind::Endpoint, Kind::Subscription, Kind::Replay];

/// What the loop works with.
pub struct RunConfig {
    /// What is there.
    pub sources: Sources,
    /// Plans and publishes.
    pub control: Control,
    /// Whether this process leads.
    pub lead: Lead,
    /// Whose tokens are to be accepted.
    pub issuers: watch::Receiver<Option<Vec<IssuerRow>>>,
    /// The pools that are declared.
    pub pools: DeclaredPools,
    /// Who works on replays.
    pub replays: ReplayDesk,
    /// Where to say which epochs others have used.
    pub epoch_floor: EpochFloor,
    /// Where statuses go.
    pub statuses: StatusWriter,
    /// Where removals are confirmed.
    pub confirmation: Confirmation,
    /// Who makes Secrets.
    pub secret_maker: SecretMaker,
    /// Where the loop tells how it does.
    pub readiness: Readiness,
    /// What is counted.
    pub metrics: Arc<OperatorMetrics>,
}

/// The main loop.
pub struct Run {
    config: RunConfig,
    world: World,
    /// The epoch with which this process led when it looked last.
    led: Option<u64>,
    /// Whether Secrets that could not be made are marked in the world.
    has_marks: bool,
    withheld: Option<Withheld>,
    confirmed: Option<String>,
    confirmation_due: Instant,
    retry_pause: Duration,
}

impl Run {
    /// Begins with nothing.
    pub fn new(config: RunConfig) -> Self {
        // Of pools, only those are there that somebody declares.
        let mut world = World::default();
        world.set_dispatchers([], &[]);
        Self {
            config,
            world,
            led: None,
            has_marks: false,
            withheld: None,
            confirmed: None,
            confirmation_due: Instant::now(),
            retry_pause: LEDGER_RETRY_PAUSE_MIN,
        }
    }

    /// Runs until it is told to stop.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut next_look: Option<Instant> = None;
        let mut earliest = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.config.sources.changed() => {}
                is_elected = self.config.lead.changed() => {
                    // Without an elector nobody leads.
                    if !is_elected { return; }
                }
                Ok(()) = self.config.issuers.changed() => {}
                () = self.config.replays.reported() => {}
                () = until(next_look) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep_until(earliest) => {}
            }
            let began = Instant::now();
            let looking = self.step();
            let pause = tokio::select! {
                () = shutdown.cancelled() => return,
                pause = looking => pause,
            };
            // Among very many resources a look takes a while, and others need the processor too.
            let rest = began.elapsed().min(LEDGER_LOOK_INTERVAL);
            earliest = (began + PLAN_INTERVAL_MIN).max(Instant::now() + rest);
            next_look = pause.map(|pause| Instant::now() + pause);
        }
    }

    /// Looks once. Answers when to look again although nothing changes.
    async fn step(&mut self) -> Option<Duration> {
        let leadership = self.config.lead.now();
        self.take_over(leadership);
        self.config.sources.gather(&mut self.world);
        self.world.issuers.clone_from(&self.config.issuers.borrow_and_update());
        self.config.metrics.set_leadership(leadership);
        self.config.readiness.set_leader(leadership != Leadership::Follower);
        let is_synced = self.config.sources.is_synced() && self.config.pools.is_synced();
        self.config.readiness.set_synced(is_synced);
        let Leadership::Leader { epoch } = leadership else {
            self.config.control.step_down();
            self.config.statuses.clear();
            self.config.replays.order(Vec::new(), None);
            self.config.secret_maker.clear();
            self.withheld = None;
            // Whoever follows does without the ledger.
            self.config.readiness.set_ledger(None);
            // A lead that is renewed in its last moment is no change.
            return self.config.lead.is_undecided().then_some(PLAN_INTERVAL_MIN);
        };
        if !is_synced {
            return Some(PLAN_INTERVAL_MIN * 10);
        }
        self.mark_secrets();
        self.config.control.set_pools(self.config.pools.names());
        self.world.replay_progress.clone_from(&self.config.replays.progress());
        self.read_confirmation().await;
        // That may have taken as long as an API server that hangs lets it.
        if self.config.lead.now() != leadership {
            return Some(Duration::ZERO);
        }
        match self.config.control.look(&mut self.world, epoch, self.confirmed.as_deref()).await {
            Ok(look) => Some(self.carry_out(look, leadership, epoch)),
            Err(error) => Some(self.failed(&error)),
        }
    }

    /// Hands on what is to be written.
    fn carry_out(&mut self, look: Look, leadership: Leadership, epoch: u64) -> Duration {
        self.retry_pause = LEDGER_RETRY_PAUSE_MIN;
        if self.config.readiness.set_ledger(None) {
            tracing::info!("the ledger works");
        }
        self.config.readiness.set_table_version(look.table_version.0);
        if look.changed_rows > 0 {
            tracing::debug!(
                rows = look.changed_rows,
                version = look.table_version.0,
                "the routing table was published"
            );
        }
        let withheld = look.withheld;
        let message = withheld.as_ref().map(|withheld| self.config.confirmation.message(withheld));
        let is_news = self.config.readiness.set_removal(message.clone());
        if let (true, Some(message), Some(withheld)) = (is_news, message, &withheld) {
            tracing::warn!(routes = withheld.routes, "{message}");
        }
        self.withheld = withheld;
        // Another one may lead by now.
        if self.config.lead.now() == leadership {
            self.config.statuses.want_all(&PLANNED_KINDS, look.statuses);
            self.config.replays.order(look.replays, Some(epoch));
            self.config.secret_maker.want(look.generate_secrets, self.config.sources.secrets_seen());
        }
        look.next_look_in.map_or(LEDGER_LOOK_INTERVAL, |pause| pause.clamp(PLAN_INTERVAL_MIN, LEDGER_LOOK_INTERVAL))
    }

    fn failed(&mut self, error: &LedgerError) -> Duration {
        self.config.control.step_down();
        if let LedgerError::Superseded { present, .. } = error {
            tracing::warn!(%error, "another leader has written the routing table; nothing is written until this one leads again");
            self.config.statuses.clear();
            self.config.replays.order(Vec::new(), None);
            self.config.secret_maker.clear();
            self.config.epoch_floor.raise(*present);
            return LEDGER_LOOK_INTERVAL;
        }
        if self.config.readiness.set_ledger(Some(error.to_string())) {
            tracing::warn!(%error, "the ledger cannot be used; nothing changes until it can");
        } else {
            tracing::debug!(%error, "the ledger still cannot be used");
        }
        self.retry_pause = (self.retry_pause * 2).min(LEDGER_RETRY_PAUSE_MAX);
        self.retry_pause
    }

    /// Reads, while a removal waits, whether somebody has confirmed it.
    async fn read_confirmation(&mut self) {
        if self.withheld.is_none() {
            self.confirmed = None;
            return;
        }
        if Instant::now() < self.confirmation_due {
            return;
        }
        self.confirmation_due = Instant::now() + CONFIRMATION_LOOK_INTERVAL;
        match self.config.confirmation.read().await {
            Ok(confirmed) => self.confirmed = confirmed,
            Err(error) => tracing::debug!(%error, "whether the removal is confirmed cannot be read"),
        }
    }

    /// At the begin of a lead: the leader before may have made Secrets that this process has not looked for since.
    fn take_over(&mut self, leadership: Leadership) {
        let leads = match leadership {
            Leadership::Leader { epoch } => Some(epoch),
            Leadership::Follower => None,
        };
        if leads.is_some() && leads != self.led {
            self.config.sources.secrets().doubt_absent();
        }
        self.led = leads;
    }

    fn mark_secrets(&mut self) {
        if self.has_marks {
            self.world.secrets = self.config.sources.secrets().secrets();
        }
        self.has_marks = self.config.secret_maker.mark(&mut self.world.secrets);
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
