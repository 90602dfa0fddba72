//! `harborctl verify`: checks the signature of a request that was received.

use dispatcher::clock::now_unix_ms;
use dispatcher_core::limits::{HEADERS_INPUT_BYTES_MAX, REQUEST_BODY_BYTES_MAX, SECRET_INPUT_BYTES_MAX};
use dispatcher_core::redacted::Redacted;
use dispatcher_core::sign::{self, VerifyingKey};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use crate::cli::VerifyArguments;
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output::{Format, Output};
use crate::schemes;

/// Runs `verify`. The answer is no if the signature does not verify.
pub(crate) fn run(
    arguments: &VerifyArguments,
    secret: Option<&Redacted<String>>,
    output: &Output,
) -> Result<Exit, Failure> {
    one_standard_input(arguments)?;
    let key = match (&arguments.secret_file, secret) {
        (Some(path), _) => key_from_file(path)?,
        (None, Some(secret)) => parse_key(secret.expose().as_bytes())?,
        (None, None) => {
            let message = "give the secret with --secret-file FILE, or `-` for standard input, or in HARBORHOOK_SECRET";
            return Err(Failure::Local(message.to_owned()));
        }
    };
    let headers = headers(arguments)?;
    let body = input::value(&arguments.body, "--body", REQUEST_BODY_BYTES_MAX)?;
    let scheme = match arguments.scheme {
        Some(scheme) => scheme.into(),
        None => schemes::detect(&headers, Some(&key)).ok_or_else(|| {
            Failure::Local("no header carries a signature: give the request's headers, or --scheme".to_owned())
        })?,
    };
    let now = arguments.at.unwrap_or_else(|| i64::try_from(now_unix_ms() / 1000).unwrap_or(i64::MAX));
    let result = sign::verify(scheme, &[key], &headers, &body, now, arguments.tolerance_seconds);
    let reason = result.as_ref().err().map(ToString::to_string);
    match (output.format(), &reason) {
        (Format::Table, None) => output.text("verified")?,
        (Format::Table, Some(reason)) => output.text(&format!("not verified: {reason}"))?,
        (Format::Json | Format::Yaml, reason) => {
            output.document(&json!({ "verified": reason.is_none(), "scheme": scheme, "reason": reason }).into())?;
        }
    }
    Ok(if reason.is_none() { Exit::Done } else { Exit::AnswerIsNo })
}

/// Reads a key from a file, or `-` for standard input. One line ending at its end is not part of it.
pub(super) fn key_from_file(path: &str) -> Result<VerifyingKey, Failure> {
    let secret = Redacted::new(input::file(path, "--secret-file", SECRET_INPUT_BYTES_MAX)?);
    let bytes = secret.expose().as_slice();
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    parse_key(bytes.strip_suffix(b"\r").unwrap_or(bytes))
}

fn parse_key(value: &[u8]) -> Result<VerifyingKey, Failure> {
    VerifyingKey::parse(value).map_err(|error| Failure::Local(format!("the secret is no key: {error}")))
}

/// Standard input can be read only once.
fn one_standard_input(arguments: &VerifyArguments) -> Result<(), Failure> {
    let takers = [Some(arguments.body.as_str()), arguments.headers_file.as_deref(), arguments.secret_file.as_deref()];
    if takers.iter().filter(|taker| **taker == Some("-")).count() > 1 {
        return Err(Failure::Local("standard input (`-`) can be given only once".to_owned()));
    }
    Ok(())
}

fn headers(arguments: &VerifyArguments) -> Result<HeaderMap, Failure> {
    let file = match &arguments.headers_file {
        Some(path) => input::file(path, "--headers-file", HEADERS_INPUT_BYTES_MAX)?,
        None => Vec::new(),
    };
    let file = String::from_utf8(file).map_err(|_| Failure::Local("--headers-file is not text".to_owned()))?;
    let mut headers = HeaderMap::new();
    let lines = file.lines().map(str::trim_end).filter(|line| !line.is_empty());
    for line in lines.chain(arguments.headers.iter().map(String::as_str)) {
        let (name, value) =
            parse_header(line).ok_or_else(|| Failure::Local("a header must look like `Name: value`".to_owned()))?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn parse_header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
}
