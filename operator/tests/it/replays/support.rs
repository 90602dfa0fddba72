//! A ledger with finished deliveries, and a worker on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::ledger::{Change, Claim, DeliveryResult, Ledger, NewEvent, NewReplay, ReplayRecord, ReplayStage};
use dispatcher::queue::Work;
use dispatcher_core::delivery::{DeliveryKey, DeliveryState, EndReason, Next, Target, split_into_parts};
use dispatcher_core::event::{Attributes, Event};
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, SubscriptionId, TenantId};
use dispatcher_core::table::{DEFAULT_POOL, Row, TableVersion};
use operator::plan::replay::{ReplayJob, ReplaySituation, plan_replays};
use operator::replays::{ReplayDesk, ReplayWorker, worker};
use tempfile::TempDir;
use testbed::TestDatabase;
use uuid::Uuid;

use crate::fixtures::{Harness, KEY, SIGNING, secret};
use crate::replay::replay_in;

const HOUR: Duration = Duration::from_hours(1);
/// The time of the first event, in November 2023; the others follow, one a millisecond.
const FIRST_UNIX_MS: u64 = 1_699_974_000_000;
/// Endpoints of the namespace `shop`.
const ENDPOINTS: usize = 8;

/// What a ledger lives in.
#[expect(dead_code, reason = "it is kept for what its end does")]
pub(crate) enum Place {
    Folder(TempDir),
    Database(TestDatabase),
}

/// A ledger in which the endpoints `e0` to `e7` of `shop`, and the subscription `s` to the first two, are in effect.
pub(crate) struct Stage {
    ledger: Arc<dyn Ledger>,
    published: Vec<Row>,
    _place: Place,
}

/// Each test on both ledgers; on PostgreSQL where there is a server.
macro_rules! on_both_ledgers {
    ($($name:ident,)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::support::Stage::on_sqlite().await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                let Some(stage) = super::support::Stage::on_postgres().await else { return };
                super::$name(stage).await;
            })*
        }
    };
}
pub(crate) use on_both_ledgers;

fn shop() -> TenantId {
    TenantId::of_namespace_name("shop")
}

fn resources() -> String {
    let object = |kind: &str, name: &str, team: &str, spec: &str| {
        format!(
            "---\napiVersion: harborhook.dev/v1alpha1\nkind: {kind}\n\
             metadata: {{name: {name}, namespace: shop, labels: {{team: {team}}}}}\nspec:\n  {spec}\n"
        )
    };
    let endpoints = (0..ENDPOINTS).map(|number| {
        let team = if number < 2 { "a" } else { "b" };
        object("Endpoint", &format!("e{number}"), team, &format!("url: https://example.com/\n  {SIGNING}"))
    });
    let route = "endpointSelector: {matchLabels: {team: a}}\n  eventTypes: ['order.*']";
    [secret(KEY), object("Subscription", "s", "a", route)].into_iter().chain(endpoints).collect()
}

/// The job that a plan makes of a replay of this name and these lines of spec.
pub(crate) fn job_of(stage: &Stage, name: &str, spec: &str) -> ReplayJob {
    let mut world = Harness::of(&format!("{}{}", resources(), replay_in("shop", name, spec))).world;
    world.published.clone_from(&stage.published);
    // As if it had begun: one that is suspended has a job, too.
    for replay in &mut world.replays {
        let status = Arc::make_mut(replay).status.get_or_insert_default();
        status.started_time = Some(operator::conditions::time(0));
    }
    let situation = ReplaySituation {
        tenants: &world.tenants,
        replays: &world.replays,
        malformed: &[],
        progress: &HashMap::new(),
        published: &world.published,
    };
    let planned = plan_replays(&situation, 0);
    planned.jobs.into_iter().next().unwrap_or_else(|| panic!("no job of {spec}: {:?}", planned.statuses))
}

