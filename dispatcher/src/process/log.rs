//! The log, on the standard error stream.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::queue::rabbitmq::LOG_DIRECTIVE;

/// How the log is written.
#[derive(Debug, Args)]
pub struct LogArguments {
    /// What is logged on stderr
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "HARBORHOOK_LOG",
        default_value = "info,lapin=warn,sqlx=warn"
    )]
    pub log: String,

    /// Form of the log
    #[arg(long, global = true, value_name = "FORM", env = "HARBORHOOK_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line a message, for people
    Text,
    /// One JSON object a line
    Json,
}

/// Begins to log.
///
/// # Errors
/// If the filter cannot be used.
pub fn start_log(arguments: &LogArguments) -> Result<(), Failure> {
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter(&arguments.log)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match arguments.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// What is logged: what the user asks for, without what must not be.
fn filter(text: &str) -> Result<EnvFilter, Failure> {
    let wrong = |error| {
        let hint = "it looks like `info` or `info,dispatcher=debug`";
        Failure::Configuration(format!("--log {text:?} cannot be used: {error}; {hint}"))
    };
    let filter = EnvFilter::builder().parse(text).map_err(wrong)?;
    Ok(filter.add_directive(LOG_DIRECTIVE.parse().map_err(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returned_messages_are_never_logged_whatever_is_asked_for() {
        for text in ["info", "trace", "lapin=trace", "lapin::returned_messages=trace"] {
            let filter = filter(text).unwrap().to_string();
            assert!(filter.split(',').any(|directive| directive == LOG_DIRECTIVE), "{text}: {filter}");
            assert_eq!(filter.matches("returned_messages").count(), 1, "{text}: {filter}");
        }
        assert!(filter("no=such=level").is_err());
    }
}
