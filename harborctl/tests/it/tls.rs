//! `harborctl dev` with receivers that speak TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::support::{endpoint, harborctl, subscription, told, write};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for loopback and its key.
fn issue(authority: &Authority) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    (CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, authority).unwrap(), key)
}

/// A receiver that answers every request with 200, if its client shows a certificate of `clients`. Answers its URL.
fn receiver(authority: &Authority, clients: Option<&Authority>) -> String {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let (certificate, key) = issue(authority);
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = Arc::new(builder.with_single_cert(vec![certificate.into()], key.into()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/hook", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, stream) = (Arc::clone(&config), stream.unwrap());
            // A client that leaves is one of the things that happen here.
            std::thread::spawn(move || drop(answer(config, stream)));
        }
    });
    url
}

/// Reads a request and answers it, again and again.
fn answer(config: Arc<ServerConfig>, stream: TcpStream) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    loop {
        let mut length = 0;
        let mut line = String::from("POST");
        while !line.trim().is_empty() {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        stream.read_exact(&mut vec![0; length])?;
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        stream.get_mut().flush()?;
    }
}

fn secret(name: &str, values: &[(&str, &str)]) -> String {
    let values = values.iter().map(|(key, value)| format!("  {key}: {value:?}\n")).collect::<Vec<_>>().concat();
    format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\nstringData:\n{values}")
}

/// Runs the folder's one event to its end, with only this authority known to the system. Answers the exit code and what
/// became of each delivery, by endpoint.
fn deliver(folder: &Path, system: &Authority) -> (i32, Vec<(String, String)>, String) {
    let (data, roots) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(roots.path(), system.pem()).unwrap();
    let (folder, data) = (folder.to_str().unwrap(), data.path().to_str().unwrap());
    let mut command =
        harborctl(&["dev", folder, "--data", data, "--listen", "127.0.0.1:0", "--once", "--output", "json"]);
    command.env("SSL_CERT_FILE", roots.path()).env_remove("SSL_CERT_DIR");
    let (code, stdout, stderr) = told(&command.stdin(Stdio::null()).output().unwrap());
    let lines = stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |line: &Value, field: &str| line[field].as_str().unwrap().to_owned();
    let mut deliveries: Vec<_> = lines
        .filter(|line| line["kind"] == "delivery")
        .map(|line| (text(&line, "endpoint"), text(&line, "outcome")))
        .collect();
    deliveries.sort();
    (code, deliveries, stdout + &stderr)
}

const EVENT: (&str, &str) = ("events.jsonl", "{\"event_type\":\"a.b\",\"payload\":{}}");

fn delivery(endpoint: &str, outcome: &str) -> (String, String) {
    (endpoint.to_owned(), outcome.to_owned())
}

#[test]
fn a_private_authority_and_a_client_certificate_come_from_secrets_in_files() {
    let (ours, system) = (authority("ours"), authority("system"));
    let url = receiver(&ours, Some(&ours));
    let (client, key) = issue(&ours);
    let folder = tempfile::tempdir().unwrap();
    let tls = "  tls:\n    caSecretKeyRef: {name: authorities, key: ca.crt}\n    clientCertificateSecretRef: {name: client}\n";
    write(
        folder.path(),
        &[
            ("endpoint.yaml", &*(endpoint("target", &url) + tls)),
            ("subscription.yaml", &subscription("all", "target", "**")),
            ("authorities.yaml", &secret("authorities", &[("ca.crt", &ours.pem())])),
            ("client.yaml", &secret("client", &[("tls.crt", &client.pem()), ("tls.key", &key.serialize_pem())])),
            EVENT,
        ],
    );
    let (code, deliveries, output) = deliver(folder.path(), &system);
    assert_eq!((code, deliveries), (0, vec![delivery("target", "delivered")]), "{output}");
    assert!(!output.contains(key.serialize_pem().lines().nth(1).unwrap()), "{output}");
}

#[test]
fn the_authorities_that_are_named_replace_those_of_the_system() {
    let (other, system) = (authority("other"), authority("system"));
    let url = receiver(&system, None);
    let folder = tempfile::tempdir().unwrap();
    let strict = "    maxAttempts: 1\n  tls:\n    caSecretKeyRef: {name: authorities, key: ca.crt}\n";
    write(
        folder.path(),
        &[
            ("open.yaml", &*endpoint("open", &url)),
            ("strict.yaml", &(endpoint("strict", &url) + strict)),
            ("all.yaml", &[subscription("open", "open", "**"), subscription("strict", "strict", "**")].join("---\n")),
            ("authorities.yaml", &secret("authorities", &[("ca.crt", &other.pem())])),
            EVENT,
        ],
    );
    let (code, deliveries, output) = deliver(folder.path(), &system);
    assert_eq!(
        (code, deliveries),
        (1, vec![delivery("open", "delivered"), delivery("strict", "tls_error")]),
        "{output}"
    );
}
