//! What tokens prove: every wrong one is refused for its reason, whatever else is right about it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use dispatcher::access::keys::{KeySet, KeySetError};
use dispatcher::access::token::Presented;
use dispatcher::access::verify::{ClaimName, Grant, Rules, ScopeSource, TenantSource, verify};
use dispatcher::access::{AccessError, Principal, Tenants};
use dispatcher_core::limits::{JWKS_BYTES_MAX, JWKS_KEYS_MAX, TOKEN_AUDIENCES_MAX, TOKEN_TENANTS_MAX};
use dispatcher_core::scope::Scopes;
use dispatcher_core::table::ServiceAccountRules;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::signer::{Signer, changed, encoded, jwks};

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://login.example.com";

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "harborhook", "sub": "producer", "exp": NOW + 600, "iat": NOW, "nbf": NOW,
        "tenant": "shop", "scope": "publish read",
    })
}

fn rules() -> Rules {
    let (tenants, scopes) = (ClaimName("tenant".to_owned()), ClaimName("scope".to_owned()));
    Rules {
        issuer: ISSUER.to_owned(),
        audiences: vec!["harborhook".to_owned(), "hooks".to_owned()],
        grant: Grant::Configured {
            tenants: TenantSource::Claim(tenants),
            scopes: ScopeSource::Claim { name: scopes, meaning: None },
        },
    }
}

fn keys(signers: &[&Signer]) -> KeySet {
    KeySet::read(jwks(signers).to_string().as_bytes()).unwrap()
}

fn judge(token: &str, rules: &Rules, keys: &KeySet) -> Result<Principal, AccessError> {
    verify(&Presented::read(token)?, rules, keys, NOW)
}

fn scopes(text: &str) -> Scopes {
    text.parse().unwrap()
}

#[test]
fn a_token_of_every_supported_algorithm_proves_what_it_says() {
    for signer in [Signer::rsa("a"), Signer::ecdsa("a"), Signer::ed25519("a")] {
        let principal = judge(&signer.token(&claims()), &rules(), &keys(&[&signer]));
        let expected = Principal {
            subject: "producer".to_owned(),
            tenants: Tenants::Named(vec!["shop".to_owned()]),
            scopes: scopes("publish,read"),
            expires_unix_seconds: NOW + 630,
        };
        assert_eq!(principal, Ok(expected), "{}", signer.alg());
    }
}

#[test]
fn no_token_brings_or_chooses_the_key_that_it_is_verified_by() {
    let (ours, theirs) = (Signer::rsa("a"), Signer::rsa("a"));
    let set = keys(&[&ours]);
    let refused = |token: &str, expected| assert_eq!(judge(token, &rules(), &set), Err(expected), "{token}");
    // Another pair under the name of ours, with its public key in the header.
    refused(&theirs.token(&claims()), AccessError::WrongSignature);
    let header = json!({"alg": "RS256", "kid": "a", "jwk": theirs.jwk(), "jku": "https://evil.example/keys"});
    refused(&theirs.sign(&header, &claims()), AccessError::WrongSignature);
    // The public key as the secret of a symmetric signature.
    let message = format!("{}.{}", encoded(&json!({"alg": "HS256", "kid": "a"})), encoded(&claims()));
    let n = BASE64URL.decode(ours.jwk()["n"].as_str().unwrap()).unwrap();
    let mac = jsonwebtoken::crypto::sign(message.as_bytes(), &EncodingKey::from_secret(&n), Algorithm::HS256).unwrap();
    refused(&format!("{message}.{mac}"), AccessError::UnsupportedAlgorithm);
    // No signature at all.
    for alg in ["none", "NONE", "nOnE"] {
        let message = format!("{}.{}", encoded(&json!({"alg": alg})), encoded(&claims()));
        refused(&format!("{message}."), AccessError::UnsupportedAlgorithm);
    }
    let token = ours.token(&claims());
    let (message, signature) = token.rsplit_once('.').unwrap();
    refused(&format!("{message}."), AccessError::WrongSignature);
    refused(&format!("{message}.{}", &signature[..40]), AccessError::WrongSignature);
    refused(&format!("{message}.not*base64"), AccessError::WrongSignature);
    // A key of another kind than the algorithm, under a name that is known.
    let other = Signer::ecdsa("a");
    refused(&other.token(&claims()), AccessError::UnknownKey);
    refused(&other.sign(&json!({"alg": "RS256", "kid": "a"}), &claims()), AccessError::WrongSignature);
}

