//! The only place that prints. stdout carries data and nothing else; everything said to a person besides it goes to
//! stderr, so that a pipe never sees it.

mod writer;

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use dispatcher_core::limits::{OUTPUT_LINES_MAX, OUTPUT_PATIENCE};
use serde::Serialize;
use serde_json::json;

use self::writer::{Piece, Stream, Writer, write_to_process};

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
    live: OnceLock<Live>,
}

/// The threads that write for a command that must not wait for its reader.
#[derive(Debug)]
struct Live {
    stdout: Writer,
    /// `None` if both streams are a terminal: one thread keeps their order, and they stall together anyway.
    stderr: Option<Writer>,
}

impl Live {
    fn push(&self, stream: Stream, text: String) -> io::Result<()> {
        let writer = match (stream, &self.stderr) {
            (Stream::Stderr, Some(writer)) => writer,
            _ => &self.stdout,
        };
        writer.push(Piece { stream, text })
    }
}

impl Output {
    /// An output in this format. What is printed is written before printing returns.
    pub(crate) fn new(format: Format) -> Self {
        Self { format, live: OnceLock::new() }
    }

    /// From now on printing never waits for the reader: of one that is behind by [`OUTPUT_LINES_MAX`] lines, further
    /// lines are dropped, and how many is told once it has caught up. For commands that go on until they are stopped.
    pub(crate) fn go_live(&self) -> Result<(), Failure> {
        let missed = if self.format == Format::Json { missed_json } else { missed_text };
        let start = |missed| Writer::start(OUTPUT_LINES_MAX, write_to_process, missed);
        let one_terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
        let stderr = if one_terminal { None } else { Some(start(missed_text)?) };
        // Whoever goes live twice is live already.
        let _ = self.live.set(Live { stdout: start(missed)?, stderr });
        Ok(())
    }

    /// Waits until a line fits into what is held for the reader of stdout.
    pub(crate) async fn room(&self) {
        if let Some(live) = self.live.get() {
            live.stdout.room().await;
        }
    }

    /// Waits until the reader of stdout has taken everything.
    pub(crate) async fn flushed(&self) {
        if let Some(live) = self.live.get() {
            live.stdout.flushed().await;
        }
    }

    /// Waits for what is not written yet, but not for a reader that takes nothing for [`OUTPUT_PATIENCE`].
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let Some(Live { stdout, stderr }) = self.live.into_inner() else { return Ok(()) };
        let written = stdout.finish(OUTPUT_PATIENCE);
        if let Some(stderr) = stderr {
            // Nobody minds if nobody listens there.
            let _ = stderr.finish(OUTPUT_PATIENCE);
        }
        Ok(written?)
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
                self.text(&table::render(columns, items))?;
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
        let end = if text.ends_with('\n') { "" } else { "\n" };
        self.write(Stream::Stdout, format!("{text}{end}"))
    }

    /// One JSON object on a line of its own, written out at once.
    pub(crate) fn json_line(&self, object: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(object)
            .map_err(|error| Failure::Local(format!("the line has no form in JSON: {error}")))?;
        self.text(&line)
    }

    /// Bytes as they are.
    #[expect(clippy::unused_self, reason = "only whoever was given the output may print")]
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    }

    /// Something said to a person: on stderr, and nobody minds if nobody listens there.
    pub(crate) fn notice(&self, text: &str) {
        let _ = self.write(Stream::Stderr, format!("{text}\n"));
    }

    fn write(&self, stream: Stream, text: String) -> Result<(), Failure> {
        let written = match self.live.get() {
            Some(live) => live.push(stream, text),
            None => write_to_process(&Piece { stream, text }),
        };
        Ok(written?)
    }
}

fn missed_json(lines: u64) -> Piece {
    Piece { stream: Stream::Stdout, text: format!("{}\n", json!({ "kind": "missed", "lines": lines })) }
}

fn missed_text(lines: u64) -> Piece {
    Piece { stream: Stream::Stderr, text: format!("{lines} lines are not shown: they were not read in time\n") }
}
