//! PostgreSQL.

use sqlx::{Connection, Executor, PgConnection};
use testbed::TestDatabase;

use crate::{exists, listens, port_of};

async fn value(connection: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(connection).await.unwrap()
}

async fn databases_named(server_url: &str, database_url: &str) -> i64 {
    let name = url::Url::parse(database_url).unwrap().path().trim_start_matches('/').to_owned();
    let mut connection = PgConnection::connect(server_url).await.unwrap();
    let query = "SELECT count(*) FROM pg_database WHERE datname = $1";
    sqlx::query_scalar(query).bind(name).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn tests_share_a_server_and_see_nothing_of_each_other() {
    let Some(one) = testbed::database().await.unwrap() else { return };
    let two = testbed::database().await.unwrap().unwrap();
    assert_eq!(port_of(one.url()), port_of(two.url()));

    let mut in_one = PgConnection::connect(one.url()).await.unwrap();
    let mut in_two = PgConnection::connect(two.url()).await.unwrap();
    in_one.execute("CREATE TABLE events (id bigint)").await.unwrap();
    in_one.execute("INSERT INTO events VALUES (1), (2)").await.unwrap();
    assert_eq!(value(&mut in_one, "SELECT count(*) FROM events").await, 2);
    assert_eq!(value(&mut in_two, "SELECT count(*) FROM pg_tables WHERE tablename = 'events'").await, 0);
}

#[tokio::test]
async fn a_database_is_dropped_with_its_handle_even_while_it_is_used() {
    let Some(server) = testbed::postgres(&[]).await.unwrap() else { return };
    let database = TestDatabase::create(server.url()).await.unwrap();
    let url = database.url().to_owned();
    let _open = PgConnection::connect(&url).await.unwrap();
    assert_eq!(databases_named(server.url(), &url).await, 1);
    drop(database);
    assert_eq!(databases_named(server.url(), &url).await, 0);
}

#[tokio::test]
async fn committed_rows_survive_a_kill_and_nothing_survives_the_server() {
    let Some(mut server) = testbed::postgres(&[("max_connections", "20")]).await.unwrap() else { return };
    let database = TestDatabase::create(server.url()).await.unwrap();
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let version: String = sqlx::query_scalar("SHOW server_version").fetch_one(&mut connection).await.unwrap();
    assert!(version.starts_with("17."), "{version}");
    let connections: String = sqlx::query_scalar("SHOW max_connections").fetch_one(&mut connection).await.unwrap();
    assert_eq!(connections, "20", "the caller's setting wins");
    connection.execute("CREATE TABLE events (id bigint)").await.unwrap();
    connection.execute("INSERT INTO events VALUES (1)").await.unwrap();
    connection.execute("BEGIN").await.unwrap();
    connection.execute("INSERT INTO events VALUES (2)").await.unwrap();

    let (port, first) = (port_of(server.url()), server.process_id().unwrap());
    server.kill().unwrap();
    assert!(!exists(first) && !listens(port));
    assert_eq!(server.process_id(), None);
    connection.execute("COMMIT").await.unwrap_err();

    server.restart().await.unwrap();
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    assert_eq!(value(&mut connection, "SELECT count(*) FROM events").await, 1);

    let second = server.process_id().unwrap();
    drop((database, server));
    assert!(!exists(second) && !listens(port));
}

#[tokio::test]
async fn a_server_that_refuses_its_configuration_tells_why() {
    let error = match testbed::postgres(&[("no_such_setting", "1")]).await {
        Ok(None) => return,
        Ok(Some(_)) => panic!("it started"),
        Err(error) => format!("{error:#}"),
    };
    assert!(error.contains("PostgreSQL does not start") && error.contains("no_such_setting"), "{error}");
}