#[test]
fn any_changed_byte_of_a_token_is_noticed() {
    let signer = Signer::ed25519("a");
    let (token, set) = (signer.token(&claims()), keys(&[&signer]));
    for position in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
        let text = String::from_utf8(bytes).unwrap();
        // The last letter of a part holds bits that count for nothing; a decoder that took them would verify it.
        assert!(judge(&text, &rules(), &set).is_err(), "{position}");
    }
}

#[test]
fn a_token_without_a_key_name_can_only_mean_the_only_key() {
    let (first, second) = (Signer::ecdsa("a"), Signer::ed25519("b"));
    let nameless = second.sign(&json!({"alg": "EdDSA"}), &claims());
    assert!(judge(&nameless, &rules(), &keys(&[&second])).is_ok());
    assert_eq!(judge(&nameless, &rules(), &keys(&[&first, &second])), Err(AccessError::AmbiguousKey));
    assert_eq!(judge(&nameless, &rules(), &keys(&[&first])), Err(AccessError::UnknownKey));
    let named = second.token(&claims());
    assert!(judge(&named, &rules(), &keys(&[&first, &second])).is_ok());
    assert_eq!(judge(&named, &rules(), &keys(&[&first])), Err(AccessError::UnknownKey));
}

#[test]
fn claims_are_what_they_have_to_be() {
    let signer = Signer::ed25519("a");
    let set = keys(&[&signer]);
    let many = vec!["other"; TOKEN_AUDIENCES_MAX + 1];
    for (changes, expected) in [
        (json!({}), None),
        (json!({"iss": "https://login.example.com/"}), Some(AccessError::UnknownIssuer)),
        (json!({"iss": null}), Some(AccessError::UnknownIssuer)),
        (json!({"iss": [ISSUER]}), Some(AccessError::UnknownIssuer)),
        (json!({"aud": ["other", "hooks"]}), None),
        (json!({"aud": ["other"]}), Some(AccessError::WrongAudience)),
        (json!({"aud": "Harborhook"}), Some(AccessError::WrongAudience)),
        (json!({"aud": []}), Some(AccessError::WrongAudience)),
        (json!({"aud": null}), Some(AccessError::WrongAudience)),
        (json!({"aud": {"harborhook": true}}), Some(AccessError::WrongAudience)),
        (json!({"aud": many}), Some(AccessError::InvalidClaim)),
        (json!({"exp": NOW - 29}), None),
        (json!({"exp": NOW - 30}), Some(AccessError::Expired)),
        (json!({"exp": 0}), Some(AccessError::Expired)),
        (json!({"exp": f64::from(u32::try_from(NOW).unwrap()) + 0.5}), None),
        (json!({"exp": u64::MAX}), None),
        (json!({"exp": null}), Some(AccessError::InvalidClaim)),
        (json!({"exp": (NOW + 600).to_string()}), Some(AccessError::InvalidClaim)),
        (json!({"exp": -1}), Some(AccessError::InvalidClaim)),
        (json!({"exp": 1e300}), Some(AccessError::InvalidClaim)),
        (json!({"nbf": NOW + 30}), None),
        (json!({"nbf": NOW + 31}), Some(AccessError::NotYetValid)),
        (json!({"nbf": "soon"}), Some(AccessError::InvalidClaim)),
        (json!({"nbf": null, "iat": null}), None),
        (json!({"iat": NOW + 31}), Some(AccessError::NotYetValid)),
        (json!({"sub": null}), Some(AccessError::InvalidClaim)),
        (json!({"sub": ""}), Some(AccessError::InvalidClaim)),
        (json!({"sub": 7}), Some(AccessError::InvalidClaim)),
        (json!({"sub": "x".repeat(1025)}), Some(AccessError::InvalidClaim)),
        (json!({"tenant": null}), Some(AccessError::NoTenant)),
        (json!({"tenant": ""}), Some(AccessError::NoTenant)),
        (json!({"tenant": 1}), Some(AccessError::NoTenant)),
        (json!({"tenant": []}), Some(AccessError::NoTenant)),
        (json!({"tenant": ["shop", 1]}), Some(AccessError::NoTenant)),
        (json!({"tenant": vec!["a"; TOKEN_TENANTS_MAX + 1]}), Some(AccessError::NoTenant)),
    ] {
        let claims = changed(&claims(), &changes);
        assert_eq!(judge(&signer.token(&claims), &rules(), &set).err(), expected, "{changes}");
    }
}

