//! The one HTTP client towards the API.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use dispatcher_core::limits::{CLIENT_CONNECT_TIMEOUT, CLIENT_RESPONSE_BYTES_MAX, CLIENT_TIMEOUT, TOKEN_BYTES_MAX};
use dispatcher_core::redacted::Redacted;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use url::{Host, Url};

use crate::answer::Answer;
use crate::cli;
use crate::exit::Failure;

/// Speaks to one tenant's part of a server's API.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: Url,
    tenant: String,
    /// Read for each request: whoever writes it writes a new one before the old one ends.
    token_file: Option<PathBuf>,
}

impl Client {
    /// A client of the server at this URL, such as `http://127.0.0.1:7070`.
    pub(crate) fn new(server: &Url, tenant: &str) -> Result<Self, Failure> {
        if !matches!(server.scheme(), "http" | "https") || server.cannot_be_a_base() {
            return Err(Failure::Local(format!(
                "--server must be an http or https URL, not one of `{}:`",
                server.scheme()
            )));
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CLIENT_CONNECT_TIMEOUT)
            .timeout(CLIENT_TIMEOUT)
            .redirect(Policy::none());
        if is_loopback(server) {
            builder = builder.no_proxy();
        }
        let http =
            builder.build().map_err(|error| Failure::Local(format!("no HTTP client: {}", error.without_url())))?;
        Ok(Self { http, server: server.clone(), tenant: tenant.to_owned(), token_file: None })
    }

    /// Sends with every request the token that stands in the file then.
    pub(crate) fn with_token_file(self, token_file: Option<PathBuf>) -> Self {
        Self { token_file, ..self }
    }

    /// The same server, another tenant.
    pub(crate) fn for_tenant(&self, tenant: &str) -> Self {
        Self { tenant: tenant.to_owned(), ..self.clone() }
    }

    /// Reads what stands under the tenant at a path, given by its segments.
    pub(crate) async fn get(&self, path: &[&str], query: &[(&str, String)]) -> Result<Answer, Failure> {
        let mut url = self.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.send(Method::GET, url, None).await
    }

    /// Posts JSON to a path under the tenant, given by its segments.
    pub(crate) async fn post(&self, path: &[&str], body: Vec<u8>) -> Result<Answer, Failure> {
        self.send(Method::POST, self.url(path)?, Some(body)).await
    }

    fn url(&self, path: &[&str]) -> Result<Url, Failure> {
        let mut url = self.server.clone();
        url.path_segments_mut()
            .map_err(|()| Failure::Local("--server must be an http or https URL".to_owned()))?
            .pop_if_empty()
            .extend(["v1", "tenants", &self.tenant])
            .extend(path);
        Ok(url)
    }

