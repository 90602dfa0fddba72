//! The failure table: each row breaks a part of a real system under load, and a checker compares what was acknowledged
//! with what arrived. `docs/failures.md` is the table for people.

mod backlog;
mod broker;
mod clock;
mod database;
mod messages;
mod poison;
mod processes;
mod receivers;
mod support;
mod table;
