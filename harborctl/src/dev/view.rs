//! What a person is shown besides the attempts.

use std::net::SocketAddr;

use crds::Kind;
use dispatcher::clock::now_unix_ms;
use operator::world::problem::FileProblem;
use serde_json::json;

use super::columns::resources_table;
use super::resources::{Applied, RECEIVER_HOST, Resources};
use crate::exit::Failure;
use crate::output::{Format, Output};

/// Names objects that are not for us.
pub(super) fn tell_skipped(skipped: &[String], output: &Output) {
    for object in skipped {
        output.notice(&format!("skipped: {object}"));
    }
}

/// Says first where the API listens, then what only `dev` allows.
pub(super) fn tell_listening(address: SocketAddr, output: &Output) -> Result<(), Failure> {
    if output.format() == Format::Json {
        output.json_line(&json!({ "kind": "listening", "address": address.to_string() }))?;
    } else {
        output.text(&format!("Listening on http://{address}"))?;
    }
    output.notice(&format!(
        "note: http and loopback targets are allowed here, as nowhere else by default; http://{RECEIVER_HOST} is the \
         built-in test receiver"
    ));
    Ok(())
}

/// Shows the resources as `kubectl get hep,hsub` would.
pub(super) fn show_resources(resources: &Resources, output: &Output) -> Result<(), Failure> {
    if output.format() == Format::Json {
        return Ok(());
    }
    for kind in Kind::ALL {
        if let Some(table) = resources_table(kind, &resources.objects(kind), now_unix_ms()) {
            output.text(&format!("\n{table}"))?;
        }
    }
    Ok(())
}

/// Tells of an edit that took effect.
pub(super) fn tell_applied(applied: &Applied, resources: &Resources, output: &Output) -> Result<(), Failure> {
    if output.format() == Format::Json {
        return output.json_line(&json!({
            "kind": "applied",
            "table_version": applied.table_version,
            "put": applied.put,
            "dropped": applied.dropped,
        }));
    }
    show_resources(resources, output)?;
    output.text("")
}

/// Tells why objects are not ready.
pub(super) fn tell_not_ready(lines: &[String], output: &Output) {
    for line in lines {
        output.notice(line);
    }
}

/// Tells what is wrong in files; what they held before goes on counting.
pub(super) fn tell_refused(problems: &[FileProblem], output: &Output) -> Result<(), Failure> {
    for problem in problems {
        output.notice(&format!("refused: {problem}"));
        if output.format() == Format::Json {
            output.json_line(&json!({
                "kind": "refused",
                "file": problem.file,
                "line": problem.line,
                "object": problem.object,
                "field": problem.field,
                "reason": problem.message,
            }))?;
        }
    }
    if !problems.is_empty() {
        output.notice("the last good route stays");
    }
    Ok(())
}

/// Says which command to try next.
pub(super) fn tell_next_command(address: SocketAddr, tenants: &[String], output: &Output) {
    let server = (address.port() != DEFAULT_PORT).then(|| format!(" --server http://{address}"));
    let tenant = tenants.first().filter(|tenant| *tenant != "default").map(|tenant| format!(" --tenant {tenant}"));
    let options: String = [server, tenant].into_iter().flatten().collect();
    output.notice(&format!(
        "\ntry next, in a second terminal:\n  \
         harborctl{options} event publish --type order.created --data '{{\"order\": \"A-7\"}}'\n  \
         harborctl{options} delivery list\nCtrl-C drains and stops\n"
    ));
}

/// Port of the API when none is named.
const DEFAULT_PORT: u16 = 7070;
