//! What a person is shown besides the attempts.

use std::net::SocketAddr;

use crds::Kind;
use dispatcher::clock::now_unix_ms;
use operator::world::problem::FileProblem;
use serde_json::json;

use super::columns::resources_table;
use super::resources::{Applied, RECEIVER_HOST, Resources};
use super::troubles::{Healed, NotReady};
use crate::cli;
use crate::exit::Failure;
use crate::output::{Format, Output};

/// Names objects that are not for us.
pub(super) fn tell_skipped(skipped: &[String], output: &Output) {
    for object in skipped {
        output.notice(&format!("skipped: {object}"));
    }
}

/// Says first where the API listens, then what only `dev` allows.
pub(super) fn tell_listening(
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    output: &Output,
) -> Result<(), Failure> {
    if output.format() == Format::Json {
        let mut line = json!({ "kind": "listening", "address": address.to_string() });
        if let Some(admin_address) = admin_address {
            line["admin_address"] = admin_address.to_string().into();
        }
        output.json_line(&line)?;
    } else {
        output.text(&format!("Listening on http://{address}"))?;
        if let Some(admin_address) = admin_address {
            output.text(&format!("Health and metrics on http://{admin_address}"))?;
        }
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

/// Tells a person why objects are not ready.
pub(super) fn list_not_ready(objects: &[NotReady], output: &Output) {
    for NotReady { file, line, object, reason, message, .. } in objects {
        output.notice(&format!("not ready: {file}:{line}: {object}: {reason}: {message}"));
    }
}

/// Tells why objects are not ready.
pub(super) fn tell_not_ready(objects: &[NotReady], output: &Output) -> Result<(), Failure> {
    list_not_ready(objects, output);
    for NotReady { file, line, object, field, reason, message } in objects {
        if output.format() == Format::Json {
            output.json_line(&json!({
                "kind": "not_ready",
                "file": file,
                "line": line,
                "object": object,
                "field": field,
                "reason": reason,
                "message": message,
            }))?;
        }
    }
    Ok(())
}

/// Tells what is no longer wrong.
pub(super) fn tell_healed(healed: &[Healed], resources: &Resources, output: &Output) -> Result<(), Failure> {
    for Healed { file, object } in healed {
        let is = if resources.has_file(file) { "is right again" } else { "is gone" };
        match object {
            Some(object) => output.notice(&format!("{file}: {object} {is}")),
            None => output.notice(&format!("{file} {is}")),
        }
        if output.format() == Format::Json {
            output.json_line(&json!({ "kind": "healed", "file": file, "object": object }))?;
        }
    }
    Ok(())
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
    let program = cli::program();
    output.notice(&format!(
        "\ntry next, in a second terminal:\n  \
         {program}{options} event publish --type order.created --data '{{\"order\": \"A-7\"}}'\n  \
         {program}{options} delivery list\nCtrl-C drains and stops\n"
    ));
}

/// Port of the API when none is named.
const DEFAULT_PORT: u16 = 7070;
