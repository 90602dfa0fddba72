//! Whose tokens are accepted at present: the issuers of the file and of the routing table, with their keys.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dispatcher_core::table::{IssuerRow, TokenKind};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::issuers::{self, ConfiguredIssuer, KeySource};
use super::keys::KeySet;
use super::remote::{FetchTimes, RemoteKeys};
use super::verify::{Grant, Rules};
use crate::http::{ClientError, ResolverConfig};
use crate::metrics::Metrics;
use crate::snapshot::SnapshotReceiver;

/// Issuers by the claim `iss`.
pub(super) type Directory = HashMap<String, Arc<LiveIssuer>>;

/// An issuer whose tokens are accepted.
pub(super) struct LiveIssuer {
    pub(super) rules: Rules,
    keys: LiveKeys,
}

enum LiveKeys {
    Fixed(Arc<KeySet>),
    /// Fetched for as long as the issuer is trusted.
    Remote {
        keys: Arc<RemoteKeys>,
        _fetching: AbortOnDropHandle<()>,
    },
}

/// What issuers are made with.
#[derive(Clone)]
pub(super) struct Making {
    pub(super) times: FetchTimes,
    pub(super) resolver: ResolverConfig,
    /// Counts changes of what is trusted.
    pub(super) epoch: Arc<AtomicU64>,
    pub(super) metrics: Arc<Metrics>,
}

impl LiveIssuer {
    /// Begins to fetch the keys of a configured issuer, if they are fetched.
    fn start(configured: &ConfiguredIssuer, making: &Making) -> Result<Self, ClientError> {
        let keys = match &configured.keys {
            KeySource::Inline(keys) => LiveKeys::Fixed(Arc::new(keys.clone())),
            KeySource::Remote(source) => {
                let how = (making.times, making.resolver.clone());
                let (epoch, metrics) = (Arc::clone(&making.epoch), Arc::clone(&making.metrics));
                let remote = Arc::new(RemoteKeys::new(&configured.rules.issuer, source.clone(), how, epoch, metrics)?);
                let fetching = tokio::spawn(Arc::clone(&remote).run());
                LiveKeys::Remote { keys: remote, _fetching: AbortOnDropHandle::new(fetching) }
            }
        };
        Ok(Self { rules: configured.rules.clone(), keys })
    }

    fn of_row(row: &IssuerRow) -> Option<Self> {
        let keys = KeySet::read(row.jwks.as_bytes());
        let keys = keys.inspect_err(|error| {
            tracing::warn!(issuer = %row.issuer, %error, "the keys of an issuer in the routing table cannot be used");
        });
        let TokenKind::Kubernetes(accounts) = row.tokens.clone();
        let rules = Rules {
            issuer: row.issuer.clone(),
            audiences: row.audiences.clone(),
            grant: Grant::ServiceAccount(accounts),
        };
        Some(Self { rules, keys: LiveKeys::Fixed(Arc::new(keys.ok()?)) })
    }

    /// Its keys, if there are any that may be used.
    pub(super) fn keys(&self) -> Option<Arc<KeySet>> {
        match &self.keys {
            LiveKeys::Fixed(keys) => Some(Arc::clone(keys)),
            LiveKeys::Remote { keys, .. } => keys.keys(),
        }
    }

    /// Waits for a key that is not there, if one may come. Answers whether to look once more.
    pub(super) async fn look_again(&self) -> bool {
        match &self.keys {
            LiveKeys::Fixed(_) => false,
            LiveKeys::Remote { keys, .. } => keys.look_again().await,
        }
    }
}

/// A file of issuers that is looked at again and again.
pub(super) struct WatchedFile {
    path: PathBuf,
    configured: Vec<ConfiguredIssuer>,
    /// What was told of it last, if it cannot be used.
    told: Option<String>,
}

impl WatchedFile {
    pub(super) fn new(path: PathBuf, configured: Vec<ConfiguredIssuer>) -> Self {
        Self { path, configured, told: None }
    }

