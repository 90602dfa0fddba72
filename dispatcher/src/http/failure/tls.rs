//! What to do about failures of TLS, in words for whoever owns the endpoint.

use rustls::{AlertDescription, CertificateError, Error};

/// What helps if a receiver ends a connection before it gets a request.
pub(super) const ENDED_AFTER_HANDSHAKE: &str = "the receiver ended the connection right after the TLS handshake: does it \
    demand a client certificate, and accept the one of the endpoint's tls?";

/// What helps against this error, if that is known. Says nothing of the certificates themselves.
pub(super) fn advice(error: &Error) -> Option<&'static str> {
    match error {
        Error::InvalidCertificate(error) => advice_about_certificate(error),
        Error::AlertReceived(alert) => advice_about_alert(*alert),
        Error::PeerIncompatible(_) => Some("the receiver must offer TLS 1.2 or 1.3 with a cipher suite of today"),
        Error::InvalidMessage(_) => Some("is what listens there a server for TLS?"),
        _ => None,
    }
}

fn advice_about_certificate(error: &CertificateError) -> Option<&'static str> {
    match error {
        CertificateError::UnknownIssuer => Some(
            "have the receiver send its whole chain, or name the authority that issued its certificate in the endpoint's \
             tls",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Some("have the receiver's certificate renewed")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Some("see whether the clocks are right")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some("use a name that the receiver's certificate is for in the URL, or have it issued for this one")
        }
        _ => None,
    }
}

/// Alerts of a receiver (RFC 8446, 6.2).
fn advice_about_alert(alert: AlertDescription) -> Option<&'static str> {
    match alert {
        AlertDescription::CertificateRequired => {
            Some("the receiver demands a client certificate: name one in the endpoint's tls")
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => Some(
            "the receiver refuses the client certificate: use one that is valid, and of an authority that it trusts",
        ),
        AlertDescription::HandshakeFailure => Some(
            "the receiver found no common ground: it may demand a client certificate, or offer only old cipher suites",
        ),
        AlertDescription::ProtocolVersion => Some("the receiver must offer TLS 1.2 or 1.3"),
        AlertDescription::UnrecognisedName => Some("the receiver does not serve the host that the URL names"),
        _ => None,
    }
}
