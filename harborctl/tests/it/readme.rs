//! What the first page tells a newcomer to type.

use std::fs;
use std::process::Stdio;

use crate::support::{Running, harborctl, run, told};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const PROGRAM: &str = "cargo run -- ";

/// The commands of this program in the blocks of shell commands.
fn commands() -> Vec<String> {
    let text = fs::read_to_string(format!("{ROOT}/README.md")).unwrap();
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix(PROGRAM)).map(str::to_owned).collect()
}

/// The words of a command as a shell makes them.
fn words(command: &str) -> Vec<String> {
    let script = format!("printf '%s\\0' {command}");
    let output = std::process::Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn every_command_of_the_readme_works() {
    let (dev, others): (Vec<_>, Vec<_>) = commands().into_iter().partition(|command| command.starts_with("dev "));
    assert_eq!(dev, ["dev examples/quickstart"]);
    assert!(others.len() >= 3, "{others:?}");
    let data = tempfile::tempdir().unwrap();
    let quickstart = format!("{ROOT}/examples/quickstart");
    let options = ["--data", data.path().to_str().unwrap(), "--listen", "127.0.0.1:0", "--output", "json"];
    let running = Running::start(&[&["dev", &quickstart], &options[..]].concat());
    let server = format!("http://{}", running.address);
    for command in others {
        let words = words(&command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (code, stdout, stderr) = told(&run(&[&["--server", &server], &words[..]].concat()));
        assert_eq!(code, 0, "{command}: {stdout}{stderr}");
    }
    running.stop();
}

#[test]
fn the_next_command_is_named_as_this_program_was_started() {
    let binary = env!("CARGO_BIN_EXE_harborctl");
    for (cargo, program) in [(None, binary), (Some("/usr/bin/cargo"), "cargo run --")] {
        // Nobody listens at port 1.
        let mut command = harborctl(&["--server", "http://127.0.0.1:1", "endpoint", "list"]);
        if let Some(cargo) = cargo {
            command.env("CARGO", cargo).env("CARGO_PKG_NAME", "harborctl");
        }
        let (code, _, stderr) = told(&command.output().unwrap());
        assert_eq!(code, 3, "{stderr}");
        assert!(stderr.contains(&format!("`{program} dev PATH`")), "{stderr}");
    }
    let data = tempfile::tempdir().unwrap();
    let mut dev = Running::dev(format!("{ROOT}/examples/quickstart").as_ref(), data.path());
    let notice = dev.notice(" event publish ");
    assert!(notice.trim_start().starts_with(&format!("{binary} --server http://{}", dev.address)), "{notice}");
    dev.stop();
}
