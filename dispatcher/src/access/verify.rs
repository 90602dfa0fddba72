//! What a token proves: a function of the token, its issuer's rules and keys, and the time.

use std::collections::BTreeMap;

use dispatcher_core::limits::{TOKEN_AUDIENCES_MAX, TOKEN_LEEWAY_SECONDS, TOKEN_NAME_BYTES_MAX, TOKEN_TENANTS_MAX};
use dispatcher_core::scope::{Scope, Scopes};
use dispatcher_core::table::ServiceAccountRules;
use serde_json::{Map, Value};

use super::error::AccessError;
use super::keys::KeySet;
use super::principal::{Principal, Tenants};
use super::token::Presented;

/// What the tokens of one issuer mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The claim `iss`, exactly.
    pub issuer: String,
    /// One of these must stand in `aud`.
    pub audiences: Vec<String>,
    /// Whose tokens they are, and what they permit.
    pub grant: Grant,
}

/// How claims become a tenant and scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// As the installation says.
    Configured {
        /// The tenant.
        tenants: TenantSource,
        /// The scopes.
        scopes: ScopeSource,
    },
    /// As Kubernetes writes the tokens of ServiceAccounts.
    ServiceAccount(ServiceAccountRules),
}

/// Where the tenant of a token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantSource {
    /// It may use every tenant.
    Any,
    /// All tokens of the issuer are for this one.
    Named(String),
    /// A claim names it, or several.
    Claim(ClaimName),
}

/// Where the scopes of a token come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeSource {
    /// All tokens of the issuer have these.
    Fixed(Scopes),
    /// A claim lists them: text with spaces between (RFC 8693, 4.2), or an array.
    Claim {
        /// The claim.
        name: ClaimName,
        /// What the issuer's names mean; `None`: they are ours. Others mean nothing.
        meaning: Option<BTreeMap<String, Scopes>>,
    },
}

/// A claim's name; one that begins with a slash is a JSON pointer (RFC 6901), for what stands deeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimName(pub String);

/// Verifies a token of the issuer that the rules and the keys are of.
///
/// # Errors
/// The first of [`AccessError::UnknownIssuer`] to [`AccessError::NoTenant`] that applies; nothing about the claims before
/// the signature holds.
pub fn verify(
    token: &Presented<'_>,
    rules: &Rules,
    keys: &KeySet,
    now_unix_seconds: u64,
) -> Result<Principal, AccessError> {
    if token.issuer()? != rules.issuer {
        return Err(AccessError::UnknownIssuer);
    }
    let key = keys.find(token.key_id.as_deref(), token.algorithm)?;
    let is_signed = jsonwebtoken::crypto::verify(token.signature, token.message.as_bytes(), key, token.algorithm);
    if !is_signed.is_ok_and(|is_signed| is_signed) {
        return Err(AccessError::WrongSignature);
    }
    let claims = &token.claims;
    check_audience(claims, &rules.audiences)?;
    let expires_unix_seconds = check_time(claims, now_unix_seconds)?;
    let subject = name(claims.get("sub")).ok_or(AccessError::InvalidClaim)?;
    let (tenants, scopes) = match &rules.grant {
        Grant::Configured { tenants, scopes } => (tenants.of(claims)?, scopes.of(claims)),
        Grant::ServiceAccount(accounts) => service_account(claims, subject, accounts)?,
    };
    Ok(Principal { subject: subject.to_owned(), tenants, scopes, expires_unix_seconds })
}

/// `aud` is one text or an array of them (RFC 7519, 4.1.3).
fn check_audience(claims: &Map<String, Value>, audiences: &[String]) -> Result<(), AccessError> {
    let is_ours = |value: &Value| value.as_str().is_some_and(|name| audiences.iter().any(|ours| ours == name));
    match claims.get("aud") {
        Some(Value::Array(names)) if names.len() > TOKEN_AUDIENCES_MAX => Err(AccessError::InvalidClaim),
        Some(Value::Array(names)) if names.iter().any(is_ours) => Ok(()),
        Some(value) if is_ours(value) => Ok(()),
        _ => Err(AccessError::WrongAudience),
    }
}

