//! Rules of how an endpoint is authenticated to.

use serde_json::{Value, json};

use super::{Row, endpoint};

/// All of them.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = credential_rows();
    rows.extend(oauth2_rows());
    rows
}

/// An endpoint with the fields of the client credentials grant that are required, and this merged into them.
pub(super) fn oauth2(patch: &Value) -> Value {
    let mut grant = json!({
        "tokenUrl": "https://login.example.com/oauth2/token",
        "clientId": "hooks",
        "clientSecretSecretKeyRef": {"name": "hook", "key": "secret"},
    });
    for (field, value) in patch.as_object().into_iter().flatten() {
        grant[field] = value.clone();
    }
    // What is null is removed when the patch is merged into a spec.
    json!({"auth": {"type": "OAuth2", "oauth2": grant}})
}

fn credential_rows() -> Vec<Row> {
    let key = json!({"name": "hook", "key": "credential"});
    let basic = json!({"auth": {"type": "Basic", "username": "hooks", "passwordSecretKeyRef": key}});
    let bearer = json!({"auth": {"type": "Bearer", "tokenSecretKeyRef": key}});
    let with = |base: &Value, field: &str, value: Value| {
        let mut changed = base.clone();
        changed["auth"][field] = value;
        changed
    };
    vec![
        endpoint(
            "spec.auth",
            "type Basic needs username and passwordSecretKeyRef",
            basic.clone(),
            with(&basic, "username", Value::Null),
        ),
        endpoint(
            "spec.auth.username",
            "belongs to type Basic",
            basic.clone(),
            with(&bearer, "username", json!("hooks")),
        ),
        endpoint(
            "spec.auth.passwordSecretKeyRef",
            "belongs to type Basic",
            basic.clone(),
            with(&bearer, "passwordSecretKeyRef", key.clone()),
        ),
        endpoint(
            "spec.auth",
            "type Bearer needs tokenSecretKeyRef",
            bearer.clone(),
            json!({"auth": {"type": "Bearer"}}),
        ),
        endpoint(
            "spec.auth.tokenSecretKeyRef",
            "belongs to type Bearer",
            bearer,
            with(&basic, "tokenSecretKeyRef", key),
        ),
        endpoint(
            "spec.auth.username",
            "must be printable ASCII without a colon",
            basic.clone(),
            with(&basic, "username", json!("a:b")),
        ),
    ]
}

fn oauth2_rows() -> Vec<Row> {
    let with = |field: &str, value: Value| oauth2(&json!({field: value}));
    let bearer = json!({"type": "Bearer", "tokenSecretKeyRef": {"name": "hook", "key": "token"}});
    let mut misplaced = oauth2(&json!({}));
    misplaced["auth"]["type"] = bearer["type"].clone();
    misplaced["auth"]["tokenSecretKeyRef"] = bearer["tokenSecretKeyRef"].clone();
    let printable = "must be printable ASCII without line breaks";
    vec![
        endpoint("spec.auth", "type OAuth2 needs oauth2", oauth2(&json!({})), json!({"auth": {"type": "OAuth2"}})),
        endpoint("spec.auth.oauth2", "belongs to type OAuth2", json!({"auth": bearer}), misplaced),
        endpoint(
            "spec.auth.oauth2",
            "set exactly one of clientId and clientIdSecretKeyRef",
            oauth2(&json!({"clientId": null, "clientIdSecretKeyRef": {"name": "hook", "key": "id"}})),
            with("clientIdSecretKeyRef", json!({"name": "hook", "key": "id"})),
        ),
        endpoint(
            "spec.auth.oauth2.tokenUrl",
            "must be an absolute URL in ASCII that begins with https:// or http://",
            with("tokenUrl", json!("http://localhost:8080/token?tenant=a@b")),
            with("tokenUrl", json!("login.example.com/token")),
        ),
        endpoint(
            "spec.auth.oauth2.tokenUrl",
            "must not contain a user name or password; use clientId and clientSecretSecretKeyRef",
            with("tokenUrl", json!("https://login.example.com/@acme")),
            with("tokenUrl", json!("https://hooks:secret@login.example.com/token")),
        ),
        endpoint(
            "spec.auth.oauth2.tokenUrl",
            "must not contain a fragment",
            with("tokenUrl", json!("https://login.example.com/a%23b")),
            with("tokenUrl", json!("https://login.example.com/a#b")),
        ),
        endpoint(
            "spec.auth.oauth2.clientId",
            printable,
            with("clientId", json!("hooks of Acme: 1")),
            with("clientId", json!("hooks\n")),
        ),
        endpoint(
            "spec.auth.oauth2.audience",
            printable,
            with("audience", json!("https://api.example.com/ hooks")),
            with("audience", json!("h\u{f6}ren")),
        ),
        endpoint(
            "spec.auth.oauth2.scopes[0]",
            "must be one scope: printable ASCII without spaces, quotation marks and backslashes",
            with("scopes", json!(["hooks.write", "https://api.example.com/.default", "!#[]~"])),
            with("scopes", json!(["hooks.read hooks.write"])),
        ),
    ]
}
