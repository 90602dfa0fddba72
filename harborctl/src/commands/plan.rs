//! `harborctl plan`: what changes between two trees of resources, for reviews. Nothing is asked and nothing is changed.

mod assume;
mod difference;
mod tree;

use std::path::Path;

use dispatcher::clock::now_unix_ms;
use operator::world::files::{Loaded, STREAM, load_path, load_stream};
use serde_json::{Value, json};

use self::difference::{Difference, difference};
use self::tree::Tree;
use super::cell;
use crate::cli::PlanArguments;
use crate::exit::{Exit, Failure};
use crate::output::{Format, Output};
use crate::table::Column;

const COLUMNS: &[Column] = &[
    Column { title: "CHANGE", cell: |row| cell(row, "change") },
    Column { title: "KIND", cell: |row| cell(row, "kind") },
    Column { title: "NAMESPACE", cell: |row| cell(row, "namespace") },
    Column { title: "NAME", cell: |row| cell(row, "name") },
    Column { title: "WHAT", cell: |row| cell(row, "what") },
];

/// Runs `plan`: the exit code tells whether nothing changes, something does, or something would be wrong.
pub(crate) fn run(arguments: &PlanArguments, output: &Output) -> Result<Exit, Failure> {
    let is_stream = |path: &Path| path == Path::new(STREAM);
    if is_stream(&arguments.from) && is_stream(&arguments.to) {
        return Err(Failure::Local("standard input (`-`) can be given only once".to_owned()));
    }
    let policy = arguments.address.policy();
    let now = now_unix_ms();
    let from = Tree::plan(load(&arguments.from)?, None, &policy, now);
    let mut to = Tree::plan(load(&arguments.to)?, Some(&from), &policy, now);
    to.refuse_updates(&from);
    for problem in &from.file_problems {
        output.notice(&format!("--from is not right itself: {problem}"));
    }
    let difference = difference(&from, &to);
    tell(&difference, &to, output)?;
    Ok(if !to.file_problems.is_empty() || difference.gets_worse() {
        Exit::Configuration
    } else if difference.changes.is_empty() {
        Exit::Done
    } else {
        Exit::AnswerIsNo
    })
}

fn load(path: &Path) -> Result<Loaded, Failure> {
    if path == Path::new(STREAM) {
        return Ok(load_stream(&mut std::io::stdin().lock()));
    }
    path.metadata().map_err(|error| Failure::Local(format!("{}: {error}", path.display())))?;
    Ok(load_path(path))
}

fn tell(difference: &Difference, to: &Tree, output: &Output) -> Result<(), Failure> {
    let assumed: Vec<String> = to.assumed_secrets.iter().map(ToString::to_string).collect();
    if output.format() != Format::Table {
        let problems = to.file_problems.iter().map(|problem| {
            json!({
                "file": problem.file, "line": problem.line, "object": problem.object, "field": problem.field,
                "reason": problem.message,
            })
        });
        let document = json!({
            "changes": difference.changes,
            "not_ready": difference.not_ready,
            "refused": problems.collect::<Vec<_>>(),
            "assumed_secrets": assumed,
        });
        return output.document(&document.into());
    }
    let rows: Vec<Value> = difference.rows().collect();
    if rows.is_empty() {
        output.text("nothing changes")?;
    } else {
        output.listing(&json!({ "items": rows }).into(), COLUMNS)?;
    }
    for problem in &to.file_problems {
        output.notice(&format!("refused: {problem}"));
    }
    if !assumed.is_empty() {
        output.notice(&format!("not in the tree, taken to be there and right: Secret {}", assumed.join(", ")));
    }
    Ok(())
}
