//! Path segments.

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::{Problem, ProblemKind};

/// The segments of a path; what cannot be decoded is a route that does not exist.
#[derive(Debug)]
pub(crate) struct Segment<T>(pub(crate) T);

impl<T, S> FromRequestParts<S> for Segment<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let decoded: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, state).await;
        match decoded {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(_) => Err(Problem::new(ProblemKind::UnknownRoute, "The path is not percent-encoded UTF-8.")),
        }
    }
}
