//! Event types and the patterns that select them.
//!
//! A type is segments joined by dots. A pattern is a type, or a prefix followed by `.*` (exactly one more segment) or
//! `.**` (one or more), or `**` alone (every type). Nothing else is a wildcard, so that a pattern can be looked up by
//! its prefix instead of being tried.

use std::fmt;

use thiserror::Error;

use crate::limits::{EVENT_TYPE_BYTES_MAX, EVENT_TYPE_SEGMENTS_MAX};

/// A pattern of event types.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TypePattern {
    /// This type and no other.
    Exact(String),
    /// `prefix.*`: the prefix and exactly one more segment.
    OneMore(String),
    /// `prefix.**`: the prefix and one or more segments.
    OneOrMore(String),
    /// `**`: every type.
    All,
}

/// Why a text is no event type, or no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// There is nothing.
    #[error("an event type must not be empty")]
    Empty,
    /// More than [`EVENT_TYPE_BYTES_MAX`].
    #[error("an event type has at most {EVENT_TYPE_BYTES_MAX} bytes")]
    TooLong,
    /// More than [`EVENT_TYPE_SEGMENTS_MAX`].
    #[error("an event type has at most {EVENT_TYPE_SEGMENTS_MAX} segments")]
    TooManySegments,
    /// Two dots in a row, or one at either end.
    #[error("an event type must not have an empty segment: remove the superfluous `.`")]
    EmptySegment,
    /// A character that does not belong to a type.
    #[error(
        "an event type must not contain {0:?}: use letters, digits, `-`, `_`, `/` and `:`, with `.` between segments"
    )]
    Character(char),
    /// A wildcard where none may stand.
    #[error("a wildcard stands only at the end, as `prefix.*` or `prefix.**`, or alone as `**`")]
    Wildcard,
}

impl TypePattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > EVENT_TYPE_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        if text == "**" {
            return Ok(Self::All);
        }
        let (prefix, wrap): (&str, fn(String) -> Self) = match (text.strip_suffix(".**"), text.strip_suffix(".*")) {
            (Some(prefix), _) => (prefix, Self::OneOrMore),
            (None, Some(prefix)) => (prefix, Self::OneMore),
            (None, None) => (text, Self::Exact),
        };
        if prefix.contains('*') {
            return Err(PatternError::Wildcard);
        }
        // A wildcard stands for at least one segment, which counts.
        let wildcard_segments = usize::from(prefix.len() < text.len());
        validate_segments(prefix, EVENT_TYPE_SEGMENTS_MAX - wildcard_segments)?;
        Ok(wrap(prefix.to_owned()))
    }

    /// Whether an event of this type is selected. Types are compared as text, case included.
    pub fn matches(&self, event_type: &str) -> bool {
        let rest_after = |prefix: &str| event_type.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
        match self {
            Self::Exact(text) => text == event_type,
            Self::OneMore(prefix) => rest_after(prefix).is_some_and(|rest| !rest.is_empty() && !rest.contains('.')),
            Self::OneOrMore(prefix) => rest_after(prefix).is_some_and(|rest| !rest.is_empty()),
            Self::All => true,
        }
    }
}

impl fmt::Display for TypePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => formatter.write_str(text),
            Self::OneMore(prefix) => write!(formatter, "{prefix}.*"),
            Self::OneOrMore(prefix) => write!(formatter, "{prefix}.**"),
            Self::All => formatter.write_str("**"),
        }
    }
}

/// Checks an event's type: segments of letters, digits, `-`, `_`, `/` and `:`, joined by dots, within the limits.
pub fn validate_event_type(text: &str) -> Result<(), PatternError> {
    if text.len() > EVENT_TYPE_BYTES_MAX {
        return Err(PatternError::TooLong);
    }
    validate_segments(text, EVENT_TYPE_SEGMENTS_MAX)
}

/// The prefixes of a type that a wildcard may stand behind, longest first: `a.b.c` gives `a.b`, then `a`.
pub(crate) fn prefixes(event_type: &str) -> impl Iterator<Item = &str> {
    event_type.rmatch_indices('.').map(|(position, _)| &event_type[..position])
}

