//! Problems: what a client is told when a request was not carried out (RFC 9457).

use axum::response::{IntoResponse, Response};
use dispatcher_core::limits::{BACKLOG_RETRY_AFTER_SECONDS, RETRY_AFTER_SECONDS};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

/// Everything that can be wrong with a request, or with us. A closed set: the names stand in `type`, in metrics and in
/// the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// The body ended early, or its chunks are malformed.
    IncompleteBody,
    /// The body is not JSON.
    MalformedJson,
    /// The JSON nests too deep.
    TooDeep,
    /// A field that must be there is not.
    MissingField,
    /// A field that the route does not know.
    UnknownField,
    /// A field stands there twice.
    DuplicateField,
    /// A header cannot be read.
    InvalidHeader,
    /// A query parameter is unknown, stands there twice or has a value that it cannot have.
    InvalidQuery,
    /// The idempotency keys of header and body differ.
    IdempotencyKeyMismatch,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The request has no token, or none that gives access.
    Unauthenticated,
    /// The request names a host that is not this machine.
    ForeignHost,
    /// The token lacks the scope that the route asks for.
    MissingScope,
    /// No tenant has this name.
    UnknownTenant,
    /// The tenant has no such event, delivery, endpoint or subscription.
    NotFound,
    /// There is no such route.
    UnknownRoute,
    /// The route does not know this method.
    MethodNotAllowed,
    /// The idempotency key was used for another request.
    IdempotencyConflict,
    /// The delivery is not finished, so it cannot be replayed.
    DeliveryOpen,
    /// The request, or one event in it, is too large.
    TooLarge,
    /// The content type is none that the route reads.
    UnsupportedContentType,
    /// A field has a value that it cannot have.
    InvalidField,
    /// A batch holds too many events.
    TooManyEvents,
    /// An event has more targets than one may have, or the events of a request have more than those may together.
    TooManyTargets,
    /// Too many deliveries of the tenant are open.
    TenantBacklog,
    /// Too many deliveries are open in all, or too many requests wait.
    Overloaded,
    /// The ledger does not answer, or the process is about to stop.
    LedgerUnavailable,
    /// The keys of the token's issuer are not there.
    IssuerUnavailable,
    /// A defect of ours.
    Internal,
}

impl ProblemKind {
    /// Every kind.
    pub const ALL: [Self; 29] = [
        Self::IncompleteBody,
        Self::MalformedJson,
        Self::TooDeep,
        Self::MissingField,
        Self::UnknownField,
        Self::DuplicateField,
        Self::InvalidHeader,
        Self::InvalidQuery,
        Self::IdempotencyKeyMismatch,
        Self::RequestTimeout,
        Self::Unauthenticated,
        Self::ForeignHost,
        Self::MissingScope,
        Self::UnknownTenant,
        Self::NotFound,
        Self::UnknownRoute,
        Self::MethodNotAllowed,
        Self::IdempotencyConflict,
        Self::DeliveryOpen,
        Self::TooLarge,
        Self::UnsupportedContentType,
        Self::InvalidField,
        Self::TooManyEvents,
        Self::TooManyTargets,
        Self::TenantBacklog,
        Self::Overloaded,
        Self::LedgerUnavailable,
        Self::IssuerUnavailable,
        Self::Internal,
    ];