#[test]
fn nothing_is_said_about_claims_that_are_not_signed() {
    let (ours, theirs) = (Signer::ed25519("a"), Signer::ed25519("a"));
    for changes in [json!({"exp": 0}), json!({"aud": "other"}), json!({"tenant": null})] {
        let token = theirs.token(&changed(&claims(), &changes));
        assert_eq!(judge(&token, &rules(), &keys(&[&ours])), Err(AccessError::WrongSignature));
    }
}

#[test]
fn tenants_and_scopes_come_from_where_the_rules_say() {
    let signer = Signer::ed25519("a");
    let claim = |name: &str| ClaimName(name.to_owned());
    let by = |name: &str| TenantSource::Claim(claim(name));
    let ours = ScopeSource::Claim { name: claim("scope"), meaning: None };
    let mapped = |name: &str| ScopeSource::Claim {
        name: claim(name),
        meaning: Some(BTreeMap::from([
            ("hooks:write".to_owned(), scopes("publish,read")),
            ("ops".to_owned(), scopes("replay")),
        ])),
    };
    let named = |names: &[&str]| Tenants::Named(names.iter().map(|name| (*name).to_owned()).collect());
    let extra = json!({
        "tenants": ["shop", "bank"], "https://example.com/tenant": "shop", "a/b": {"c~d": ["shop"]},
        "realm_access": {"roles": ["ops", "hooks:write", "admin", 7]}, "scp": "ops unknown", "*": "*",
    });
    for (tenants, scope_source, expected) in [
        (by("tenant"), ours.clone(), (named(&["shop"]), "publish,read")),
        (by("tenants"), ours.clone(), (named(&["shop", "bank"]), "publish,read")),
        (by("https://example.com/tenant"), ours.clone(), (named(&["shop"]), "publish,read")),
        (by("/a~1b/c~0d"), ours.clone(), (named(&["shop"]), "publish,read")),
        (by("*"), ours.clone(), (named(&["*"]), "publish,read")),
        (TenantSource::Any, ScopeSource::Fixed(scopes("read")), (Tenants::Any, "read")),
        (TenantSource::Named("bank".to_owned()), mapped("scp"), (named(&["bank"]), "replay")),
        (TenantSource::Any, mapped("/realm_access/roles"), (Tenants::Any, "publish,read,replay")),
    ] {
        let grant = Grant::Configured { tenants, scopes: scope_source };
        let rules = Rules { grant, ..rules() };
        let token = signer.token(&changed(&claims(), &extra));
        let principal = judge(&token, &rules, &keys(&[&signer])).unwrap();
        assert_eq!((principal.tenants, principal.scopes), (expected.0, scopes(expected.1)), "{:?}", rules.grant);
    }
    let grant = Grant::Configured { tenants: TenantSource::Any, scopes: mapped("missing") };
    let nothing = judge(&signer.token(&claims()), &Rules { grant, ..rules() }, &keys(&[&signer])).unwrap();
    assert_eq!(nothing.scopes, Scopes::NONE);
    assert!(!named(&["*"]).include("shop"), "a star in a token is a name like any other");
}

/// The claims of a token as an API server writes them.
pub(super) fn service_account_claims(namespace: &str, account: &str) -> Value {
    json!({
        "aud": ["harborhook"], "exp": NOW + 600, "iat": NOW, "nbf": NOW, "iss": ISSUER, "jti": "1",
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
        "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": "1"}},
    })
}