/// A token must end (`exp`); it may say when it begins (`nbf`) and when it was issued (`iat`). Clocks may differ a little.
fn check_time(claims: &Map<String, Value>, now_unix_seconds: u64) -> Result<u64, AccessError> {
    let expires = date(claims.get("exp"))?.ok_or(AccessError::InvalidClaim)?;
    let latest_begin = now_unix_seconds.saturating_add(TOKEN_LEEWAY_SECONDS);
    for name in ["nbf", "iat"] {
        if date(claims.get(name))?.is_some_and(|begin| begin > latest_begin) {
            return Err(AccessError::NotYetValid);
        }
    }
    let ends = expires.saturating_add(TOKEN_LEEWAY_SECONDS);
    if ends <= now_unix_seconds { Err(AccessError::Expired) } else { Ok(ends) }
}

/// A NumericDate (RFC 7519, 2) in whole seconds. One that is none is an error: a token must not be valid for ever because
/// its end cannot be read.
fn date(value: Option<&Value>) -> Result<Option<u64>, AccessError> {
    let Some(value) = value else { return Ok(None) };
    if let Some(seconds) = value.as_u64() {
        return Ok(Some(seconds));
    }
    let seconds = value.as_f64().filter(|seconds| (0.0..1e15).contains(seconds)).ok_or(AccessError::InvalidClaim)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
    Ok(Some(seconds as u64))
}

fn name(value: Option<&Value>) -> Option<&str> {
    value?.as_str().filter(|name| !name.is_empty() && name.len() <= TOKEN_NAME_BYTES_MAX)
}

/// The claims of a ServiceAccount's token: the namespace, and the account both there and in `sub`.
fn service_account(
    claims: &Map<String, Value>,
    subject: &str,
    accounts: &ServiceAccountRules,
) -> Result<(Tenants, Scopes), AccessError> {
    let kubernetes = claims.get("kubernetes.io").ok_or(AccessError::NoTenant)?;
    let namespace = name(kubernetes.get("namespace")).ok_or(AccessError::NoTenant)?;
    let account = name(kubernetes.pointer("/serviceaccount/name")).ok_or(AccessError::NoTenant)?;
    if subject != format!("system:serviceaccount:{namespace}:{account}") {
        return Err(AccessError::NoTenant);
    }
    Ok((Tenants::Named(vec![namespace.to_owned()]), accounts.scopes_of(namespace, account)))
}

impl ClaimName {
    fn of<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let Some(pointer) = self.0.strip_prefix('/') else { return claims.get(&self.0) };
        let (first, rest) = pointer.split_once('/').map_or((pointer, None), |(first, rest)| (first, Some(rest)));
        let value = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
        rest.map_or(Some(value), |rest| value.pointer(&format!("/{rest}")))
    }
}

impl TenantSource {
    fn of(&self, claims: &Map<String, Value>) -> Result<Tenants, AccessError> {
        let names = match self {
            Self::Any => return Ok(Tenants::Any),
            Self::Named(name) => vec![name.clone()],
            Self::Claim(claim) => {
                let one = |value: &Value| name(Some(value)).map(str::to_owned).ok_or(AccessError::NoTenant);
                match claim.of(claims).ok_or(AccessError::NoTenant)? {
                    Value::Array(names) if (1..=TOKEN_TENANTS_MAX).contains(&names.len()) => {
                        names.iter().map(one).collect::<Result<_, _>>()?
                    }
                    value => vec![one(value)?],
                }
            }
        };
        Ok(Tenants::Named(names))
    }
}

impl ScopeSource {
    fn of(&self, claims: &Map<String, Value>) -> Scopes {
        let (claim, meaning) = match self {
            Self::Fixed(scopes) => return *scopes,
            Self::Claim { name, meaning } => (name, meaning),
        };
        let meant = |name: &str| match meaning {
            Some(meaning) => meaning.get(name).copied().unwrap_or_default(),
            None => name.parse::<Scope>().map_or(Scopes::NONE, |scope| Scopes::NONE.with(scope)),
        };
        let all = |names: &mut dyn Iterator<Item = &str>| names.fold(Scopes::NONE, |all, name| all.and(meant(name)));
        match claim.of(claims) {
            Some(Value::String(names)) => all(&mut names.split(' ')),
            Some(Value::Array(names)) => all(&mut names.iter().filter_map(Value::as_str)),
            _ => Scopes::NONE,
        }
    }
}
