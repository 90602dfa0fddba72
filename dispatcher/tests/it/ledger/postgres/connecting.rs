//! What connecting says, and what connections survive.

use std::sync::Arc;
use std::time::Duration;

use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher::ledger::{Accepted, Ledger, LedgerError};
use dispatcher_core::delivery::DeliveryState;
use sqlx::Executor;

use super::{config, connect, database, raw};
use crate::ledger::support::*;

async fn refusal(url: &str) -> LedgerError {
    let config = PostgresConfig { acquire_timeout: Duration::from_secs(20), ..PostgresConfig::new(url) };
    PostgresLedger::connect(config).await.err().expect("no connection")
}

#[tokio::test]
async fn a_database_without_the_schema_says_what_to_do() {
    let Some(empty) = testbed::database().await.unwrap() else { return };
    let error = refusal(empty.url()).await;
    assert!(matches!(error, LedgerError::Schema { found: 0, .. }), "{error:?}");
    assert!(error.to_string().contains("dispatcher migrate"), "{error}");
}

#[tokio::test]
async fn migrations_of_several_processes_do_not_disturb_each_other() {
    let Some(empty) = testbed::database().await.unwrap() else { return };
    let config = config(&empty);
    let results = futures::future::join_all((0..4).map(|_| PostgresLedger::migrate(&config))).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    connect(&empty).await.ping().await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_used_as_long_as_it_allows_it() {
    let Some(database) = database().await else { return };
    let mut beside = raw(&database).await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (999, 'newer', true, '', 0)";
    beside.execute(newer).await.unwrap();
    connect(&database).await.ping().await.unwrap();
    PostgresLedger::migrate(&config(&database)).await.expect("there is nothing to do");
    beside.execute("UPDATE ledger SET usable_from = 999").await.unwrap();
    let error = refusal(database.url()).await;
    assert!(matches!(error, LedgerError::Schema { found: 999, .. }), "{error:?}");
}

#[tokio::test]
async fn a_wrong_configuration_is_told_from_a_server_that_is_away() {
    let Some(database) = database().await else { return };
    let url = |change: &dyn Fn(&mut url::Url)| {
        let mut url: url::Url = database.url().parse().unwrap();
        change(&mut url);
        url.to_string()
    };
    let no_such_user = url(&|url| url.set_username("nobody_of_this_name").unwrap());
    let no_such_database = url(&|url| url.set_path("no_such_database"));
    let no_tls = url(&|url| url.set_query(Some("sslmode=verify-full")));
    let no_file = url(&|url| url.set_query(Some("sslmode=verify-full&sslrootcert=/no/such/file")));
    for (url, what) in [
        (no_such_user, "refuses the user"),
        (no_such_database, "does not exist"),
        (no_tls, "sslmode"),
        (no_file, "ssl"),
    ] {
        let error = refusal(&url).await;
        assert!(matches!(error, LedgerError::Refused(_)), "{error:?}");
        assert!(error.to_string().contains(what), "{error}");
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let away = url(&|url| url.set_port(Some(free)).unwrap());
    assert!(matches!(refusal(&away).await, LedgerError::Unavailable(_)));
    let read_only = url(&|url| url.set_query(Some("options[default_transaction_read_only]=on")));
    let error = refusal(&read_only).await;
    assert!(matches!(&error, LedgerError::Unavailable(_)) && error.to_string().contains("read-only"), "{error}");
}

#[tokio::test]
async fn a_schema_in_the_url_keeps_ledgers_apart() {
    let Some(database) = testbed::database().await.unwrap() else { return };
    let mut ledgers = Vec::new();
    for schema in ["one", "two"] {
        raw(&database).await.execute(sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).await.unwrap();
        let config = PostgresConfig::new(&format!("{}?options[search_path]={schema}", database.url()));
        PostgresLedger::migrate(&config).await.unwrap();
        ledgers.push(Arc::new(PostgresLedger::connect(config).await.unwrap()) as Arc<dyn Ledger>);
    }
    accept(&ledgers[0], &new_event(&["a"], HOUR)).await;
    assert_eq!(ledgers[0].balance().await.unwrap().len(), 1);
    assert!(ledgers[1].balance().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_ledger_outlives_its_connections_and_nothing_is_there_twice() {
    let Some(database) = database().await else { return };
    let ledger: Arc<dyn Ledger> = Arc::new(connect(&database).await);
    let new = new_event(&["a"], HOUR);
    accept(&ledger, &new).await;
    let mut beside = raw(&database).await;
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    beside.execute(kill).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    loop {
        match ledger.accept(vec![new.clone()]).await {
            Ok(answers) => break assert_eq!(answers, [Accepted::New]),
            Err(LedgerError::Unavailable(_)) if tokio::time::Instant::now() < deadline => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(ledger.balance().await.unwrap()[0].accepted, 1);
    assert_eq!(state(&ledger, delivery(&new, "a")).await, Some(DeliveryState::Open));
}
