use bytes::Bytes;
use dispatcher_core::classify::classify_status;
use dispatcher_core::table::ClientAuthentication;

use super::*;

fn source() -> TokenSource {
    TokenSource {
        url: "https://login.example.com/token".to_owned().into(),
        client_id: "id-hunter2".to_owned().into(),
        client_secret: "secret-hunter2".to_owned().into(),
        authentication: ClientAuthentication::Basic,
        scopes: Vec::new(),
        audience: None,
    }
}

fn answer(status: u16, body: impl Into<Bytes>) -> Result<Grant, TokenFailure> {
    let exchange = Exchange {
        outcome: classify_status(status),
        status_code: Some(status),
        retry_after: None,
        excerpt: body.into(),
        duration: Duration::ZERO,
    };
    read(&exchange, &source())
}

#[test]
fn a_grant_in_every_form_that_servers_use_is_read() {
    let long = "t".repeat(ACCESS_TOKEN_BYTES_MAX);
    for (body, token, seconds) in [
        (r#"{"access_token":"abc","token_type":"Bearer","expires_in":3600}"#.to_owned(), "abc", 3600),
        (r#" {"token_type":"bearer","expires_in":"3600","access_token":"abc"} "#.to_owned(), "abc", 3600),
        (r#"{"access_token":"a-._~+/b==","token_type":"BEARER"}"#.to_owned(), "a-._~+/b==", 300),
        (r#"{"access_token":"00D!A|B:c","token_type":"Bearer","expires_in":null}"#.to_owned(), "00D!A|B:c", 300),
        (r#"{"access_token":"abc","token_type":"Bearer","expires_in":0}"#.to_owned(), "abc", 1),
        (r#"{"access_token":"abc","token_type":"Bearer","expires_in":86401}"#.to_owned(), "abc", 86_400),
        (
            r#"{"access_token":"abc","token_type":"Bearer","expires_in":99999999999999999999999}"#.to_owned(),
            "abc",
            86_400,
        ),
        (r#"{"access_token":"\u0061bc","token_type":"Bearer","scope":["x"],"extra":{"a":[]}}"#.to_owned(), "abc", 300),
        (format!(r#"{{"access_token":"{long}","token_type":"Bearer"}}"#), &long, 300),
    ] {
        let grant = answer(200, body.clone()).unwrap_or_else(|failure| panic!("{body}: {failure}"));
        assert_eq!(grant.header, format!("Bearer {token}"), "{body}");
        assert!(grant.header.is_sensitive(), "{body}");
        assert_eq!(grant.lifetime, Duration::from_secs(seconds), "{body}");
    }
}

#[test]
fn a_malformed_grant_is_refused_with_what_is_wrong() {
    let too_long = "t".repeat(ACCESS_TOKEN_BYTES_MAX + 1);
    let with_expiry =
        |value: &str| format!(r#"{{"access_token":"hunter2","token_type":"Bearer","expires_in":{value}}}"#);
    let with_token = |value: &str| format!(r#"{{"access_token":{value},"token_type":"Bearer"}}"#);
    for (body, problem) in [
        (String::new(), Malformed::NotAnObject),
        ("hunter2".to_owned(), Malformed::NotAnObject),
        ("<html>hunter2</html>".to_owned(), Malformed::NotAnObject),
        (r#"["hunter2","Bearer",3600]"#.to_owned(), Malformed::NotAnObject),
        (r#"{"access_token":"hunter2","token_type":"Bearer""#.to_owned(), Malformed::NotAnObject),
        (r#"{"access_token":"hunter2","token_type":"Bearer"} {}"#.to_owned(), Malformed::NotAnObject),
        (
            r#"{"access_token":"hunter2","access_token":"hunter3","token_type":"Bearer"}"#.to_owned(),
            Malformed::NotAnObject,
        ),
        (format!(r#"{{"a":{}1{},"access_token":"x"}}"#, "[".repeat(4_000), "]".repeat(4_000)), Malformed::TokenType),
        ("{}".to_owned(), Malformed::AccessTokenMissing),
        (r#"{"token_type":"Bearer"}"#.to_owned(), Malformed::AccessTokenMissing),
        (with_token("null"), Malformed::AccessTokenMissing),
        (with_token("17"), Malformed::AccessTokenMissing),
        (with_token(r#"["hunter2"]"#), Malformed::AccessTokenMissing),
        (with_token(r#""""#), Malformed::AccessToken),
        (with_token(r#""hunter 2""#), Malformed::AccessToken),
        (with_token(r#""hunter2\r\nX-Forged: 1""#), Malformed::AccessToken),
        (with_token(r#""hunter\u0000""#), Malformed::AccessToken),
        (with_token(r#""hünter2""#), Malformed::AccessToken),
        (with_token(&format!(r#""{too_long}""#)), Malformed::AccessToken),
        (r#"{"access_token":"hunter2"}"#.to_owned(), Malformed::TokenType),
        (r#"{"access_token":"hunter2","token_type":"mac"}"#.to_owned(), Malformed::TokenType),
        (r#"{"access_token":"hunter2","token_type":"Bearer "}"#.to_owned(), Malformed::TokenType),
        (r#"{"access_token":"hunter2","token_type":["Bearer"]}"#.to_owned(), Malformed::TokenType),
        (with_expiry("-1"), Malformed::ExpiresIn),
        (with_expiry("3600.5"), Malformed::ExpiresIn),
        (with_expiry("1e3"), Malformed::ExpiresIn),
        (with_expiry(r#""""#), Malformed::ExpiresIn),
        (with_expiry(r#""soon""#), Malformed::ExpiresIn),
        (with_expiry("true"), Malformed::ExpiresIn),
        (with_expiry("[3600]"), Malformed::ExpiresIn),
        (" ".repeat(RESPONSE_EXCERPT_BYTES_MAX), Malformed::TooLarge),
    ] {
        let failure = answer(200, body.clone()).unwrap_err();
        assert_eq!(failure, TokenFailure::Malformed { status: 200, problem }, "{body}");
        assert!(!failure.to_string().contains("hunter"), "{failure}");
    }
    assert!(matches!(answer(200, &b"{\"access_token\":\"\xff\"}"[..]), Err(TokenFailure::Malformed { .. })));
}

#[test]
fn a_refusal_says_the_status_and_the_code_and_nothing_else_of_the_answer() {
    let long = "e".repeat(TOKEN_ERROR_CODE_BYTES_MAX + 1);
    for (status, body, message) in [
        (
            401,
            r#"{"error":"invalid_client","error_description":"hunter2"}"#,
            "answered 401 with the error invalid_client",
        ),
        (400, r#"{"error":"invalid_scope"}"#, "answered 400 with the error invalid_scope"),
        (400, "hunter2", "answered 400"),
        (400, r#"{"error":"secret-hunter2"}"#, "answered 400"),
        (400, r#"{"error":"no.id-hunter2"}"#, "answered 400"),
        (400, r#"{"error":"hunter2 is wrong"}"#, "answered 400"),
        (400, r#"{"error":"hunter2\n"}"#, "answered 400"),
        (400, r#"{"error":{"code":"hunter2"}}"#, "answered 400"),
        (400, r#"["hunter2"]"#, "answered 400"),
        (400, &format!(r#"{{"error":"{long}"}}"#), "answered 400"),
        (302, r#"{"access_token":"hunter2","token_type":"Bearer"}"#, "answered 302"),
        (410, "", "answered 410"),
        (429, "", "answered 429"),
        (503, "", "answered 503"),
        (999, "hunter2", "answered 999, and its answer broke off (network)"),
    ] {
        let failure = answer(status, body.to_owned()).unwrap_err().to_string();
        assert_eq!(failure, format!("the token endpoint {message}"), "{body}");
    }
}

#[test]
fn without_an_answer_the_description_is_ours() {
    let exchange = |status_code, excerpt: &'static str| Exchange {
        outcome: Outcome::Timeout,
        status_code,
        retry_after: None,
        excerpt: Bytes::from_static(excerpt.as_bytes()),
        duration: Duration::ZERO,
    };
    let failure = read(&exchange(None, "the exchange did not end within 10 s"), &source()).unwrap_err();
    let message = "the token endpoint could not be asked (timeout): the exchange did not end within 10 s";
    assert_eq!(failure.to_string(), message);
    let failure = read(&exchange(Some(200), "whatever"), &source()).unwrap_err();
    assert_eq!(failure.to_string(), "the token endpoint answered 200, and its answer broke off (timeout)");
}
