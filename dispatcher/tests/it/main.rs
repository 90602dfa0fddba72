//! Integration tests of the data plane: one binary, so that it links once.

mod api;
mod deliver;
mod http;
mod ingest;
mod ledger;
mod queue;
