//! TLS identities against receivers that speak TLS, on loopback.

use std::time::Duration;

use bytes::Bytes;
use dispatcher::http::identity::IdentityErrorReason;
use dispatcher::http::{Client, Exchange, Identity, NotMade, Request};
use dispatcher_core::delivery::Outcome;
use dispatcher_core::table::TlsIdentity;
use http::HeaderMap;
use rcgen::{BasicConstraints, IsCa};
use url::Url;

use super::client;
use crate::authority::{Authority, Pair, TlsReceiver, VERSIONS, certificate, valid_between};

/// Longer than any handshake here takes.
const DEADLINE: Duration = Duration::from_secs(20);

async fn try_to_post(
    client: &Client,
    url: &str,
    identity: Option<&Identity>,
    body: Bytes,
) -> Result<Exchange, NotMade> {
    let url = Url::parse(url).unwrap();
    client.exchange(Request { url: &url, identity, headers: HeaderMap::new(), body, deadline: DEADLINE }).await
}

async fn post(client: &Client, url: &str, identity: Option<&Identity>) -> Exchange {
    try_to_post(client, url, identity, Bytes::from_static(b"{}")).await.unwrap()
}

/// What a failure of TLS says of itself.
fn told(exchange: &Exchange) -> String {
    assert_eq!((exchange.outcome, exchange.status_code), (Outcome::TlsError, None), "{exchange:?}");
    let excerpt = String::from_utf8(exchange.excerpt.to_vec()).unwrap();
    assert!(!excerpt.contains("hunter2") && !excerpt.contains("-----BEGIN"), "{excerpt}");
    excerpt
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_named_and_nowhere_else() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let receiver = TlsReceiver::start(&ours.issue(&certificate(&["127.0.0.1"])), None, &VERSIONS);
    let client = client();
    let (trusting, mistrusting) = (Identity::new(ours.trusted()), Identity::new(other.trusted()));
    assert_eq!(post(&client, &receiver.url(), Some(&trusting)).await.outcome, Outcome::Delivered);
    // Neither the system nor another identity trusts it, though a client that does is there.
    for identity in [None, Some(&mistrusting)] {
        let excerpt = told(&post(&client, &receiver.url(), identity).await);
        assert!(excerpt.contains("UnknownIssuer") && excerpt.contains("name the authority"), "{excerpt}");
    }
    let both = TlsIdentity { authorities: Some((other.pem() + &ours.pem()).into()), client: None };
    assert_eq!(post(&client, &receiver.url(), Some(&Identity::new(both))).await.outcome, Outcome::Delivered);
    assert_eq!(receiver.seen().len(), 2);
}

