//! The routing table in memory: loaded from the ledger, compiled, opened, shared.
//!
//! A snapshot never changes; a newer one replaces it. While the ledger is down, the last good one stays in use.

mod compile;
mod departures;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dispatcher_core::id::EndpointId;
use dispatcher_core::limits::{ENDPOINTS_MAX, SNAPSHOT_INLINE_ROWS_MAX, SNAPSHOT_POLL_INTERVAL, SUBSCRIPTIONS_MAX};
use dispatcher_core::route::RoutingIndex;
use dispatcher_core::seal::SealingKey;
use dispatcher_core::table::{EndpointRow, EndpointSecrets, EndpointState, IssuerRow, Row, RowKey, TableVersion};
use http::HeaderMap;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use url::Url;

use self::compile::{Compiled, check_size};
pub use self::departures::Departures;
use crate::http::{Identity, Request, TokenSlot};
use crate::ledger::{Disabled, Ledger, LedgerError};
use crate::metrics::{Metrics, Role};

/// Whoever reads the routing table holds one of these.
pub type SnapshotReceiver = watch::Receiver<Arc<Snapshot>>;

/// The routing table at one version.
#[derive(Clone)]
pub struct Snapshot {
    /// Its version.
    pub version: TableVersion,
    /// Who gets which event.
    pub index: Arc<RoutingIndex>,
    /// Endpoints whose secrets could be opened.
    pub routes: Arc<HashMap<EndpointId, Arc<EndpointRoute>>>,
    /// Whose tokens are accepted.
    pub issuers: Arc<[IssuerRow]>,
    /// Endpoints that are disabled, with the revision that they were disabled at.
    pub disabled: HashMap<EndpointId, Disabled>,
    /// Since when subscriptions that are not in the table have been out of it.
    pub departures: Departures,
    /// Rows that could not be compiled or opened, or are of a kind that this release does not know.
    pub problems_count: usize,
}

/// Where and how to deliver to one endpoint, opened and parsed.
pub struct EndpointRoute {
    /// The row as it stands in the table.
    pub row: EndpointRow,
    /// The URL; it may be a secret, so it is never printed.
    pub url: Url,
    /// The keys and the raw headers. The TLS identity is taken out: it is used by [`EndpointRoute::request`] alone. So is
    /// the source of access tokens.
    pub secrets: EndpointSecrets,
    /// Headers of every request, parsed and marked as sensitive.
    pub headers: HeaderMap,
    /// The endpoint's access token, which outlives the route while its source stays the same.
    pub token: Option<TokenSlot>,
    /// Whether it takes another key than the first to open the row.
    pub is_sealed_by_other_key: bool,
    identity: Option<Identity>,
}

impl EndpointRoute {
    /// A request to this endpoint. Its URL, its TLS identity and its deadline belong together, so they are put together
    /// here and nowhere else: what is meant for one endpoint must not go out with the certificate of another.
    pub fn request(&self, headers: HeaderMap, body: Bytes) -> Request<'_> {
        let deadline = Duration::from_secs(self.row.policy.timeout_seconds.into());
        Request { url: &self.url, identity: self.identity.as_ref(), headers, body, deadline }
    }
}

impl fmt::Debug for EndpointRoute {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EndpointRoute").field("row", &self.row).finish_non_exhaustive()
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Snapshot")
            .field("version", &self.version)
            .field("routes", &self.routes.len())
            .field("disabled", &self.disabled.len())
            .finish_non_exhaustive()
    }
}

/// Why nothing may be delivered to an endpoint now. What waits for it keeps waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotDeliverable {
    /// The table has no such endpoint.
    #[error("the endpoint does not exist")]
    Absent,
    /// Its owner suspended it.
    #[error("the endpoint is suspended")]
    Suspended,
    /// Its resource is invalid.
    #[error("the endpoint's resource is not valid")]
    Held,
    /// It answered 410, or failed for too long.
    #[error("the endpoint is disabled")]
    Disabled,
    /// Its secrets cannot be opened with this process's key, or do not parse.
    #[error("the endpoint's secrets cannot be opened")]
    Unsealable,
}

impl NotDeliverable {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Suspended => "suspended",
            Self::Held => "held",
            Self::Disabled => "disabled",
            Self::Unsealable => "unsealable",
        }
    }
}

impl Snapshot {
    /// A table without rows.
    pub fn empty() -> Self {
        let (index, _) = RoutingIndex::build([]);
        Self {
            version: TableVersion::default(),
            index: Arc::new(index),
            routes: Arc::default(),
            issuers: Arc::default(),
            disabled: HashMap::new(),
            departures: Departures::of_load(Instant::now()),
            problems_count: 0,
        }
    }

    /// The way to an endpoint, if deliveries may leave for it.
    pub fn may_deliver(&self, endpoint: EndpointId) -> Result<&Arc<EndpointRoute>, NotDeliverable> {
        let row = self.index.endpoint(endpoint).ok_or(NotDeliverable::Absent)?;
        match row.state {
            EndpointState::Suspended => return Err(NotDeliverable::Suspended),
            EndpointState::Held { .. } => return Err(NotDeliverable::Held),
            EndpointState::Active => {}
        }
        if self.disabled_at_present(row).is_some() {
            return Err(NotDeliverable::Disabled);
        }
        self.routes.get(&endpoint).ok_or(NotDeliverable::Unsealable)
    }

    /// How the endpoint was disabled, unless it has changed since.
    pub fn disabled_at_present(&self, row: &EndpointRow) -> Option<&Disabled> {
        self.disabled.get(&row.id).filter(|disabled| disabled.revision == row.revision)
    }
}

