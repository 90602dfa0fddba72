//! `harborctl receiver`: the test receiver alone.

use std::sync::Arc;
use std::time::Duration;

use dispatcher::clock::now_unix_ms;
use dispatcher::process::StopSignals;
use dispatcher_core::limits::RECEIVER_SEEN_MAX;
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::verify::key_from_file;
use crate::cli::ReceiverArguments;
use crate::exit::{Exit, Failure};
use crate::listen;
use crate::output::{Format, Output};
use crate::receiver::{self, Answer, Behaviour, Key, KeyBook, Seen, Verdict};
use crate::table;
use crate::times::time_of_day;

/// Runs `receiver` until it is stopped.
pub(crate) async fn run(arguments: &ReceiverArguments, output: &Output) -> Result<Exit, Failure> {
    if output.format() == Format::Yaml {
        return Err(Failure::Local("receiver prints --output table or json".to_owned()));
    }
    let mut stop = StopSignals::listen().map_err(|error| Failure::Local(error.to_string()))?;
    output.go_live()?;
    let behaviour = behaviour(arguments)?;
    let mut keys = KeyBook::default();
    if let Some(path) = &arguments.secret_file {
        keys.other.push(Key { scheme: None, keys: vec![key_from_file(path)?] });
    }
    let listener = listen::bind_loopback("--listen", arguments.listen).await?;
    let address = listener.local_addr().map_err(|error| Failure::Local(format!("no address: {error}")))?;
    match output.format() {
        Format::Json => output.json_line(&json!({ "kind": "listening", "address": address.to_string() }))?,
        _ => output.notice(&format!("the test receiver listens on http://{address}; Ctrl-C stops it")),
    }

    let (_keys, key_book) = watch::channel(Arc::new(keys));
    let (seen, mut requests) = mpsc::channel(RECEIVER_SEEN_MAX);
    let server = tokio::spawn(receiver::run(listener, behaviour, key_book, seen));
    loop {
        tokio::select! {
            () = stop.next() => break,
            request = requests.recv() => match request {
                Some(request) => print(&request, output)?,
                None => break,
            },
        }
    }
    server.abort();
    Ok(Exit::Done)
}

fn behaviour(arguments: &ReceiverArguments) -> Result<Behaviour, Failure> {
    let status =
        |code| StatusCode::from_u16(code).map_err(|_| Failure::Local(format!("--status {code} is no status of HTTP")));
    let fine = Answer::Status(StatusCode::OK);
    let special = match (arguments.reset, arguments.status, arguments.fail_first) {
        (true, _, _) => Answer::Reset,
        (false, Some(code), _) => Answer::Status(status(code)?),
        (false, None, Some(_)) => Answer::Status(StatusCode::SERVICE_UNAVAILABLE),
        (false, None, None) => fine,
    };
    let delay = Duration::from_millis(arguments.delay_milliseconds);
    Ok(match arguments.fail_first {
        Some(first_requests) => Behaviour { first_requests, first: special, then: fine, delay },
        None => Behaviour { first_requests: 0, first: special, then: special, delay },
    })
}

fn print(seen: &Seen, output: &Output) -> Result<(), Failure> {
    let status = match seen.answer {
        Answer::Status(status) => Some(status.as_u16()),
        Answer::Reset => None,
    };
    let (verified, reason) = match &seen.verdict {
        Verdict::Verified => (Some(true), None),
        Verdict::NotVerified(reason) => (Some(false), Some(reason.as_str())),
        Verdict::NoKey => (None, None),
    };
    if output.format() == Format::Json {
        return output.json_line(&json!({
            "kind": "request",
            "path": seen.path,
            "id": seen.id,
            "verified": verified,
            "reason": reason,
            "status_code": status,
            "body": String::from_utf8_lossy(&seen.body),
        }));
    }
    let answer = status.map_or_else(|| "reset".to_owned(), |status| status.to_string());
    let verdict = match (verified, reason) {
        (Some(true), _) => "verified".to_owned(),
        (_, Some(reason)) => format!("not verified: {reason}"),
        _ => "not checked".to_owned(),
    };
    output.text(&format!(
        "{}  {}  {}  {} bytes  {answer}  {verdict}",
        time_of_day(now_unix_ms()),
        table::printable(&seen.path),
        table::text(&seen.id.as_deref().map_or(Value::Null, Value::from)),
        seen.body.len(),
    ))
}
