//! The only place that prints. stdout carries data and nothing else; everything said to a person besides it goes to
//! stderr, so that a pipe never sees it.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::answer::Answer;
use crate::exit::Failure;
use crate::table::{self, Column};

/// The form of what is printed to stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// JSON: one object a line where a command goes on printing.
    Json,
    /// YAML.
    Yaml,
}

/// Prints in the format that was asked for.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
}

#[expect(clippy::unused_self, reason = "only whoever was given the output may print")]
impl Output {
    /// An output in this format.
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// The format, for commands whose table form is made of several parts.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// A listing: the answer as it is, or its `items` as a table.
    pub(crate) fn listing(&self, answer: &Answer, columns: &[Column]) -> Result<(), Failure> {
        match self.format {
            Format::Table => {
                let items = answer.value()["items"].as_array().map(Vec::as_slice).unwrap_or_default();
                write_stdout(&table::render(columns, items))?;
                if let Some(cursor) = answer.field("next_cursor") {
                    self.notice(&format!("there is more: add --cursor {cursor}"));
                }
                Ok(())
            }
            Format::Json | Format::Yaml => self.document(answer),
        }
    }

    /// One object as a whole: JSON, or YAML, which is also its form for people.
    pub(crate) fn document(&self, answer: &Answer) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.text(answer.text()),
            Format::Table | Format::Yaml => {
                let yaml = serde_saphyr::to_string(answer.value());
                self.text(&yaml.map_err(|error| Failure::Local(format!("the answer has no form in YAML: {error}")))?)
            }
        }
    }

    /// Whole lines of text.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        if text.ends_with('\n') { write_stdout(text) } else { write_stdout(&format!("{text}\n")) }
    }

    /// One JSON object on a line of its own, written out at once.
    pub(crate) fn json_line(&self, object: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_string(object)
            .map_err(|error| Failure::Local(format!("the line has no form in JSON: {error}")))?;
        line.push('\n');
        write_stdout(&line)
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    }

    /// Something said to a person: on stderr, and nobody minds if nobody listens there.
    pub(crate) fn notice(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

fn write_stdout(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}
