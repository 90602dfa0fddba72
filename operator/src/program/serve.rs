//! Runs the operator: listens at once, connects, watches, plans, and stops in order.

use std::sync::Arc;

use dispatcher::process::{self, Exit, Failure, ListenerRole, StopSignals, Use};
use dispatcher::readiness::Finding;
use dispatcher::server::{self, ServerLimits};
use dispatcher_core::limits::{API_CALL_DEADLINE, KUBERNETES_SILENCE_MAX, OPERATOR_STOP_DEADLINE};
use kube::Client;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::settings::Settings;
use crate::cluster::assembly::Assembly;
use crate::cluster::metrics::OperatorMetrics;
use crate::cluster::readiness::Readiness;
use crate::cluster::sources::SourcesConfig;

/// Runs until it is told to stop.
pub(super) async fn run(settings: Settings) -> Result<Exit, Failure> {
    let mut signals = StopSignals::listen().map_err(|error| Failure::Configuration(error.to_string()))?;
    let metrics = Arc::new(OperatorMetrics::new());
    let readiness = Readiness::new(Arc::clone(&metrics));
    // Held until the end: a process that starts or stops must still be asked how it is.
    let _admin = serve_admin(&settings, &readiness).await?;
    let client = client().await?;
    tracing::info!(identity = settings.lease.identity, "starting");
    let tell = {
        let readiness = readiness.clone();
        move |finding: Finding| {
            readiness.set_ledger((finding != Finding::Ok).then(|| finding.as_str().to_owned()));
        }
    };
    let connected = tokio::select! {
        () = signals.next() => {
            tracing::info!("stopped before it had started");
            return Ok(Exit::Done);
        }
        connected = process::connect_ledger(&settings.database, Use::Control, &tell) => connected?,
    };
    let mut running = Assembly {
        sources: SourcesConfig {
            client,
            namespaces: settings.namespaces,
            watch_secrets: settings.watch_secrets,
            resync: settings.resync,
        },
        ledger: Arc::clone(&connected.ledger),
        sealing_key: settings.sealing_key,
        address_policy: settings.address_policy,
        lease: settings.lease,
        default_pool: settings.default_pool,
        issuer: settings.issuer,
        readiness: readiness.clone(),
        metrics,
    }
    .start();
    tracing::info!("started");
    tokio::select! {
        () = signals.next() => {}
        ended = running.ended() => return Err(defect(ended.as_ref())),
    }
    tracing::info!("stopping");
    readiness.set_stopping();
    let stopped = tokio::select! {
        () = signals.next() => {
            tracing::warn!("stopped at once, by a second signal");
            return Ok(Exit::Interrupted);
        }
        stopped = tokio::time::timeout(OPERATOR_STOP_DEADLINE, async {
            running.stop().await;
            connected.close().await;
        }) => stopped,
    };
    if stopped.is_err() {
        tracing::warn!("the time to stop is over; the Lease ends by itself");
        return Ok(Exit::Unfinished);
    }
    tracing::info!("stopped");
    Ok(Exit::Done)
}

fn defect(ended: Option<&Result<(), JoinError>>) -> Failure {
    let how = match ended {
        Some(Err(_)) => "a panic",
        _ => "itself",
    };
    Failure::Defect(format!("a part of the operator ended by {how}: this is a defect, report it"))
}

/// The API server that the process runs in, or that of the kubeconfig.
async fn client() -> Result<Client, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::Configuration(format!(
            "the API server is not known: {error}; run in a pod with a ServiceAccount's token, or name a file in KUBECONFIG"
        ))
    };
    let mut config = kube::Config::infer().await.map_err(|error| failed(&error))?;
    config.connect_timeout = Some(API_CALL_DEADLINE);
    config.read_timeout = Some(KUBERNETES_SILENCE_MAX);
    Client::try_from(config).map_err(|error| failed(&error))
}

/// Serves health and metrics, which say nothing of tenants, to whoever reaches the address.
async fn serve_admin(settings: &Settings, readiness: &Readiness) -> Result<JoinHandle<()>, Failure> {
    let address = settings.admin_listen;
    let listener = process::open(ListenerRole::Admin, address).await?;
    let address =
        listener.local_addr().map_err(|error| Failure::Configuration(format!("--admin-listen {address}: {error}")))?;
    let router = dispatcher::admin::router(readiness.clone());
    let serving = tokio::spawn(server::serve(listener, router, ServerLimits::default(), CancellationToken::new()));
    process::announce(ListenerRole::Admin, address)?;
    Ok(serving)
}
