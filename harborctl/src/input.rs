//! Values that are given in place, in a file, or on standard input.

use std::fs::File;
use std::io::Read;

use crate::exit::Failure;

/// Reads `text` itself, `@FILE`, or `-` for standard input; at most `bytes_max`.
pub(crate) fn value(text: &str, what: &str, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    match text.strip_prefix('@') {
        Some(path) => file(path, what, bytes_max),
        None if text == "-" => file(text, what, bytes_max),
        None => Ok(text.as_bytes().to_vec()),
    }
}

/// Reads a file, or `-` for standard input; at most `bytes_max`.
pub(crate) fn file(path: &str, what: &str, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    if path == "-" {
        return limited(std::io::stdin().lock(), what, "standard input", bytes_max);
    }
    let file = File::open(path).map_err(|error| Failure::Local(format!("{what}: {path}: {error}")))?;
    limited(file, what, path, bytes_max)
}

/// Reads at most `bytes_max` and says so if there is more.
fn limited(source: impl Read, what: &str, name: &str, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    source
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Local(format!("{what}: {name}: {error}")))?;
    if bytes.len() > bytes_max {
        return Err(Failure::Local(format!("{what}: {name} has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_limit_is_refused_and_exactly_the_limit_is_not() {
        assert_eq!(limited(&b"1234"[..], "body", "x", 4).unwrap(), b"1234");
        let failure = limited(&b"12345"[..], "body", "x", 4).unwrap_err();
        assert_eq!(failure.to_string(), "body: x has more than 4 bytes");
    }

    #[test]
    fn a_missing_file_is_named() {
        let failure = value("@/nowhere/body.json", "--data", 10).unwrap_err();
        assert!(failure.to_string().starts_with("--data: /nowhere/body.json: "), "{failure}");
    }
}
