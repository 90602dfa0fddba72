//! A real server over TLS that demands a certificate of ours.

use std::fs;

use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher::ledger::{Ledger, LedgerError};
use rcgen::DnType;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use testbed::TestDatabase;

use crate::authority::{Authority, Pair, certificate};

/// Over TLS only those come in who show a certificate in their user's name.
const RULES: &str = "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-full
hostnossl all all 127.0.0.1/32 scram-sha-256
";

/// A certificate in the name of the server's user.
fn client(authority: &Authority) -> Pair {
    let mut params = certificate(&[]);
    params.distinguished_name.push(DnType::CommonName, "harborhook");
    authority.issue(&params)
}

/// The parameters of a URL; the files that they name are in the folder.
fn parameters(folder: &TempDir, name: &str, trusted: &Authority, client: Option<&Pair>) -> String {
    let file = |what: &str, content: &str| {
        let path = folder.path().join(format!("{name}-{what}.pem"));
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut parameters = format!("sslmode=verify-full&sslrootcert={}", file("authority", &trusted.pem()));
    if let Some(client) = client {
        let (certificate, key) = (file("certificate", &client.chain_pem), file("key", &client.key_pem()));
        parameters.extend(["&sslcert=", &certificate, "&sslkey=", &key]);
    }
    parameters
}

#[tokio::test]
async fn a_ledger_is_reached_over_tls_by_those_who_trust_each_other_and_nobody_else() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("a stranger's"));
    let own = authority.issue(&certificate(&["127.0.0.1"]));
    let settings = [
        ("ssl", "on"),
        ("ssl_ca_file", "'/srv/authority.pem'"),
        ("ssl_cert_file", "'/srv/certificate.pem'"),
        ("ssl_key_file", "'/srv/key.pem'"),
        ("hba_file", "'/srv/rules'"),
    ];
    let files = [
        ("authority.pem", &*authority.pem()),
        ("certificate.pem", &own.chain_pem),
        ("key.pem", &own.key_pem()),
        ("rules", RULES),
    ];
    let Some(server) = testbed::postgres_with_files(&settings, &files).await.unwrap() else { return };
    let database = TestDatabase::create(&format!("{}?sslmode=disable", server.url())).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let url = |name: &str, trusted: &Authority, client: Option<&Pair>| {
        database.url().replacen("sslmode=disable", &parameters(&folder, name, trusted, client), 1)
    };

    let known = client(&authority);
    let good = url("good", &authority, Some(&known));
    PostgresLedger::migrate(&PostgresConfig::new(&good)).await.unwrap();
    let ledger = PostgresLedger::connect(PostgresConfig::new(&good)).await.unwrap();
    ledger.ping().await.unwrap();
    let mut beside = PgConnection::connect(database.url()).await.unwrap();
    let over_tls = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                    WHERE ssl AND client_dn = '/CN=harborhook' AND datname = current_database()";
    let over_tls: i64 = sqlx::query_scalar(over_tls).fetch_one(&mut beside).await.unwrap();
    assert!(over_tls > 0, "the ledger's connections are encrypted, and the server knows whose they are");

    for (case, url) in [
        ("the server's certificate is not trusted", url("untrusting", &stranger, Some(&known))),
        ("the server's certificate is of another host", good.replacen("127.0.0.1", "localhost", 1)),
        ("we show no certificate", url("nobody", &authority, None)),
        ("ours is not trusted", url("unknown", &authority, Some(&client(&stranger)))),
    ] {
        let error = PostgresLedger::connect(PostgresConfig::new(&url)).await.err().expect(case);
        assert!(matches!(error, LedgerError::Refused(_)), "{case}: {error:?}");
        assert!(error.to_string().contains("certificate") || error.to_string().contains("sslcert"), "{case}: {error}");
    }
}
