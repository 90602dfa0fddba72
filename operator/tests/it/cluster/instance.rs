//! An operator in the process of the test.

use std::sync::Arc;
use std::time::Duration;

use dispatcher::admin::Report;
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::ledger::{DispatcherRole, Heartbeat, Ledger};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{EndpointRow, EndpointState, Row};
use operator::cluster::assembly::{Assembly, Running};
use operator::cluster::issuer::IssuerSettings;
use operator::cluster::lease::LeaseConfig;
use operator::cluster::metrics::OperatorMetrics;
use operator::cluster::readiness::Readiness;
use operator::cluster::sources::SourcesConfig;
use tempfile::TempDir;
use uuid::Uuid;

/// What an operator is started with.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) client: kube::Client,
    /// Of the installation.
    pub(crate) namespace: String,
    /// Those that are watched; none stands for all.
    pub(crate) namespaces: Vec<String>,
    pub(crate) watch_secrets: bool,
    pub(crate) resync: Duration,
    pub(crate) identity: &'static str,
}

impl Setup {
    /// In one namespace.
    pub(crate) fn new(client: kube::Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            namespaces: vec![namespace.to_owned()],
            watch_secrets: false,
            resync: Duration::from_mins(10),
            identity: "one",
        }
    }
}

/// An operator on a ledger of its own.
pub(crate) struct Operator {
    pub(crate) running: Running,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) readiness: Readiness,
    folder: Option<Arc<TempDir>>,
}

impl Operator {
    pub(crate) async fn start(client: kube::Client, namespace: &str) -> Self {
        Self::start_with(Setup::new(client, namespace)).await
    }

    pub(crate) async fn start_with(setup: Setup) -> Self {
        Self::start_in(setup, Arc::new(tempfile::tempdir().unwrap())).await
    }

    /// Another one on the same ledger.
    pub(crate) async fn start_beside(&self, setup: Setup) -> Self {
        Self::start_in(setup, Arc::clone(self.folder.as_ref().unwrap())).await
    }

    async fn start_in(setup: Setup, folder: Arc<TempDir>) -> Self {
        let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(folder.path()).await.unwrap());
        Self { folder: Some(folder), ..Self::start_on(setup, ledger) }
    }

    /// One on a ledger that somebody else looks after.
    pub(crate) fn start_on(setup: Setup, ledger: Arc<dyn Ledger>) -> Self {
        let Setup { client, namespace, namespaces, watch_secrets, resync, identity } = setup;
        let metrics = Arc::new(OperatorMetrics::new());
        let readiness = Readiness::new(Arc::clone(&metrics));
        let lease = LeaseConfig::new(namespace, "harborhook-operator".to_owned(), identity.to_owned());
        let running = Assembly {
            sources: SourcesConfig { client, namespaces, watch_secrets, resync },
            ledger: Arc::clone(&ledger),
            sealing_key: Arc::new(SealingKey::from_bytes(&[7; 32])),
            address_policy: AddressPolicy::public_https(),
            lease,
            default_pool: None,
            issuer: IssuerSettings::default(),
            readiness: readiness.clone(),
            metrics,
        }
        .start();
        Self { running, ledger, readiness, folder: None }
    }

    pub(crate) async fn rows(&self) -> Vec<Row> {
        self.ledger.load_table(None).await.unwrap().rows
    }

    pub(crate) async fn version(&self) -> u64 {
        self.ledger.load_table(None).await.unwrap().version.0
    }

    pub(crate) async fn endpoint(&self, name: &str) -> Option<EndpointRow> {
        self.rows().await.into_iter().find_map(|row| match row {
            Row::Endpoint(row) if row.name == name => Some(*row),
            _ => None,
        })
    }

    /// How many endpoints may deliver.
    pub(crate) async fn active(&self) -> usize {
        let is_active = |row: &&Row| matches!(row, Row::Endpoint(row) if row.state == EndpointState::Active);
        self.rows().await.iter().filter(is_active).count()
    }

    pub(crate) async fn endpoint_state(&self) -> Option<EndpointState> {
        self.rows().await.iter().find_map(|row| match row {
            Row::Endpoint(row) => Some(row.state.clone()),
            _ => None,
        })
    }

    pub(crate) async fn reasons(&self) -> String {
        self.readiness.readiness().await.1["reasons"].to_string()
    }

    /// What it says of a removal that waits.
    pub(crate) async fn waiting(&self) -> String {
        self.readiness.readiness().await.1["waiting"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) async fn is_ready(&self) -> bool {
        self.readiness.readiness().await.0
    }

    pub(crate) async fn leads(&self) -> bool {
        self.readiness.readiness().await.1["leader"] == true
    }

    pub(crate) fn metrics(&self) -> String {
        self.readiness.metrics().unwrap()
    }

    /// Whether a metric has this line.
    pub(crate) fn measures(&self, line: &str) -> bool {
        self.metrics().lines().any(|present| present == line)
    }

    /// A dispatcher that has loaded the table as it is now.
    pub(crate) async fn beat(&self) {
        let table_version = self.ledger.load_table(None).await.unwrap().version;
        let pool = Some("default".to_owned());
        let heartbeat = Heartbeat { instance: Uuid::from_u128(1), role: DispatcherRole::All, pool, table_version };
        self.ledger.beat(heartbeat).await.unwrap();
    }
}
