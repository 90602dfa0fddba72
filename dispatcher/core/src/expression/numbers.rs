//! Reading JSON with every number as it was meant.
//!
//! `serde_json` makes a double of a whole number that fits no 64-bit type, and may miss the nearest double of a number
//! with many digits by one unit in the last place. The first is told, the second is mended.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Error, Number, Value};

/// Digits up to which a number without an exponent is read exactly: both its digits and the power of ten that they
/// are divided by are exact doubles.
const EXACT_DIGITS_MAX: usize = 15;

/// A JSON text that was read.
pub(super) struct Read {
    pub(super) value: Value,
    /// Whether a whole number that fits neither `i64` nor `u64` was made the nearest double.
    pub(super) is_rounded: bool,
}

/// Reads a JSON text.
pub(super) fn read(json: &[u8]) -> Result<Read, Error> {
    let value = serde_json::from_slice(json)?;
    let (mut is_rounded, mut is_inexact) = (false, false);
    for number in (Numbers { json, position: 0 }) {
        match Class::of(number) {
            Class::Exact => {}
            Class::Wide => is_rounded = true,
            Class::Inexact => is_inexact = true,
        }
    }
    // Rare, and then slower: every level is looked through once more.
    let value = if is_inexact { reread(serde_json::from_slice(json)?)? } else { value };
    Ok(Read { value, is_rounded })
}

/// How a number's text is read.
#[derive(Debug, PartialEq, Eq)]
enum Class {
    /// As it was meant.
    Exact,
    /// A whole number beyond 64 bits, rounded.
    Wide,
    /// Not as the nearest double.
    Inexact,
}

impl Class {
    fn of(text: &str) -> Self {
        let is_whole = !text.contains(['.', 'e', 'E']);
        if is_whole {
            // `-0` has no integer and is the double that it says.
            let fits = text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok();
            return if fits { Self::Exact } else { Self::Wide };
        }
        if text.len() <= EXACT_DIGITS_MAX && !text.contains(['e', 'E']) {
            return Self::Exact;
        }
        let read: Option<f64> = serde_json::from_str(text).ok();
        if read.map(f64::to_bits) == text.parse().ok().map(f64::to_bits) { Self::Exact } else { Self::Inexact }
    }
}

/// The numbers of a JSON text that is known to be one.
struct Numbers<'a> {
    json: &'a [u8],
    position: usize,
}

impl<'a> Iterator for Numbers<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        while let Some(byte) = self.json.get(self.position) {
            match byte {
                b'"' => self.skip_string(),
                b'-' | b'0'..=b'9' => {
                    let rest = &self.json[self.position..];
                    let is_part = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                    let length = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
                    self.position += length;
                    return str::from_utf8(&rest[..length]).ok();
                }
                _ => self.position += 1,
            }
        }
        None
    }
}

impl Numbers<'_> {
    fn skip_string(&mut self) {
        self.position += 1;
        while let Some(byte) = self.json.get(self.position) {
            self.position += if *byte == b'\\' { 2 } else { 1 };
            if *byte == b'"' {
                return;
            }
        }
    }
}

/// Reads a value, its doubles by the standard library. The text has been read before, so its depth is bounded.
fn reread(json: &RawValue) -> Result<Value, Error> {
    let text = json.get();
    match text.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            members.into_iter().map(|(name, member)| Ok((name, reread(member)?))).collect()
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(text)?;
            elements.into_iter().map(reread).collect()
        }
        Some(b'-' | b'0'..=b'9') if Class::of(text) == Class::Inexact => {
            let nearest = text.parse().ok().and_then(Number::from_f64);
            nearest.map_or_else(|| serde_json::from_str(text), |number| Ok(Value::Number(number)))
        }
        _ => serde_json::from_str(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_numbers_beyond_64_bits_are_told() {
        for (json, is_rounded) in [
            ("[0, -1, 9223372036854775807, -9223372036854775808, 18446744073709551615]", false),
            ("18446744073709551616", true),
            ("{\"a\": [-9223372036854775809]}", true),
            ("{\"18446744073709551616\": \"\\\"18446744073709551616\"}", false),
            ("[1e30, 123456789012345678901234.0, 1.0]", false),
        ] {
            assert_eq!(read(json.as_bytes()).unwrap().is_rounded, is_rounded, "{json}");
        }
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for json in ["", "{", "[1e999]", "01", "\"\\ud800\"", "1 2"] {
            assert!(read(json.as_bytes()).is_err(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn every_double_is_read_as_the_one_that_was_written(
            doubles in prop::collection::vec(any::<f64>().prop_filter("JSON has no other", |one| one.is_finite()), 1..20),
        ) {
            let written = format!("{{\"a\\\"1\": [{}]}}", doubles.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(", "));
            let value = read(written.as_bytes()).unwrap().value;
            let read: Vec<u64> = value["a\"1"].as_array().unwrap().iter().map(|one| one.as_f64().unwrap().to_bits()).collect();
            prop_assert_eq!(read, doubles.iter().map(|one| one.to_bits()).collect::<Vec<_>>());
        }
    }
}