impl Stage {
    pub(crate) async fn on_sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open_in(folder.path()).await.unwrap();
        Self::on(Arc::new(ledger), Place::Folder(folder)).await
    }

    pub(crate) async fn on_postgres() -> Option<Self> {
        let database = testbed::database().await.unwrap()?;
        let config = || PostgresConfig { pool_connections_max: 4, ..PostgresConfig::new(database.url()) };
        PostgresLedger::migrate(&config()).await.unwrap();
        let ledger = PostgresLedger::connect(config()).await.unwrap();
        Some(Self::on(Arc::new(ledger), Place::Database(database)).await)
    }

    async fn on(ledger: Arc<dyn Ledger>, place: Place) -> Self {
        let mut harness = Harness::of(&resources());
        let plan = harness.plan();
        harness.world.apply(&plan);
        ledger.publish_table(plan.table, None).await.unwrap();
        Self { ledger, published: harness.world.published, _place: place }
    }

    /// A worker without orders.
    pub(crate) fn play(&self) -> Play<'_> {
        let (worker, desk) = worker(Arc::clone(&self.ledger));
        Play { stage: self, worker, desk, jobs: Vec::new() }
    }

    /// Events to the first `fanout` endpoints, whose deliveries were all given up. Answers these, event by event.
    pub(crate) async fn dead_events(&self, count: usize, fanout: usize) -> Vec<DeliveryId> {
        self.events(shop(), count, fanout).await
    }

    /// The same in another namespace.
    pub(crate) async fn dead_events_of_others(&self, count: usize) -> Vec<DeliveryId> {
        self.events(TenantId::of_namespace_name("others"), count, 1).await
    }

    /// Events that no subscription matched.
    pub(crate) async fn events_without_targets(&self, count: usize) {
        self.events(shop(), count, 0).await;
    }

    async fn events(&self, tenant: TenantId, count: usize, fanout: usize) -> Vec<DeliveryId> {
        let mut deliveries = Vec::new();
        let numbers: Vec<usize> = (0..count).collect();
        for numbers in numbers.chunks(100) {
            let events: Vec<NewEvent> = numbers.iter().map(|number| event(tenant, *number, fanout)).collect();
            self.ledger.accept(events.clone()).await.unwrap();
            let dead = events.iter().filter(|_| fanout > 0).map(|new| Change::Part {
                event: new.event.id,
                tenant,
                part: 0,
                r#gen: 1,
                results: keys(new).map(|key| result(key, Next::Dead(EndReason::Gone))).collect(),
            });
            self.ledger.record(dead.collect()).await.unwrap();
            deliveries.extend(events.iter().flat_map(|new| keys(new).map(|key| key.delivery).collect::<Vec<_>>()));
        }
        deliveries
    }

    /// Makes one replay named `r0` and carries it through; answers what it started, with the runs.
    pub(crate) async fn replay(&self, spec: &str) -> BTreeMap<DeliveryId, Vec<u32>> {
        let mut play = self.play();
        play.order(&[spec]);
        let mut now = Duration::ZERO;
        while play.exact(0).await.is_none_or(|record| record.cursor.stage != ReplayStage::Done) {
            now = play.turn(now).await;
        }
        let started = self.deliver_all().await;
        play.finish(now).await;
        started
    }

    /// Delivers everything that is due; answers it, with the runs.
    pub(crate) async fn deliver_all(&self) -> BTreeMap<DeliveryId, Vec<u32>> {
        let mut started = BTreeMap::new();
        self.deliver_into(&mut started).await;
        started
    }

    pub(crate) async fn deliver_into(&self, started: &mut BTreeMap<DeliveryId, Vec<u32>>) {
        loop {
            let (pool, instance) = (DEFAULT_POOL.to_owned(), Uuid::nil());
            let claim = Claim { pool, instance, lease: HOUR, deliveries_max: 2000 };
            let claimed = self.ledger.claim(claim).await.unwrap();
            let mut changes = Vec::new();
            for item in &claimed.items {
                let Work::Due(due) = &item.work else { panic!("nothing is in the outbox") };
                for due in due {
                    started.entry(due.delivery).or_default().push(due.run);
                    let key = DeliveryKey::new(item.event.tenant, item.event.id, due.target);
                    let result = result(key, Next::Delivered);
                    changes.push(Change::Delivery { run: due.run, r#gen: due.r#gen, result });
                }
            }
            if changes.is_empty() {
                return;
            }
            self.ledger.record(changes).await.unwrap();
        }
    }

    pub(crate) async fn state_of_others(&self, delivery: DeliveryId) -> Option<DeliveryState> {
        let others = TenantId::of_namespace_name("others");
        self.ledger.delivery(others, delivery).await.unwrap().map(|record| record.state)
    }

    pub(crate) async fn assert_balanced(&self) {
        for balance in self.ledger.balance().await.unwrap() {
            assert_eq!(balance.accepted, balance.delivered + balance.dead + balance.cancelled + balance.open);
        }
    }
}

/// Event `number` of a tenant, to the first endpoints.
fn event(tenant: TenantId, number: usize, fanout: usize) -> NewEvent {
    let target = |place: usize| Target {
        subscription: SubscriptionId::derive(tenant, "s"),
        endpoint: EndpointId::derive(tenant, &format!("e{place}")),
    };
    let event_type = if number.is_multiple_of(3) { "order.paid" } else { "order.created" };
    let event = Event {
        id: EventId::from_parts(FIRST_UNIX_MS + number as u64, [9; 10]),
        tenant,
        event_type: event_type.to_owned(),
        recipient: None,
        content_type: "application/json".to_owned(),
        body: Bytes::from(format!("{{\"number\":{number}}}")),
        attributes: Attributes::default(),
    };
    let parts = split_into_parts((0..fanout).map(|place| (DEFAULT_POOL.to_owned(), target(place))).collect());
    NewEvent { event: Arc::new(event), parts, table_version: TableVersion(1), idempotency: None, lease: HOUR }
}

fn keys(new: &NewEvent) -> impl Iterator<Item = DeliveryKey> {
    let targets = new.parts.iter().flat_map(|part| part.targets.clone());
    targets.map(|target| DeliveryKey::new(new.event.tenant, new.event.id, target))
}

fn result(key: DeliveryKey, next: Next) -> DeliveryResult {
    DeliveryResult { key, attempt: None, next }
}

/// A worker with its orders.
pub(crate) struct Play<'a> {
    stage: &'a Stage,
    worker: ReplayWorker,
    desk: ReplayDesk,
    jobs: Vec<ReplayJob>,
}