    /// The stable name, the last segment of `type`.
    pub fn as_str(self) -> &'static str {
        self.parts().0
    }

    /// The status code.
    pub fn status(self) -> StatusCode {
        self.parts().1
    }

    /// The title: the same for every problem of the kind.
    pub fn title(self) -> &'static str {
        self.parts().2
    }

    fn parts(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as Status;
        match self {
            Self::IncompleteBody => ("incomplete-body", Status::BAD_REQUEST, "The body did not arrive whole"),
            Self::MalformedJson => ("malformed-json", Status::BAD_REQUEST, "The body is not valid JSON"),
            Self::TooDeep => ("too-deep", Status::BAD_REQUEST, "The JSON nests too deep"),
            Self::MissingField => ("missing-field", Status::BAD_REQUEST, "A required field is missing"),
            Self::UnknownField => ("unknown-field", Status::BAD_REQUEST, "A field is not known"),
            Self::DuplicateField => ("duplicate-field", Status::BAD_REQUEST, "A field stands there twice"),
            Self::InvalidHeader => ("invalid-header", Status::BAD_REQUEST, "A header cannot be read"),
            Self::InvalidQuery => ("invalid-query", Status::BAD_REQUEST, "A query parameter is not valid"),
            Self::IdempotencyKeyMismatch => {
                ("idempotency-key-mismatch", Status::BAD_REQUEST, "Header and body name different idempotency keys")
            }
            Self::RequestTimeout => ("request-timeout", Status::REQUEST_TIMEOUT, "The request did not arrive in time"),
            Self::Unauthenticated => ("unauthenticated", Status::UNAUTHORIZED, "A valid token is needed"),
            Self::MissingScope => ("missing-scope", Status::FORBIDDEN, "The token does not permit this"),
            Self::ForeignHost => ("foreign-host", Status::FORBIDDEN, "The host is not this machine"),
            Self::UnknownTenant => ("unknown-tenant", Status::NOT_FOUND, "No tenant has this name"),
            Self::NotFound => ("not-found", Status::NOT_FOUND, "There is no such thing"),
            Self::UnknownRoute => ("unknown-route", Status::NOT_FOUND, "There is no such route"),
            Self::MethodNotAllowed => {
                ("method-not-allowed", Status::METHOD_NOT_ALLOWED, "The route does not know this method")
            }
            Self::IdempotencyConflict => {
                ("idempotency-conflict", Status::CONFLICT, "The idempotency key was used for another request")
            }
            Self::DeliveryOpen => ("delivery-open", Status::CONFLICT, "The delivery is not finished"),
            Self::TooLarge => ("too-large", Status::PAYLOAD_TOO_LARGE, "The request is too large"),
            Self::UnsupportedContentType => {
                ("unsupported-content-type", Status::UNSUPPORTED_MEDIA_TYPE, "The content type is not supported")
            }
            Self::InvalidField => ("invalid-field", Status::UNPROCESSABLE_ENTITY, "A field has an invalid value"),
            Self::TooManyEvents => ("too-many-events", Status::UNPROCESSABLE_ENTITY, "The batch holds too many events"),
            Self::TooManyTargets => {
                ("too-many-targets", Status::UNPROCESSABLE_ENTITY, "The event, or the batch, has too many targets")
            }
            Self::TenantBacklog => {
                ("tenant-backlog", Status::TOO_MANY_REQUESTS, "Too many deliveries of the tenant are open")
            }
            Self::Overloaded => ("overloaded", Status::SERVICE_UNAVAILABLE, "The service is overloaded"),
            Self::LedgerUnavailable => {
                ("ledger-unavailable", Status::SERVICE_UNAVAILABLE, "Nothing can be stored or read at the moment")
            }
            Self::IssuerUnavailable => {
                ("issuer-unavailable", Status::SERVICE_UNAVAILABLE, "The token cannot be verified at the moment")
            }
            Self::Internal => ("internal", Status::INTERNAL_SERVER_ERROR, "A defect of the service"),
        }
    }
}

/// One problem, as it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is.
    pub kind: ProblemKind,
    /// What exactly is wrong and what to do.
    pub detail: String,
    /// The field, header, parameter or path segment at fault.
    pub field: Option<String>,
}

impl Problem {
    /// A problem with its explanation.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), field: None }
    }

    /// Names what is at fault.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Seconds after which the same request may succeed, if waiting helps.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        match self.kind {
            ProblemKind::TenantBacklog => Some(BACKLOG_RETRY_AFTER_SECONDS),
            ProblemKind::Overloaded | ProblemKind::LedgerUnavailable | ProblemKind::IssuerUnavailable => {
                Some(RETRY_AFTER_SECONDS)
            }
            _ => None,
        }
    }

    /// The JSON object of RFC 9457, section 3.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("type".into(), format!("{TYPE_PREFIX}{}", self.kind.as_str()).into());
        object.insert("title".into(), self.kind.title().into());
        object.insert("status".into(), self.kind.status().as_u16().into());
        object.insert("detail".into(), self.detail.as_str().into());
        if let Some(field) = &self.field {
            object.insert("field".into(), field.as_str().into());
        }
        Value::Object(object)
    }
}

/// What every `type` begins with.
pub const TYPE_PREFIX: &str = "https://harborhook.dev/problems/";

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.kind.status(), self.to_json().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // For the layer that counts rejections: the kind travels beside the response.
        response.extensions_mut().insert(self.kind);
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_its_own_name_and_an_error_status() {
        let names: HashSet<&str> = ProblemKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), ProblemKind::ALL.len());
        for kind in ProblemKind::ALL {
            assert!(kind.status().is_client_error() || kind.status().is_server_error(), "{kind:?}");
        }
    }

    #[test]
    fn whoever_is_told_to_wait_is_told_how_long() {
        for kind in ProblemKind::ALL {
            let waits = matches!(kind.status().as_u16(), 429 | 503);
            let response = Problem::new(kind, "x").into_response();
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), waits, "{kind:?}");
        }
    }
}
