use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderMap;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::redacted::Redacted;
use crate::table::KeyBytes;

const SCHEMES: [SigningScheme; 5] = [
    SigningScheme::StandardWebhooks,
    SigningScheme::StandardWebhooksEd25519,
    SigningScheme::HarborHook,
    SigningScheme::GitHub,
    SigningScheme::Stripe,
];
const NOW_SECONDS: i64 = 1_700_000_000;
const NOW_MS: u64 = 1_700_000_000_000;
const TOLERANCE_SECONDS: u32 = 300;

fn key(bytes: &[u8]) -> SigningKey {
    SigningKey { bytes: Redacted::new(KeyBytes(bytes.to_vec())), retires_at_unix_ms: None }
}

fn written_key(text: &str) -> SigningKey {
    SigningKey { bytes: parse_key(text.as_bytes()).unwrap().bytes, retires_at_unix_ms: None }
}

fn message(body: &[u8]) -> Message<'_> {
    Message { id: "msg_1", unix_seconds: NOW_SECONDS, body }
}

fn signed(scheme: SigningScheme, keys: &[SigningKey], message: &Message<'_>) -> HeaderMap {
    sign(scheme, keys, NOW_MS, message).unwrap().into_iter().collect()
}

fn verifying(scheme: SigningScheme, key: &SigningKey) -> VerifyingKey {
    match scheme {
        SigningScheme::StandardWebhooksEd25519 => VerifyingKey::parse(public_key(key).unwrap().as_bytes()).unwrap(),
        _ => VerifyingKey::Hmac(key.bytes.clone()),
    }
}

fn check(scheme: SigningScheme, keys: &[VerifyingKey], headers: &HeaderMap, body: &[u8]) -> Result<(), VerifyError> {
    verify(scheme, keys, headers, body, NOW_SECONDS, TOLERANCE_SECONDS)
}

