use dispatcher_core::redacted::Redacted;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

use super::*;

/// A certificate and its key.
fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    (CertificateParams::default().self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn client(chain: &str, key: &str) -> ClientCertificate {
    ClientCertificate { chain: chain.to_owned().into(), key: key.to_owned().into() }
}

/// A section that is well formed and holds nothing of the kind.
fn section(label: &str) -> String {
    format!("-----BEGIN {label}-----\nc3dvcmRmaXNo\n-----END {label}-----\n")
}

#[test]
fn authorities_are_certificates_and_nothing_else() {
    let (certificate, key) = pair(&PKCS_ED25519);
    let cut = certificate.replace("-----END CERTIFICATE-----", "");
    for (pem, expected) in [
        (certificate.clone(), None),
        (format!("# ours\n{}\r\n{certificate}", certificate.replace('\n', "\r\n")), None),
        (String::new(), Some(IdentityErrorReason::NoCertificate)),
        ("swordfish".to_owned(), Some(IdentityErrorReason::NoCertificate)),
        (section("TRUSTED CERTIFICATE"), Some(IdentityErrorReason::NoCertificate)),
        (cut, Some(IdentityErrorReason::BrokenPem)),
        (section("CERTIFICATE").replace('3', "!"), Some(IdentityErrorReason::BrokenPem)),
        (section("CERTIFICATE"), Some(IdentityErrorReason::BrokenCertificate)),
        (certificate.clone() + &key, Some(IdentityErrorReason::NotOnlyCertificates)),
        (certificate.clone() + &section("X509 CRL"), Some(IdentityErrorReason::NotOnlyCertificates)),
        (
            certificate.repeat(TLS_AUTHORITIES_MAX + 1),
            Some(IdentityErrorReason::TooManyCertificates(TLS_AUTHORITIES_MAX)),
        ),
        (" ".repeat(TLS_AUTHORITIES_BYTES_MAX + 1), Some(IdentityErrorReason::TooLarge(TLS_AUTHORITIES_BYTES_MAX))),
    ] {
        let error = check_authorities(&pem).err();
        let expected = expected.map(|reason| reason.of(IdentityPart::Authorities));
        assert_eq!(error, expected, "{}", &pem[..pem.len().min(200)]);
    }
}

#[test]
fn a_client_certificate_comes_with_its_own_key() {
    use IdentityErrorReason as Reason;
    use IdentityPart::{Chain, Key};
    let (certificate, key) = pair(&PKCS_ED25519);
    let (_, other_key) = pair(&PKCS_ED25519);
    let (_, other_kind) = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nc3dvcmRmaXNo\n";
    let too_many = certificate.repeat(TLS_CHAIN_CERTIFICATES_MAX + 1);
    for (chain, key, expected) in [
        (&*certificate, &*key, None),
        (&certificate.repeat(TLS_CHAIN_CERTIFICATES_MAX), &*key, None),
        (&certificate, &(section("EC PARAMETERS") + &key), None),
        ("", &key, Some((Chain, Reason::NoCertificate))),
        (&key, &key, Some((Chain, Reason::NotOnlyCertificates))),
        (&section("CERTIFICATE"), &key, Some((Chain, Reason::BrokenCertificate))),
        (&(certificate.clone() + &section("CERTIFICATE")), &key, Some((Chain, Reason::BrokenCertificate))),
        (&too_many, &key, Some((Chain, Reason::TooManyCertificates(TLS_CHAIN_CERTIFICATES_MAX)))),
        (&" ".repeat(TLS_CHAIN_BYTES_MAX + 1), &key, Some((Chain, Reason::TooLarge(TLS_CHAIN_BYTES_MAX)))),
        (&certificate, "", Some((Key, Reason::NoKey))),
        (&certificate, "swordfish", Some((Key, Reason::NoKey))),
        (&certificate, &certificate, Some((Key, Reason::NotOnlyKey))),
        (&certificate, &(key.clone() + &key), Some((Key, Reason::NotOnlyKey))),
        (&certificate, &key.replace("-----END PRIVATE KEY-----", ""), Some((Key, Reason::BrokenPem))),
        (&certificate, &section("ENCRYPTED PRIVATE KEY"), Some((Key, Reason::EncryptedKey))),
        (&certificate, legacy, Some((Key, Reason::EncryptedKey))),
        (&certificate, &section("PRIVATE KEY"), Some((Key, Reason::UnsupportedKey))),
        (&certificate, &section("RSA PRIVATE KEY"), Some((Key, Reason::UnsupportedKey))),
        (&certificate, &other_key, Some((Key, Reason::KeyMismatch))),
        (&certificate, &other_kind, Some((Key, Reason::KeyMismatch))),
        (&certificate, &" ".repeat(TLS_KEY_BYTES_MAX + 1), Some((Key, Reason::TooLarge(TLS_KEY_BYTES_MAX)))),
    ] {
        let error = check_client_certificate(&client(chain, key)).err();
        let expected = expected.map(|(part, reason)| reason.of(part));
        assert_eq!(error, expected, "{} / {}", &chain[..chain.len().min(99)], &key[..key.len().min(99)]);
    }
}

#[test]
fn every_kind_of_key_can_be_used() {
    for algorithm in
        [&PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256]
    {
        let (certificate, key) = pair(algorithm);
        assert_eq!(check_client_certificate(&client(&certificate, &key)), Ok(()), "{algorithm:?}");
    }
}

#[test]
fn errors_name_nothing_of_what_they_are_about() {
    let (certificate, key) = pair(&PKCS_ED25519);
    for (chain, key) in [
        (&*certificate, "-----BEGIN swordfish"),
        (&certificate, "-----BEGIN PRIVATE KEY-----\nswordfish"),
        (&certificate, "-----BEGIN PRIVATE KEY-----\nsword!fish\n-----END PRIVATE KEY-----\n"),
        ("-----BEGIN swordfish", &key),
    ] {
        let error = check_client_certificate(&client(chain, key)).unwrap_err();
        let printed = format!("{error} {error:?}");
        assert!(!printed.contains("sword") && !printed.contains(key.lines().nth(1).unwrap_or("sword")), "{printed}");
    }
}

#[test]
fn identities_are_the_same_if_all_their_parts_are() {
    let pem = |text: &str| -> Redacted<String> { text.to_owned().into() };
    let identity = |authorities: Option<&str>, client_parts: Option<(&str, &str)>| {
        Identity::new(TlsIdentity {
            authorities: authorities.map(pem),
            client: client_parts.map(|(chain, key)| client(chain, key)),
        })
    };
    let different = [
        identity(Some("a"), None),
        identity(Some("b"), None),
        identity(None, Some(("a", ""))),
        identity(None, Some(("", "a"))),
        identity(Some(""), Some(("a", ""))),
        identity(Some("a"), Some(("b", "c"))),
        identity(Some("a"), Some(("bc", ""))),
        identity(Some("ab"), Some(("", "c"))),
    ];
    for (index, one) in different.iter().enumerate() {
        assert_eq!(format!("{one:?}"), "Identity([redacted])");
        for (other_index, other) in different.iter().enumerate() {
            assert_eq!(one.fingerprint == other.fingerprint, index == other_index, "{index}, {other_index}");
        }
    }
    assert!(identity(Some("a"), None).fingerprint == different[0].fingerprint);
}
