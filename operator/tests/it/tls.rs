//! Certificate authorities and client certificates of endpoints.

use crds::condition::{ConditionType, Reason};
use operator::world::SecretState;
use rcgen::{CertificateParams, KeyPair};

use crate::fixtures::{Harness, KEY, SIGNING, endpoint, secret, word};

const BOTH: &str =
    "tls: {caSecretKeyRef: {name: authorities, key: ca.crt}, clientCertificateSecretRef: {name: client}}";

/// A certificate and its key, PEM.
fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    (CertificateParams::default().self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A Secret in the namespace `shop`.
fn secret_of(name: &str, values: &[(&str, &str)]) -> String {
    let values = values.iter().map(|(key, value)| format!("  {key}: {value:?}\n")).collect::<Vec<_>>().concat();
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\ntype: Opaque\nstringData:\n{values}"
    )
}

/// The endpoint `e` with both parts of an identity, and its Secrets with these values.
fn world(authorities: &str, chain: &str, key: &str) -> String {
    [
        secret(KEY),
        secret_of("authorities", &[("ca.crt", authorities)]),
        secret_of("client", &[("tls.crt", chain), ("tls.key", key)]),
        endpoint(&format!("url: https://example.com/hook\n{SIGNING}\n{BOTH}")),
    ]
    .concat()
}

#[test]
fn an_identity_is_read_from_its_secrets_and_sealed() {
    let ((authority, _), (chain, key)) = (pair(), pair());
    let mut harness = Harness::of(&world(&authority, &chain, &key));
    assert_eq!(harness.ready(), word(Reason::Programmed));
    let tls = harness.secrets("e").tls.unwrap();
    let client = tls.client.unwrap();
    assert_eq!(tls.authorities.unwrap().expose(), &authority);
    assert_eq!((client.chain.expose(), client.key.expose()), (&chain, &key));

    for (spec, has_authorities) in [
        ("tls: {caSecretKeyRef: {name: authorities, key: ca.crt}}", true),
        ("tls: {clientCertificateSecretRef: {name: client}}", false),
    ] {
        harness.change(&world(&authority, &chain, &key).replace(BOTH, spec));
        assert_eq!(harness.ready(), word(Reason::Programmed), "{spec}");
        let tls = harness.secrets("e").tls.unwrap();
        assert_eq!((tls.authorities.is_some(), tls.client.is_none()), (has_authorities, has_authorities), "{spec}");
    }
}

#[test]
fn a_changed_certificate_changes_the_row_and_its_revision() {
    let ((authority, _), (chain, key), (next_chain, next_key)) = (pair(), pair(), pair());
    let mut harness = Harness::of(&world(&authority, &chain, &key));
    harness.settle();
    let mut before = harness.row("e").unwrap().clone();
    for text in [world(&authority, &next_chain, &next_key), world(&pair().0, &next_chain, &next_key)] {
        harness.change(&text);
        assert_eq!(harness.ready(), word(Reason::Programmed));
        let row = harness.row("e").unwrap();
        assert!(row.revision != before.revision && row.sealed != before.sealed);
        before = row.clone();
    }
}

