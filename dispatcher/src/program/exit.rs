//! How the program ends: exit codes and failures.

use std::io::Write;
use std::process::ExitCode;

use dispatcher::ledger::LedgerError;

/// Exit codes. Supervisors rely on them; `docs/operations.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or stopped in order.
    Done = 0,
    /// A part of the service ended by itself: a defect. Starting again may help.
    Defect = 1,
    /// The configuration is wrong: starting again does not help.
    Configuration = 2,
    /// The database cannot be reached; only `migrate` gives up.
    Unreachable = 3,
    /// Stopped, but not all was finished in the time that there was.
    Unfinished = 4,
    /// Stopped at once by a second signal.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the program ended. The messages say what to do, and hold no secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
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
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Configuration(_) => Exit::Configuration,
            Self::Unreachable(_) => Exit::Unreachable,
            Self::Defect(_) => Exit::Defect,
        }
    }

    /// Writes the one line that says why. It stands outside of the log, so that no filter hides it.
    pub(crate) fn tell(&self) {
        // Nothing is left to tell it to when the stream is closed.
        let _ = writeln!(std::io::stderr(), "error: {self}");
    }
}
