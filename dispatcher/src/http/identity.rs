//! TLS identities of endpoints: certificates and keys read from PEM, checked, and made ready for a client.
//!
//! Whoever accepts an identity ([`check_authorities`], [`check_client_certificate`]) and whoever uses it read it with
//! the same code, so what was accepted can be used.

use std::fmt;
use std::sync::Arc;

use dispatcher_core::limits::{
    TLS_AUTHORITIES_BYTES_MAX, TLS_AUTHORITIES_MAX, TLS_CHAIN_BYTES_MAX, TLS_CHAIN_CERTIFICATES_MAX, TLS_KEY_BYTES_MAX,
};
use dispatcher_core::table::{ClientCertificate, TlsIdentity};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{Error, RootCertStore};
use sha2::{Digest, Sha256};

/// Whom to trust and who to be: requests with an identity go through a client of that identity alone.
///
/// Cheap to clone. Two are the same if their certificates and keys are.
#[derive(Clone)]
pub struct Identity {
    fingerprint: Fingerprint,
    certificates: Arc<TlsIdentity>,
}

/// Tells identities apart without holding anything of them: SHA-256 over all their parts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 32]);

/// A part of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdentityPart {
    /// The certificates of the authorities to trust.
    Authorities,
    /// The client's certificate with its chain.
    Chain,
    /// The client's private key.
    Key,
}

/// Why an identity cannot be used. Holds nothing of its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct IdentityError {
    /// The part that is wrong.
    pub part: IdentityPart,
    /// What is wrong with it.
    pub reason: IdentityErrorReason,
}

/// What can be wrong with a part of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityErrorReason {
    /// More bytes than the part may have.
    #[error("it has more than {0} bytes: leave out what is not needed")]
    TooLarge(usize),
    /// A section does not end, or is not base64.
    #[error("it is broken PEM: copy it again as a whole, each -----BEGIN line with its -----END line")]
    BrokenPem,
    /// No certificate.
    #[error("it holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    /// More certificates than the part may have.
    #[error("it holds more than {0} certificates: leave out those that are not needed")]
    TooManyCertificates(usize),
    /// A section that is labelled as a certificate and is none.
    #[error("it holds a certificate that cannot be read: it must be X.509, version 3")]
    BrokenCertificate,
    /// Something else beside the certificates.
    #[error("it holds something that is no certificate: leave only certificates in it")]
    NotOnlyCertificates,
    /// No private key.
    #[error("it holds no private key in PEM, which begins with -----BEGIN PRIVATE KEY-----")]
    NoKey,
    /// Something else beside the private key.
    #[error("it holds more than one private key: leave only the key of the certificate in it")]
    NotOnlyKey,
    /// The private key needs a password.
    #[error("its private key is encrypted, and there is no place for a password: store it decrypted")]
    EncryptedKey,
    /// A private key that cannot be read, or of another algorithm.
    #[error("its private key cannot be used: it must be RSA, ECDSA on P-256, P-384 or P-521, or Ed25519")]
    UnsupportedKey,
    /// The private key is not that of the first certificate.
    #[error("its private key does not belong to the first certificate of the chain: store both of one pair")]
    KeyMismatch,
}

impl IdentityErrorReason {
    /// A stable name for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too_large",
            Self::BrokenPem => "broken_pem",
            Self::NoCertificate => "no_certificate",
            Self::TooManyCertificates(_) => "too_many_certificates",
            Self::BrokenCertificate => "broken_certificate",
            Self::NotOnlyCertificates => "not_only_certificates",
            Self::NoKey => "no_key",
            Self::NotOnlyKey => "not_only_key",
            Self::EncryptedKey => "encrypted_key",
            Self::UnsupportedKey => "unsupported_key",
            Self::KeyMismatch => "key_mismatch",
        }
    }
}

/// Checks the authorities that an endpoint is to trust: PEM with at least one certificate and nothing else.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_authorities(pem: &str) -> Result<(), IdentityError> {
    authorities(pem).map(drop)
}

/// Checks a client certificate: a chain in PEM, and the private key of its first certificate.
///
/// Says nothing about validity in time or about who issued it: that is for the receiver.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_client_certificate(client: &ClientCertificate) -> Result<(), IdentityError> {
    client_certificate(client).map(drop)
}

