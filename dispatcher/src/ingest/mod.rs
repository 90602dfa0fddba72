//! Ingest: a request becomes events, the events find their targets, a commit makes them true, and only then the
//! producer is answered.

mod acceptor;
mod admission;
mod body;
mod explain;
mod handlers;
mod progress;
mod publish;
mod rest;
mod room;
mod routing;

pub use acceptor::{AcceptError, Acceptor, AcceptorTask, NewRequest, Receipt};
pub use admission::{Admission, AdmissionLimits, AdmissionTask};
pub use body::{BodyReader, ReadBody};
pub use handlers::router;
pub use routing::Routing;

use std::sync::Arc;

use axum::body::Body;
use dispatcher_core::event::{Draft, Event, EventError, EventErrorReason};
use dispatcher_core::expression::EvaluationBudget;
use dispatcher_core::id::{EventId, TenantId};
use dispatcher_core::limits::{FANOUT_MAX, IDEMPOTENCY_KEY_LIFETIME, REQUEST_TARGETS_MAX};
use dispatcher_core::route::Routed;
use http::request::Parts;

use crate::api::parameters::Parameters;
use crate::ledger::{Idempotency, LedgerClock};
use crate::metrics::Metrics;
use crate::problem::{Problem, ProblemKind};
use crate::snapshot::{Snapshot, SnapshotReceiver};

/// What the routes that accept events work with.
#[derive(Clone)]
pub struct Ingest {
    /// The routing table.
    pub snapshot: SnapshotReceiver,
    /// The batching writer.
    pub acceptor: Acceptor,
    /// Whether more may be accepted.
    pub admission: Admission,
    /// Reads bodies within bounds.
    pub bodies: BodyReader,
    /// Where routing runs.
    pub routing: Routing,
    /// The time that identities carry.
    pub clock: LedgerClock,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// Whether a request wants to store something, and so has to be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Store,
    DryRun,
}

/// A request that was read: whose it is, the table that it is routed by, and its body.
struct Received {
    tenant: TenantId,
    snapshot: Arc<Snapshot>,
    body: ReadBody,
}

impl Ingest {
    /// Checks everything that can be checked without the body, then reads it.
    async fn receive(&self, tenant: &str, head: &Parts, body: Body, purpose: Purpose) -> Result<Received, Problem> {
        let snapshot = Arc::clone(&self.snapshot.borrow());
        match self.check_head(tenant, head, &snapshot, purpose) {
            Ok(tenant) => Ok(Received { tenant, snapshot, body: self.bodies.read(&head.headers, body).await? }),
            Err(problem) => {
                self.bodies.discard(&head.headers, body).await;
                Err(problem)
            }
        }
    }

    fn check_head(
        &self,
        tenant: &str,
        head: &Parts,
        snapshot: &Snapshot,
        purpose: Purpose,
    ) -> Result<TenantId, Problem> {
        Parameters::parse(head.uri.query(), &[])?;
        let tenant = find_tenant(snapshot, tenant)?;
        if head.headers.get(http::header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            let detail = "Send the body without a content encoding.";
            return Err(Problem::new(ProblemKind::UnsupportedContentType, detail).at("content-encoding"));
        }
        if purpose == Purpose::Store {
            self.admission.admit(tenant)?;
        }
        Ok(tenant)
    }

    /// Routes drafts by the table and has the acceptor commit them. Receipts in the order of the drafts.
    async fn accept(&self, received: &Received, drafts: Vec<Draft>) -> Result<Vec<Receipt>, Problem> {
        let batch = drafts.len() > 1;
        let requests = self.route(received, drafts).await?;
        let answers = self.acceptor.accept_all(requests).await.map_err(accept_problem)?;
        answers
            .into_iter()
            .enumerate()
            .map(|(index, answer)| {
                answer.map_err(|error| {
                    let problem = accept_problem(error);
                    if batch { problem.at(format!("[{index}]")) } else { problem }
                })
            })
            .collect()
    }

    /// Gives a draft its identity: the ledger's time, and randomness that keeps identities of one millisecond apart.
    fn identified(&self, draft: Draft, tenant: TenantId) -> Event {
        draft.into_event(EventId::from_parts(self.clock.now_unix_ms(), rand::random()), tenant)
    }