    async fn send(&self, method: Method, url: Url, body: Option<Vec<u8>>) -> Result<Answer, Failure> {
        let mut request = self.http.request(method, url);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        if let Some(path) = &self.token_file {
            request = request.header(AUTHORIZATION, authorization(path)?);
        }
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = self.read(response).await?;
        if status.is_success() {
            return Answer::parse(body).ok_or_else(|| {
                Failure::Unreachable(format!("{} does not answer as Harborhook does: not JSON", self.origin()))
            });
        }
        Err(refusal(status, retry_after.as_deref(), &body, self.token_file.as_deref()))
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if body.len() + chunk.len() > CLIENT_RESPONSE_BYTES_MAX {
                let message =
                    format!("the answer is larger than {CLIENT_RESPONSE_BYTES_MAX} bytes: ask for fewer rows");
                return Err(Failure::Unreachable(message));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn unreachable(&self, error: reqwest::Error) -> Failure {
        let why = if error.is_timeout() {
            "no answer in time".to_owned()
        } else if error.is_connect() {
            "nobody can be reached there".to_owned()
        } else {
            error.without_url().to_string()
        };
        Failure::Unreachable(format!(
            "{}: {why}. Start one with `{} dev PATH`, or name another with --server",
            self.origin(),
            cli::program()
        ))
    }

    /// Scheme, host and port: what a person needs to recognise the server, without credentials.
    fn origin(&self) -> String {
        self.server.origin().ascii_serialization()
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// The header with the token of a file. Nothing of the token is told.
fn authorization(path: &Path) -> Result<HeaderValue, Failure> {
    let failed = |what: &str| Failure::Local(format!("--token-file {}: {what}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(&error.to_string()))?;
    let read = file.take(TOKEN_BYTES_MAX as u64 + 2).read_to_string(&mut text);
    let text = Redacted::new(text);
    read.map_err(|_| failed("it cannot be read as text"))?;
    let token = text.expose().trim();
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(failed(&format!("it must hold a token and nothing else, in at most {TOKEN_BYTES_MAX} bytes")));
    }
    let value = Redacted::new(format!("Bearer {token}"));
    let mut header = HeaderValue::from_str(value.expose()).map_err(|_| failed("it holds no token"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// What to do about a refusal for want of access.
fn advice(status: StatusCode, problem: &Value, token_file: Option<&Path>) -> Option<String> {
    let label = problem["type"].as_str().and_then(|name| name.rsplit('/').next());
    let file = token_file.map(|path| path.display().to_string());
    Some(match (status, label, file) {
        (StatusCode::UNAUTHORIZED, _, None) => {
            "name a file with a token by --token-file or HARBORHOOK_TOKEN_FILE; `kubectl create token ACCOUNT \
             --namespace NAMESPACE --audience harborhook` makes one"
                .to_owned()
        }
        (StatusCode::UNAUTHORIZED, _, Some(file)) => format!(
            "the token in {file} is not accepted: it may be over, for another audience than the server's, or of an issuer \
             that the server does not know"
        ),
        (StatusCode::FORBIDDEN, Some("missing-scope"), Some(file)) => {
            format!("the token in {file} is valid: ask whoever runs the server to grant its bearer the scope")
        }
        (StatusCode::NOT_FOUND, Some("unknown-tenant"), Some(file)) => {
            format!("or the token in {file} is for another tenant: --tenant names the namespace that it is of")
        }
        _ => return None,
    })
}

/// The failure that a problem document (RFC 9457) or any other refusal means.
fn refusal(status: StatusCode, retry_after: Option<&str>, body: &[u8], token_file: Option<&Path>) -> Failure {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut message = match (problem["title"].as_str(), problem["detail"].as_str()) {
        (Some(title), Some(detail)) => format!("{title}: {detail}"),
        (Some(title), None) => title.to_owned(),
        _ => format!("the server answered {status}"),
    };
    if let Some(field) = problem["field"].as_str() {
        message = format!("{message} (field {field})");
    }
    if let Some(advice) = advice(status, &problem, token_file) {
        message = format!("{message}; {advice}");
    }
    if let Some(seconds) = retry_after {
        message = format!("{message}; try again in {seconds} s");
    }
    if status.is_client_error() { Failure::Refused(message) } else { Failure::Unreachable(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_with_its_field() {
        let body = br#"{"title":"Invalid event","detail":"a field is wrong","field":"event_type"}"#;
        let failure = refusal(StatusCode::UNPROCESSABLE_ENTITY, None, body, None);
        assert_eq!(failure.to_string(), "Invalid event: a field is wrong (field event_type)");
        assert!(matches!(failure, Failure::Refused(_)));
    }

    #[test]
    fn a_failing_server_is_not_a_refusal() {
        let failure = refusal(StatusCode::SERVICE_UNAVAILABLE, Some("2"), b"<html>", None);
        assert_eq!(failure.to_string(), "the server answered 503 Service Unavailable; try again in 2 s");
        assert!(matches!(failure, Failure::Unreachable(_)));
    }

    #[test]
    fn a_refusal_for_want_of_access_says_what_to_do() {
        let file = Some(Path::new("/run/token"));
        for (status, label, file, expected) in [
            (401, "unauthenticated", None, "--token-file or HARBORHOOK_TOKEN_FILE"),
            (401, "unauthenticated", file, "the token in /run/token is not accepted"),
            (403, "missing-scope", file, "the token in /run/token is valid: ask"),
            (404, "unknown-tenant", file, "the token in /run/token is for another tenant: --tenant"),
        ] {
            let body = format!(r#"{{"type":"https://harborhook.dev/problems/{label}","title":"T","detail":"d"}}"#);
            let failure = refusal(StatusCode::from_u16(status).unwrap(), None, body.as_bytes(), file);
            let message = failure.to_string();
            assert!(message.starts_with("T: d; ") && message.contains(expected), "{message}");
            assert!(matches!(failure, Failure::Refused(_)));
        }
        let body = br#"{"type":"https://harborhook.dev/problems/not-found","title":"T","detail":"d"}"#;
        assert_eq!(refusal(StatusCode::NOT_FOUND, None, body, file).to_string(), "T: d");
    }

    #[test]
    fn a_token_file_holds_a_token_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(authorization(&path).unwrap_err().to_string().contains("token: No such file"));
        for text in ["", " \n", "s3cret token", "s3cr\u{e9}t", "s3cret\nmore", &"s".repeat(TOKEN_BYTES_MAX + 1)] {
            std::fs::write(&path, text).unwrap();
            let message = authorization(&path).unwrap_err().to_string();
            assert!(message.contains("nothing else") && !message.contains("s3"), "{message}");
        }
        for text in ["abc", "abc\n", " abc\r\n"] {
            std::fs::write(&path, text).unwrap();
            let header = authorization(&path).unwrap();
            assert!(header == "Bearer abc" && header.is_sensitive(), "{text:?}");
        }
    }

    #[test]
    fn this_machine_is_known_in_every_spelling() {
        for (url, expected) in [
            ("http://127.0.0.1:7070", true),
            ("http://[::1]", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://localhost", true),
            ("http://api.localhost", true),
            ("http://[::ffff:192.0.2.1]", false),
            ("http://example.com", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn names_are_encoded_into_paths() {
        let server = Url::parse("https://hooks.example.com/base/").unwrap();
        let client = Client::new(&server, "a/b").unwrap();
        let url = client.url(&["events:publish"]).unwrap();
        assert_eq!(url.as_str(), "https://hooks.example.com/base/v1/tenants/a%2Fb/events:publish");
    }
}