impl Play<'_> {
    /// Orders replays with these lines of spec, named `r0`, `r1` and so on.
    pub(crate) fn order(&mut self, specs: &[&str]) {
        let jobs = specs.iter().enumerate().map(|(number, spec)| job_of(self.stage, &format!("r{number}"), spec));
        self.jobs = jobs.collect();
        self.desk.order(self.jobs.clone(), None);
    }

    /// One turn; answers when the next is due.
    pub(crate) async fn turn(&mut self, now: Duration) -> Duration {
        now + self.worker.turn(now).await.unwrap_or_default()
    }

    /// Turns until a time is reached, or nothing is left to do before it.
    pub(crate) async fn run_until(&mut self, mut now: Duration, end: Duration) -> Duration {
        while let Some(wait) = self.worker.turn(now).await {
            if now + wait > end {
                break;
            }
            now += wait;
        }
        end
    }

    /// Begins a turn and drops it after so many polls, wherever it stands then.
    pub(crate) async fn break_off(&mut self, now: Duration, polls: usize) {
        let mut turn = Box::pin(self.worker.turn(now));
        for _ in 0..polls {
            if futures::poll!(&mut turn).is_ready() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Turns until everything is finished.
    pub(crate) async fn finish(&mut self, mut now: Duration) {
        while self.only().is_none_or(|record| record.finished_at_unix_ms.is_none()) {
            now = self.turn(now).await;
        }
    }

    /// What was reported last of the only replay.
    pub(crate) fn only(&self) -> Option<ReplayRecord> {
        Some(self.desk.progress().get(&self.jobs[0].replay)?.record)
    }

    /// How far a replay is by the ledger, if it has begun.
    pub(crate) async fn exact(&self, place: usize) -> Option<ReplayRecord> {
        self.only_of(place)?;
        let ReplayJob { replay, scope, .. } = &self.jobs[place];
        let known = NewReplay {
            replay: *replay,
            tenant: scope.tenant,
            asked_until_unix_ms: scope.until_unix_ms,
            first_stage: scope.first_stage(),
        };
        Some(self.stage.ledger.begin_replay(known, None).await.unwrap())
    }

    fn only_of(&self, place: usize) -> Option<ReplayRecord> {
        Some(self.desk.progress().get(&self.jobs[place].replay)?.record)
    }
}