#[tokio::test]
async fn a_certificate_that_is_not_right_for_the_receiver_says_why() {
    let authority = Authority::new("ours");
    let identity = Identity::new(authority.trusted());
    let client = client();
    for (params, host, expected) in [
        (certificate(&["127.0.0.1"]), "localhost", ["not valid for name \"localhost\"", "use a name"]),
        (certificate(&["hooks.example.com"]), "127.0.0.1", ["hooks.example.com", "use a name"]),
        (certificate(&[]), "127.0.0.1", ["not valid for any names", "use a name"]),
        (valid_between(2001, 2002), "127.0.0.1", ["certificate expired", "renewed"]),
        (valid_between(3001, 3002), "127.0.0.1", ["certificate not valid yet", "clocks"]),
    ] {
        let receiver = TlsReceiver::start(&authority.issue(&params), None, &VERSIONS);
        let url = receiver.url().replace("127.0.0.1", host);
        let excerpt = told(&post(&client, &url, Some(&identity)).await);
        assert!(expected.iter().all(|text| excerpt.contains(text)), "{expected:?}: {excerpt}");
        assert_eq!(receiver.seen(), []);
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_its_own_authority_unless_it_is_one_for_others() {
    let client = client();
    let (plain, mut authority) = (certificate(&["127.0.0.1"]), certificate(&["127.0.0.1"]));
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for (params, expected) in [(plain, None), (authority, Some("CaUsedAsEndEntity"))] {
        let pair = Pair::self_signed(&params);
        let receiver = TlsReceiver::start(&pair, None, &VERSIONS);
        let pinned = TlsIdentity { authorities: Some(pair.chain_pem.clone().into()), client: None };
        let exchange = post(&client, &receiver.url(), Some(&Identity::new(pinned))).await;
        match expected {
            None => assert_eq!(exchange.outcome, Outcome::Delivered, "{exchange:?}"),
            Some(text) => assert!(told(&exchange).contains(text), "{exchange:?}"),
        }
    }
}

#[tokio::test]
async fn a_client_certificate_is_presented_where_it_is_demanded() {
    let authority = Authority::new("ours");
    let server = authority.issue(&certificate(&["127.0.0.1"]));
    let ours = authority.issue(&certificate(&[]));
    let client = client();
    for version in VERSIONS {
        let receiver = TlsReceiver::start(&server, Some(&authority), &[version]);
        let identity = Identity::new(authority.trusted_with(&ours));
        let exchange = post(&client, &receiver.url(), Some(&identity)).await;
        assert_eq!(exchange.outcome, Outcome::Delivered, "{version:?}: {exchange:?}");
        assert!(receiver.was_shown(&ours), "{version:?}");
    }
}

/// In TLS 1.3 the receiver refuses after the client has ended its handshake, and perhaps written its request.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_client_certificate_is_a_tls_error_whenever_the_refusal_comes() {
    let (authority, other) = (Authority::new("ours"), Authority::new("other"));
    let server = authority.issue(&certificate(&["127.0.0.1"]));
    let nobody = Identity::new(authority.trusted());
    let stranger = Identity::new(authority.trusted_with(&other.issue(&certificate(&[]))));
    let client = client();
    for version in VERSIONS {
        let receiver = TlsReceiver::start(&server, Some(&authority), &[version]);
        for body in [Bytes::from_static(b"{}"), vec![b'x'; 1024 * 1024].into()] {
            for identity in [&nobody, &stranger] {
                for _ in 0..25 {
                    let exchange = try_to_post(&client, &receiver.url(), Some(identity), body.clone()).await.unwrap();
                    let excerpt = told(&exchange);
                    assert!(excerpt.contains("client certificate"), "{version:?}, {} bytes: {excerpt}", body.len());
                }
            }
        }
        assert_eq!(receiver.seen(), []);
    }
}

#[tokio::test]
async fn identities_never_share_a_connection_and_equal_ones_do() {
    let authority = Authority::new("ours");
    let receiver = TlsReceiver::start(&authority.issue(&certificate(&["127.0.0.1"])), None, &VERSIONS);
    let (one, two) = (authority.issue(&certificate(&[])), authority.issue(&certificate(&[])));
    let identity = |tls: TlsIdentity| Identity::new(tls);
    let client = client();
    let order = [
        (1, identity(authority.trusted())),
        (2, identity(authority.trusted_with(&one))),
        (3, identity(authority.trusted_with(&two))),
        (1, identity(authority.trusted())),
        (2, identity(authority.trusted_with(&one))),
        (3, identity(authority.trusted_with(&two))),
    ];
    for (connection, identity) in &order {
        assert_eq!(post(&client, &receiver.url(), Some(identity)).await.outcome, Outcome::Delivered);
        assert_eq!(receiver.seen().last().unwrap().connection, *connection);
    }
}

#[tokio::test]
async fn the_guards_of_addresses_hold_for_identities_too() {
    let authority = Authority::new("ours");
    let identity = Identity::new(authority.trusted());
    for url in ["https://10.0.0.1/", "https://[::ffff:a9fe:a9fe]/", "https://kubernetes.default.svc/"] {
        assert_eq!(post(&client(), url, Some(&identity)).await.outcome, Outcome::AddressBlocked, "{url}");
    }
}

#[tokio::test]
async fn an_identity_that_cannot_be_used_makes_no_attempt_and_tells_no_secret() {
    let authority = Authority::new("ours");
    let (one, two) = (authority.issue(&certificate(&[])), authority.issue(&certificate(&[])));
    let mut mixed = authority.trusted_with(&one);
    if let Some(client) = &mut mixed.client {
        client.key = two.key_pem().into();
    }
    let receiver = TlsReceiver::start(&authority.issue(&certificate(&["127.0.0.1"])), None, &VERSIONS);
    let (client, identity) = (client(), Identity::new(mixed));
    let secret = two.key_pem().lines().nth(1).unwrap().to_owned();
    for _ in 0..2 {
        let error = try_to_post(&client, &receiver.url(), Some(&identity), Bytes::new()).await.unwrap_err();
        let NotMade::Identity(reason) = error else { panic!("{error:?}") };
        assert_eq!(reason.reason, IdentityErrorReason::KeyMismatch);
        for printed in [format!("{error} {error:?}"), format!("{identity:?}"), format!("{client:?}")] {
            assert!(!printed.contains(&secret) && !printed.contains("BEGIN"), "{printed}");
        }
    }
    assert_eq!(receiver.seen(), []);
}
