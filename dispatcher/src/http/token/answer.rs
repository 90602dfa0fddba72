//! What a token endpoint answered (RFC 6749, 5.1 and 5.2). Pure, and strict: the answer is foreign.

use std::time::Duration;

use dispatcher_core::delivery::Outcome;
use dispatcher_core::limits::{
    ACCESS_TOKEN_BYTES_MAX, RESPONSE_EXCERPT_BYTES_MAX, TOKEN_ERROR_CODE_BYTES_MAX, TOKEN_LIFETIME_DEFAULT,
    TOKEN_LIFETIME_MAX, TOKEN_LIFETIME_MIN,
};
use dispatcher_core::redacted::Redacted;
use dispatcher_core::table::TokenSource;
use http::HeaderValue;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::http::Exchange;

/// Why a token endpoint gave no token. Goes to the tenant: it holds nothing of the client's credentials, and of the
/// answer only what is listed here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenFailure {
    /// The table's row describes no request.
    #[error("the token endpoint cannot be asked with this URL and these credentials: apply the endpoint again")]
    Source,
    /// No status arrived.
    #[error("the token endpoint could not be asked ({}): {description}", .outcome.as_str())]
    NotAsked {
        /// The class of the failure.
        outcome: Outcome,
        /// Our own description of it.
        description: String,
    },
    /// A status arrived, and then not the whole answer.
    #[error("the token endpoint answered {status}, and its answer broke off ({})", .outcome.as_str())]
    BrokenOff {
        /// The status.
        status: u16,
        /// The class of the failure.
        outcome: Outcome,
    },
    /// It said no.
    #[error("the token endpoint answered {status}{}", with_error(.code.as_deref()))]
    Refused {
        /// The status.
        status: u16,
        /// The error code of RFC 6749, 5.2, if there is one that may be shown.
        code: Option<String>,
    },
    /// It said yes, in a form that is not that of RFC 6749, 5.1.
    #[error("the token endpoint answered {status}, but {problem}")]
    Malformed {
        /// The status.
        status: u16,
        /// What is wrong.
        problem: Malformed,
    },
}

fn with_error(code: Option<&str>) -> String {
    code.map(|code| format!(" with the error {code}")).unwrap_or_default()
}

/// What is wrong with the answer of a token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("with more than {} bytes", RESPONSE_EXCERPT_BYTES_MAX - 1)]
    TooLarge,
    #[error("not with one JSON object that names each field once")]
    NotAnObject,
    #[error("without the text access_token")]
    AccessTokenMissing,
    #[error(
        "its access_token is empty, longer than {} bytes, or not printable ASCII without spaces",
        ACCESS_TOKEN_BYTES_MAX
    )]
    AccessToken,
    #[error("its token_type is not Bearer")]
    TokenType,
    #[error("its expires_in is not a whole number of seconds")]
    ExpiresIn,
}

/// An access token, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// `Bearer` and the token, marked as sensitive.
    pub(super) header: HeaderValue,
    /// How long it may be used from when it was asked for, within bounds.
    pub(super) lifetime: Duration,
}

/// The fields that count; others are ignored (RFC 6749, 5.1).
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default)]
    access_token: Option<&'a RawValue>,
    #[serde(borrow, default)]
    token_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    expires_in: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorFields {
    error: String,
}

/// Reads the answer to a request that this source made.
pub(super) fn read(exchange: &Exchange, source: &TokenSource) -> Result<Grant, TokenFailure> {
    let outcome = exchange.outcome;
    let Some(status) = exchange.status_code else {
        // Without a status the excerpt is a description of ours.
        let description = String::from_utf8_lossy(&exchange.excerpt).into_owned();
        return Err(TokenFailure::NotAsked { outcome, description });
    };
    match outcome {
        Outcome::Delivered => grant(&exchange.excerpt).map_err(|problem| TokenFailure::Malformed { status, problem }),
        Outcome::Http3xx | Outcome::Http4xx | Outcome::Http410 | Outcome::Http429 | Outcome::Http5xx => {
            Err(TokenFailure::Refused { status, code: error_code(&exchange.excerpt, source) })
        }
        _ => Err(TokenFailure::BrokenOff { status, outcome }),
    }
}

fn grant(body: &[u8]) -> Result<Grant, Malformed> {
    if body.len() >= RESPONSE_EXCERPT_BYTES_MAX {
        return Err(Malformed::TooLarge);
    }
    let fields: Fields<'_> = object(body).ok_or(Malformed::NotAnObject)?;
    let token: Option<Redacted<String>> = fields.access_token.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let token = token.ok_or(Malformed::AccessTokenMissing)?;
    let token_type: Option<String> = fields.token_type.and_then(|raw| serde_json::from_str(raw.get()).ok());
    if !token_type.is_some_and(|token_type| token_type.eq_ignore_ascii_case("Bearer")) {
        return Err(Malformed::TokenType);
    }
    let lifetime = fields.expires_in.map_or(Ok(TOKEN_LIFETIME_DEFAULT), lifetime)?;
    Ok(Grant { header: bearer(&token)?, lifetime: lifetime.clamp(TOKEN_LIFETIME_MIN, TOKEN_LIFETIME_MAX) })
}

/// A list would be read as a struct too.
fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    let is_object = body.trim_ascii_start().first() == Some(&b'{');
    is_object.then(|| serde_json::from_slice(body).ok()).flatten()
}

/// The header of RFC 6750, 2.1. The token may be what RFC 6749, appendix A.12, allows but a space, which is more than
/// the syntax of RFC 6750: well-known servers issue tokens with `!` or `|` in them.
fn bearer(token: &Redacted<String>) -> Result<HeaderValue, Malformed> {
    let text = token.expose();
    if text.is_empty() || text.len() > ACCESS_TOKEN_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Malformed::AccessToken);
    }
    let value = Redacted::new(format!("{BEARER}{text}"));
    let mut header = HeaderValue::from_str(value.expose()).map_err(|_| Malformed::AccessToken)?;
    header.set_sensitive(true);
    Ok(header)
}

/// What stands before the token in the header.
pub(super) const BEARER: &str = "Bearer ";

/// Whole seconds, as a number or, as some servers write them, as text.
fn lifetime(raw: &RawValue) -> Result<Duration, Malformed> {
    let digits = serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed::ExpiresIn);
    }
    // What does not fit is cut as everything beyond the bound is.
    Ok(Duration::from_secs(digits.parse().unwrap_or(u64::MAX)))
}

/// The error code, if it is short, plain, and does not repeat what the client sent.
fn error_code(body: &[u8], source: &TokenSource) -> Option<String> {
    let ErrorFields { error } = object(body)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let is_short = (1..=TOKEN_ERROR_CODE_BYTES_MAX).contains(&error.len());
    let repeats = |secret: &Redacted<String>| !secret.expose().is_empty() && error.contains(secret.expose().as_str());
    let is_shown = is_short && error.bytes().all(is_plain) && !repeats(&source.client_secret);
    (is_shown && !repeats(&source.client_id)).then_some(error)
}

#[cfg(test)]
mod tests;
