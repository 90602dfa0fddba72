//! The contract as its users meet it: the schema, what is admitted and refused, the committed files and pages.

mod admission;
mod conditions;
mod files;
mod pages;
mod replay;
mod rules;
mod schema;
mod support;