    /// Reads the file again. Answers whether it says something else, which is then in use; one that is wrong changes
    /// nothing, and is told once.
    async fn refresh(&mut self, metrics: &Metrics) -> bool {
        let path = self.path.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || issuers::read_file(&path)).await else { return false };
        match read {
            Ok(configured) => {
                self.told = None;
                metrics.set_issuers_file_ok(true);
                let is_new = configured != self.configured;
                self.configured = configured;
                is_new
            }
            Err(error) => {
                metrics.set_issuers_file_ok(false);
                let message = error.to_string();
                if self.told.as_ref() != Some(&message) {
                    tracing::warn!(%error, "the file of issuers cannot be used; the last one stays in use");
                    self.told = Some(message);
                }
                false
            }
        }
    }
}

/// Keeps the directory up to date.
pub struct IssuersTask {
    file: Option<WatchedFile>,
    /// Issuers of the file that live.
    of_file: Vec<(ConfiguredIssuer, Arc<LiveIssuer>)>,
    /// Issuers of the table that live.
    of_table: Vec<(IssuerRow, Option<Arc<LiveIssuer>>)>,
    snapshot: SnapshotReceiver,
    making: Making,
    sender: watch::Sender<Arc<Directory>>,
}

impl IssuersTask {
    /// The directory of this moment; whoever runs the task keeps it up to date.
    ///
    /// # Errors
    /// [`ClientError`] if TLS cannot be set up.
    pub(super) fn new(
        file: Option<WatchedFile>,
        snapshot: SnapshotReceiver,
        making: Making,
    ) -> Result<(Self, watch::Receiver<Arc<Directory>>), ClientError> {
        let (sender, receiver) = watch::channel(Arc::default());
        let (of_file, of_table) = (Vec::new(), Vec::new());
        let mut task = Self { file, of_file, of_table, snapshot, making, sender };
        task.rebuild()?;
        Ok((task, receiver))
    }

    /// Looks at the file and the table until it is told to stop.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut look_at = Instant::now() + self.making.times.file_interval;
        loop {
            let is_changed = tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.snapshot.changed() => match changed {
                    Ok(()) => self.is_table_changed(),
                    // Nobody loads tables any more: the process is about to stop.
                    Err(_) => return shutdown.cancelled().await,
                },
                () = sleep_until(look_at) => {
                    look_at = Instant::now() + self.making.times.file_interval;
                    match &mut self.file {
                        Some(file) => file.refresh(&self.making.metrics).await,
                        None => false,
                    }
                }
            };
            if is_changed && let Err(error) = self.rebuild() {
                tracing::warn!(%error, "the issuers cannot be changed; the last ones stay in use");
            }
        }
    }

    fn is_table_changed(&mut self) -> bool {
        let snapshot = self.snapshot.borrow_and_update();
        !snapshot.issuers.iter().eq(self.of_table.iter().map(|(row, _)| row))
    }

    /// Makes what is new, keeps what has not changed, drops the rest. An issuer of the file goes before one of the table.
    fn rebuild(&mut self) -> Result<(), ClientError> {
        let configured = self.file.as_ref().map(|file| file.configured.as_slice()).unwrap_or_default();
        let mut of_file = Vec::with_capacity(configured.len());
        for issuer in configured {
            let kept = self.of_file.iter().find(|(known, _)| known == issuer).map(|(_, live)| Arc::clone(live));
            let live = kept.map_or_else(|| LiveIssuer::start(issuer, &self.making).map(Arc::new), Ok)?;
            of_file.push((issuer.clone(), live));
        }
        let rows = Arc::clone(&self.snapshot.borrow_and_update().issuers);
        let of_table = rows.iter().map(|row| {
            let kept = self.of_table.iter().find(|(known, _)| known == row).map(|(_, live)| live.clone());
            (row.clone(), kept.unwrap_or_else(|| LiveIssuer::of_row(row).map(Arc::new)))
        });
        self.of_table = of_table.collect();
        self.of_file = of_file;
        let in_table = self.of_table.iter().filter_map(|(_, live)| live.as_ref());
        let in_file = self.of_file.iter().map(|(_, live)| live);
        let by_name = |live: &Arc<LiveIssuer>| (live.rules.issuer.clone(), Arc::clone(live));
        let directory: Directory = in_table.chain(in_file).map(by_name).collect();
        tracing::info!(issuers = directory.len(), "tokens of these issuers are accepted");
        self.making.metrics.set_issuers(directory.len());
        self.sender.send_replace(Arc::new(directory));
        // After the change: what was verified before it is not believed any more.
        self.making.epoch.fetch_add(1, Ordering::Release);
        Ok(())
    }
}
