//! What talks to an API server: with a real one where there is one, and with one in the process for what a real one cannot
//! be made to do: hang, fail, refuse.

mod events;
mod failures;
mod lease;
mod measure;
mod pools;
mod replay;
mod run;
mod secret;
mod server;
mod status;
mod support;
mod token;
