//! Connections: what the URL may say, what every connection is set to, and what is checked of the server.

use std::time::{Duration, Instant};

use dispatcher_core::limits::{
    LEDGER_ACQUIRE_TIMEOUT, LEDGER_ANSWER_TIMEOUT, LEDGER_IDLE_IN_TRANSACTION_TIMEOUT, LEDGER_POOL_CONNECTIONS_MAX,
    LEDGER_STATEMENT_TIMEOUT,
};
use dispatcher_core::redacted::Redacted;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};
use url::Url;

use super::encode::count;
use super::error::of_connecting;
use super::patience::Patience;
use super::{LedgerClock, LedgerError, migrate};
use crate::clock::now_unix_ms;

/// How to reach the database.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. Parameters are those of libpq: `sslmode` (use `verify-full`
    /// over a network), `sslrootcert`, `sslcert` and `sslkey` (files), `application_name`, `options`
    /// (`options[search_path]=NAME` for a schema of its own), `target_session_attrs` (`read-write`, which is always
    /// demanded).
    pub url: Redacted<String>,
    /// Most connections of this process. One of them is kept for heartbeats, and [`super::PostgresLedger::watch_table`]
    /// takes another; at least two are opened.
    pub pool_connections_max: u32,
    /// How long a statement may take before the server cancels it.
    pub statement_timeout: Duration,
    /// How long a transaction may stand idle before the server ends it, and what it holds, with its connection.
    pub idle_in_transaction_timeout: Duration,
    /// How long to wait for a connection.
    pub acquire_timeout: Duration,
    /// How long to wait for the server within one call; `statement_timeout` longer where whole tables are read.
    pub answer_timeout: Duration,
    /// This process's clock, in milliseconds since the Unix epoch. It is compared with the server's, which counts.
    pub wall_clock: fn() -> u64,
}

impl PostgresConfig {
    /// The usual limits.
    pub fn new(url: &str) -> Self {
        Self {
            url: Redacted::new(url.to_owned()),
            pool_connections_max: LEDGER_POOL_CONNECTIONS_MAX,
            statement_timeout: LEDGER_STATEMENT_TIMEOUT,
            idle_in_transaction_timeout: LEDGER_IDLE_IN_TRANSACTION_TIMEOUT,
            acquire_timeout: LEDGER_ACQUIRE_TIMEOUT,
            answer_timeout: LEDGER_ANSWER_TIMEOUT,
            wall_clock: now_unix_ms,
        }
    }
}

/// Parameters that a URL may have.
const PARAMETERS: [&str; 12] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// Options of every connection. Errors name the parameter at fault, never a value.
pub(super) fn options(config: &PostgresConfig) -> Result<PgConnectOptions, LedgerError> {
    let wrong = |what: &str| LedgerError::Refused(format!("the database's URL is wrong: {what}"));
    let mut url = Url::parse(config.url.expose()).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(wrong("it does not begin with postgres://"));
    }
    let mut parameters = Vec::new();
    for (name, value) in url.query_pairs() {
        match &*name {
            "target_session_attrs" if matches!(&*value, "read-write" | "primary") => {}
            "target_session_attrs" => return Err(wrong("target_session_attrs can only be read-write")),
            known if PARAMETERS.contains(&known) || known.starts_with("options[") => {
                parameters.push((name.into_owned(), value.into_owned()));
            }
            unknown => return Err(wrong(&format!("the parameter {unknown:?} is not known"))),
        }
    }
    url.set_query(None);
    if !parameters.is_empty() {
        url.query_pairs_mut().extend_pairs(parameters);
    }
    let milliseconds = |duration: Duration| duration.as_millis().to_string();
    let options = PgConnectOptions::from_url(&url).map_err(of_connecting)?.disable_statement_logging();
    Ok(options.options([
        ("statement_timeout", milliseconds(config.statement_timeout)),
        ("idle_in_transaction_session_timeout", milliseconds(config.idle_in_transaction_timeout)),
        // Every statement is a look-up by arrays of keys: one plan is right for all values, and planning over
        // a month of partitions costs more than execution. A plan that was made while the tables were empty must be
        // right for full ones too; counting, which reads whole tables, says so.
        ("plan_cache_mode", "force_generic_plan".to_owned()),
        ("enable_seqscan", "off".to_owned()),
        ("enable_hashjoin", "off".to_owned()),
        ("enable_mergejoin", "off".to_owned()),
        ("jit", "off".to_owned()),
        // Compare-and-set rests on each statement seeing what was committed before it.
        ("default_transaction_isolation", "read committed".to_owned()),
    ]))
}

/// The connections of a process.
pub(super) struct Pools {
    /// For everything but heartbeats.
    pub(super) work: PgPool,
    /// One for heartbeats alone: a process whose other connections are all busy is alive, and must not wait for one until
    /// the others call it dead and do its work again.
    pub(super) beats: PgPool,
}

