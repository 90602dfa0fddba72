//! A token as it was presented: a JSON Web Token in the compact form (RFC 7519; RFC 7515, 7.1), read and not yet verified.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use dispatcher_core::limits::TOKEN_BYTES_MAX;
use http::{HeaderMap, header};
use jsonwebtoken::Algorithm;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::error::AccessError;

/// The scheme of RFC 6750, 2.1; schemes are compared without regard to case (RFC 9110, 11.1).
const SCHEME: &str = "bearer";
/// Types of tokens that give access: RFC 7519, 5.1, and RFC 9068, 2.1. Some issuers, Kubernetes among them, write none.
const TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// What a token says of itself. Nothing of it can be believed before the signature is verified.
pub struct Presented<'a> {
    /// What is signed: header and claims as they stand in the token.
    pub(super) message: &'a str,
    /// The signature, base64url.
    pub(super) signature: &'a str,
    /// The algorithm, one that is supported.
    pub(super) algorithm: Algorithm,
    /// The key's name, if it names one.
    pub(super) key_id: Option<String>,
    /// The claims.
    pub(super) claims: Map<String, Value>,
}

/// The members of the header that count. Keys, certificates and URLs in it (`jwk`, `jku`, `x5c`, `x5u`) are never looked
/// at: a token must not bring the key that it is verified by.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// The token in the headers of a request.
///
/// # Errors
/// [`AccessError::Missing`], [`AccessError::NotBearer`] or [`AccessError::TooLong`].
pub fn bearer(headers: &HeaderMap) -> Result<&str, AccessError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(AccessError::Missing)?;
    if values.next().is_some() {
        return Err(AccessError::NotBearer);
    }
    let value = value.to_str().map_err(|_| AccessError::NotBearer)?;
    let (scheme, token) = value.split_once(' ').ok_or(AccessError::NotBearer)?;
    let token = token.trim_matches(' ');
    if !scheme.eq_ignore_ascii_case(SCHEME) || token.is_empty() {
        return Err(AccessError::NotBearer);
    }
    if token.len() > TOKEN_BYTES_MAX { Err(AccessError::TooLong) } else { Ok(token) }
}

impl<'a> Presented<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// The first of [`AccessError::TooLong`] to [`AccessError::UnsupportedAlgorithm`] that applies.
    pub fn read(token: &'a str) -> Result<Self, AccessError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AccessError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(AccessError::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(AccessError::Malformed)?;
        let header: Header = json(header)?;
        if header.crit {
            return Err(AccessError::CriticalHeader);
        }
        if !header.typ.is_none_or(|name| is_token_type(&name)) {
            return Err(AccessError::WrongType);
        }
        let algorithm = match header.alg.as_str() {
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            "EdDSA" => Algorithm::EdDSA,
            _ => return Err(AccessError::UnsupportedAlgorithm),
        };
        Ok(Self { message, signature, algorithm, key_id: header.kid, claims: json(claims)? })
    }

    /// Who says to have issued it.
    ///
    /// # Errors
    /// [`AccessError::UnknownIssuer`] if nobody does.
    pub fn issuer(&self) -> Result<&str, AccessError> {
        self.claims.get("iss").and_then(Value::as_str).ok_or(AccessError::UnknownIssuer)
    }
}

/// A second dot in what should be one part is no letter of base64url, so more than three parts are refused too.
fn json<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, AccessError> {
    let bytes = BASE64URL.decode(part).map_err(|_| AccessError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| AccessError::Malformed)
}

