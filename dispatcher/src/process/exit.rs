//! How programs end: exit codes and failures.

use std::io::Write;
use std::process::ExitCode;

use crate::ledger::LedgerError;

/// How a program ended. Supervisors and scripts rely on the codes, which each program's page lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, stopped in order, or the answer is yes.
    Done,
    /// The answer is no: not verified, not delivered, no endpoint would get it. Only commands answer.
    AnswerIsNo,
    /// A part of a service ended by itself: a defect. Starting again may help.
    Defect,
    /// The command line, a file or this machine's set-up is wrong: starting again does not help.
    Configuration,
    /// A server cannot be reached. A service waits instead.
    Unreachable,
    /// A server refused the request. Only commands ask.
    Refused,
    /// A service was stopped, but not all was finished in the time that there was.
    Unfinished,
    /// Stopped at once by a second signal, or interrupted before there was an answer.
    Interrupted,
}

impl Exit {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::AnswerIsNo,
        Self::Defect,
        Self::Configuration,
        Self::Unreachable,
        Self::Refused,
        Self::Unfinished,
        Self::Interrupted,
    ];

    /// The exit code. Commands and services share the codes 1 and 4: no program is both.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::AnswerIsNo | Self::Defect => 1,
            Self::Configuration => 2,
            Self::Unreachable => 3,
            Self::Refused | Self::Unfinished => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a service ended. The messages say what to do, and hold no secret.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong.
    #[error("{0}")]
    Configuration(String),
    /// The database cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// A part of the service ended by itself.
    #[error("{0}")]
    Defect(String),
}

impl From<LedgerError> for Failure {
    /// An error that no waiting heals.
    fn from(error: LedgerError) -> Self {
        Self::Configuration(match error {
            // While nothing is stored yet, what is refused is the configuration.
            LedgerError::Refused(message) => message,
            other => other.to_string(),
        })
    }
}

impl Failure {
    /// The exit code that tells a supervisor the same.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Configuration(_) => Exit::Configuration,
            Self::Unreachable(_) => Exit::Unreachable,
            Self::Defect(_) => Exit::Defect,
        }
    }

    /// Writes the one line that says why. It stands outside of the log, so that no filter hides it.
    pub fn tell(&self) {
        // Nothing is left to tell it to when the stream is closed.
        let _ = writeln!(std::io::stderr(), "error: {self}");
    }
}
