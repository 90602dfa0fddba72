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

/// Begins to log. `never` are targets that are not logged whatever is asked for.
///
/// # Errors
/// If the filter cannot be used.
pub fn start_log(arguments: &LogArguments, never: &[&str]) -> Result<(), Failure> {
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter(&arguments.log, never)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match arguments.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// What is logged: what the user asks for, without what must not be.
fn filter(text: &str, never: &[&str]) -> Result<EnvFilter, Failure> {
    let wrong = |error| {
        let hint = "it looks like `info` or `info,dispatcher=debug`";
        Failure::Configuration(format!("--log {text:?} cannot be used: {error}; {hint}"))
    };
    let filter = EnvFilter::builder().parse(text).map_err(wrong)?;
    let never = never.iter().map(|target| format!("{target}=off"));
    let directives = never.chain([LOG_DIRECTIVE.to_owned()]);
    directives
        .map(|directive| directive.parse())
        .try_fold(filter, |filter, directive| Ok(filter.add_directive(directive?)))
        .map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returned_messages_are_never_logged_whatever_is_asked_for() {
        for text in ["info", "trace", "lapin=trace", "lapin::returned_messages=trace"] {
            let filter = filter(text, &[]).unwrap().to_string();
            assert!(filter.split(',').any(|directive| directive == LOG_DIRECTIVE), "{text}: {filter}");
            assert_eq!(filter.matches("returned_messages").count(), 1, "{text}: {filter}");
        }
        assert!(filter("no=such=level", &[]).is_err());
    }

    #[test]
    fn what_a_program_never_logs_is_not_logged_whatever_is_asked_for() {
        for text in ["trace", "kube_client=trace", "kube_client::client=trace"] {
            let filter = filter(text, &["kube_client::client"]).unwrap().to_string();
            assert!(filter.split(',').any(|directive| directive == "kube_client::client=off"), "{text}: {filter}");
            assert_eq!(filter.matches("kube_client::client").count(), 1, "{text}: {filter}");
        }
    }
}
