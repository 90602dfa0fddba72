//! The request for an access token (RFC 6749, 4.4.2).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use dispatcher_core::redacted::Redacted;
use dispatcher_core::table::{ClientAuthentication, TokenSource};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use url::{Url, form_urlencoded};

use super::answer::TokenFailure;

/// A request that is ready to be sent.
pub(super) struct TokenRequest {
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// All of it can hold secrets.
impl fmt::Debug for TokenRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TokenRequest").finish_non_exhaustive()
    }
}

impl TokenRequest {
    /// The request that a source describes.
    ///
    /// # Errors
    /// [`TokenFailure::Source`] if its URL does not parse.
    pub(super) fn new(source: &TokenSource) -> Result<Self, TokenFailure> {
        let url = Url::parse(source.url.expose()).map_err(|_| TokenFailure::Source)?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !source.scopes.is_empty() {
            form.append_pair("scope", &source.scopes.join(" "));
        }
        if let Some(audience) = &source.audience {
            form.append_pair("audience", audience);
        }
        match source.authentication {
            ClientAuthentication::Basic => {
                headers.insert(AUTHORIZATION, basic(source)?);
            }
            ClientAuthentication::Post => {
                form.append_pair("client_id", source.client_id.expose());
                form.append_pair("client_secret", source.client_secret.expose());
            }
        }
        Ok(Self { url, headers, body: form.finish().into() })
    }
}

/// `Basic` credentials, identifier and secret each form-encoded before they are joined (RFC 6749, 2.3.1 and appendix B).
fn basic(source: &TokenSource) -> Result<HeaderValue, TokenFailure> {
    let encoded = |value: &Redacted<String>| {
        Redacted::new(form_urlencoded::byte_serialize(value.expose().as_bytes()).collect::<String>())
    };
    let (client_id, client_secret) = (encoded(&source.client_id), encoded(&source.client_secret));
    let pair = Redacted::new(format!("{}:{}", client_id.expose(), client_secret.expose()));
    let value = Redacted::new(format!("Basic {}", Redacted::new(BASE64.encode(pair.expose())).expose()));
    let mut header = HeaderValue::from_str(value.expose()).map_err(|_| TokenFailure::Source)?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> TokenSource {
        TokenSource {
            url: "https://login.example.com/token?tenant=a".to_owned().into(),
            client_id: "acme: hooks".to_owned().into(),
            client_secret: "p+ss%wörd/~*".to_owned().into(),
            authentication: ClientAuthentication::Basic,
            scopes: vec!["hooks.write".to_owned(), "https://api.example.com/.default".to_owned()],
            audience: Some("https://api.example.com/".to_owned()),
        }
    }

    #[test]
    fn basic_credentials_are_form_encoded_before_they_are_joined() {
        let request = TokenRequest::new(&source()).unwrap();
        let header = &request.headers[AUTHORIZATION];
        assert!(header.is_sensitive());
        let encoded = header.to_str().unwrap().strip_prefix("Basic ").unwrap();
        assert_eq!(BASE64.decode(encoded).unwrap(), b"acme%3A+hooks:p%2Bss%25w%C3%B6rd%2F%7E*");
        let body = "grant_type=client_credentials&scope=hooks.write+https%3A%2F%2Fapi.example.com%2F.default\
                    &audience=https%3A%2F%2Fapi.example.com%2F";
        assert_eq!(request.body, body);
        assert_eq!(request.url.as_str(), "https://login.example.com/token?tenant=a");
    }

    #[test]
    fn the_example_of_the_standard_is_made() {
        // RFC 6749, 2.3.1.
        let source = TokenSource {
            client_id: "s6BhdRkqt3".to_owned().into(),
            client_secret: "7Fjfp0ZBr1KtDRbnfVdmIw".to_owned().into(),
            scopes: Vec::new(),
            audience: None,
            ..source()
        };
        let request = TokenRequest::new(&source).unwrap();
        assert_eq!(request.headers[AUTHORIZATION], "Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3");
        assert_eq!(request.headers[CONTENT_TYPE], "application/x-www-form-urlencoded");
        assert_eq!(request.body, "grant_type=client_credentials");
    }

    #[test]
    fn by_post_the_credentials_stand_in_the_body_alone() {
        let source = TokenSource { authentication: ClientAuthentication::Post, scopes: Vec::new(), ..source() };
        let request = TokenRequest::new(&source).unwrap();
        assert!(!request.headers.contains_key(AUTHORIZATION));
        let pairs: Vec<_> = form_urlencoded::parse(&request.body).collect();
        let pair = |index: usize| (pairs[index].0.as_ref(), pairs[index].1.as_ref());
        assert_eq!(pair(0), ("grant_type", "client_credentials"));
        assert_eq!(pair(2), ("client_id", "acme: hooks"));
        assert_eq!(pair(3), ("client_secret", "p+ss%wörd/~*"));
        assert_eq!(pairs.len(), 4);
    }

    #[test]
    fn a_source_that_cannot_be_asked_is_a_failure() {
        let source = TokenSource { url: "login.example.com".to_owned().into(), ..source() };
        assert_eq!(TokenRequest::new(&source).err(), Some(TokenFailure::Source));
    }
}
