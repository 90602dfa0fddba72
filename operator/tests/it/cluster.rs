//! What talks to an API server: with a real one where there is one, and with one in the process for what a real one cannot
//! be made to do: fail, refuse, answer nonsense.

mod definitions;
mod events;
mod expired;
mod failures;
mod hang;
mod instance;
mod lease;
mod ledger;
mod log;
mod measure;
mod paused;
mod pools;
mod process;
mod replay;
mod rights;
mod run;
mod secret;
mod server;
mod start;
mod status;
mod support;
mod token;
mod unreachable;