#[test]
fn the_reference_vector_of_standard_webhooks_is_met() {
    let key = written_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let message =
        Message { id: "msg_p5jXN8AQM9LWM0D4loKWxJek", unix_seconds: 1_614_265_330, body: br#"{"test": 2432232314}"# };
    let headers = signed(SigningScheme::StandardWebhooks, &[key], &message);
    assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
    assert_eq!(headers["webhook-timestamp"], "1614265330");
    assert_eq!(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn the_example_of_the_github_documentation_is_met() {
    let key = written_key("It's a Secret to Everybody");
    let headers = signed(SigningScheme::GitHub, &[key], &message(b"Hello, World!"));
    let expected = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(headers["x-hub-signature-256"], expected);
    assert_eq!(headers["x-github-delivery"], "msg_1");
    assert_eq!(headers["webhook-id"], "msg_1");
}

/// RFC 4231, test cases 1, 2, 3, 6 and 7.
#[test]
fn the_hmac_vectors_of_rfc_4231_are_met() {
    let long_key = [0xaa; 131];
    let cases: [(&[u8], &[u8], &str); 5] = [
        (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (
            &long_key,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            &long_key,
            b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to \
              be hashed before being used by the HMAC algorithm.",
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    ];
    for (key_bytes, data, expected) in cases {
        let headers = signed(SigningScheme::GitHub, &[key(key_bytes)], &message(data));
        assert_eq!(headers["x-hub-signature-256"], format!("sha256={expected}"));
    }
}

/// RFC 8032, 7.1, tests 1 to 3: seed, public key, message, signature.
#[test]
fn the_ed25519_vectors_of_rfc_8032_are_met() {
    for (seed, expected_key, text, expected_signature) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ] {
        let key = key(&hex::decode(seed).unwrap());
        let public = hex::decode(expected_key).unwrap();
        assert_eq!(public_key(&key).unwrap(), format!("whpk_{}", BASE64.encode(&public)));

        let signature = keys::ed25519_key_pair(&key.bytes.expose().0).unwrap().sign(&hex::decode(text).unwrap());
        assert_eq!(hex::encode(signature.as_ref()), expected_signature);
        let written = format!("v1a,{}", BASE64.encode(signature.as_ref()));
        let public = public.try_into().unwrap();
        assert!(standard::ed25519_matches(&public, &hex::decode(text).unwrap(), written.as_bytes()));
        assert!(!standard::ed25519_matches(&public, b"another text", written.as_bytes()));
    }
}

#[test]
fn every_scheme_sends_its_headers_and_the_webhook_id() {
    let expected: [(SigningScheme, &[&str]); 5] = [
        (SigningScheme::StandardWebhooks, &["webhook-id", "webhook-timestamp", "webhook-signature"]),
        (SigningScheme::StandardWebhooksEd25519, &["webhook-id", "webhook-timestamp", "webhook-signature"]),
        (SigningScheme::HarborHook, &["webhook-id", "x-trace-id", "x-harborhook-timestamp", "x-harborhook-signature"]),
        (SigningScheme::GitHub, &["webhook-id", "x-github-delivery", "x-hub-signature-256"]),
        (SigningScheme::Stripe, &["webhook-id", "stripe-signature"]),
    ];
    for (scheme, names) in expected {
        let headers = sign(scheme, &[key(&[7; 32])], NOW_MS, &message(b"{}")).unwrap();
        let sent: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(sent, names, "{scheme:?}");
        assert_eq!(headers[0].1, "msg_1");
    }
}

#[test]
fn the_harborhook_signature_covers_body_then_timestamp() {
    let key = key(b"a key of some length");
    let headers = signed(SigningScheme::HarborHook, std::slice::from_ref(&key), &message(b"{}"));
    let github = signed(SigningScheme::GitHub, &[key], &message(b"{}1700000000"));
    assert_eq!(headers["x-harborhook-signature"], github["x-hub-signature-256"]);
    assert_eq!(headers["x-harborhook-timestamp"], "1700000000");
    assert_eq!(headers["x-trace-id"], "msg_1");
}

#[test]
fn during_a_rotation_all_keys_in_force_sign_where_the_scheme_has_a_place_for_them() {
    let retiring = |byte: u8, at: u64| SigningKey { retires_at_unix_ms: Some(at), ..key(&[byte; 32]) };
    let keys = [key(&[1; 32]), retiring(2, NOW_MS + 1), retiring(3, NOW_MS)];
    for scheme in SCHEMES {
        let headers = signed(scheme, &keys, &message(b"{}"));
        let accepted = keys.each_ref().map(|key| check(scheme, &[verifying(scheme, key)], &headers, b"{}").is_ok());
        let several = !matches!(scheme, SigningScheme::HarborHook | SigningScheme::GitHub);
        assert_eq!(accepted, [true, several, false], "{scheme:?}");
    }
}

#[test]
fn without_a_key_in_force_nothing_is_signed() {
    let retired = SigningKey { retires_at_unix_ms: Some(NOW_MS), ..key(&[1; 32]) };
    for scheme in SCHEMES {
        for keys in [&[][..], std::slice::from_ref(&retired)] {
            assert_eq!(sign(scheme, keys, NOW_MS, &message(b"{}")), Err(SignError::NoKey));
        }
    }
}

#[test]
fn an_identity_that_makes_the_signed_text_ambiguous_is_refused() {
    for id in ["", "msg.1", "msg 1", "msg\n1", "mäg"] {
        let message = Message { id, unix_seconds: NOW_SECONDS, body: b"" };
        assert_eq!(
            sign(SigningScheme::GitHub, &[key(&[1; 32])], NOW_MS, &message),
            Err(SignError::InvalidId),
            "{id:?}"
        );
    }
}

#[test]
fn an_ed25519_signature_needs_a_seed() {
    let result = sign(SigningScheme::StandardWebhooksEd25519, &[key(&[1; 31])], NOW_MS, &message(b""));
    assert_eq!(result, Err(SignError::Key(KeyError::NotEd25519)));
}

#[test]
fn keys_are_read_in_every_form_and_refused_with_a_reason() {
    let encoded = |prefix: &str, bytes: &[u8]| format!("{prefix}{}", BASE64.encode(bytes)).into_bytes();
    let pair = keys::ed25519_key_pair(&[9; 32]).unwrap();
    let public = aws_lc_rs::signature::KeyPair::public_key(&pair).as_ref().to_vec();
    let mut with_newline = encoded("whsec_", &[5; 24]);
    with_newline.push(b'\n');

    let accepted: [(Vec<u8>, KeyKind, Vec<u8>); 6] = [
        (encoded("whsec_", &[5; 24]), KeyKind::Hmac, vec![5; 24]),
        (with_newline, KeyKind::Hmac, vec![5; 24]),
        (b"plain text, sixteen".to_vec(), KeyKind::Raw, b"plain text, sixteen".to_vec()),
        (b"the newline counts\n".to_vec(), KeyKind::Raw, b"the newline counts\n".to_vec()),
        (encoded("whsk_", &[9; 32]), KeyKind::Ed25519, vec![9; 32]),
        (encoded("whsk_", &[[9; 32].as_slice(), &public].concat()), KeyKind::Ed25519, vec![9; 32]),
    ];
    for (value, kind, bytes) in accepted {
        let key = parse_key(&value).unwrap();
        assert_eq!((key.kind, &key.bytes.expose().0), (kind, &bytes));
    }
    let refused: [(Vec<u8>, KeyError); 7] = [
        (b"whsec_***".to_vec(), KeyError::NotBase64 { prefix: "whsec_" }),
        (encoded("whsec_", &[5; 15]), KeyError::TooShort(15)),
        (vec![5; 15], KeyError::TooShort(15)),
        (vec![], KeyError::TooShort(0)),
        (vec![5; 513], KeyError::TooLong(513)),
        (encoded("whsk_", &[9; 31]), KeyError::NotEd25519),
        (encoded("whsk_", &[9; 64]), KeyError::NotEd25519),
    ];
    for (value, error) in refused {
        assert_eq!(parse_key(&value), Err(error));
    }
}

#[test]
fn a_key_serves_only_schemes_of_its_kind() {
    let (shared, private) = (format!("whsec_{}", BASE64.encode([9; 32])), format!("whsk_{}", BASE64.encode([9; 32])));
    let read =
        |value: &str, scheme| parse_key(value.as_bytes()).unwrap().for_scheme(scheme).map(|key| key.expose().0.len());
    for scheme in SCHEMES {
        if scheme == SigningScheme::StandardWebhooksEd25519 {
            assert_eq!(read(&private, scheme), Ok(32));
            for value in [&shared, "thirty-two-bytes-thirty-two-byte"] {
                assert_eq!(read(value, scheme), Err(KeyError::SharedKeyForEd25519));
            }
        } else {
            assert_eq!(read(&private, scheme), Err(KeyError::PrivateKeyForHmac), "{scheme:?}");
            assert_eq!(read(&shared, scheme), Ok(32), "{scheme:?}");
            assert_eq!(read("plain text, sixteen", scheme), Ok(19), "{scheme:?}");
        }
    }
}

#[test]
fn the_written_forms_of_an_ed25519_key_belong_together() {
    let private = format!("whsk_{}", BASE64.encode([9; 32]));
    let public = public_key(&written_key(&private)).unwrap();
    assert_eq!(VerifyingKey::parse(private.as_bytes()), VerifyingKey::parse(public.as_bytes()));
    assert_eq!(VerifyingKey::parse(b"whpk_AAAA"), Err(KeyError::NotPublicKey));
}

#[test]
fn the_time_may_differ_by_the_tolerance_either_way() {
    for scheme in SCHEMES.into_iter().filter(|scheme| *scheme != SigningScheme::GitHub) {
        let key = key(&[1; 32]);
        let headers = signed(scheme, std::slice::from_ref(&key), &message(b"{}"));
        let at = |now| verify(scheme, &[verifying(scheme, &key)], &headers, b"{}", now, TOLERANCE_SECONDS);
        assert_eq!(at(NOW_SECONDS + 300), Ok(()), "{scheme:?}");
        assert_eq!(at(NOW_SECONDS - 300), Ok(()), "{scheme:?}");
        assert_eq!(at(NOW_SECONDS + 301), Err(VerifyError::TooOld { age_seconds: 301 }), "{scheme:?}");
        assert_eq!(at(NOW_SECONDS - 301), Err(VerifyError::TooNew { ahead_seconds: 301 }), "{scheme:?}");
        assert!(at(i64::MAX).is_err() && at(i64::MIN).is_err(), "{scheme:?}");
    }
}

#[test]
fn missing_repeated_and_malformed_headers_are_told_apart() {
    for scheme in SCHEMES {
        let key = key(&[1; 32]);
        let verifying = [verifying(scheme, &key)];
        let headers = signed(scheme, &[key], &message(b"{}"));
        let read: &[&str] = match scheme {
            SigningScheme::StandardWebhooks | SigningScheme::StandardWebhooksEd25519 => {
                &["webhook-id", "webhook-timestamp", "webhook-signature"]
            }
            SigningScheme::HarborHook => &["x-harborhook-timestamp", "x-harborhook-signature"],
            SigningScheme::GitHub => &["x-hub-signature-256"],
            SigningScheme::Stripe => &["stripe-signature"],
        };
        for name in read {
            let mut missing = headers.clone();
            missing.remove(*name);
            let result = check(scheme, &verifying, &missing, b"{}");
            assert!(matches!(result, Err(VerifyError::MissingHeader(_))), "{scheme:?} {name}: {result:?}");

            let mut repeated = headers.clone();
            repeated.append(*name, headers[*name].clone());
            let result = check(scheme, &verifying, &repeated, b"{}");
            assert!(matches!(result, Err(VerifyError::RepeatedHeader(_))), "{scheme:?} {name}: {result:?}");

            let mut changed = headers.clone();
            changed.insert(*name, HeaderValue::from_static("nonsense"));
            assert!(check(scheme, &verifying, &changed, b"{}").is_err(), "{scheme:?} {name}");
        }
        assert_eq!(check(scheme, &[], &headers, b"{}"), Err(VerifyError::NoKey));
    }
}

#[test]
fn keys_of_the_other_kind_verify_nothing() {
    let key = key(&[1; 32]);
    let (hmac, ed25519) = (SigningScheme::StandardWebhooks, SigningScheme::StandardWebhooksEd25519);
    for (scheme, other) in [(hmac, ed25519), (ed25519, hmac)] {
        let headers = signed(scheme, std::slice::from_ref(&key), &message(b"{}"));
        assert_eq!(check(scheme, &[verifying(other, &key)], &headers, b"{}"), Err(VerifyError::NoKey));
        let both = [verifying(scheme, &key), verifying(other, &key)];
        assert_eq!(check(other, &both, &headers, b"{}"), Err(VerifyError::NoMatch));
    }
}

#[test]
fn nothing_of_a_key_is_printed() {
    let key = written_key("hunter2 hunter2 hunter2");
    let verifying = VerifyingKey::parse(b"hunter2 hunter2 hunter2").unwrap();
    let error = parse_key(b"whsec_hunter2!").unwrap_err();
    assert!(!format!("{key:?} {verifying:?} {error} {error:?}").contains("hunter2"));
}

fn any_scheme() -> impl Strategy<Value = SigningScheme> {
    proptest::sample::select(SCHEMES.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_signed_verifies_and_nothing_else_does(
        scheme in any_scheme(),
        seed: [u8; 32],
        other_seed: [u8; 32],
        body in vec(any::<u8>(), 0..200),
        flipped: prop::sample::Index,
    ) {
        let (key, other) = (key(&seed), key(&other_seed));
        let headers = signed(scheme, std::slice::from_ref(&key), &message(&body));
        let keys = [verifying(scheme, &other), verifying(scheme, &key)];
        prop_assert_eq!(check(scheme, &keys, &headers, &body), Ok(()));
        if seed != other_seed {
            prop_assert_eq!(check(scheme, &keys[..1], &headers, &body), Err(VerifyError::NoMatch));
        }
        let mut changed = body.clone();
        changed.push(0);
        let position = flipped.index(changed.len());
        changed[position] ^= 1;
        prop_assert_eq!(check(scheme, &keys, &headers, &changed), Err(VerifyError::NoMatch));
    }

    #[test]
    fn the_independent_implementation_signs_alike(
        bytes in vec(any::<u8>(), 16..64),
        id in "[A-Za-z0-9_-]{1,40}",
        unix_seconds in 0_i64..10_000_000_000,
        body in ".{0,200}",
    ) {
        let judge = standardwebhooks::Webhook::from_bytes(bytes.clone()).unwrap();
        let message = Message { id: &id, unix_seconds, body: body.as_bytes() };
        let headers = signed(SigningScheme::StandardWebhooks, &[key(&bytes)], &message);
        let expected = judge.sign(&id, unix_seconds, body.as_bytes()).unwrap();
        prop_assert_eq!(headers["webhook-signature"].to_str().unwrap(), expected);
    }

    #[test]
    fn the_independent_implementation_verifies(
        bytes in vec(any::<u8>(), 16..64),
        older in vec(any::<u8>(), 16..64),
        body in ".{0,200}",
    ) {
        // The judge reads the clock itself.
        #[expect(clippy::disallowed_methods, reason = "the independent verifier compares with the wall clock")]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let unix_seconds = i64::try_from(now.as_secs()).unwrap();
        let message = Message { id: "msg_1", unix_seconds, body: body.as_bytes() };
        let headers = signed(SigningScheme::StandardWebhooks, &[key(&bytes), key(&older)], &message);
        for secret in [bytes, older] {
            let judge = standardwebhooks::Webhook::new(&format!("whsec_{}", BASE64.encode(secret))).unwrap();
            prop_assert!(judge.verify(body.as_bytes(), &headers).is_ok());
        }
        let stranger = standardwebhooks::Webhook::from_bytes(b"another key".to_vec()).unwrap();
        prop_assert!(stranger.verify(body.as_bytes(), &headers).is_err());
    }
}
