//! Certificate authorities of tests, what they issue, and a receiver that speaks TLS with it.

#![expect(clippy::unwrap_used, reason = "helpers are functions of tests")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dispatcher_core::table::{ClientCertificate, TlsIdentity};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Both versions of TLS that are in use.
pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Pair {
    certificate: CertificateDer<'static>,
    pub(crate) chain_pem: String,
    key: KeyPair,
}

/// Parameters of a certificate for these host names and addresses.
pub(crate) fn certificate(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

/// Parameters of a certificate for loopback that was valid in these years.
pub(crate) fn valid_between(from_year: i32, to_year: i32) -> CertificateParams {
    let mut params = certificate(&["127.0.0.1"]);
    (params.not_before, params.not_after) = (date_time_ymd(from_year, 1, 1), date_time_ymd(to_year, 1, 1));
    params
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = certificate(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn issue(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair { chain_pem: certificate.pem(), certificate: certificate.into(), key }
    }

    /// An identity that trusts it alone, and is nobody.
    pub(crate) fn trusted(&self) -> TlsIdentity {
        TlsIdentity { authorities: Some(self.pem().into()), client: None }
    }

    /// An identity that trusts it alone, and is one that it issued.
    pub(crate) fn trusted_with(&self, pair: &Pair) -> TlsIdentity {
        TlsIdentity { client: Some(pair.client()), ..self.trusted() }
    }
}

impl Pair {
    /// A certificate that vouches for itself.
    pub(crate) fn self_signed(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { chain_pem: certificate.pem(), certificate: certificate.into(), key }
    }

    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    pub(crate) fn client(&self) -> ClientCertificate {
        ClientCertificate { chain: self.chain_pem.clone().into(), key: self.key_pem().into() }
    }
}

/// A request as the receiver saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenOverTls {
    /// The number of its connection, from 1.
    pub(crate) connection: usize,
    /// The certificate that the client showed.
    pub(crate) client: Option<CertificateDer<'static>>,
}

/// A receiver on loopback that answers every request with 200.
pub(crate) struct TlsReceiver {
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<SeenOverTls>>>,
}

impl TlsReceiver {
    /// Shows this certificate, and demands one of the authority if there is one.
    pub(crate) fn start(
        pair: &Pair,
        clients: Option<&Authority>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        // A small buffer: whoever sends much has to wait before all of it is gone, as over a network.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(pair, clients, versions)));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (requests, connections) = (Arc::clone(&seen), AtomicUsize::new(0));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = connections.fetch_add(1, Ordering::Relaxed) + 1;
                tokio::spawn(serve(acceptor.clone(), stream, connection, Arc::clone(&requests)));
            }
        });
        Self { address, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}/hook?token=hunter2", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<SeenOverTls> {
        self.seen.lock().unwrap().clone()
    }

    /// Whether the last request came from the one who holds this.
    pub(crate) fn was_shown(&self, pair: &Pair) -> bool {
        self.seen().last().is_some_and(|seen| seen.client.as_ref() == Some(&pair.certificate))
    }
}

fn server_config(
    pair: &Pair,
    clients: Option<&Authority>,
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivatePkcs8KeyDer::from(pair.key.serialize_der());
    builder.with_single_cert(vec![pair.certificate.clone()], key.into()).unwrap()
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, connection: usize, seen: Arc<Mutex<Vec<SeenOverTls>>>) {
    let mut stream = match acceptor.accept(stream).into_fallible().await {
        Ok(stream) => stream,
        Err((_, stream)) => return refuse(stream).await,
    };
    let client = stream.get_ref().1.peer_certificates().map(|chain| chain[0].clone());
    while read_request(&mut stream).await {
        seen.lock().unwrap().push(SeenOverTls { connection, client: client.clone() });
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        if stream.write_all(answer).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

/// Ends a connection after an alert so that the client can read it: closed with unread data, it would be reset.
async fn refuse(mut stream: TcpStream) {
    let mut unread = Vec::new();
    if stream.shutdown().await.is_ok() {
        drop(stream.read_to_end(&mut unread).await);
    }
}

/// Reads one request to its end.
async fn read_request(stream: &mut TlsStream<TcpStream>) -> bool {
    let mut buffer = Vec::new();
    let mut end = None;
    while end.is_none_or(|end| buffer.len() < end) {
        if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
            return false;
        }
        if end.is_none()
            && let Some(head_end) = buffer.windows(4).position(|window| window == b"\r\n\r\n")
        {
            let head = String::from_utf8_lossy(&buffer[..head_end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            end = Some(head_end + 4 + length.parse::<usize>().unwrap());
        }
    }
    true
}
