//! Why an API server did not do what it was asked, in a closed set of classes.

use std::error::Error as _;
use std::fmt::Write as _;
use std::time::Duration;

use dispatcher_core::limits::API_MESSAGE_BYTES_MAX;
use kube::core::Status;

/// What a failure means for whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureClass {
    /// The object, its kind or its namespace is not there, or is going away.
    NotFound,
    /// What was to be created is there already.
    Exists,
    /// Somebody else wrote meanwhile.
    Conflict,
    /// A permission or a quota is missing.
    Forbidden,
    /// The request is wrong for this API server; the same one will be refused again.
    Invalid,
    /// The API server could not be reached, is overloaded, or failed.
    Unavailable,
}

impl FailureClass {
    /// Every class.
    pub const ALL: [Self; 6] =
        [Self::NotFound, Self::Exists, Self::Conflict, Self::Forbidden, Self::Invalid, Self::Unavailable];

    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Exists => "exists",
            Self::Conflict => "conflict",
            Self::Forbidden => "forbidden",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
        }
    }
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiFailure {
    /// What it means.
    pub class: FailureClass,
    /// What the API server said, or why it could not be asked. A refused permission names the user, the verb and the
    /// resource.
    pub message: String,
}

impl ApiFailure {
    /// The failure that an error of the client is.
    pub fn of(error: &kube::Error) -> Self {
        let (class, message) = match error {
            kube::Error::Api(status) => (class_of(status), status.message.clone()),
            // These quote what they could not read, which may be a secret.
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
                (FailureClass::Unavailable, "the API server's answer is not the object that was asked for".to_owned())
            }
            other => (FailureClass::Unavailable, with_causes(other)),
        };
        Self { class, message: cut(message, API_MESSAGE_BYTES_MAX) }
    }

    fn late(deadline: Duration) -> Self {
        let message = format!("the API server did not answer within {} ms", deadline.as_millis());
        Self { class: FailureClass::Unavailable, message }
    }
}

/// Awaits a call for no longer than its deadline. A call that is given up may still take effect.
pub async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiFailure> {
    match tokio::time::timeout(deadline, call).await {
        Ok(result) => result.map_err(|error| ApiFailure::of(&error)),
        Err(_) => Err(ApiFailure::late(deadline)),
    }
}

/// Cuts a text to so many bytes, between characters.
pub(super) fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

fn class_of(status: &Status) -> FailureClass {
    let is_terminating = status
        .details
        .as_ref()
        .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"));
    match status.code {
        _ if is_terminating || status.is_not_found() => FailureClass::NotFound,
        _ if status.is_already_exists() => FailureClass::Exists,
        _ if status.is_conflict() => FailureClass::Conflict,
        _ if status.is_forbidden() => FailureClass::Forbidden,
        // A proxy in between says no more than the number.
        404 | 410 => FailureClass::NotFound,
        409 => FailureClass::Conflict,
        403 => FailureClass::Forbidden,
        // A token that ran out is renewed; an overloaded server asks for time.
        401 | 408 | 429 => FailureClass::Unavailable,
        400..500 => FailureClass::Invalid,
        _ => FailureClass::Unavailable,
    }
}

fn with_causes(error: &kube::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some errors print their cause themselves.
        let text = error.to_string();
        if !message.ends_with(&text) {
            let _ = write!(message, ": {text}");
        }
        cause = error.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    fn failure(code: u16, reason: &str) -> ApiFailure {
        ApiFailure::of(&kube::Error::Api(Status::failure("said", reason).with_code(code).boxed()))
    }

    #[test]
    fn every_answer_has_a_class() {
        for (code, reason, class) in [
            (404, "NotFound", FailureClass::NotFound),
            (409, "AlreadyExists", FailureClass::Exists),
            (409, "Conflict", FailureClass::Conflict),
            (403, "Forbidden", FailureClass::Forbidden),
            (422, "Invalid", FailureClass::Invalid),
            (400, "BadRequest", FailureClass::Invalid),
            (415, "", FailureClass::Invalid),
            (401, "Unauthorized", FailureClass::Unavailable),
            (429, "TooManyRequests", FailureClass::Unavailable),
            (500, "InternalError", FailureClass::Unavailable),
            (503, "", FailureClass::Unavailable),
            (404, "Failed to parse error data", FailureClass::NotFound),
        ] {
            assert_eq!(failure(code, reason).class, class, "{code} {reason}");
        }
        assert_eq!(failure(403, "Forbidden").to_string(), "said");
    }

    #[test]
    fn a_namespace_that_is_going_away_is_not_a_missing_permission() {
        let cause = StatusCause { reason: "NamespaceTerminating".into(), message: String::new(), field: String::new() };
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: vec![cause],
            retry_after_seconds: 0,
        };
        let status = Status::failure("", "Forbidden").with_code(403).with_details(details);
        assert_eq!(ApiFailure::of(&kube::Error::Api(status.boxed())).class, FailureClass::NotFound);
    }

    #[test]
    fn what_could_not_be_read_is_not_quoted() {
        let error = serde_json::from_str::<bool>("\"whsec_secret\"").unwrap_err();
        let failure = ApiFailure::of(&kube::Error::SerdeError(error));
        assert!(!failure.message.contains("whsec"), "{}", failure.message);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut("größe".to_owned(), 4), "gr\u{f6}");
        assert_eq!(cut("größe".to_owned(), 3), "gr");
    }
}
