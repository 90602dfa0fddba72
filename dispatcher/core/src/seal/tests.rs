use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::id::TenantId;
use crate::redacted::Redacted;
use crate::table::{ClientAuthentication, ClientCertificate, KeyBytes, SigningKey, TlsIdentity, TokenSource};

fn endpoint(name: &str) -> EndpointId {
    EndpointId::derive(TenantId::of_namespace_name("team-a"), name)
}

fn key() -> SealingKey {
    SealingKey::from_bytes(&[7; 32])
}

fn secrets() -> EndpointSecrets {
    let signing_key =
        |byte, retires_at_unix_ms| SigningKey { bytes: Redacted::new(KeyBytes(vec![byte; 32])), retires_at_unix_ms };
    EndpointSecrets {
        url: Redacted::new("https://example.com/hook?token=hunter2".to_owned()),
        keys: vec![signing_key(1, None), signing_key(2, Some(1_700_000_000_000))],
        headers: vec![("authorization".to_owned(), Redacted::new("Bearer hunter2".to_owned()))],
        tls: Some(TlsIdentity {
            authorities: Some(Redacted::new("ca-hunter2".to_owned())),
            client: Some(ClientCertificate {
                chain: Redacted::new("chain-hunter2".to_owned()),
                key: Redacted::new("key-hunter2".to_owned()),
            }),
        }),
        token: Some(TokenSource {
            url: Redacted::new("https://login.example.com/token".to_owned()),
            client_id: Redacted::new("id-hunter2".to_owned()),
            client_secret: Redacted::new("secret-hunter2".to_owned()),
            authentication: ClientAuthentication::Post,
            scopes: vec!["hooks.write".to_owned()],
            audience: Some("hooks".to_owned()),
        }),
    }
}

#[test]
fn what_was_sealed_opens_for_the_same_key_and_endpoint_only() {
    let sealed = key().seal(endpoint("billing"), &secrets());
    assert_eq!(key().open(endpoint("billing"), &sealed), Ok(secrets()));
    assert_eq!(key().open(endpoint("audit"), &sealed), Err(SealError::NotAuthentic));
    let other_key = SealingKey::from_bytes(&[8; 32]);
    assert_eq!(other_key.open(endpoint("billing"), &sealed), Err(SealError::NotAuthentic));
}

#[test]
fn the_same_secrets_seal_alike_and_others_do_not() {
    let sealed = key().seal(endpoint("billing"), &secrets());
    assert_eq!(key().seal(endpoint("billing"), &secrets()), sealed);
    let nonce = |sealed: &Sealed| BASE64.decode(&sealed.0).unwrap()[1..HEADER_BYTES].to_vec();
    let changed = EndpointSecrets { headers: vec![], ..secrets() };
    for other in [key().seal(endpoint("billing"), &changed), key().seal(endpoint("audit"), &secrets())] {
        assert_ne!(nonce(&other), nonce(&sealed));
    }
}

#[test]
fn any_changed_bit_and_any_cut_is_noticed() {
    let envelope = BASE64.decode(key().seal(endpoint("billing"), &secrets()).0).unwrap();
    let open = |bytes: &[u8]| key().open(endpoint("billing"), &Sealed(BASE64.encode(bytes)));
    for position in 0..envelope.len() {
        let mut changed = envelope.clone();
        changed[position] ^= 1;
        let expected = if position == 0 { SealError::UnknownVersion(0) } else { SealError::NotAuthentic };
        assert_eq!(open(&changed), Err(expected), "{position}");
        assert!(open(&envelope[..position]).is_err(), "{position}");
    }
    assert_eq!(key().open(endpoint("billing"), &Sealed("not base64!".to_owned())), Err(SealError::Malformed));
    assert_eq!(key().open(endpoint("billing"), &Sealed::default()), Err(SealError::Malformed));
}

#[test]
fn nothing_of_the_secrets_or_the_key_is_visible() {
    let sealed = key().seal(endpoint("billing"), &secrets());
    let envelope = BASE64.decode(&sealed.0).unwrap();
    for secret in [&b"hunter2"[..], b"example.com", &[1; 32]] {
        assert!(!envelope.windows(secret.len()).any(|window| window == secret));
    }
    assert_eq!(format!("{:?}", key()), "SealingKey { first: [redacted], others: [] }");
    assert!(!format!("{:?}", secrets()).contains("hunter2"));
}

#[test]
fn the_first_key_seals_and_each_opens_what_it_sealed() {
    let (old, new) = ([7; 32], [8; 32]);
    let (sealed_by_old, sealed_by_new) =
        [old, new].map(|key| SealingKey::from_bytes(&key).seal(endpoint("billing"), &secrets())).into();
    let ring = SealingKey::from_bytes(&new).opening_with(&[9; 32]).opening_with(&old);
    assert_eq!(ring.seal(endpoint("billing"), &secrets()), sealed_by_new);
    for (sealed, is_by_other) in [(&sealed_by_old, true), (&sealed_by_new, false)] {
        let opened = ring.open_noting(endpoint("billing"), sealed).unwrap();
        assert_eq!(opened, Opened { secrets: secrets(), is_by_other });
        assert_eq!(ring.open(endpoint("audit"), sealed), Err(SealError::NotAuthentic));
    }
    let by_stranger = SealingKey::from_bytes(&[10; 32]).seal(endpoint("billing"), &secrets());
    assert_eq!(ring.open(endpoint("billing"), &by_stranger), Err(SealError::NotAuthentic));
    assert_eq!(ring.renew(endpoint("billing"), &sealed_by_old), Some(sealed_by_new.clone()));
    for sealed in [&sealed_by_new, &by_stranger] {
        assert_eq!(ring.renew(endpoint("billing"), sealed), None);
    }
}

proptest! {
    #[test]
    fn any_secrets_come_back_as_they_were(
        url in ".*",
        keys in vec((vec(any::<u8>(), 0..80), any::<Option<u64>>()), 0..4),
        headers in vec((".*", ".*"), 0..4),
    ) {
        let signing_key = |(bytes, retires_at_unix_ms)| SigningKey { bytes: Redacted::new(KeyBytes(bytes)), retires_at_unix_ms };
        let secrets = EndpointSecrets {
            url: Redacted::new(url),
            keys: keys.into_iter().map(signing_key).collect(),
            headers: headers.into_iter().map(|(name, value)| (name, Redacted::new(value))).collect(),
            tls: None,
            token: None,
        };
        let sealed = key().seal(endpoint("billing"), &secrets);
        prop_assert_eq!(key().open(endpoint("billing"), &sealed), Ok(secrets));
    }
}
