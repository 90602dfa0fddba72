//! Endpoints whose requests carry an access token that has to be asked for.

use std::sync::Arc;

use crds::condition::{ConditionType, Reason};
use dispatcher_core::table::ClientAuthentication;
use operator::world::SecretState;

use crate::fixtures::{Harness, KEY, good, word};

const CLIENT_SECRET: &str = "clientSecretSecretKeyRef: {name: keys, key: key}";

/// A good endpoint with these fields of the grant, whose client secret is the value of `keys`.
fn granted(fields: &str) -> String {
    good(&format!("auth: {{type: OAuth2, oauth2: {{{fields}}}}}"))
}

fn usual(more: &str) -> String {
    granted(&format!("tokenUrl: 'https://login.example.com/token', clientId: hooks, {CLIENT_SECRET}{more}"))
}

#[test]
fn the_source_of_tokens_is_sealed_and_no_header_is_set() {
    let mut harness = Harness::of(&usual(""));
    assert_eq!(harness.ready(), word(Reason::Programmed));
    let secrets = harness.secrets("e");
    let token = secrets.token.unwrap();
    assert_eq!(token.url.expose(), "https://login.example.com/token");
    assert_eq!((token.client_id.expose().as_str(), token.client_secret.expose().as_str()), ("hooks", KEY));
    assert_eq!(token.authentication, ClientAuthentication::Basic);
    assert_eq!((token.scopes.len(), token.audience), (0, None));
    assert!(secrets.headers.is_empty(), "{:?}", secrets.headers);
}

#[test]
fn everything_that_a_grant_can_say_arrives() {
    let mut harness = Harness::of(&granted(&format!(
        "tokenUrl: 'https://login.example.com/token?tenant=a', clientIdSecretKeyRef: {{name: keys, key: key}}, {CLIENT_SECRET}, \
         clientAuthentication: Post, scopes: [b, a], audience: 'https://api.example.com'"
    )));
    assert_eq!(harness.ready(), word(Reason::Programmed));
    let token = harness.secrets("e").token.unwrap();
    assert_eq!(token.url.expose(), "https://login.example.com/token?tenant=a");
    assert_eq!(token.client_id.expose(), KEY);
    assert_eq!(token.authentication, ClientAuthentication::Post);
    assert_eq!((token.scopes, token.audience), (vec!["b".into(), "a".into()], Some("https://api.example.com".into())));
}

#[test]
fn every_problem_of_a_grant_has_its_reason_and_its_field() {
    let with_url = |url: &str| usual("").replace("https://login.example.com/token", url);
    let with_secret = |value: &str| usual("").replace(KEY, value);
    let absent = |key: &str| usual("").replace(CLIENT_SECRET, &format!("clientSecretSecretKeyRef: {key}"));
    for (text, reason, field) in [
        (with_url("http://login.example.com/token"), Reason::AddressBlocked, "spec.auth.oauth2.tokenUrl"),
        (with_url("https://127.0.0.1/token"), Reason::AddressBlocked, "spec.auth.oauth2.tokenUrl"),
        (with_url("https://0xa9fea9fe/token"), Reason::AddressBlocked, "spec.auth.oauth2.tokenUrl"),
        (with_url("https://idp.default.svc/token"), Reason::AddressBlocked, "spec.auth.oauth2.tokenUrl"),
        (absent("{name: absent, key: key}"), Reason::SecretNotFound, "spec.auth.oauth2.clientSecretSecretKeyRef.name"),
        (
            absent("{name: keys, key: absent}"),
            Reason::SecretKeyMissing,
            "spec.auth.oauth2.clientSecretSecretKeyRef.key",
        ),
        (
            usual("").replace("clientId: hooks", "clientIdSecretKeyRef: {name: keys, key: absent}"),
            Reason::SecretKeyMissing,
            "spec.auth.oauth2.clientIdSecretKeyRef.key",
        ),
        (
            with_secret("a-secret-with-a-line-break\\n"),
            Reason::SecretKeyMissing,
            "spec.auth.oauth2.clientSecretSecretKeyRef",
        ),
        (with_secret("ein-größeres-geheimnis"), Reason::SecretKeyMissing, "spec.auth.oauth2.clientSecretSecretKeyRef"),
    ] {
        let mut harness = Harness::of(&text);
        assert_eq!(harness.ready(), word(reason), "{text}");
        let message = &harness.endpoint_condition("e", ConditionType::Ready).message;
        assert!(message.contains(field), "{field}: {message}");
        assert!(!message.contains("line-break") && !message.contains("geheimnis"), "{message}");
        assert!(harness.row("e").is_none(), "{text}");
    }
}

#[test]
fn a_rotated_client_secret_is_another_revision_and_a_missing_one_holds_the_endpoint() {
    let mut harness = Harness::of(&usual(""));
    harness.settle();
    let before = harness.row("e").unwrap().revision.clone();
    harness.change(&usual("").replace(KEY, "second-key-second-key-second"));
    harness.settle();
    assert_ne!(harness.row("e").unwrap().revision, before);
    assert_eq!(harness.secrets("e").token.unwrap().client_secret.expose(), "second-key-second-key-second");
    harness.world.secrets.insert("shop", "keys", SecretState::Forbidden);
    assert_eq!(harness.ready(), word(Reason::SecretForbidden));
}

#[test]
fn a_grant_that_another_releases_schema_admitted_is_refused_here() {
    let mut harness = Harness::of(&usual(""));
    Arc::make_mut(&mut harness.world.endpoints[0]).spec.auth.as_mut().unwrap().oauth2 = None;
    assert_eq!(harness.ready(), word(Reason::InvalidSpec));
}
