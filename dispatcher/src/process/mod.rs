//! What every program of Harborhook does the same way: its options, its log, its signals, its listeners, its ends.

pub mod address;
mod connect;
mod database;
mod exit;
mod listen;
mod log;
mod run;
mod sealing;
mod signals;

pub use self::connect::{ConnectedLedger, Retry, Use, connect_ledger, retried};
pub use self::database::{Database, check_files};
pub use self::exit::{Exit, Failure};
pub use self::listen::{ListenerRole, announce, open};
pub use self::log::{LogArguments, LogFormat, start_log};
pub use self::run::{run, runtime};
pub use self::sealing::{SealingFileError, read_sealing_keys};
pub use self::signals::StopSignals;

/// Installs the one TLS provider of the process.
pub fn install_tls_provider() {
    // An error means that one is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
