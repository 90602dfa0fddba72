//! One run of the development server: what is started, what it reacts to, how it ends.

use std::path::PathBuf;
use std::sync::Arc;

use dispatcher::deliver::Observed;
use dispatcher::ledger::{Ledger, LedgerError};
use dispatcher::process::StopSignals;
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::id::TenantId;
use dispatcher_core::limits::{DEVELOPMENT_RETRY_PAUSE, DUE_POLL_INTERVAL, RECEIVER_SEEN_MAX};
use dispatcher_core::seal::SealingKey;
use operator::replays::{self, ReplayDesk};
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use url::Url;

use super::engine::{Engine, Listeners, open_ledger};
use super::generated::GeneratedSecrets;
use super::live::{self, Verdicts};
use super::once::{Awaited, Standing};
use super::publisher::{self, Published};
use super::resources::{Applied, Ground, Resources};
use super::samples::Sample;
use super::source::Source;
use super::{view, watch as files};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{Format, Output};
use crate::receiver::{self, Behaviour, KeyBook, Seen};

/// What a session is started with.
pub(super) struct SessionConfig {
    /// Whether to end once everything is finished.
    pub(super) once: bool,
    /// Where the resources come from.
    pub(super) source: Source,
    /// Seals what the ledger keeps.
    pub(super) sealing_key: Arc<SealingKey>,
    /// File of the ledger.
    pub(super) ledger_file: PathBuf,
}

/// Everything that runs.
pub(super) struct Session<'a> {
    config: SessionConfig,
    address_policy: AddressPolicy,
    resources: Resources,
    secrets: GeneratedSecrets,
    ledger: Arc<dyn Ledger>,
    replays: ReplayDesk,
    engine: Engine,
    receiver_keys: watch::Sender<Arc<KeyBook>>,
    seen: mpsc::Receiver<Seen>,
    verdicts: Verdicts,
    awaited: Awaited,
    look_again: Option<Instant>,
    /// Whether attempts wait until the reader of stdout has taken earlier ones; else those that do not fit are dropped.
    waits_for_reader: bool,
    output: &'a Output,
}

impl<'a> Session<'a> {
    /// Publishes the routing table, starts the receiver and the service, and says that it listens.
    pub(super) async fn start(
        config: SessionConfig,
        mut resources: Resources,
        mut secrets: GeneratedSecrets,
        listeners: Listeners,
        output: &'a Output,
    ) -> Result<Self, Failure> {
        let address_policy = AddressPolicy::development();
        let ledger = open_ledger(&config.ledger_file).await?;
        let (replay_worker, replays) = replays::worker(Arc::clone(&ledger));
        let applied = resources
            .apply(&mut Ground {
                ledger: &ledger,
                sealing_key: &config.sealing_key,
                address_policy: &address_policy,
                replays: &replays,
                secrets: &mut secrets,
            })
            .await?;

        let (receiver_keys, key_book) = watch::channel(Arc::new(resources.receiver_keys(&config.sealing_key)));
        let (seen_sender, seen) = mpsc::channel(RECEIVER_SEEN_MAX);
        let receiver = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|error| no_port(&error))?;
        let receiver_address = receiver.local_addr().map_err(|error| no_port(&error))?;
        tokio::spawn(receiver::run(receiver, Behaviour::default(), key_book, seen_sender));

