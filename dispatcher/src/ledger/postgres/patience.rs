//! How long a process waits for the server: a network that carries nothing any more must not hold it for ever.

use std::time::Duration;

use dispatcher_core::limits::LEDGER_MAINTENANCE_TIMEOUT;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Error};
use tokio::time::timeout;

use super::LedgerError;

/// Deadlines of calls.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    answer_timeout: Duration,
    statement_timeout: Duration,
}

impl Patience {
    /// `answer_timeout` for one call, `statement_timeout` more for one that reads whole tables.
    pub(super) fn new(answer_timeout: Duration, statement_timeout: Duration) -> Self {
        Self { answer_timeout, statement_timeout }
    }

    /// A call on the way of an event, or of somebody who waits for a page.
    pub(super) async fn answer<T>(self, call: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
        wait(self.answer_timeout, call).await
    }

    /// A call that reads whole tables.
    pub(super) async fn count<T>(self, call: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
        wait(self.answer_timeout + self.statement_timeout, call).await
    }

    /// Whether a connection that is given back may be used again. The pool itself asks it, too, but waits for ever: one
    /// that leads nowhere would keep its place until the network stack gives it up, a quarter of an hour later.
    pub(super) async fn check(self, connection: &mut PgConnection) -> Result<bool, Error> {
        match timeout(self.answer_timeout, connection.ping()).await {
            Ok(answered) => answered.map(|()| true),
            Err(_) => Err(Error::Io(std::io::ErrorKind::TimedOut.into())),
        }
    }
}

/// Maintenance, which takes many calls.
pub(super) async fn maintain<T>(calls: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
    wait(LEDGER_MAINTENANCE_TIMEOUT, calls).await
}

async fn wait<T>(at_most: Duration, call: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
    timeout(at_most, call).await.unwrap_or_else(|_| {
        let seconds = at_most.as_secs_f32();
        Err(LedgerError::Unavailable(format!("the server has not answered for {seconds} s; what it did is unclear")))
    })
}
