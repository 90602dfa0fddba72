//! The routing table: the contract between the control plane, which writes it, and the data plane, which reads it.

mod issuer;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

pub use self::issuer::{IssuerRow, ServiceAccountGrant, ServiceAccountRules, TokenKind};
use crate::id::{EndpointId, IssuerId, SubscriptionId, TenantId};
use crate::recipient::RecipientRule;
use crate::redacted::Redacted;
use crate::retry::RetryPolicy;

/// Version of the whole table; every change of any row makes a higher one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableVersion(pub u64);

/// The pool that an endpoint uses when its resource names none.
pub const DEFAULT_POOL: &str = "default";

/// A tenant that exists: its events are accepted even while it has no subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantRow {
    /// Its identity.
    pub id: TenantId,
    /// The namespace's name, as it stands in paths.
    pub name: String,
}

/// Where and how to deliver: one `Endpoint`, compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointRow {
    /// Its identity.
    pub id: EndpointId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Name of the resource.
    pub name: String,
    /// Changes with everything that could heal a disabled endpoint: spec, referenced Secrets, the annotation that asks.
    pub revision: String,
    /// Whose events it receives.
    pub recipient: RecipientRule,
    /// Whether deliveries may leave.
    pub state: EndpointState,
    /// Host and port of the URL, for people; never the whole URL, which may be a secret.
    pub host: String,
    /// The effective policy, every default filled in.
    pub policy: DeliveryPolicy,
    /// Pool whose dispatchers deliver to it.
    pub pool: String,
    /// URL, keys and headers, sealed. Opened only by whoever holds the sealing key.
    pub sealed: Sealed,
}

/// Ciphertext of [`EndpointSecrets`], base64.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub String);

/// Whether deliveries to an endpoint may leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "PascalCase")]
pub enum EndpointState {
    /// They may.
    Active,
    /// The owner asked to hold what waits.
    Suspended,
    /// The resource became invalid; what it said before must not be used again.
    Held {
        /// The reason of its Ready condition.
        reason: String,
    },
}

/// How deliveries to one endpoint behave. Every field is effective: no defaults are left to fill in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryPolicy {
    /// Deadline of one whole exchange.
    pub timeout_seconds: u32,
    /// When to try again.
    pub retry: RetryPolicy,
    /// Token bucket, if the rate is limited.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate_limit: Option<RateLimit>,
    /// Most exchanges in flight.
    pub max_in_flight: u32,
    /// When to stop trying for a while.
    pub circuit_breaker: BreakerPolicy,
    /// Seconds of nothing but failures after which the endpoint is disabled; absent: never.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disable_after_failing_for_seconds: Option<u32>,
    /// What the request body is.
    pub format: BodyFormat,
    /// How requests are signed.
    pub signing_scheme: SigningScheme,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Tokens a second.
    pub per_second: u32,
    /// Most tokens at once.
    pub burst: u32,
}

/// When an endpoint's circuit opens and how it closes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BreakerPolicy {
    /// Failures in percent of a window's attempts that open the circuit.
    pub failure_percent: u8,
    /// Fewest attempts in a window before it can open.
    pub min_attempts: u32,
    /// Length of the window.
    pub window_seconds: u32,
    /// First pause of an open circuit; doubles with every failed probe.
    pub initial_pause_seconds: u32,
    /// Largest pause.
    pub max_pause_seconds: u32,
    /// Probes that must succeed before it closes.
    pub probes: u32,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            failure_percent: 50,
            min_attempts: 10,
            window_seconds: 30,
            initial_pause_seconds: 10,
            max_pause_seconds: 300,
            probes: 1,
        }
    }
}

/// What the body of a request to the endpoint is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyFormat {
    /// The payload alone, byte for byte.
    #[default]
    Payload,
    /// A CloudEvents JSON envelope around the payload.
    CloudEventsStructured,
    /// The payload, with CloudEvents attributes as `ce-` headers.
    CloudEventsBinary,
}

/// How requests are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SigningScheme {
    /// Standard Webhooks 1.0, `v1`: HMAC-SHA256.
    #[default]
    StandardWebhooks,
    /// Standard Webhooks 1.0, `v1a`: Ed25519.
    StandardWebhooksEd25519,
    /// `X-HarborHook-Signature: sha256=hex(HMAC(body || timestamp))`.
    HarborHook,
    /// `X-Hub-Signature-256: sha256=hex(HMAC(body))`.
    GitHub,
    /// `Stripe-Signature: t=…,v1=hex(HMAC(timestamp.body))`.
    Stripe,
}

