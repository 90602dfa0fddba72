use serde_json::{Value, json};

use super::*;

/// An Ed25519 key (RFC 8037, A.2).
fn jwks() -> Value {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x}]})
}

/// A correct entry with some fields changed; `null` takes one out.
fn entry(changes: &Value) -> Value {
    let mut entry = json!({
        "issuer": "https://login.example.com",
        "jwksUrl": "https://login.example.com/keys",
        "audiences": ["harborhook"],
        "tenantClaim": "tenant",
        "scopeClaim": "scope",
    });
    for (name, value) in changes.as_object().unwrap() {
        entry[name] = value.clone();
    }
    entry.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    entry
}

fn no_file(_: &Path) -> Result<Vec<u8>, String> {
    Err("No such file".to_owned())
}

fn read_entries(entries: &[Value]) -> Result<Vec<ConfiguredIssuer>, String> {
    read(json!({ "issuers": entries }).to_string().as_bytes(), &no_file)
}

fn read_one(changes: &Value) -> Result<ConfiguredIssuer, String> {
    read_entries(&[entry(changes)]).map(|mut issuers| issuers.remove(0))
}

#[test]
fn every_way_to_a_tenant_and_to_scopes_is_read() {
    let grant = |changes: Value| match read_one(&changes).unwrap().rules.grant {
        Grant::Configured { tenants, scopes } => (tenants, scopes),
        Grant::ServiceAccount(_) => unreachable!("it is not configured"),
    };
    let claim = |name: &str| ClaimName(name.to_owned());
    let by_claim = |meaning| ScopeSource::Claim { name: claim("scope"), meaning };
    let (tenants, scopes) = grant(json!({}));
    assert_eq!((tenants, scopes), (TenantSource::Claim(claim("tenant")), by_claim(None)));
    assert_eq!(grant(json!({"tenantClaim": null, "tenant": "*"})).0, TenantSource::Any);
    assert_eq!(grant(json!({"tenantClaim": null, "tenant": "shop"})).0, TenantSource::Named("shop".to_owned()));
    let map = BTreeMap::from([("hooks:write".to_owned(), "publish,read".parse().unwrap())]);
    assert_eq!(grant(json!({"scopeMap": {"hooks:write": ["publish", "read"]}})).1, by_claim(Some(map)));
    let fixed = ScopeSource::Fixed("read".parse().unwrap());
    assert_eq!(grant(json!({"scopeClaim": null, "scopes": ["read"]})).1, fixed);
}

#[test]
fn keys_are_fetched_from_outside_or_if_so_told_from_inside_or_stand_in_the_file() {
    let source = |changes: Value| read_one(&changes).unwrap().keys;
    let KeySource::Remote(remote) = source(json!({})) else { panic!("they are fetched") };
    assert_eq!((remote.url.as_str(), remote.internal), ("https://login.example.com/keys", false));
    let KeySource::Remote(remote) = source(json!({"jwksUrl": "http://dex.auth.svc:5556/keys", "internal": true}))
    else {
        panic!("they are fetched")
    };
    assert!(remote.internal);
    assert!(matches!(source(json!({"jwksUrl": null, "jwks": jwks()})), KeySource::Inline(_)));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let mut private = jwks();
    private["keys"][0]["d"] = "AA".into();
    for (changes, expected) in [
        (json!({"issuer": ""}), "issuers[0].issuer: it has 1 to"),
        (json!({"issuer": "x".repeat(ISSUER_URL_BYTES_MAX + 1)}), "issuers[0].issuer: it has 1 to"),
        (json!({"audiences": []}), "issuers[0].audiences: name 1 to"),
        (json!({"audiences": [""]}), "issuers[0].audiences: name 1 to"),
        (json!({"jwksUrl": null}), "issuers[0].jwksUrl: give one of"),
        (json!({"jwks": jwks()}), "issuers[0].jwksUrl: give one of"),
        (json!({"jwksUrl": "login.example.com"}), "issuers[0].jwksUrl: relative URL"),
        (json!({"jwksUrl": "http://login.example.com/keys"}), "issuers[0].jwksUrl: keys are fetched over https"),
        (json!({"jwksUrl": "file:///etc/keys", "internal": true}), "issuers[0].jwksUrl: it is no https URL"),
        (json!({"jwksUrl": "https://u:hunter2@login.example.com"}), "issuers[0].jwksUrl: it has a host, and no user"),
        (json!({"jwksUrl": null, "jwks": jwks(), "internal": true}), "issuers[0].jwks: keys that stand here"),
        (json!({"jwksUrl": null, "jwks": {"keys": []}}), "issuers[0].jwks: it holds no key that can be used"),
        (json!({"jwksUrl": null, "jwks": private}), "issuers[0].jwks: it holds a private key"),
        (json!({"caFile": "/no/ca.pem"}), "issuers[0].caFile: /no/ca.pem: No such file"),
        (json!({"tenant": "shop"}), "issuers[0].tenant: give one of"),
        (json!({"tenantClaim": null}), "issuers[0].tenant: give one of"),
        (json!({"tenantClaim": ""}), "issuers[0].tenantClaim: it is empty"),
        (json!({"scopes": ["read"]}), "issuers[0].scopes: give one of"),
        (json!({"scopeClaim": null}), "issuers[0].scopes: give one of"),
        (json!({"scopeClaim": null, "scopes": ["write"]}), "issuers[0].scopes: a scope is `publish`"),
        (json!({"scopeMap": {"a": ["write"]}}), "issuers[0].scopeMap: a scope is `publish`"),
    ] {
        let error = read_one(&changes).expect_err(expected);
        assert!(error.starts_with(expected) && !error.contains("hunter2"), "{error}");
    }
    let twice = read_entries(&[entry(&json!({})), entry(&json!({"audiences": ["other"]}))]).unwrap_err();
    assert!(twice.starts_with("issuers[1].issuer: it stands there twice"), "{twice}");
    let many: Vec<Value> =
        (0..=ISSUERS_MAX).map(|number| entry(&json!({"issuer": format!("https://{number}")}))).collect();
    assert!(read_entries(&many).unwrap_err().contains("more than 64"));
}

#[test]
fn what_does_not_parse_is_told_with_line_and_column() {
    for (text, expected) in [
        ("", "line 1 column 0"),
        ("issuers: []", "line 1 column 1"),
        ("{\n  \"issuers\": [\n    {\"isuer\": \"x\"}\n]}", "unknown field `isuer`"),
        ("{\n  \"issuers\": [\n    {\"isuer\": \"x\"}\n]}", "line 3 column"),
        ("{\"issuers\": [{\"issuer\": \"x\"}]}", "missing field `audiences`"),
        ("{\"issuers\": {}}", "line 1 column"),
    ] {
        let error = read(text.as_bytes(), &no_file).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(read(br#"{"issuers": []}"#, &no_file), Ok(Vec::new()));
}

#[test]
fn a_file_that_is_not_there_or_too_large_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("issuers.json");
    assert!(read_file(&path).unwrap_err().to_string().contains("issuers.json: No such file"));
    std::fs::write(&path, vec![b' '; usize::try_from(ISSUERS_FILE_BYTES_MAX).unwrap() + 1]).unwrap();
    assert!(read_file(&path).unwrap_err().to_string().contains("more than 1048576 bytes"));
}
