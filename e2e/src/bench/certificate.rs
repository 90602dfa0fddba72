//! The certificate of the sink, and who trusts it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A certificate for 127.0.0.1 that is its own authority.
pub struct Certificate {
    key: KeyPair,
    certificate: rcgen::Certificate,
}

impl Certificate {
    /// Makes one (ECDSA P-256).
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self { key, certificate })
    }

    /// In PEM, for those who are to trust it.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// For the one who shows it.
    pub fn server(&self) -> Result<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).map_err(|error| anyhow::anyhow!(error))?;
        let chain = vec![self.certificate.der().clone()];
        Ok(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?)
    }
}

/// For one who trusts only the certificates in a file.
pub fn client(authorities: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authorities).context("the authorities cannot be read")? {
        roots.add(certificate?)?;
    }
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}
