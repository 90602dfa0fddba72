//! The connection of a writer that never rests.
//!
//! A pool hands out its connections in turn, and asks each whether it is still alive when it is given back: one more
//! round trip. A writer that goes from batch to batch keeps its connection instead. It saves that, and the server process
//! still has at hand what the last statement looked up.

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnection;
use sqlx::{PgPool, Postgres};
use tokio::sync::Mutex;

use super::LedgerError;

/// Fewest connections of a pool of which writers keep one each: of those that are left, one may listen for changes.
const CONNECTIONS_TO_KEEP_SOME: u32 = 4;

/// One writer's connection, as long as nothing goes wrong with it.
#[derive(Default)]
pub(super) struct Writer(Mutex<Option<PoolConnection<Postgres>>>);

impl Writer {
    /// Calls `write` with the connection that is kept, or, when there is none or somebody uses it, with one of the pool.
    pub(super) async fn write<T>(
        &self,
        pool: &PgPool,
        write: impl AsyncFnOnce(&mut PgConnection) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let is_kept = pool.options().get_max_connections() >= CONNECTIONS_TO_KEEP_SOME;
        let Some(mut kept) = is_kept.then(|| self.0.try_lock().ok()).flatten() else {
            return write(&mut *pool.acquire().await?).await;
        };
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => pool.acquire().await?,
        };
        let written = write(&mut connection).await;
        // After an error, and when nobody waits any more, it goes back to the pool, which finds out what it is good for.
        if written.is_ok() {
            *kept = Some(connection);
        }
        written
    }

    /// Gives the connection back to the pool.
    pub(super) async fn rest(&self) {
        drop(self.0.lock().await.take());
    }
}