/// Types are media types, whose `application/` may be left out, without regard to case (RFC 7515, 4.1.9).
fn is_token_type(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    TYPES.contains(&name.strip_prefix("application/").unwrap_or(&name))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn exactly_one_header_holds_the_token() {
        let long = format!("Bearer {}", "a".repeat(TOKEN_BYTES_MAX + 1));
        for (values, expected) in [
            (&[][..], Err(AccessError::Missing)),
            (&["Bearer abc"], Ok("abc")),
            (&["bearer abc"], Ok("abc")),
            (&["BEARER  abc "], Ok("abc")),
            (&["Bearer"], Err(AccessError::NotBearer)),
            (&["Bearer "], Err(AccessError::NotBearer)),
            (&["Basic dTpw"], Err(AccessError::NotBearer)),
            (&["abc"], Err(AccessError::NotBearer)),
            (&["Bearer abc", "Bearer abc"], Err(AccessError::NotBearer)),
            (&["Bearer \u{e9}"], Err(AccessError::NotBearer)),
            (&[long.as_str()], Err(AccessError::TooLong)),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            assert_eq!(bearer(&headers), expected, "{values:?}");
        }
    }

    fn read(header: &str, claims: &str) -> Result<(Algorithm, Option<String>), AccessError> {
        let token = format!("{}.{}.c2ln", BASE64URL.encode(header), BASE64URL.encode(claims));
        Presented::read(&token).map(|token| (token.algorithm, token.key_id))
    }

    #[test]
    fn a_header_is_read_or_refused_for_its_reason() {
        for (header, expected) in [
            (r#"{"alg":"RS256"}"#, Ok((Algorithm::RS256, None))),
            (r#"{"alg":"ES256","kid":"1","typ":"JWT"}"#, Ok((Algorithm::ES256, Some("1".to_owned())))),
            (r#"{"alg":"EdDSA","typ":"at+JWT"}"#, Ok((Algorithm::EdDSA, None))),
            (r#"{"alg":"EdDSA","typ":"application/at+jwt","jku":"https://evil"}"#, Ok((Algorithm::EdDSA, None))),
            (r#"{"alg":"none"}"#, Err(AccessError::UnsupportedAlgorithm)),
            (r#"{"alg":"None"}"#, Err(AccessError::UnsupportedAlgorithm)),
            (r#"{"alg":""}"#, Err(AccessError::UnsupportedAlgorithm)),
            (r#"{"alg":"rs256"}"#, Err(AccessError::UnsupportedAlgorithm)),
            (r#"{"alg":"HS256"}"#, Err(AccessError::UnsupportedAlgorithm)),
            (r#"{"alg":"RS512"}"#, Err(AccessError::UnsupportedAlgorithm)),
            (r#"{"alg":"PS256"}"#, Err(AccessError::UnsupportedAlgorithm)),
            (r#"{"alg":"RS256","typ":"logout+jwt"}"#, Err(AccessError::WrongType)),
            (r#"{"alg":"RS256","typ":"dpop+jwt"}"#, Err(AccessError::WrongType)),
            (r#"{"alg":"RS256","typ":""}"#, Err(AccessError::WrongType)),
            (r#"{"alg":"RS256","crit":["b64"],"b64":false}"#, Err(AccessError::CriticalHeader)),
            (r#"{"alg":"RS256","crit":null}"#, Err(AccessError::CriticalHeader)),
            (r#"{"alg":"RS256","crit":[]}"#, Err(AccessError::CriticalHeader)),
            (r#"{"alg":"none","alg":"RS256"}"#, Err(AccessError::Malformed)),
            (r#"{"alg":"RS256","kid":1}"#, Err(AccessError::Malformed)),
            (r#"{"alg":["RS256"]}"#, Err(AccessError::Malformed)),
            (r#"{"typ":"JWT"}"#, Err(AccessError::Malformed)),
            ("[]", Err(AccessError::Malformed)),
            ("", Err(AccessError::Malformed)),
        ] {
            assert_eq!(read(header, "{}"), expected, "{header}");
        }
    }

    #[test]
    fn what_is_not_three_parts_of_base64url_with_objects_is_malformed() {
        let (header, claims) = (BASE64URL.encode(r#"{"alg":"RS256"}"#), BASE64URL.encode("{}"));
        for token in [
            String::new(),
            "...".to_owned(),
            header.clone(),
            format!("{header}.{claims}"),
            format!("{header}.{claims}.a.b"),
            format!("{header}.{claims}.a.b.c"),
            format!("{header}=.{claims}.a"),
            format!("{header} .{claims}.a"),
            format!("{header}.{}.a", BASE64URL.encode("[1]")),
            format!("{header}.{}.a", BASE64URL.encode("[".repeat(9000))),
            format!("{header}.{}.a", BASE64URL.encode([0xff, 0xfe])),
        ] {
            assert_eq!(Presented::read(&token).err(), Some(AccessError::Malformed), "{token}");
        }
        let long = format!("{header}.{claims}.{}", "a".repeat(TOKEN_BYTES_MAX));
        assert_eq!(Presented::read(&long).err(), Some(AccessError::TooLong));
    }
}