/// Keeps the snapshot up to date.
pub struct SnapshotLoader {
    ledger: Arc<dyn Ledger>,
    sealing_key: Arc<SealingKey>,
    changed: Arc<Notify>,
    metrics: Arc<Metrics>,
    poll_interval: Duration,
    /// The history that the version of `rows` belongs to.
    history: String,
    /// Rows beside `rows`, of kinds that this release does not know.
    unknown_count: usize,
    rows: Arc<BTreeMap<RowKey, Row>>,
    sender: watch::Sender<Arc<Snapshot>>,
}

impl SnapshotLoader {
    /// Loads the whole table once. Whoever changes the table in this process calls `changed.notify_one()`.
    pub async fn start(
        ledger: Arc<dyn Ledger>,
        sealing_key: Arc<SealingKey>,
        changed: Arc<Notify>,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, SnapshotReceiver), LedgerError> {
        let (sender, receiver) = watch::channel(Arc::new(Snapshot::empty()));
        let (history, unknown_count) = (String::new(), 0);
        let (poll_interval, rows) = (SNAPSHOT_POLL_INTERVAL, Arc::default());
        let mut loader =
            Self { ledger, sealing_key, changed, metrics, poll_interval, history, unknown_count, rows, sender };
        loader.refresh(None).await?;
        Ok((loader, receiver))
    }

    /// Looks for changes in another interval than [`SNAPSHOT_POLL_INTERVAL`].
    #[must_use]
    pub fn polling_each(self, poll_interval: Duration) -> Self {
        Self { poll_interval, ..self }
    }

    /// Looks for changes once.
    pub async fn catch_up(&mut self) -> Result<(), LedgerError> {
        let version = self.sender.borrow().version;
        self.refresh(Some(version)).await
    }

    /// Looks for changes in intervals, and at once when it is notified, until it is told to stop.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.changed.notified() => {}
                () = tokio::time::sleep(self.poll_interval) => {}
            }
            match self.catch_up().await {
                Ok(()) => failing = false,
                Err(error) => {
                    self.metrics.ledger_failed(Role::Snapshot);
                    if !failing {
                        tracing::warn!(%error, "the routing table cannot be loaded; the last one stays in use");
                    }
                    failing = true;
                }
            }
        }
    }

    async fn refresh(&mut self, since: Option<TableVersion>) -> Result<(), LedgerError> {
        let mut load = self.ledger.load_table(since).await?;
        if !load.complete && load.history != self.history {
            load = self.ledger.load_table(None).await?;
        }
        let disabled = self.ledger.disabled().await?;
        let disabled: HashMap<_, _> = disabled.into_iter().map(|disabled| (disabled.endpoint, disabled)).collect();
        let previous = Arc::clone(&self.sender.borrow());
        let rows_changed = load.complete || !load.rows.is_empty() || !load.dropped.is_empty();
        if !rows_changed && load.version == previous.version && disabled == previous.disabled {
            return Ok(());
        }
        let mut snapshot = Snapshot { version: load.version, disabled, ..Snapshot::clone(&previous) };
        // A load of the version that is here already says nothing of rows.
        let is_news = load.complete || load.version != previous.version;
        let unknown_count = if is_news { load.unknown_count } else { self.unknown_count };
        snapshot.problems_count = previous.problems_count - self.unknown_count + unknown_count;
        if rows_changed {
            let mut rows = Arc::clone(&self.rows);
            let changed_rows = Arc::make_mut(&mut rows);
            if load.complete {
                changed_rows.clear();
                snapshot.departures = Departures::of_load(Instant::now());
            }
            snapshot.departures.note(&load.dropped, Instant::now());
            for key in &load.dropped {
                changed_rows.remove(key);
            }
            changed_rows.extend(load.rows.into_iter().map(|row| (row.key(), row)));
            check_size(rows.keys(), ENDPOINTS_MAX, SUBSCRIPTIONS_MAX)?;
            let compiled = self.compile(Arc::clone(&rows), &previous).await?;
            self.metrics.set_sealed_by_others(compiled.sealed_by_others_count);
            (snapshot.index, snapshot.routes, snapshot.issuers) = (compiled.index, compiled.routes, compiled.issuers);
            snapshot.problems_count = compiled.problems_count + unknown_count;
            self.rows = rows;
            self.history = load.history;
        }
        if self.unknown_count == 0 && unknown_count > 0 {
            tracing::warn!(unknown_count, "the routing table has rows of kinds that only a newer release knows");
        }
        self.unknown_count = unknown_count;
        self.metrics.set_table(snapshot.version, snapshot.problems_count);
        self.sender.send_replace(Arc::new(snapshot));
        Ok(())
    }

    /// Compiles on a thread for blocking work when there is much to compile.
    async fn compile(
        &self,
        rows: Arc<BTreeMap<RowKey, Row>>,
        previous: &Arc<Snapshot>,
    ) -> Result<Compiled, LedgerError> {
        if rows.len() <= SNAPSHOT_INLINE_ROWS_MAX {
            return Ok(Compiled::new(&rows, &previous.routes, &self.sealing_key));
        }
        let (routes, sealing_key) = (Arc::clone(&previous.routes), Arc::clone(&self.sealing_key));
        tokio::task::spawn_blocking(move || Compiled::new(&rows, &routes, &sealing_key))
            .await
            .map_err(|error| LedgerError::Refused(format!("the routing table could not be compiled: {error}")))
    }
}