#[test]
fn the_tenant_of_a_service_account_is_its_namespace_if_all_claims_agree() {
    let signer = Signer::rsa("a");
    let set = keys(&[&signer]);
    let accounts =
        ServiceAccountRules { grants: vec!["shop/reader=read".parse().unwrap()], ..ServiceAccountRules::default() };
    let rules = Rules { grant: Grant::ServiceAccount(accounts), ..rules() };
    // The API server writes no type.
    let header = json!({"alg": "RS256", "kid": "a"});
    for (account, expected) in [("producer", "publish"), ("reader", "publish,read")] {
        let token = signer.sign(&header, &service_account_claims("shop", account));
        let principal = judge(&token, &rules, &set).unwrap();
        assert_eq!(principal.tenants, Tenants::Named(vec!["shop".to_owned()]));
        assert_eq!(principal.scopes, scopes(expected), "{account}");
    }
    let told = |namespace: &str, name: &str| json!({"namespace": namespace, "serviceaccount": {"name": name}});
    for changes in [
        json!({"sub": "system:serviceaccount:bank:producer"}),
        json!({"sub": "system:serviceaccount:shop:other"}),
        json!({"sub": "system:serviceaccount:shop"}),
        json!({"sub": "producer"}),
        json!({"kubernetes.io": null}),
        json!({"kubernetes.io": "shop"}),
        json!({"kubernetes.io": {"namespace": "shop"}}),
        json!({"kubernetes.io": {"serviceaccount": {"name": "producer"}}}),
        json!({"kubernetes.io": told("bank", "producer")}),
        json!({"kubernetes.io": told("", "producer"), "sub": "system:serviceaccount::producer"}),
        json!({"kubernetes.io": {"namespace": ["shop"], "serviceaccount": {"name": "producer"}}}),
    ] {
        let claims = changed(&service_account_claims("shop", "producer"), &changes);
        assert_eq!(judge(&signer.sign(&header, &claims), &rules, &set), Err(AccessError::NoTenant), "{changes}");
    }
}

#[test]
fn a_key_set_keeps_what_verifies_and_passes_over_the_rest() {
    let (rsa, ecdsa, ed25519) = (Signer::rsa("r"), Signer::ecdsa("e"), Signer::ed25519("d"));
    let with = |name: &str, value: Value| changed(&rsa.jwk(), &json!({ name: value }));
    let weak = BASE64URL.encode([0xff; 128]);
    let useless = [
        json!({"kty": "oct", "k": "c2VjcmV0", "kid": "r"}),
        json!({"kty": "EC", "crv": "P-384", "kid": "r", "x": "AA", "y": "AA"}),
        changed(&ecdsa.jwk(), &json!({"x": "AA"})),
        changed(&ed25519.jwk(), &json!({"x": "AA"})),
        with("use", json!("enc")),
        with("key_ops", json!(["sign"])),
        with("alg", json!("RS512")),
        with("n", json!(weak)),
        with("n", json!("not base64!")),
        with("n", Value::Null),
        with("kid", json!(7)),
        json!("a key"),
        json!({}),
    ];
    for key in &useless {
        let set = json!({"keys": [key]}).to_string();
        assert_eq!(KeySet::read(set.as_bytes()), Err(KeySetError::NoUsableKey), "{key}");
    }
    let mut all = useless.to_vec();
    all.extend([rsa.jwk(), ecdsa.jwk(), ed25519.jwk(), with("use", Value::Null)]);
    let set = KeySet::read(json!({"keys": all, "next": "x"}).to_string().as_bytes()).unwrap();
    for signer in [&rsa, &ecdsa, &ed25519] {
        assert!(judge(&signer.token(&claims()), &rules(), &set).is_ok(), "{}", signer.alg());
    }
    assert_eq!(set, keys(&[&rsa, &ecdsa, &ed25519]));
    assert_ne!(set, keys(&[&rsa, &ecdsa]));
}

#[test]
fn what_is_no_key_set_is_refused() {
    let many = json!({"keys": vec![json!({}); JWKS_KEYS_MAX + 1]}).to_string();
    let private = json!({"keys": [changed(&Signer::ed25519("a").jwk(), &json!({"d": "AA"}))]}).to_string();
    assert_eq!(KeySet::read(many.as_bytes()), Err(KeySetError::TooManyKeys));
    assert_eq!(KeySet::read(private.as_bytes()), Err(KeySetError::Private));
    assert_eq!(KeySet::read(&vec![b' '; JWKS_BYTES_MAX + 1]), Err(KeySetError::TooLarge));
    for text in ["", "[]", "<html>", "{}", r#"{"keys":{}}"#] {
        assert!(matches!(KeySet::read(text.as_bytes()), Err(KeySetError::Malformed(_))), "{text}");
    }
}