        let tenants = resources.tenants().iter().map(|name| TenantId::of_namespace_name(name)).collect::<Vec<_>>();
        let awaited = if config.once {
            Awaited::open_now(&*ledger, &tenants).await.map_err(|error| ledger_failed(&error))?
        } else {
            Awaited::default()
        };
        let sealing_key = Arc::clone(&config.sealing_key);
        let engine =
            Engine::start(Arc::clone(&ledger), sealing_key, address_policy.clone(), receiver_address, listeners)
                .await?;
        tokio::spawn(replay_worker.run(engine.ended.clone()));
        view::tell_listening(engine.address, engine.admin_address, output)?;
        view::tell_not_ready(&applied.not_ready, output)?;
        view::show_resources(&resources, output)?;
        let look_again = applied.next_look_in.map(|pause| Instant::now() + pause);
        let verdicts = Verdicts::default();
        let waits_for_reader = config.once;
        Ok(Self {
            config,
            address_policy,
            resources,
            secrets,
            ledger,
            replays,
            engine,
            receiver_keys,
            seen,
            verdicts,
            awaited,
            look_again,
            waits_for_reader,
            output,
        })
    }

    /// Publishes the samples and shows what happens, until it is stopped or everything is finished.
    pub(super) async fn run(mut self, samples: Vec<Sample>, mut stop: StopSignals) -> Result<Exit, Failure> {
        let tenants = self.resources.tenants();
        if !self.config.once {
            view::tell_next_command(self.engine.address, &tenants, self.output);
        }
        if self.output.format() == Format::Table {
            self.output.text(&format!("\n{}", live::titles()))?;
        }
        let mut publishing = Some(self.publish(tenants, samples)?);
        let (mut changes, _no_changes) = self.watch_files();
        let mut refused = 0;
        let mut finished = interval(DUE_POLL_INTERVAL);
        finished.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = self.engine.ended.clone();
        let mut reports = self.replays.clone();
        let exit = loop {
            tokio::select! {
                () = stop.next() => {
                    self.waits_for_reader = false;
                    // With `--once` there was an answer to wait for.
                    break if self.config.once { Exit::Interrupted } else { Exit::Done };
                }
                () = ended.cancelled() => return Err(Failure::Local("the server ended by itself".to_owned())),
                published = finish(&mut publishing) => refused += self.published(published),
                Some(()) = changes.recv() => self.read_again().await?,
                () = until(self.look_again) => self.apply(false).await?,
                () = reports.reported() => self.apply(false).await?,
                shown = self.show_next() => shown?,
                _ = finished.tick(), if self.config.once && publishing.is_none() => {
                    if let Some(exit) = self.finished(refused).await? {
                        break exit;
                    }
                }
            }
        };
        self.drain(exit, stop).await
    }

    fn publish(&self, tenants: Vec<String>, samples: Vec<Sample>) -> Result<JoinHandle<Published>, Failure> {
        let server = format!("http://{}", self.engine.address);
        let server = Url::parse(&server).map_err(|error| Failure::Local(format!("{server}: {error}")))?;
        Ok(tokio::spawn(publisher::publish(Client::new(&server, "")?, tenants, samples)))
    }

    /// Remembers accepted events, tells of the others, and answers how many those are.
    fn published(&mut self, published: Published) -> usize {
        for (tenant, event) in published.events {
            self.awaited.event(tenant, event);
        }
        for line in &published.refused {
            self.output.notice(&format!("sample event not published: {line}"));
        }
        published.refused.len()
    }

    /// Changes of the files; without `--once`, and if they can change. The sender keeps the channel open.
    fn watch_files(&self) -> (mpsc::Receiver<()>, Option<mpsc::Sender<()>>) {
        let Some(path) = self.config.source.path().filter(|_| !self.config.once) else {
            let (sender, receiver) = mpsc::channel(1);
            return (receiver, Some(sender));
        };
        let (changes, error) = files::spawn(path);
        if let Some(error) = error {
            self.output.notice(&format!("files are read again every few seconds, because {error}"));
        }
        (changes, None)
    }

    async fn read_again(&mut self) -> Result<(), Failure> {
        let news = self.resources.update(self.config.source.load().await?);
        view::tell_skipped(&news.skipped, self.output);
        view::tell_refused(&news.problems, self.output)?;
        self.apply(true).await
    }

    /// Plans, carries it out, and tells of what changed. A ledger that does not answer is asked again.
    async fn apply(&mut self, edited: bool) -> Result<(), Failure> {
        let applied = self
            .resources
            .apply(&mut Ground {
                ledger: &self.ledger,
                sealing_key: &self.config.sealing_key,
                address_policy: &self.address_policy,
                replays: &self.replays,
                secrets: &mut self.secrets,
            })
            .await;
        let applied = match applied {
            Ok(applied) => applied,
            Err(failure) => {
                self.output.notice(&format!("{failure}; trying again"));
                self.look_again = Some(Instant::now() + DEVELOPMENT_RETRY_PAUSE);
                return Ok(());
            }
        };
        self.look_again = applied.next_look_in.map(|pause| Instant::now() + pause);
        view::tell_not_ready(&applied.not_ready, self.output)?;
        view::tell_healed(&applied.healed, &self.resources, self.output)?;
        if applied.put + applied.dropped > 0 {
            self.receiver_keys.send_replace(Arc::new(self.resources.receiver_keys(&self.config.sealing_key)));
            self.engine.load_table(applied.table_version).await;
            self.tell(&applied, edited)?;
        }
        Ok(())
    }

    fn tell(&self, applied: &Applied, edited: bool) -> Result<(), Failure> {
        if edited { view::tell_applied(applied, &self.resources, self.output) } else { Ok(()) }
    }

    /// Waits for the next attempt and shows it.
    async fn show_next(&mut self) -> Result<(), Failure> {
        tokio::select! {
            Some(seen) = self.seen.recv() => self.verdicts.remember(seen),
            observed = next_observed(&mut self.engine.observed, self.waits_for_reader, self.output) => match observed {
                Ok(observed) => self.show(&observed)?,
                Err(RecvError::Lagged(missed)) => self.tell_missed(missed),
                Err(RecvError::Closed) => self.engine.ended.cancelled().await,
            },
        }
        Ok(())
    }

    /// With `--once`: how to end, if there is nothing left to wait for.
    async fn finished(&self, refused: usize) -> Result<Option<Exit>, Failure> {
        let snapshot = self.engine.snapshot();
        let standing = self.awaited.standing(&*self.ledger, &snapshot).await.map_err(|error| ledger_failed(&error))?;
        let not_ready = self.resources.not_ready();
        if standing != Standing::Unfinished {
            view::list_not_ready(not_ready, self.output);
        }
        match standing {
            Standing::Unfinished => Ok(None),
            Standing::AllDelivered if refused == 0 && not_ready.is_empty() => Ok(Some(Exit::Done)),
            Standing::AllDelivered => Ok(Some(Exit::AnswerIsNo)),
            Standing::Failed { ended, held } => {
                if ended > 0 {
                    self.output.notice(&format!("{ended} deliveries were not delivered"));
                }
                for endpoint in held {
                    let name =
                        snapshot.index.endpoint(endpoint).map_or_else(|| endpoint.to_string(), |row| row.name.clone());
                    let why = snapshot.may_deliver(endpoint).err().map(|reason| reason.to_string()).unwrap_or_default();
                    self.output.notice(&format!("deliveries to the endpoint {name} wait: {why}"));
                }
                Ok(Some(Exit::AnswerIsNo))
            }
        }
    }

    /// Stops accepting, lets the exchanges in flight end, and shows them. A second signal ends at once.
    async fn drain(mut self, exit: Exit, mut stop: StopSignals) -> Result<Exit, Failure> {
        if !self.config.once {
            self.output.notice("draining: exchanges in flight may end; a second signal stops at once");
        }
        self.engine.stop();
        let ended = self.engine.ended.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.next() => return Ok(Exit::Interrupted),
                () = ended.cancelled() => break,
                shown = self.show_next() => shown?,
            }
        }
        loop {
            if self.waits_for_reader {
                tokio::select! {
                    biased;
                    () = stop.next() => return Ok(Exit::Interrupted),
                    () = self.output.room() => {}
                }
            }
            match self.engine.observed.try_recv() {
                Ok(observed) => self.show(&observed)?,
                Err(TryRecvError::Lagged(missed)) => self.tell_missed(missed),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if self.waits_for_reader {
            tokio::select! {
                biased;
                () = stop.next() => return Ok(Exit::Interrupted),
                () = self.output.flushed() => {}
            }
        }
        Ok(exit)
    }

    fn show(&mut self, observed: &Observed) -> Result<(), Failure> {
        // The receiver told of it before it answered.
        while let Ok(seen) = self.seen.try_recv() {
            self.verdicts.remember(seen);
        }
        live::show(observed, &mut self.verdicts, self.output)
    }

    fn tell_missed(&self, missed: u64) {
        self.output.notice(&format!("{missed} attempts are not shown"));
    }
}

/// Waits for the next attempt, and before it for the reader, if that is wanted.
async fn next_observed(
    observed: &mut broadcast::Receiver<Arc<Observed>>,
    waits_for_reader: bool,
    output: &Output,
) -> Result<Arc<Observed>, RecvError> {
    if waits_for_reader {
        output.room().await;
    }
    observed.recv().await
}

/// Waits for a time, for ever if there is none.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits for the samples to be published, for ever once they are.
async fn finish(publishing: &mut Option<JoinHandle<Published>>) -> Published {
    let Some(handle) = publishing else { return std::future::pending().await };
    let published = handle.await;
    *publishing = None;
    published.unwrap_or_else(|_| Published { refused: vec!["publishing failed".to_owned()], ..Published::default() })
}

fn ledger_failed(error: &LedgerError) -> Failure {
    Failure::Local(error.to_string())
}

fn no_port(error: &std::io::Error) -> Failure {
    Failure::Local(format!("no loopback port is free for the test receiver: {error}"))
}
