//! What is wrong for good ends the process at once, with a line that says what to do and exit code 2.

use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::net::TcpListener;

use super::harness::{Ended, Program, World, changed};

/// Asserts that a process ended for its configuration, with a line that says so.
fn assert_refused(ended: &Ended, what: &str) {
    assert_eq!(ended.code, Some(2), "{what}: {}", ended.stderr);
    let told = ended.stderr.lines().any(|line| line.starts_with("error: ") && line.contains(what));
    assert!(told, "{what} is not in: {}", ended.stderr);
}

#[tokio::test]
async fn a_wrong_command_line_says_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (key, short) = (folder.path().join("key"), folder.path().join("short"));
    std::fs::write(&key, [7; 32]).unwrap();
    std::fs::write(&short, "not a key").unwrap();
    let (key, short) = (key.to_str().unwrap(), short.to_str().unwrap());
    let run = async |role: &str, database: &str, queue: &str, key: &str, more: &[&str]| {
        let line = [role, "--database", database, "--queue", queue, "--sealing-key-file", key];
        Program::start(&[&line[..], &["--admin-listen", "127.0.0.1:0"], more].concat()).end().await
    };
    let (database, queue) = ("postgres://u:s3cret@127.0.0.1/d", "amqp://u:s3cret@127.0.0.1/v");
    for (ended, what) in [
        (run("deliver", "s3cret", queue, key, &[]).await, "database's URL"),
        (run("deliver", "mysql://u:s3cret@h/d", queue, key, &[]).await, "postgres://"),
        (run("deliver", &format!("{database}?sslmod=s3cret"), queue, key, &[]).await, "sslmod"),
        (
            run("deliver", &format!("{database}?sslrootcert=/no/file"), queue, key, &[]).await,
            "sslrootcert: No such file",
        ),
        (run("deliver", database, "http://u:s3cret@h", key, &[]).await, "amqp://"),
        (run("deliver", database, &format!("{queue}?cacertfile=/no/file"), key, &[]).await, "cacertfile: No such file"),
        (run("deliver", "sqlite:s3cret", queue, key, &[]).await, "dispatcher all"),
        (run("ingest", database, "memory:", key, &["--listen", "127.0.0.1:0"]).await, "dispatcher all"),
        (run("deliver", database, queue, "/no/such/key", &[]).await, "/no/such/key"),
        (run("deliver", database, queue, short, &[]).await, "exactly 32 bytes"),
        (run("deliver", database, queue, key, &["--log", "a=b=c"]).await, "--log"),
        (run("ingest", database, queue, key, &["--listen", "0.0.0.0:0"]).await, "not a loopback address"),
    ] {
        assert_refused(&ended, what);
        assert!(!ended.stderr.contains("s3cret"), "{}", ended.stderr);
    }
    let unknown = run("deliver", database, queue, key, &["--retention-days", "0"]).await;
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, [7; 32]).unwrap();
    let servers = ["--database", "postgres://h/d", "--queue", "amqp://h", "--sealing-key-file", key.to_str().unwrap()];
    for (listen, admin, option) in
        [(&*address, "127.0.0.1:0", "--listen"), ("127.0.0.1:0", &*address, "--admin-listen")]
    {
        let listeners = ["--listen", listen, "--admin-listen", admin];
        let ended = Program::start(&[&["ingest"], &servers[..], &listeners].concat()).end().await;
        assert_refused(&ended, &format!("{option} {address}"));
        assert_refused(&ended, "port 0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_servers_refuse_ends_the_process_and_no_secret_is_told() {
    let Some(world) = World::empty().await else { return };
    let ended = Program::start(&["migrate", "--database", world.database.url()]).end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let (database, queue) = (world.database.url(), world.vhost.url());
    let wrong = |url: &str| changed(url, |url| url.set_password(Some("hunter2-wrong")).unwrap());
    let elsewhere = |url: &str| changed(url, |url| url.set_path("no_such_place"));
    let strict = changed(database, |url| url.set_query(Some("sslmode=verify-full")));
    for (database, queue, what) in [
        (&*wrong(database), queue, "refuses the user"),
        (&*elsewhere(database), queue, "does not exist"),
        (&*strict, queue, "sslmode"),
        (database, &*wrong(queue), "check user, password and vhost"),
        (database, &*elsewhere(queue), "check user, password and vhost"),
    ] {
        let ended = world.start_on("deliver", database, queue, &["--log", "trace"]).end().await;
        assert_refused(&ended, what);
        for secret in passwords(&[database, queue]) {
            assert!(!ended.stderr.contains(&secret), "{secret} was told: {}", ended.stderr);
        }
    }
}

fn passwords(urls: &[&str]) -> Vec<String> {
    let password = |url: &&str| url.parse::<url::Url>().unwrap().password().map(str::to_owned);
    urls.iter().filter_map(password).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_rights_is_refused_by_both_servers() {
    let Some(world) = World::empty().await else { return };
    assert_eq!(Program::start(&["migrate", "--database", world.database.url()]).end().await.code, Some(0));
    let mut connection = PgConnection::connect(world.database.url()).await.unwrap();
    let name = format!("nobody_{}", uuid::Uuid::new_v4().simple());
    for statement in [
        format!("CREATE ROLE {name} LOGIN PASSWORD 'hunter2'"),
        // What anybody may do in an old database.
        "REVOKE ALL ON SCHEMA public FROM public".to_owned(),
        format!("GRANT USAGE ON SCHEMA public TO {name}"),
    ] {
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    let database = changed(world.database.url(), |url| {
        url.set_username(&name).unwrap();
        url.set_password(Some("hunter2")).unwrap();
    });
    let ended = world.start_on("deliver", &database, world.vhost.url(), &[]).end().await;
    assert_refused(&ended, "may not use the database");
    let ended = Program::start(&["migrate", "--database", &database]).end().await;
    assert_refused(&ended, "may not use the database");
    for statement in [format!("DROP OWNED BY {name}"), format!("DROP ROLE {name}")] {
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_too_new_ends_the_process() {
    let Some(world) = World::empty().await else { return };
    assert_eq!(Program::start(&["migrate", "--database", world.database.url()]).end().await.code, Some(0));
    let mut connection = PgConnection::connect(world.database.url()).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (999, 'newer', true, '', 0)";
    connection.execute(newer).await.unwrap();
    connection.execute("UPDATE ledger SET usable_from = 999").await.unwrap();
    let ended = world.start("deliver", &[]).end().await;
    assert_refused(&ended, "use that release");
    let ended = Program::start(&["migrate", "--database", world.database.url()]).end().await;
    assert_refused(&ended, "use that release");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_a_certificate_that_is_not_trusted_is_refused() {
    let Some(world) = World::empty().await else { return };
    assert_eq!(Program::start(&["migrate", "--database", world.database.url()]).end().await.code, Some(0));
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The client refuses our certificate, and goes.
            acceptor.accept(stream).await.ok();
        }
    });
    let queue = format!("amqps://u:hunter2@localhost:{port}/v");
    let ended = world.start_on("deliver", world.database.url(), &queue, &[]).end().await;
    assert_refused(&ended, "cacertfile");
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_can_be_repeated_and_gives_up_on_a_database_that_stays_away() {
    let Some(world) = World::empty().await else { return };
    for _ in 0..2 {
        let ended = Program::start(&["migrate", "--database", world.database.url()]).end().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let away = changed(world.database.url(), |url| url.set_port(Some(free)).unwrap());
    let began = tokio::time::Instant::now();
    let ended = Program::start_with(&["migrate"], &[("HARBORHOOK_DATABASE", &away)]).end().await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("check that the database runs"), "{ended:?}");
    assert!(began.elapsed() >= Duration::from_secs(20), "a database that is just starting is waited for");
}
