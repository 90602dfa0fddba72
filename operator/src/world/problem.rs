//! What is wrong in a file.

use std::fmt;

/// One thing that is wrong in a file, or with it. Never repeats a value, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileProblem {
    /// The file, as it was found; `-` for standard input.
    pub file: String,
    /// Line, from 1.
    pub line: Option<usize>,
    /// Number of the document in its file, from 1; 0 for the file as a whole.
    pub document: usize,
    /// The object, for example `Endpoint shop/billing`.
    pub object: Option<String>,
    /// The field, for example `spec.url`.
    pub field: Option<String>,
    /// What is wrong, in words that tell what would be right.
    pub message: String,
}

impl FileProblem {
    /// A problem of a file as a whole.
    pub(super) fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, document: 0, object: None, field: None, message: message.into() }
    }
}

/// One line: `file:line: Endpoint shop/billing: spec.url: message`.
impl fmt::Display for FileProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(formatter, ":{line}")?;
        }
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(formatter, ": {part}")?;
        }
        write!(formatter, ": {}", self.message)
    }
}

impl std::error::Error for FileProblem {}