fn validate_segments(text: &str, segments_max: usize) -> Result<(), PatternError> {
    if text.is_empty() {
        return Err(PatternError::Empty);
    }
    let is_allowed =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_' | '/' | ':');
    if let Some(character) = text.chars().find(|character| !is_allowed(*character)) {
        return Err(if character == '*' { PatternError::Wildcard } else { PatternError::Character(character) });
    }
    if text.split('.').any(str::is_empty) {
        return Err(PatternError::EmptySegment);
    }
    if text.split('.').count() > segments_max {
        return Err(PatternError::TooManySegments);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_selects_what_its_form_says() {
        for (pattern, selected, not_selected) in [
            (
                "order.created",
                &["order.created"][..],
                &["order", "order.created.v2", "Order.created", "orderXcreated"][..],
            ),
            ("order.*", &["order.created", "order.x"], &["order", "order.created.v2", "orders.created", "order."]),
            ("order.**", &["order.created", "order.created.v2"], &["order", "orders.created", "order."]),
            ("**", &["order", "order.created.v2"], &[]),
        ] {
            let parsed = TypePattern::parse(pattern).unwrap();
            assert_eq!(parsed.to_string(), pattern);
            for event_type in selected {
                assert!(parsed.matches(event_type), "{pattern} {event_type}");
            }
            for event_type in not_selected {
                assert!(!parsed.matches(event_type), "{pattern} {event_type}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_reason() {
        let long = "a".repeat(EVENT_TYPE_BYTES_MAX + 1);
        let many = vec!["a"; EVENT_TYPE_SEGMENTS_MAX + 1].join(".");
        let full_and_wildcard = format!("{}.*", vec!["a"; EVENT_TYPE_SEGMENTS_MAX].join("."));
        for (text, reason) in [
            ("", PatternError::Empty),
            (".*", PatternError::Empty),
            ("*", PatternError::Wildcard),
            ("***", PatternError::Wildcard),
            ("*.created", PatternError::Wildcard),
            ("order.*.created", PatternError::Wildcard),
            ("order.**.*", PatternError::Wildcard),
            ("order*", PatternError::Wildcard),
            ("order.***", PatternError::Wildcard),
            ("order..created", PatternError::EmptySegment),
            (".order", PatternError::EmptySegment),
            ("order.", PatternError::EmptySegment),
            ("order..*", PatternError::EmptySegment),
            ("order created", PatternError::Character(' ')),
            ("order\n", PatternError::Character('\n')),
            ("ordér", PatternError::Character('é')),
            (&long, PatternError::TooLong),
            (&many, PatternError::TooManySegments),
            (&full_and_wildcard, PatternError::TooManySegments),
        ] {
            assert_eq!(TypePattern::parse(text), Err(reason), "{text:?}");
        }
    }

    #[test]
    fn event_types_are_what_producers_send_and_never_patterns() {
        for text in ["order.created", "com.example.order/created", "com.github.pull_request.opened", "a:b-c", "x"] {
            assert_eq!(validate_event_type(text), Ok(()), "{text}");
        }
        for text in ["", "order.*", "**", "a b", "a\u{7f}", "a..b", "a.", "a\0"] {
            assert!(validate_event_type(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_valid_type_is_an_exact_pattern_that_selects_itself(text in "[a-z:/_-]{1,4}(\\.[A-Z0-9]{1,4}){0,5}") {
            prop_assert_eq!(validate_event_type(&text), Ok(()));
            prop_assert!(TypePattern::parse(&text).unwrap().matches(&text));
            for prefix in prefixes(&text) {
                let pattern = TypePattern::parse(&format!("{prefix}.**")).unwrap();
                prop_assert!(pattern.matches(&text));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}|[a*.]{0,20}") {
            if let Ok(pattern) = TypePattern::parse(&text) {
                prop_assert_eq!(pattern.to_string(), text);
            }
        }
    }
}