impl Identity {
    /// An identity of these certificates. They are read when a client is built.
    pub fn new(certificates: TlsIdentity) -> Self {
        Self { fingerprint: Fingerprint::of(&certificates), certificates: Arc::new(certificates) }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Reads and checks the certificates: a few milliseconds of computing at most.
    pub(super) fn open(&self) -> Result<OpenIdentity, IdentityError> {
        let authorities = self.certificates.authorities.as_ref().map(|pem| authorities(pem.expose())).transpose()?;
        let client = self.certificates.client.as_ref().map(client_certificate).transpose()?;
        Ok(OpenIdentity { authorities, client })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Identity([redacted])")
    }
}

impl Fingerprint {
    fn of(certificates: &TlsIdentity) -> Self {
        let authorities = certificates.authorities.as_ref();
        let client = certificates.client.as_ref();
        let parts = [authorities, client.map(|client| &client.chain), client.map(|client| &client.key)];
        let mut digest = Sha256::new();
        for part in parts {
            // A part that is absent differs from one that is empty.
            let length = part.map_or(u64::MAX, |pem| pem.expose().len() as u64);
            digest.update(length.to_be_bytes());
            digest.update(part.map_or("", |pem| pem.expose()));
        }
        Self(digest.finalize().into())
    }
}

/// An identity as a client is built with it.
#[derive(Default)]
pub(super) struct OpenIdentity {
    /// The only ones to trust; `None`: those of the system.
    pub(super) authorities: Option<RootCertStore>,
    /// Whom to be; `None`: nobody.
    pub(super) client: Option<CertifiedKey>,
}

fn authorities(pem: &str) -> Result<RootCertStore, IdentityError> {
    let part = IdentityPart::Authorities;
    let certificates = certificates(pem, part, TLS_AUTHORITIES_BYTES_MAX, TLS_AUTHORITIES_MAX)?;
    let mut authorities = RootCertStore::empty();
    for certificate in certificates {
        authorities.add(certificate).map_err(|_| IdentityErrorReason::BrokenCertificate.of(part))?;
    }
    Ok(authorities)
}

fn client_certificate(client: &ClientCertificate) -> Result<CertifiedKey, IdentityError> {
    let (chain_pem, key_pem) = (client.chain.expose(), client.key.expose());
    let chain = certificates(chain_pem, IdentityPart::Chain, TLS_CHAIN_BYTES_MAX, TLS_CHAIN_CERTIFICATES_MAX)?;
    if chain.iter().any(|certificate| ParsedCertificate::try_from(certificate).is_err()) {
        return Err(IdentityErrorReason::BrokenCertificate.of(IdentityPart::Chain));
    }
    let key = private_key(key_pem)?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| {
        let reason = match error {
            Error::InconsistentKeys(_) => IdentityErrorReason::KeyMismatch,
            _ => IdentityErrorReason::UnsupportedKey,
        };
        reason.of(IdentityPart::Key)
    })
}

fn certificates(
    pem: &str,
    part: IdentityPart,
    bytes_max: usize,
    certificates_max: usize,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let mut certificates = Vec::new();
    for section in sections(pem, part, bytes_max)? {
        let (kind, der) = section?;
        if kind != SectionKind::Certificate {
            return Err(IdentityErrorReason::NotOnlyCertificates.of(part));
        }
        if certificates.len() == certificates_max {
            return Err(IdentityErrorReason::TooManyCertificates(certificates_max).of(part));
        }
        certificates.push(CertificateDer::from(der));
    }
    if certificates.is_empty() {
        return Err(IdentityErrorReason::NoCertificate.of(part));
    }
    Ok(certificates)
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let part = IdentityPart::Key;
    // PKCS #8 says so in its label (RFC 7468, 11), older forms in a header (RFC 1421, 4.6.1.1).
    if pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || pem.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(IdentityErrorReason::EncryptedKey.of(part));
    }
    let mut found = None;
    for section in sections(pem, part, TLS_KEY_BYTES_MAX)? {
        let (kind, der) = section?;
        let key = match kind {
            SectionKind::PrivateKey => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)),
            SectionKind::RsaPrivateKey => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der)),
            SectionKind::EcPrivateKey => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der)),
            _ => return Err(IdentityErrorReason::NotOnlyKey.of(part)),
        };
        if found.replace(key).is_some() {
            return Err(IdentityErrorReason::NotOnlyKey.of(part));
        }
    }
    found.ok_or(IdentityErrorReason::NoKey.of(part))
}

/// The sections of a PEM file with labels that TLS knows. The parser's own errors quote the file, and are dropped.
fn sections(
    pem: &str,
    part: IdentityPart,
    bytes_max: usize,
) -> Result<impl Iterator<Item = Result<(SectionKind, Vec<u8>), IdentityError>>, IdentityError> {
    if pem.len() > bytes_max {
        return Err(IdentityErrorReason::TooLarge(bytes_max).of(part));
    }
    let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes());
    Ok(sections.map(move |section| section.map_err(|_| IdentityErrorReason::BrokenPem.of(part))))
}

impl IdentityErrorReason {
    pub(super) fn of(self, part: IdentityPart) -> IdentityError {
        IdentityError { part, reason: self }
    }
}

#[cfg(test)]
mod tests;
