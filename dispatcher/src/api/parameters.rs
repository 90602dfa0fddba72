//! Query parameters: every one is known, stands there once, and has a value that it can have.

use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dispatcher_core::limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX, QUERY_BYTES_MAX};
use uuid::Uuid;

use crate::ledger::Cursor;
use crate::problem::{Problem, ProblemKind};

/// The parameters of one request.
#[derive(Debug)]
pub struct Parameters {
    pairs: Vec<(String, String)>,
}

impl Parameters {
    /// Reads a query string. A parameter that is not among `known`, or stands there twice, is a problem.
    pub fn parse(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let query = query.unwrap_or_default();
        if query.len() > QUERY_BYTES_MAX {
            let detail = format!("A query string has at most {QUERY_BYTES_MAX} bytes.");
            return Err(Problem::new(ProblemKind::InvalidQuery, detail));
        }
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&name.as_ref()) {
                let detail = if known.is_empty() {
                    "This route has no query parameters.".to_owned()
                } else {
                    format!("The parameters of this route are {}.", known.join(", "))
                };
                return Err(Problem::new(ProblemKind::InvalidQuery, detail).at(name));
            }
            if pairs.iter().any(|(earlier, _)| *earlier == name) {
                return Err(invalid(&name, "It stands there twice."));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self { pairs })
    }

    /// A parameter's value as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// A parameter's value, parsed; `expected` says what it must be.
    pub fn parsed<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        self.text(name).map(|text| text.parse().map_err(|_| invalid(name, expected))).transpose()
    }

    /// `limit`: rows of a page.
    pub fn limit(&self) -> Result<u32, Problem> {
        let expected = format!("It must be a number from 1 to {PAGE_ROWS_MAX}.");
        match self.parsed::<u32>("limit", &expected)? {
            None => Ok(PAGE_ROWS_DEFAULT),
            Some(limit) if (1..=PAGE_ROWS_MAX).contains(&limit) => Ok(limit),
            Some(_) => Err(invalid("limit", &expected)),
        }
    }

    /// `cursor` of a listing by identity.
    pub fn cursor(&self) -> Result<Option<Cursor>, Problem> {
        let Some(bytes) = self.cursor_bytes()? else { return Ok(None) };
        let bytes: [u8; 16] = bytes.try_into().map_err(|_| invalid_cursor())?;
        Ok(Some(Cursor(Uuid::from_bytes(bytes))))
    }

    /// `cursor` of a listing by name.
    pub fn name_cursor(&self) -> Result<Option<String>, Problem> {
        let Some(bytes) = self.cursor_bytes()? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|_| invalid_cursor())
    }

    fn cursor_bytes(&self) -> Result<Option<Vec<u8>>, Problem> {
        self.text("cursor").map(|text| URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid_cursor())).transpose()
    }
}

/// A cursor as clients see it: opaque.
pub fn encode_cursor(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A parameter whose value is not valid.
pub fn invalid(name: &str, expected: &str) -> Problem {
    Problem::new(ProblemKind::InvalidQuery, format!("The parameter `{name}` is not valid. {expected}")).at(name)
}

fn invalid_cursor() -> Problem {
    invalid("cursor", "Use the `next_cursor` of the page before, unchanged.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_valid_is_named() {
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=501", "limit"),
            ("limit=-1", "limit"),
            ("limit=", "limit"),
            ("limit=1&limit=2", "limit"),
            ("limits=1", "limits"),
            ("cursor=!", "cursor"),
            ("cursor=AAAA", "cursor"),
            ("cursor=", "cursor"),
            ("%00=1", "\0"),
            ("=", ""),
        ] {
            let read = Parameters::parse(Some(query), &["limit", "cursor"]).and_then(|parameters| {
                parameters.limit()?;
                parameters.cursor()
            });
            let problem = read.unwrap_err();
            assert_eq!((problem.kind, problem.field.as_deref()), (ProblemKind::InvalidQuery, Some(field)), "{query}");
        }
    }

    proptest! {
        #[test]
        fn a_cursor_survives_the_way_to_the_client_and_back(bytes: [u8; 16], name in "[a-z0-9.-]{1,253}") {
            let query = format!("cursor={}", encode_cursor(&bytes));
            let parameters = Parameters::parse(Some(&query), &["cursor"]).unwrap();
            prop_assert_eq!(parameters.cursor().unwrap(), Some(Cursor(Uuid::from_bytes(bytes))));
            let query = format!("cursor={}", encode_cursor(name.as_bytes()));
            let parameters = Parameters::parse(Some(&query), &["cursor"]).unwrap();
            prop_assert_eq!(parameters.name_cursor().unwrap(), Some(name));
        }
    }
}