#[test]
fn what_is_wrong_with_a_secret_is_said_with_what_to_do_and_without_the_secret() {
    let ((authority, _), (chain, key), (_, other_key)) = (pair(), pair(), pair());
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nc3dvcmRmaXNo\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let cut = key.replace("-----END PRIVATE KEY-----", "");
    let large = " ".repeat(300 * 1024);
    for (authorities, chain, key, expected) in [
        ("swordfish", &*chain, &*key, ["ca.crt in Secret authorities", "BEGIN CERTIFICATE"]),
        (&authority[..99], &chain, &key, ["ca.crt in Secret authorities", "broken PEM"]),
        (&key, &chain, &key, ["ca.crt in Secret authorities", "leave only certificates"]),
        (&large, &chain, &key, ["ca.crt in Secret authorities", "262144 bytes"]),
        (&authority, "swordfish", &key, ["tls.crt in Secret client", "BEGIN CERTIFICATE"]),
        (&authority, &key, &chain, ["tls.crt in Secret client", "leave only certificates"]),
        (&authority, &chain, "swordfish", ["tls.key in Secret client", "BEGIN PRIVATE KEY"]),
        (&authority, &chain, &cut, ["tls.key in Secret client", "broken PEM"]),
        (&authority, &chain, &other_key, ["tls.key in Secret client", "both of one pair"]),
        (&authority, &chain, encrypted, ["tls.key in Secret client", "store it decrypted"]),
    ] {
        let mut harness = Harness::of(&world(authorities, chain, key));
        assert_eq!(harness.ready(), word(Reason::SecretKeyMissing), "{expected:?}");
        assert!(harness.row("e").is_none(), "{expected:?}");
        for type_ in [ConditionType::Ready, ConditionType::ResolvedRefs] {
            let message = &harness.endpoint_condition("e", type_).message;
            assert!(expected.iter().all(|text| message.contains(text)), "{expected:?}: {message}");
            let secret_lines = [authorities, chain, key].into_iter().flat_map(str::lines);
            let mut secret_lines = secret_lines.filter(|line| !line.starts_with("-----") && !line.trim().is_empty());
            assert!(secret_lines.all(|line| !message.contains(line)), "{message}");
        }
    }
}

#[test]
fn a_secret_that_is_not_there_is_found_once_it_is() {
    let ((authority, _), (chain, key)) = (pair(), pair());
    let good = world(&authority, &chain, &key);
    for (text, reason, expected) in [
        (good.replace("{name: authorities, n", "{name: elsewhere, n"), Reason::SecretNotFound, "Secret authorities"),
        (good.replace("{name: client, n", "{name: elsewhere, n"), Reason::SecretNotFound, "Secret client"),
        (good.replace("  ca.crt:", "  other.crt:"), Reason::SecretKeyMissing, "no key ca.crt"),
        (good.replace("  tls.crt:", "  other.crt:"), Reason::SecretKeyMissing, "no key tls.crt"),
        (good.replace("  tls.key:", "  other.key:"), Reason::SecretKeyMissing, "no key tls.key"),
    ] {
        let mut harness = Harness::of(&text);
        assert_eq!(harness.ready(), word(reason), "{expected}");
        let message = &harness.endpoint_condition("e", ConditionType::Ready).message;
        assert!(message.contains(expected), "{expected}: {message}");
        harness.change(&good);
        assert_eq!(harness.ready(), word(Reason::Programmed), "{expected}");
    }
    for name in ["authorities", "client"] {
        let mut harness = Harness::of(&good);
        harness.world.secrets.insert("shop", name, SecretState::Forbidden);
        assert_eq!(harness.ready(), word(Reason::SecretForbidden), "{name}");
    }
}

#[test]
fn an_endpoint_whose_certificates_break_is_held_with_what_it_was() {
    let ((authority, _), (chain, key)) = (pair(), pair());
    let mut harness = Harness::of(&world(&authority, &chain, &key));
    harness.settle();
    let before = harness.row("e").unwrap().clone();
    harness.change(&world(&authority, &chain, &pair().1));
    assert_eq!(harness.ready(), word(Reason::SecretKeyMissing));
    let held = harness.row("e").unwrap();
    assert_eq!((&held.sealed, &held.revision), (&before.sealed, &before.revision));
    harness.change(&world(&authority, &chain, &key));
    assert_eq!(harness.ready(), word(Reason::Programmed));
    assert_eq!(harness.row("e"), Some(&before));
}

#[test]
fn a_secret_url_that_is_not_https_makes_tls_an_error() {
    let (authority, _) = pair();
    let text = world(&authority, "", "")
        .replace(BOTH, "tls: {caSecretKeyRef: {name: authorities, key: ca.crt}}")
        .replace("url: https://example.com/hook", "urlFrom: {secretKeyRef: {name: client, key: tls.crt}}")
        .replace("tls.crt: \"\"", "tls.crt: http://127.0.0.1/hook");
    let mut harness = Harness::of_development(&text);
    assert_eq!(harness.ready(), word(Reason::InvalidSpec));
    let message = &harness.endpoint_condition("e", ConditionType::Ready).message;
    assert!(message.contains("spec.tls") && message.contains("https://"), "{message}");
}