/// What must never stand in the ledger in plain text. Serialised only to be sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSecrets {
    /// Absolute URL of the endpoint.
    pub url: Redacted<String>,
    /// Signing keys, newest first; during a rotation more than one.
    pub keys: Vec<SigningKey>,
    /// Further request headers.
    pub headers: Vec<(String, Redacted<String>)>,
    /// Whom to trust and who to be in TLS, if not the system's roots and nobody.
    pub tls: Option<TlsIdentity>,
    /// Where a bearer token comes from, if requests carry one that has to be asked for.
    pub token: Option<TokenSource>,
}

/// One side's certificates in TLS, as PEM. At least one part is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIdentity {
    /// Certificates of the only authorities to trust; absent: the system's roots.
    pub authorities: Option<Redacted<String>>,
    /// Certificate chain and private key to authenticate with.
    pub client: Option<ClientCertificate>,
}

/// A certificate chain, the client's own first, with its private key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain.
    pub chain: Redacted<String>,
    /// The key.
    pub key: Redacted<String>,
}

/// Where an access token comes from: the client credentials grant of OAuth 2.0 (RFC 6749, 4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSource {
    /// Absolute URL of the token endpoint.
    pub url: Redacted<String>,
    /// Client identifier.
    pub client_id: Redacted<String>,
    /// Client secret.
    pub client_secret: Redacted<String>,
    /// How the token endpoint learns both.
    pub authentication: ClientAuthentication,
    /// Scopes to ask for, in order; none: the server decides.
    pub scopes: Vec<String>,
    /// The `audience` parameter that some servers want.
    pub audience: Option<String>,
}

/// How a token endpoint learns who asks (RFC 6749, 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthentication {
    /// In the `Authorization` header, by the scheme Basic.
    #[default]
    Basic,
    /// In the body.
    Post,
}

/// A signing key: the bytes of an HMAC key, or a 32-byte Ed25519 seed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SigningKey {
    /// The key's bytes.
    pub bytes: Redacted<KeyBytes>,
    /// From this time on it signs no more, in milliseconds since the Unix epoch; `None` for the current key.
    pub retires_at_unix_ms: Option<u64>,
}

/// Raw key bytes, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct KeyBytes(pub Vec<u8>);

impl Zeroize for KeyBytes {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

/// What to deliver, and where: one `Subscription`, compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionRow {
    /// Its identity.
    pub id: SubscriptionId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Name of the resource.
    pub name: String,
    /// Endpoints that it resolves to, sorted.
    pub endpoints: Vec<EndpointId>,
    /// Patterns of event types, of which one must match.
    pub event_types: Vec<String>,
    /// CEL over `event` that must be true.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub filter: Option<String>,
    /// CEL over `event` whose result is the JSON that is sent instead of the payload.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub transform: Option<String>,
    /// A suspended subscription matches nothing.
    pub suspended: bool,
}

/// The identity of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RowKey {
    /// A tenant.
    Tenant(TenantId),
    /// An endpoint.
    Endpoint(EndpointId),
    /// A subscription.
    Subscription(SubscriptionId),
    /// An issuer of tokens.
    Issuer(IssuerId),
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Row {
    /// A tenant.
    Tenant(TenantRow),
    /// An endpoint.
    Endpoint(Box<EndpointRow>),
    /// A subscription.
    Subscription(SubscriptionRow),
    /// An issuer of tokens.
    Issuer(IssuerRow),
}

impl Row {
    /// The row's identity.
    pub fn key(&self) -> RowKey {
        match self {
            Self::Tenant(row) => RowKey::Tenant(row.id),
            Self::Endpoint(row) => RowKey::Endpoint(row.id),
            Self::Subscription(row) => RowKey::Subscription(row.id),
            Self::Issuer(row) => RowKey::Issuer(row.id),
        }
    }
}

/// A change of the table, applied as a whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableChange {
    /// Rows to insert or replace.
    pub put: Vec<Row>,
    /// Rows to drop.
    pub drop: Vec<RowKey>,
}

impl TableChange {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.drop.is_empty()
    }
}
