//! Runs a role: listens at once, connects, serves, and stops in order.

use std::sync::Arc;
use std::time::Duration;

use dispatcher::admin::{self, Admin};
use dispatcher::deliver::DeliverConfig;
use dispatcher::ledger::DispatcherRole;
use dispatcher::metrics::Metrics;
use dispatcher::process::{self, ConnectedLedger, Exit, Failure, ListenerRole, StopSignals, Use};
use dispatcher::readiness::Probe;
use dispatcher::server::{self, EarlyServer, ServerLimits};
use dispatcher::service::{Service, ServiceConfig, ServiceError, guarded_admin};
use dispatcher_core::limits::SERVER_DRAIN_DEADLINE;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::connect::{self, ConnectedQueue};
use super::settings::Settings;

/// Runs until it is told to stop.
pub(crate) async fn run(settings: Settings) -> Result<Exit, Failure> {
    let mut signals = StopSignals::listen().map_err(|error| Failure::Configuration(error.to_string()))?;
    let metrics = Arc::new(Metrics::new());
    let probe = Arc::new(Probe::new(settings.role));
    let shares = Shares::of(settings.drain, settings.role);
    let limits = ServerLimits { drain_deadline: shares.requests, ..ServerLimits::default() };
    // Held until the end: a process that starts or drains must still be asked how it is.
    let _admin = serve_admin(&settings, &probe, &metrics).await?;
    let api = match settings.listen {
        None => None,
        Some(address) => {
            let listener = process::open(ListenerRole::Api, address).await?;
            let api = EarlyServer::start(listener, limits)
                .map_err(|error| Failure::Configuration(format!("--listen {address}: {error}")))?;
            process::announce(ListenerRole::Api, api.address())?;
            Some(api)
        }
    };
    let role = settings.role.as_str();
    tracing::info!(role, instance = %settings.instance, "starting");
    let (drain, delivers) = (settings.drain, settings.role.delivers());
    let shutdown = CancellationToken::new();
    let starting = Box::pin(start(settings, shares, limits, (&probe, &metrics), api, shutdown.clone()));
    let mut running = tokio::select! {
        () = signals.next() => {
            tracing::info!("stopped before it had started");
            return Ok(Exit::Done);
        }
        running = starting => running?,
    };
    tracing::info!(role, "started");
    tokio::select! {
        () = signals.next() => {}
        ended = &mut running.service => return Err(defect(ended)),
    }
    tracing::info!(seconds = drain.as_secs(), "stopping: what is in flight may end");
    shutdown.cancel();
    let stopped = tokio::select! {
        () = signals.next() => {
            tracing::warn!(unfinished = unfinished(&metrics), "stopped at once, by a second signal");
            return Ok(Exit::Interrupted);
        }
        stopped = tokio::time::timeout(drain, running.stop()) => stopped,
    };
    conclude(stopped.is_ok(), running.ended, delivers, &metrics)
}

/// How a stop has ended: whether the connections closed in time, and how the service ended, if it did in time.
fn conclude(
    is_closed: bool,
    ended: Option<Result<(), Failure>>,
    delivers: bool,
    metrics: &Metrics,
) -> Result<Exit, Failure> {
    match ended {
        Some(Err(failure)) => return Err(failure),
        Some(Ok(())) if is_closed => tracing::info!("stopped"),
        Some(Ok(())) => tracing::warn!("stopped; the connections did not close in time"),
        None => {
            if delivers {
                tracing::warn!(
                    unfinished = unfinished(metrics),
                    "the time to stop is over; what is not finished is due again when its lease is over"
                );
            } else {
                tracing::warn!("the time to stop is over; requests without an answer have to be sent again");
            }
            return Ok(Exit::Unfinished);
        }
    }
    Ok(Exit::Done)
}

/// Deliveries that this process holds.
fn unfinished(metrics: &Metrics) -> u64 {
    let counts = metrics.work_counts();
    counts.held + counts.slow
}

