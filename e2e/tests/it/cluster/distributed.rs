//! The distributed installation: what it promises while its load changes, its pods are killed, and it is upgraded and
//! taken away.

mod pods;
mod release;
mod replay;
mod scaling;

use std::io::Write as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use e2e::distributed::{Balance, BalanceWatch};
use serde_json::{Value, json};
use sqlx::PgPool;
use testbed::{PostgresServer, RabbitServer};

use super::counting::{CountingReceiver, KEY};
use super::publishing::{Load, Published, Publishing, Topic};
use super::support::{Setting, apply, token};

/// Deployments of the release.
const DEPLOYMENTS: [&str; 3] =
    ["deployment/harborhook-operator", "deployment/harborhook-ingest", "deployment/harborhook-dispatcher-default"];
const INVOICES: &str = "invoice.created";
const ORDERS: &str = "order.created";
/// The endpoint of the default pool, which gets invoices.
const BILLING: &str = "billing";
/// Endpoints of the pool of its own, each of which gets every order.
const PARTNERS: usize = 8;
/// How long a receiver takes for a request: long enough that much is in flight, less than what counts as slow.
const TAKES: Duration = Duration::from_millis(500);
const PARTNER_TAKES: Duration = Duration::from_millis(200);

/// An installation with its servers, and who uses it.
struct Story {
    setting: Setting,
    values: Value,
    api: SocketAddr,
    token: String,
    ledger: PgPool,
    billing: CountingReceiver,
    partners: CountingReceiver,
    began: Instant,
    _servers: (PostgresServer, RabbitServer),
}

#[tokio::test]
async fn the_distributed_installation_loses_nothing() {
    let Some(story) = Story::begin().await else { return };
    let watch = BalanceWatch::begin(story.ledger.clone());
    let mut published = Vec::new();

    story.a_new_pool_that_may_be_empty_is_empty_at_once().await;
    published.push(story.load_makes_it_four_dispatchers().await);
    let meanwhile = async {
        let killed = story.a_killed_dispatcher_loses_nothing_of_much_in_flight().await;
        (killed, story.a_replay_counts_first_and_then_delivers_again().await)
    };
    let ((), (killed, replayed)) = tokio::join!(story.quiet_takes_all_of_them_away(), meanwhile);
    story.another_operator_leads_and_goes_on_with_a_replay(&replayed).await;
    published.extend([killed, replayed.published]);
    published.push(story.an_upgrade_and_a_rollback_under_load_lose_nothing().await);
    published.extend(story.uninstalled_and_installed_again_it_goes_on().await);

    let seen = watch.end();
    assert!(seen.broken.is_empty() && seen.looks > 0, "the balance was broken: {:?}", seen.broken.first());
    story.nothing_was_lost(&published, seen.looks).await;
}

impl Story {
    /// Starts the servers, names them to the release in Secrets, and installs it with an endpoint at a receiver.
    async fn begin() -> Option<Self> {
        let setting = Setting::start().await?;
        let began = Instant::now();
        let servers = (testbed::postgres(&[]).await.unwrap()?, testbed::rabbitmq(&[]).await.unwrap()?);
        let ledger = PgPool::connect_lazy(servers.0.url()).unwrap();
        secret(&setting, "pg", servers.0.url()).await;
        secret(&setting, "mq", &format!("{}%2f", servers.1.url())).await;
        let mut values = setting.values();
        values["postgres"] = json!({"existingSecret": "pg"});
        values["rabbitmq"] = json!({"existingSecret": "mq"});
        setting.helm_with_values("install", &values).await;
        for deployment in DEPLOYMENTS {
            setting.rolled_out(deployment).await;
        }
        let billing = CountingReceiver::start(&setting, TAKES).await;
        let partners = CountingReceiver::start(&setting, PARTNER_TAKES).await;
        let (api, token) = (setting.api().await, token(setting.tenant.kubectl()).await);
        let story = Self { setting, values, api, token, ledger, billing, partners, began, _servers: servers };
        story.tenant_is_ready().await;
        story.tell("installed");
        Some(story)
    }

