//! The gate before every route: no answer without a token, none of another tenant's, none beyond the token's scopes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use dispatcher_core::limits::VERIFIED_TOKENS_MAX;
use dispatcher_core::scope::Scope;
use http::request::Parts;
use http::{HeaderValue, header};
use tokio::sync::watch;

use super::TokenConfig;
use super::cache::{VerifiedTokens, digest};
use super::directory::{Directory, IssuersTask, LiveIssuer, Making, WatchedFile};
use super::error::AccessError;
use super::principal::Principal;
use super::routes::{self, Asked};
use super::token::{Presented, bearer};
use super::verify::verify;
use crate::api;
use crate::clock::now_unix_ms;
use crate::http::{ClientError, ResolverConfig};
use crate::ingest::{BodyReader, unknown_tenant};
use crate::metrics::Metrics;
use crate::problem::{Problem, ProblemKind};
use crate::snapshot::SnapshotReceiver;

/// Tells tokens that give access from others. Cheap to clone.
#[derive(Clone)]
pub struct TokenGate(Arc<Inner>);

struct Inner {
    directory: watch::Receiver<Arc<Directory>>,
    verified: VerifiedTokens,
    epoch: Arc<AtomicU64>,
    bodies: BodyReader,
    metrics: Arc<Metrics>,
}

impl TokenGate {
    /// A gate, and the task that keeps up to date whose tokens it lets through.
    ///
    /// # Errors
    /// [`ClientError`] if TLS cannot be set up.
    pub fn new(
        config: &TokenConfig,
        snapshot: SnapshotReceiver,
        resolver: ResolverConfig,
        bodies: BodyReader,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, IssuersTask), ClientError> {
        let epoch = Arc::new(AtomicU64::new(0));
        let file = config.file.clone().map(|(path, configured)| WatchedFile::new(path, configured));
        let (times, kept) = (config.times, Arc::clone(&metrics));
        let making = Making { times, resolver, epoch: Arc::clone(&epoch), metrics: kept };
        let (task, directory) = IssuersTask::new(file, snapshot, making)?;
        let verified = VerifiedTokens::new(VERIFIED_TOKENS_MAX);
        Ok((Self(Arc::new(Inner { directory, verified, epoch, bodies, metrics })), task))
    }

    /// Who holds a token.
    ///
    /// # Errors
    /// Why it gives no access to anything.
    pub async fn principal(&self, token: &str) -> Result<Arc<Principal>, AccessError> {
        let Inner { verified, metrics, .. } = &*self.0;
        // Before anything is looked at: what changes meanwhile makes what is remembered here old.
        let mut epoch = self.0.epoch.load(Ordering::Acquire);
        let now_unix_seconds = now_unix_ms() / 1000;
        let digest = digest(token);
        if let Some(principal) = verified.get(&digest, epoch, now_unix_seconds) {
            return Ok(principal);
        }
        let presented = Presented::read(token)?;
        let issuer = self.0.directory.borrow().get(presented.issuer()?).cloned();
        let issuer = issuer.ok_or(AccessError::UnknownIssuer)?;
        let mut verdict = judge(&presented, &issuer, now_unix_seconds);
        if matches!(verdict, Err(AccessError::UnknownKey | AccessError::KeysUnavailable)) && issuer.look_again().await {
            epoch = self.0.epoch.load(Ordering::Acquire);
            verdict = judge(&presented, &issuer, now_unix_ms() / 1000);
        }
        let principal = Arc::new(verdict?);
        metrics.token_verified();
        verified.insert(digest, Arc::clone(&principal), epoch);
        Ok(principal)
    }

