//! How a command ends: exit codes, which `docs/harborctl.md` lists, and failures.

use std::io;

pub(crate) use dispatcher::process::Exit;

/// Why a command could not do what it was asked. The messages say what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line, a file or this machine's set-up is wrong.
    #[error("{0}")]
    Local(String),
    /// The server cannot be reached, does not answer in time, or failed itself.
    #[error("{0}")]
    Unreachable(String),
    /// The server refused the request.
    #[error("{0}")]
    Refused(String),
    /// What was printed could not be written.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The exit code that tells a script the same.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreachable(_) => Exit::Unreachable,
            Self::Refused(_) => Exit::Refused,
            // Whoever closed the pipe has read what they wanted.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Local(_) | Self::Output(_) => Exit::Configuration,
        }
    }

    /// Whether the reader of stdout has gone, as `head` does.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_exit_code() {
        for (failure, exit) in [
            (Failure::Local(String::new()), 2),
            (Failure::Unreachable(String::new()), 3),
            (Failure::Refused(String::new()), 4),
            (Failure::Output(io::ErrorKind::BrokenPipe.into()), 0),
            (Failure::Output(io::ErrorKind::StorageFull.into()), 2),
        ] {
            assert_eq!(failure.exit().code(), exit, "{failure:?}");
        }
    }
}