async fn serve_admin(
    settings: &Settings,
    probe: &Arc<Probe>,
    metrics: &Arc<Metrics>,
) -> Result<JoinHandle<()>, Failure> {
    let address = settings.admin_listen;
    let listener = process::open(ListenerRole::Admin, address).await?;
    let address =
        listener.local_addr().map_err(|error| Failure::Configuration(format!("--admin-listen {address}: {error}")))?;
    let router = admin::router(Admin { probe: Arc::clone(probe), metrics: Arc::clone(metrics) });
    let router = guarded_admin(router, &settings.access, &listener, metrics);
    let serving = server::serve(listener, router, ServerLimits::default(), CancellationToken::new());
    let serving = tokio::spawn(serving);
    process::announce(ListenerRole::Admin, address)?;
    Ok(serving)
}

/// A role that serves.
struct Running {
    service: JoinHandle<Result<(), ServiceError>>,
    /// How the service ended, once it has.
    ended: Option<Result<(), Failure>>,
    ledger: ConnectedLedger,
    queue: ConnectedQueue,
}

impl Running {
    /// Waits until the service has drained, and ends the connections. The queue's come first: what was acknowledged is
    /// recorded by now.
    async fn stop(&mut self) {
        self.ended = Some(match (&mut self.service).await {
            Ok(Ok(())) => Ok(()),
            ended => Err(defect(ended)),
        });
        self.queue.close().await;
        self.ledger.close().await;
    }
}

fn defect(ended: Result<Result<(), ServiceError>, tokio::task::JoinError>) -> Failure {
    Failure::Defect(match ended {
        Ok(Ok(())) => "the service ended by itself: this is a defect, report it".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the service ended by a panic: this is a defect, report it".to_owned(),
    })
}

async fn start(
    settings: Settings,
    shares: Shares,
    limits: ServerLimits,
    (probe, metrics): (&Arc<Probe>, &Arc<Metrics>),
    api: Option<EarlyServer>,
    shutdown: CancellationToken,
) -> Result<Running, Failure> {
    let tell = |finding| probe.set_ledger(finding);
    let (ledger, queue) = tokio::try_join!(
        process::connect_ledger(&settings.database, Use::Work, &tell),
        connect::queue(settings.queue, probe)
    )?;
    let config = ServiceConfig {
        role: settings.role,
        tenure: ledger.tenure.clone(),
        retention: settings.retention,
        access: settings.access,
        deliver: DeliverConfig {
            pool: settings.pool,
            fast_track_max: settings.max_in_flight,
            instance: settings.instance,
            drain_deadline: shares.exchanges,
            ..DeliverConfig::default()
        },
        server: limits,
        metrics: Arc::clone(metrics),
        probe: Arc::clone(probe),
        ..ServiceConfig::new(
            Arc::clone(&ledger.ledger),
            Arc::clone(&queue.queue),
            settings.sealing_key,
            settings.address_policy,
        )
    };
    let loaded = process::retried(async || config.load().await).await?;
    let service = Service::start_early(&config, loaded, api, &shutdown)
        .map_err(|error| Failure::Configuration(error.to_string()))?;
    Ok(Running { service, ended: None, ledger, queue })
}

/// How the time for a stop is shared out. What is left is for recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    /// For requests that are being received.
    requests: Duration,
    /// For exchanges in flight, which begin to end only after the requests have.
    exchanges: Duration,
}

impl Shares {
    fn of(drain: Duration, role: DispatcherRole) -> Self {
        match role {
            DispatcherRole::Ingest => Self { requests: drain * 3 / 4, exchanges: Duration::ZERO },
            DispatcherRole::Deliver => Self { requests: Duration::ZERO, exchanges: drain * 3 / 4 },
            DispatcherRole::All => Self { requests: (drain / 4).min(SERVER_DRAIN_DEADLINE), exchanges: drain / 2 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_ended_with_an_error_is_a_defect_whether_or_not_the_connections_close_in_time() {
        let failed = || Some(Err(Failure::Defect("it ended".to_owned())));
        for (is_closed, ended, expected) in [
            (true, failed(), Exit::Defect),
            (false, failed(), Exit::Defect),
            (true, Some(Ok(())), Exit::Done),
            (false, Some(Ok(())), Exit::Done),
            (false, None, Exit::Unfinished),
        ] {
            let concluded = conclude(is_closed, ended, true, &Metrics::new());
            assert_eq!(concluded.unwrap_or_else(|failure| failure.exit()), expected);
        }
    }
}