    /// Whether a request may be carried out; else the answer to it.
    async fn admit(&self, head: &mut Parts) -> Result<Arc<Principal>, Response> {
        let refused = |error: AccessError, scope| refusal(error, scope, &self.0.metrics);
        let principal = match bearer(&head.headers) {
            Ok(token) => self.principal(token).await,
            Err(error) => Err(error),
        };
        let principal = principal.map_err(|error| refused(error, None))?;
        let scope = match routes::asked(&head.method, head.uri.path()) {
            Asked::Route(scope) => scope,
            Asked::OtherMethod(allowed) => return Err(method_not_allowed(&allowed, &self.0.metrics)),
            Asked::Nothing => return Err(unknown_route(&self.0.metrics)),
        };
        let tenant = RawPathParams::from_request_parts(head, &()).await.ok().and_then(|parameters| {
            parameters.iter().find(|(name, _)| *name == "tenant").map(|(_, tenant)| tenant.to_owned())
        });
        if !tenant.is_some_and(|tenant| principal.tenants.include(&tenant)) {
            return Err(refused(AccessError::OtherTenant, None));
        }
        if principal.scopes.permit(scope) {
            Ok(principal)
        } else {
            Err(refused(AccessError::MissingScope, Some(scope)))
        }
    }
}

fn judge(presented: &Presented<'_>, issuer: &LiveIssuer, now_unix_seconds: u64) -> Result<Principal, AccessError> {
    let keys = issuer.keys().ok_or(AccessError::KeysUnavailable)?;
    verify(presented, &issuer.rules, &keys, now_unix_seconds)
}

/// The router behind the gate.
pub fn for_tokens_only(router: Router, gate: TokenGate) -> Router {
    router.layer(from_fn_with_state(gate, check))
}

async fn check(State(gate): State<TokenGate>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    match gate.admit(&mut head).await {
        Ok(principal) => {
            head.extensions.insert(principal);
            next.run(Request::from_parts(head, body)).await
        }
        Err(refusal) => {
            gate.0.bodies.discard(&head.headers, body).await;
            refusal
        }
    }
}

/// What is not listed is not served, whatever the router knows: the list says which scope it takes.
fn unknown_route(metrics: &Metrics) -> Response {
    metrics.request_rejected(ProblemKind::UnknownRoute);
    api::unknown().into_response()
}

fn method_not_allowed(allowed: &str, metrics: &Metrics) -> Response {
    metrics.request_rejected(ProblemKind::MethodNotAllowed);
    let mut response = api::other_method().into_response();
    if let Ok(methods) = HeaderValue::try_from(allowed) {
        response.headers_mut().insert(header::ALLOW, methods);
    }
    response
}

/// The answer to a request without access. Only the holder of a valid token is told what is wrong with it.
fn refusal(error: AccessError, scope: Option<Scope>, metrics: &Metrics) -> Response {
    metrics.token_refused(error);
    tracing::debug!(reason = error.as_str(), "a request has no access");
    let problem = match error {
        AccessError::OtherTenant => unknown_tenant(),
        AccessError::MissingScope => {
            let name = scope.map_or("other", Scope::as_str);
            Problem::new(ProblemKind::MissingScope, format!("The token lacks the scope `{name}`."))
        }
        AccessError::KeysUnavailable => {
            let detail = "The keys of the token's issuer are not there at the moment. Try again later.";
            Problem::new(ProblemKind::IssuerUnavailable, detail)
        }
        _ => {
            let detail =
                "Send `authorization: Bearer` with a valid token for this service. docs/access.md says how to get one.";
            Problem::new(ProblemKind::Unauthenticated, detail)
        }
    };
    metrics.request_rejected(problem.kind);
    let mut response = problem.into_response();
    if let Some(challenge) = challenge(error, scope) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// The header `WWW-Authenticate` (RFC 6750, 3): without an error for whoever sent no token.
fn challenge(error: AccessError, scope: Option<Scope>) -> Option<HeaderValue> {
    const REALM: &str = "Bearer realm=\"harborhook\"";
    let text = match error {
        AccessError::OtherTenant | AccessError::KeysUnavailable => return None,
        AccessError::Missing | AccessError::NotBearer => REALM.to_owned(),
        AccessError::MissingScope => {
            let name = scope.map_or("", Scope::as_str);
            format!("{REALM}, error=\"insufficient_scope\", scope=\"{name}\"")
        }
        _ => format!("{REALM}, error=\"invalid_token\""),
    };
    HeaderValue::try_from(text).ok()
}