/// Checks the server and its schema over one connection, which tells an error plainly, and compares the clocks; then
/// opens the pools.
pub(super) async fn open(
    config: &PostgresConfig,
    clock: &LedgerClock,
    patience: Patience,
) -> Result<Pools, LedgerError> {
    let options = options(config)?;
    in_time(config, first_look(&options, clock)).await?;
    let pool = |connections_max| {
        PgPoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(config.acquire_timeout)
            .test_before_acquire(false)
            .after_release(move |connection, _| Box::pin(patience.check(connection)))
            .after_connect(|connection, _| {
                Box::pin(async move {
                    if takes_writes(connection).await? {
                        return Ok(());
                    }
                    // After a failover the name may still lead to the old server; the pool tries again.
                    Err(sqlx::Error::Protocol("the server takes no writes".to_owned()))
                })
            })
            .connect_lazy_with(options.clone())
    };
    Ok(Pools { work: pool(config.pool_connections_max.saturating_sub(1).max(1)), beats: pool(1) })
}

/// Gives up on a server that does not answer while the first connection is made and looks around.
pub(super) async fn in_time<T>(
    config: &PostgresConfig,
    looking: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    let looked = tokio::time::timeout(config.acquire_timeout, looking).await;
    looked.unwrap_or_else(|_| Err(LedgerError::Unavailable("the server does not answer".to_owned())))
}

async fn first_look(options: &PgConnectOptions, clock: &LedgerClock) -> Result<(), LedgerError> {
    let mut connection = options.connect().await.map_err(of_connecting)?;
    if !takes_writes(&mut connection).await? {
        return Err(no_writes());
    }
    migrate::check(&mut connection).await?;
    let asked = Instant::now();
    let ledger_ms: i64 = sqlx::query_scalar("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8")
        .fetch_one(&mut connection)
        .await?;
    clock.compare(asked, Instant::now(), count(ledger_ms)?);
    connection.close().await?;
    Ok(())
}

/// Whether the server still answers and takes writes.
pub(super) async fn ping(pool: &PgPool) -> Result<(), LedgerError> {
    let takes_writes: bool = sqlx::query_scalar(
        "SELECT NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::boolean FROM ledger",
    )
    .fetch_one(pool)
    .await?;
    if takes_writes { Ok(()) } else { Err(no_writes()) }
}

fn no_writes() -> LedgerError {
    LedgerError::Unavailable("the server takes no writes: it is a standby, or read-only".to_owned())
}

/// Whether the server is a primary that takes writes. A server that would acknowledge commits before they are on disk
/// is told not to for this connection: what was accepted must survive a crash.
async fn takes_writes(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::boolean
                AND set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
                               ELSE current_setting('synchronous_commit') END, false) <> ''",
    )
    .fetch_one(connection)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_url_is_refused_without_a_word_of_its_values() {
        for (url, what) in [
            ("not a url s3cret", "relative URL"),
            ("mysql://u:s3cret@h/d", "does not begin with postgres://"),
            ("postgres://u:s3cret@h/d?sslmod=s3cret", "\"sslmod\""),
            ("postgres://u:s3cret@h/d?sslmode=s3cret", "configuration is wrong"),
            ("postgres://u:s3cret@h/d?target_session_attrs=s3cret", "read-write"),
        ] {
            let message = options(&PostgresConfig::new(url)).unwrap_err().to_string();
            assert!(message.contains(what) && !message.contains("s3cret"), "{message}");
        }
    }

    #[tokio::test]
    async fn a_server_that_has_become_read_only_is_noticed() {
        let Some(database) = testbed::database().await.unwrap() else { return };
        let config = PostgresConfig { pool_connections_max: 1, ..PostgresConfig::new(database.url()) };
        migrate::migrate(&config).await.unwrap();
        let patience = Patience::new(config.answer_timeout, config.statement_timeout);
        let Pools { work: pool, .. } = open(&config, &LedgerClock::new(config.wall_clock), patience).await.unwrap();
        ping(&pool).await.unwrap();
        // As it is for every connection while the server is one.
        sqlx::query("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY").execute(&pool).await.unwrap();
        assert!(matches!(ping(&pool).await, Err(LedgerError::Unavailable(_))));
    }

    #[test]
    fn every_connection_has_its_timeouts_and_keeps_the_options_of_the_url() {
        let url = "postgres://u@h/d?options[search_path]=one&target_session_attrs=read-write&application_name=x";
        let options = options(&PostgresConfig::new(url)).unwrap();
        let text = options.get_options().unwrap();
        for part in ["search_path=one", "statement_timeout=30000", "idle_in_transaction_session_timeout=10000"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(options.get_application_name(), Some("x"));
    }
}
