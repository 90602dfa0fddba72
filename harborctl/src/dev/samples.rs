//! Sample events: the files `events.jsonl` of a folder, one publish request a line.

use std::fs;
use std::path::{Path, PathBuf};

use dispatcher_core::limits::{SAMPLE_EVENTS_MAX, SAMPLE_FILE_BYTES_MAX, SAMPLE_FOLDER_DEPTH_MAX};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::exit::Failure;
use crate::input;
use crate::publish::PublishRequest;

const FILE_NAME: &str = "events.jsonl";

/// An event to publish.
#[derive(Debug)]
pub(super) struct Sample {
    /// Where it stands, for people: file and line.
    pub(super) place: String,
    /// Tenant whose event it is; `None` if there is only one.
    pub(super) tenant: Option<String>,
    /// The body of the publish request, its payload byte for byte.
    pub(super) body: Vec<u8>,
}

/// A line of the file: a publish request that may name its tenant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    tenant: Option<String>,
    event_type: String,
    payload: Box<RawValue>,
    idempotency_key: Option<String>,
    recipient: Option<String>,
}

/// Reads the sample events of a folder, files in the order of their paths. All problems are told at once.
pub(super) fn read(folder: &Path) -> Result<Vec<Sample>, Failure> {
    let mut files = Vec::new();
    find(folder, SAMPLE_FOLDER_DEPTH_MAX, &mut files)?;
    files.sort();
    let (mut samples, mut problems) = (Vec::new(), Vec::new());
    for file in files {
        let name = file.display().to_string();
        let text = String::from_utf8(input::file(&name, "sample events", SAMPLE_FILE_BYTES_MAX)?)
            .map_err(|_| Failure::Local(format!("{name}: is not UTF-8")))?;
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            match parse(format!("{name}:{}", index + 1), line) {
                Ok(sample) => samples.push(sample),
                Err(problem) => problems.push(problem),
            }
        }
    }
    if samples.len() > SAMPLE_EVENTS_MAX {
        problems.push(format!("{}: more than {SAMPLE_EVENTS_MAX} sample events", folder.display()));
    }
    if problems.is_empty() { Ok(samples) } else { Err(Failure::Local(problems.join("\n"))) }
}

fn find(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed = |error| Failure::Local(format!("{}: {error}", folder.display()));
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // The type of the entry itself: a link to a folder above it would lead round in a circle.
        let file_type = entry.file_type().map_err(failed)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if file_type.is_dir() && depth > 0 && !hidden {
            find(&entry.path(), depth - 1, files)?;
        } else if entry.file_name() == FILE_NAME && !file_type.is_dir() {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn parse(place: String, line: &str) -> Result<Sample, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| format!("{place}: not a publish request: {error}"))?;
    let request = PublishRequest {
        event_type: &line.event_type,
        payload: &line.payload,
        idempotency_key: line.idempotency_key.as_deref(),
        recipient: line.recipient.as_deref(),
    };
    let body = request.to_body().map_err(|error| format!("{place}: {error}"))?;
    Ok(Sample { place, tenant: line.tenant, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_in_order_and_their_payload_is_untouched() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        let first = "{\"event_type\":\"a\",\"payload\":{\"b\":1.0,  \"a\":2},\"tenant\":\"shop\"}\n\n";
        fs::write(folder.path().join(FILE_NAME), first).unwrap();
        let second = "{\"event_type\":\"b\",\"payload\":[],\"recipient\":\"acme\",\"idempotency_key\":\"k\"}";
        fs::write(folder.path().join("sub").join(FILE_NAME), second).unwrap();
        let samples = read(folder.path()).unwrap();
        let bodies: Vec<_> = samples.iter().map(|sample| String::from_utf8_lossy(&sample.body)).collect();
        assert_eq!(bodies[0], "{\"event_type\":\"a\",\"payload\":{\"b\":1.0,  \"a\":2}}");
        assert_eq!(bodies[1], "{\"event_type\":\"b\",\"payload\":[],\"idempotency_key\":\"k\",\"recipient\":\"acme\"}");
        assert_eq!(samples[0].tenant.as_deref(), Some("shop"));
    }

    #[test]
    fn every_wrong_line_is_told_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE_NAME), "{}\n{\"event_type\":\"a\",\"payload\":1,\"typo\":1}\n").unwrap();
        let message = read(folder.path()).unwrap_err().to_string();
        assert!(message.contains("events.jsonl:1: not a publish request: missing field"), "{message}");
        assert!(message.contains("events.jsonl:2: not a publish request: unknown field `typo`"), "{message}");
    }

    #[test]
    fn a_folder_without_samples_has_none() {
        assert!(read(tempfile::tempdir().unwrap().path()).unwrap().is_empty());
    }
}
