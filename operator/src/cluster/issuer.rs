//! Who issues the tokens of the cluster's ServiceAccounts, read from the API server: the service account issuer discovery
//! of Kubernetes, which every ServiceAccount may read by default (ClusterRole `system:service-account-issuer-discovery`).

use std::time::Duration;

use dispatcher::access::keys::{KeySet, KeySetError};
use dispatcher_core::id::IssuerId;
use dispatcher_core::limits::{
    CLUSTER_ISSUER_DEADLINE, CLUSTER_ISSUER_INTERVAL, CLUSTER_ISSUER_RETRY_PAUSE_MIN, ISSUER_URL_BYTES_MAX,
    JWKS_BYTES_MAX,
};
use dispatcher_core::table::{IssuerRow, ServiceAccountRules, TokenKind};
use kube::Client;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The audience that workloads ask tokens for, if the installation names no other.
pub const DEFAULT_AUDIENCE: &str = "harborhook";

const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";
const KEYS_PATH: &str = "/openid/v1/jwks";

/// What the tokens of ServiceAccounts are accepted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerSettings {
    /// Audiences, of which a token names one.
    pub audiences: Vec<String>,
    /// What the accounts may do.
    pub accounts: ServiceAccountRules,
}

impl Default for IssuerSettings {
    /// Every account may publish with a token for [`DEFAULT_AUDIENCE`].
    fn default() -> Self {
        Self { audiences: vec![DEFAULT_AUDIENCE.to_owned()], accounts: ServiceAccountRules::default() }
    }
}

/// Why the cluster's issuer is not known.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The API server did not answer, or with an error of its own.
    #[error("the API server does not tell: {0}")]
    Unavailable(#[source] Box<kube::Error>),
    /// It did not answer in time.
    #[error("the API server did not answer within {} s", CLUSTER_ISSUER_DEADLINE.as_secs())]
    Timeout,
    /// The operator may not ask.
    #[error(
        "the operator may not read {0}: bind its ServiceAccount to the ClusterRole \
         system:service-account-issuer-discovery"
    )]
    Forbidden(&'static str),
    /// What it answered is not what it should be.
    #[error("{path} of the API server cannot be used: {what}")]
    Malformed {
        /// What was read.
        path: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// The keys cannot be used.
    #[error("the keys of the cluster's issuer cannot be used: {0}")]
    Keys(#[from] KeySetError),
}

impl IssuerError {
    /// A stable name for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Timeout => "timeout",
            Self::Forbidden(_) => "forbidden",
            Self::Malformed { .. } => "malformed",
            Self::Keys(_) => "keys",
        }
    }
}

/// What is looked at of the discovery document (OpenID Connect Discovery 1.0, 3).
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

/// Reads the issuer of the cluster's ServiceAccount tokens, with its public keys.
///
/// # Errors
/// [`IssuerError`], at a deadline at the latest.
pub async fn read_cluster_issuer(client: &Client, settings: &IssuerSettings) -> Result<IssuerRow, IssuerError> {
    let (discovery, keys) = (read(client, DISCOVERY_PATH).await?, read(client, KEYS_PATH).await?);
    let malformed = |path, what: String| IssuerError::Malformed { path, what };
    let discovery: Discovery =
        serde_json::from_str(&discovery).map_err(|error| malformed(DISCOVERY_PATH, error.to_string()))?;
    let issuer = discovery.issuer;
    if issuer.is_empty() || issuer.len() > ISSUER_URL_BYTES_MAX {
        return Err(malformed(DISCOVERY_PATH, format!("`issuer` has 1 to {ISSUER_URL_BYTES_MAX} bytes")));
    }
    KeySet::read(keys.as_bytes())?;
    Ok(IssuerRow {
        id: IssuerId::of_issuer(&issuer),
        issuer,
        audiences: settings.audiences.clone(),
        jwks: in_order(&keys).map_err(|what| malformed(KEYS_PATH, what))?,
        tokens: TokenKind::Kubernetes(settings.accounts.clone()),
    })
}

async fn read(client: &Client, path: &'static str) -> Result<String, IssuerError> {
    let malformed = |what: String| IssuerError::Malformed { path, what };
    let request = http::Request::get(path).body(Vec::new()).map_err(|error| malformed(error.to_string()))?;
    let answer = timeout(CLUSTER_ISSUER_DEADLINE, client.request_text(request)).await;
    let text = answer.map_err(|_| IssuerError::Timeout)?.map_err(|error| match error {
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => IssuerError::Forbidden(path),
        error => IssuerError::Unavailable(Box::new(error)),
    })?;
    if text.len() > JWKS_BYTES_MAX {
        Err(malformed(format!("it has more than {JWKS_BYTES_MAX} bytes")))
    } else {
        Ok(text)
    }
}

/// The keys in the order of their text: several API servers, or one after a restart, may list them differently, and a row
/// that differs is published.
fn in_order(jwks: &str) -> Result<String, String> {
    let mut set: Value = serde_json::from_str(jwks).map_err(|error| error.to_string())?;
    let keys = set["keys"].as_array_mut().ok_or("there is no array `keys`")?;
    keys.sort_by_cached_key(Value::to_string);
    let keys = std::mem::take(keys);
    Ok(serde_json::json!({ "keys": keys }).to_string())
}

/// Keeps up to date who issues the cluster's tokens.
pub struct IssuerWatch {
    client: Client,
    settings: IssuerSettings,
    interval: Duration,
    known: watch::Sender<Option<Vec<IssuerRow>>>,
}

impl IssuerWatch {
    /// A watch, and what it knows: nothing until it has run, then the last that could be read.
    pub fn new(client: Client, settings: IssuerSettings) -> (Self, watch::Receiver<Option<Vec<IssuerRow>>>) {
        let (known, receiver) = watch::channel(None);
        (Self { client, settings, interval: CLUSTER_ISSUER_INTERVAL, known }, receiver)
    }

    /// Looks more often than is usual.
    #[must_use]
    pub fn every(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// Reads again and again, until it is told to stop.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.read_for_ever()).await;
    }

    async fn read_for_ever(&self) {
        let mut retry_pause = CLUSTER_ISSUER_RETRY_PAUSE_MIN.min(self.interval);
        let mut told = None;
        loop {
            match read_cluster_issuer(&self.client, &self.settings).await {
                Ok(row) => {
                    let known = Some(vec![row]);
                    self.known.send_if_modified(|present| {
                        let is_new = *present != known;
                        *present = known;
                        is_new
                    });
                    (retry_pause, told) = (CLUSTER_ISSUER_RETRY_PAUSE_MIN.min(self.interval), None);
                    sleep(self.interval).await;
                }
                Err(error) => {
                    let message = error.to_string();
                    if told.as_ref() != Some(&message) {
                        let reason = error.as_str();
                        tracing::warn!(%error, reason, "the cluster's issuer cannot be read; the last keys stay in use");
                        told = Some(message);
                    }
                    sleep(retry_pause).await;
                    retry_pause = (retry_pause * 2).min(self.interval);
                }
            }
        }
    }
}
