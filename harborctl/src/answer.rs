//! An answer to be printed.

use serde_json::Value;

/// A JSON answer: its value, and its very text, since reading and writing again would change numbers in a payload.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    text: String,
    value: Value,
}

impl Answer {
    /// Reads an answer; `None` if it is not JSON.
    pub(crate) fn parse(bytes: Vec<u8>) -> Option<Self> {
        let value = serde_json::from_slice(&bytes).ok()?;
        Some(Self { text: String::from_utf8(bytes).ok()?, value })
    }

    /// Its text, as it was received.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Its value.
    pub(crate) fn value(&self) -> &Value {
        &self.value
    }

    /// A field's text, if it is there.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.value[name].as_str()
    }
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        Self { text: value.to_string(), value }
    }
}
