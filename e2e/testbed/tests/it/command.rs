//! `testbed run`.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use testbed::{AMQP_URL, DATABASE_URL, HELM, KUBECONFIG, KUBECTL, MANAGEMENT_URL, REQUIRE_SERVERS};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::{eventually, listens, port_of};

/// `testbed run /bin/sh -c SCRIPT`, where the environment names a cluster, which nobody looks at, and no server.
fn testbed(script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
    command
        .args(["run", "/bin/sh", "-c", script])
        .env_remove(DATABASE_URL)
        .env_remove(AMQP_URL)
        .env_remove(MANAGEMENT_URL)
        .env(KUBECONFIG, "/named");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// The first line of its output.
async fn first_line(child: &mut Child) -> String {
    BufReader::new(child.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap_or_default()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().unwrap().cast_signed()).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn a_command_sees_both_servers_and_its_exit_code_is_passed_on() {
    if testbed::postgres(&[]).await.unwrap().is_none() {
        return;
    }
    let script = format!("echo ${DATABASE_URL} ${AMQP_URL} ${MANAGEMENT_URL}; exit 7");
    let output = testbed(&script).output().await.unwrap();
    assert_eq!(output.status.code(), Some(7));
    let line = String::from_utf8(output.stdout).unwrap();
    let urls: Vec<_> = line.split_whitespace().collect();
    assert_eq!(urls.len(), 3, "{line}");
    assert!(urls.iter().all(|url| !listens(port_of(url))), "a server outlived the command");
}

#[tokio::test]
async fn a_command_sees_a_cluster_and_what_it_is_looked_at_with() {
    let script = format!(
        "export KUBECONFIG=${KUBECONFIG}; [ -n \"$KUBECONFIG\" ] || exit 0
        ${KUBECTL} get nodes --output name; ${HELM} list --all-namespaces --short && echo $KUBECONFIG"
    );
    let mut command = testbed(&script);
    command.env(DATABASE_URL, "named:").env(AMQP_URL, "named:");
    for unnamed in [KUBECONFIG, KUBECTL, HELM] {
        command.env_remove(unnamed);
    }
    let output = command.output().await.unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    if let [node, kubeconfig] = lines[..] {
        assert_eq!(node, "node/node");
        assert!(!std::path::Path::new(kubeconfig).exists(), "the cluster outlived the command");
    } else {
        assert!(lines.is_empty(), "{text}");
    }
}

#[tokio::test]
async fn servers_that_the_environment_names_are_not_started_again() {
    let named = "amqp://named:by@the.environment:1/";
    let mut command = testbed(&format!("echo ${AMQP_URL} ${DATABASE_URL}"));
    let output = command.env(AMQP_URL, named).env(DATABASE_URL, "postgres://named").output().await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{named} postgres://named\n"));
}

#[tokio::test]
async fn a_terminated_run_ends_its_command_and_a_killed_one_its_servers() {
    for (sent, code) in [(Signal::TERM, Some(128 + 15)), (Signal::KILL, None)] {
        // The server is asked for through its port: this process has no handle on it.
        let script = format!("echo ${DATABASE_URL}; exec cat >/dev/null");
        let folders = tempfile::tempdir().unwrap();
        let mut child = testbed(&script).env("TMPDIR", folders.path()).stdin(Stdio::piped()).spawn().unwrap();
        // The command ends with this at the latest.
        let _input = child.stdin.take();
        let url = first_line(&mut child).await;
        if url.is_empty() {
            return;
        }
        assert!(listens(port_of(&url)));
        signal(&child, sent);
        assert_eq!(child.wait().await.unwrap().code(), code);
        eventually("the server is gone", || !listens(port_of(&url))).await;
        eventually("its folder is gone", || folders.path().read_dir().unwrap().next().is_none()).await;
    }
}

#[tokio::test]
async fn a_machine_without_servers_is_an_error_only_when_they_are_required() {
    let empty = tempfile::tempdir().unwrap();
    for (required, success) in [("0", true), ("1", false)] {
        let mut command = testbed("true");
        // Neither a cached root nor a program to make one.
        command.env("XDG_CACHE_HOME", empty.path()).env("PATH", empty.path()).env(REQUIRE_SERVERS, required);
        let output = command.stderr(Stdio::piped()).output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("server can be started: "), "{said}");
        assert_eq!(said.contains("skipped"), success, "{said}");
        assert_eq!(output.status.success(), success, "{said}");
    }
}