    /// The tenant's key, and its endpoint of the default pool.
    async fn tenant_is_ready(&self) {
        let kubectl = self.setting.tenant.kubectl();
        let key = format!("--from-literal=key={KEY}");
        kubectl.run(["create", "secret", "generic", "signing", &key]).await.unwrap();
        let signing = json!({"secretKeyRef": {"name": "signing", "key": "key"}});
        let spec = json!({"url": format!("{}/{BILLING}", self.billing.url), "signing": signing});
        apply(kubectl, "Endpoint", BILLING, spec).await.unwrap();
        let spec = json!({"endpointRef": {"name": BILLING}, "eventTypes": [INVOICES]});
        apply(kubectl, "Subscription", "invoices", spec).await.unwrap();
        self.setting.has_conditions(&format!("hep/{BILLING}"), &["Programmed", "Ready"]).await;
        self.setting.has_conditions("hsub/invoices", &["Programmed", "Ready"]).await;
    }

    fn publishing(&self, event_type: &'static str, fanout: u64, load: Load) -> Publishing {
        self.publishing_to(self.api, event_type, fanout, load)
    }

    fn publishing_to(&self, api: SocketAddr, event_type: &'static str, fanout: u64, load: Load) -> Publishing {
        let (token, tenant) = (self.token.clone(), self.setting.tenant.name().to_owned());
        Publishing::start(Topic { api, tenant, token, event_type, fanout }, load)
    }

    /// Publishes so many invoices as fast as the API takes them.
    async fn invoices(&self, events_max: u64) -> Published {
        let load = Load { connections: 4, batch: 25, pause: Duration::ZERO, events_max };
        self.publishing(INVOICES, 1, load).finish().await
    }

    async fn billing_has(&self, numbers: &Range<u64>) {
        self.billing.all_answered(&[format!("/{BILLING}")], numbers).await;
    }

    async fn balance(&self) -> Balance {
        Balance::read(&self.ledger).await.unwrap()
    }

    /// Waits until nothing is open.
    async fn all_is_finished(&self) -> Balance {
        let is_finished = async || Ok(self.balance().await.open == 0);
        e2e::distributed::until("nothing is open", is_finished).await.unwrap();
        self.balance().await
    }

    async fn nothing_was_lost(&self, published: &[Published], looks: usize) {
        let balance = self.all_is_finished().await;
        let of = |published: &Published| i64::try_from(published.numbers.end - published.numbers.start).unwrap();
        let events: i64 = published.iter().map(of).sum();
        let partners = i64::try_from(PARTNERS).unwrap();
        // Orders have a target at every partner.
        let accepted = events + (partners - 1) * self.orders().await;
        assert!(balance.holds(), "{balance:?}");
        assert_eq!((balance.events, balance.accepted, balance.delivered), (events, accepted, accepted), "{balance:?}");
        self.tell(&format!("{events} events, {accepted} deliveries, 0 lost, {looks} looks at the balance"));
    }

    async fn orders(&self) -> i64 {
        let orders = sqlx::query_scalar("SELECT count(*) FROM events WHERE event_type = $1").bind(ORDERS);
        orders.fetch_one(&self.ledger).await.unwrap()
    }

    /// Tells how the story goes on the stream itself: the test runner would swallow a print.
    fn tell(&self, line: &str) {
        let _ = writeln!(std::io::stderr(), "distributed, {:.0} s: {line}", self.began.elapsed().as_secs_f64());
    }
}

/// A Secret with the URL of a server of this machine, as pods reach it.
async fn secret(setting: &Setting, name: &str, url: &str) {
    let mut url = url::Url::parse(url).unwrap();
    let exposed = setting.cluster.expose(url.port().unwrap()).await.unwrap();
    url.set_ip_host(exposed.ip()).unwrap();
    url.set_port(Some(exposed.port())).unwrap();
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"url": url.as_str()}});
    setting.namespace.kubectl().apply(&secret.to_string()).await.unwrap();
}