    /// Gives the drafts their identities and finds their targets.
    async fn route(&self, received: &Received, drafts: Vec<Draft>) -> Result<Vec<NewRequest>, Problem> {
        let (events, keys): (Vec<Arc<Event>>, Vec<Option<Idempotency>>) = drafts
            .into_iter()
            .map(|draft| {
                let idempotency = idempotency(&draft);
                (Arc::new(self.identified(draft, received.tenant)), idempotency)
            })
            .unzip();
        let (snapshot, of_request) = (Arc::clone(&received.snapshot), events.clone());
        let routed = self.routing.run(move |budget| route_all(&snapshot, &of_request, budget)).await??;
        let mut requests = Vec::with_capacity(events.len());
        for ((event, idempotency), routed) in events.into_iter().zip(keys).zip(routed) {
            for failure in &routed.filter_errors {
                self.metrics.filter_failed(failure.error.reason);
            }
            requests.push(NewRequest {
                event,
                targets: routed.targets,
                table_version: received.snapshot.version,
                idempotency,
            });
        }
        Ok(requests)
    }
}

/// Where the events of one request go, within the bounds of one.
fn route_all(
    snapshot: &Snapshot,
    events: &[Arc<Event>],
    budget: &mut EvaluationBudget,
) -> Result<Vec<Routed>, Problem> {
    let (mut all, mut targets) = (Vec::with_capacity(events.len()), 0);
    for event in events {
        let routed = snapshot.index.route(event, budget);
        targets += routed.targets.len();
        let detail = if routed.is_truncated {
            format!("The event has more than {FANOUT_MAX} targets. Narrow the tenant's subscriptions.")
        } else if targets > REQUEST_TARGETS_MAX {
            format!("The events have more than {REQUEST_TARGETS_MAX} targets together. Send fewer in one request.")
        } else {
            all.push(routed);
            continue;
        };
        return Err(Problem::new(ProblemKind::TooManyTargets, detail));
    }
    Ok(all)
}

fn idempotency(draft: &Draft) -> Option<Idempotency> {
    let key = draft.idempotency_key.clone()?;
    Some(Idempotency { key, digest: draft.digest(), lifetime: IDEMPOTENCY_KEY_LIFETIME })
}

/// The tenant that a path names.
pub(crate) fn find_tenant(snapshot: &Snapshot, name: &str) -> Result<TenantId, Problem> {
    snapshot.index.tenant(name).ok_or_else(unknown_tenant)
}

/// What whoever names a tenant that does not exist is told, or one that is not theirs.
pub(crate) fn unknown_tenant() -> Problem {
    let detail = "No tenant has this name: it is the namespace of an Endpoint or a Subscription.";
    Problem::new(ProblemKind::UnknownTenant, detail).at("tenant")
}

fn event_problem(error: EventError) -> Problem {
    let kind = match error.reason {
        EventErrorReason::MalformedJson => ProblemKind::MalformedJson,
        EventErrorReason::TooDeep => ProblemKind::TooDeep,
        EventErrorReason::UnsupportedContentType => ProblemKind::UnsupportedContentType,
        EventErrorReason::TooLarge => ProblemKind::TooLarge,
        EventErrorReason::MissingField => ProblemKind::MissingField,
        EventErrorReason::UnknownField => ProblemKind::UnknownField,
        EventErrorReason::DuplicateField => ProblemKind::DuplicateField,
        EventErrorReason::InvalidField => ProblemKind::InvalidField,
        EventErrorReason::TooManyEvents => ProblemKind::TooManyEvents,
    };
    Problem { kind, detail: error.message, field: error.field }
}

fn accept_problem(error: AcceptError) -> Problem {
    let (kind, detail) = match error {
        AcceptError::Full => (ProblemKind::Overloaded, "Too many requests wait to be stored. Try again later."),
        AcceptError::Stopping => {
            (ProblemKind::LedgerUnavailable, "The service is stopping. Nothing is known to be stored: try again.")
        }
        AcceptError::Unavailable => (
            ProblemKind::LedgerUnavailable,
            "The ledger does not answer. Nothing is known to be stored: try again, with the same idempotency key.",
        ),
        AcceptError::Conflict => (
            ProblemKind::IdempotencyConflict,
            "The idempotency key (of a CloudEvent: its source and id) was used for another request. Use a new one.",
        ),
        AcceptError::Refused => (ProblemKind::Internal, "The event could not be stored. This is a defect: report it."),
    };
    Problem::new(kind, detail)
}
