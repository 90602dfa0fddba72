//! The binary as a child process, and folders of resources for it.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take that a test waits for.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// A command that sees nothing of this machine's configuration.
pub(crate) fn harborctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harborctl"));
    command.args(arguments);
    for name in [
        "HARBORHOOK_SERVER",
        "HARBORHOOK_TENANT",
        "HARBORHOOK_TOKEN_FILE",
        "HARBORHOOK_SECRET",
        "HARBORHOOK_LOG",
        "XDG_STATE_HOME",
        "CARGO",
    ] {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end, with text on standard input.
pub(crate) fn run_with_input(arguments: &[&str], input: &str) -> Output {
    let mut command = harborctl(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Runs a command to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    harborctl(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The exit code, and both outputs as text.
pub(crate) fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// Writes files into a folder, by name and content.
pub(crate) fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        // Replaced as a whole: what reads in between must not see half a file.
        let fresh = folder.join(format!(".{name}.new"));
        std::fs::write(&fresh, content).unwrap();
        std::fs::rename(fresh, folder.join(name)).unwrap();
    }
}

/// An endpoint without retries worth waiting for, at a URL.
pub(crate) fn endpoint(name: &str, url: &str) -> String {
    format!(
        "apiVersion: harborhook.dev/v1alpha1\nkind: Endpoint\nmetadata:\n  name: {name}\nspec:\n  url: {url}\n  \
         retry:\n    type: Fixed\n    delaySeconds: 1\n    jitterPercent: 0\n"
    )
}

/// A subscription of an endpoint to a type of events.
pub(crate) fn subscription(name: &str, endpoint: &str, event_type: &str) -> String {
    format!(
        "apiVersion: harborhook.dev/v1alpha1\nkind: Subscription\nmetadata:\n  name: {name}\nspec:\n  endpointRef:\n    \
         name: {endpoint}\n  eventTypes: [\"{event_type}\"]\n"
    )
}

/// A long-running command. It is killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// Output that nobody reads: a pipe that fills up.
    _unread: Option<BufReader<ChildStdout>>,
    /// Where it listens.
    pub(crate) address: String,
}

impl Running {
    /// `harborctl dev FOLDER` with JSON lines, on a free port, listening.
    pub(crate) fn dev(folder: &Path, data: &Path) -> Self {
        let (folder, data) = (folder.to_str().unwrap(), data.to_str().unwrap());
        Self::start(&["dev", folder, "--data", data, "--listen", "127.0.0.1:0", "--output", "json"])
    }

    /// A command that says first where it listens.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::started(arguments).0
    }

    /// A command that says first where it listens, and what it said.
    pub(crate) fn started(arguments: &[&str]) -> (Self, Value) {
        let mut child = spawn(&mut harborctl(arguments));
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        let mut running = Self { child, stdout, stderr, _unread: None, address: String::new() };
        let first = running.line();
        running.address = listening(&first);
        (running, first)
    }

    /// The same, but nobody reads what it prints after that.
    pub(crate) fn start_unread(arguments: &[&str]) -> Self {
        let mut child = spawn(&mut harborctl(arguments));
        let stderr = lines(child.stderr.take().unwrap());
        let mut unread = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        unread.read_line(&mut first).unwrap();
        let address = listening(&serde_json::from_str(&first).unwrap());
        Self { child, stdout: channel().1, stderr, _unread: Some(unread), address }
    }

    /// The next line, which must be JSON.
    pub(crate) fn line(&mut self) -> Value {
        match self.stdout.recv_timeout(DEADLINE) {
            Ok(line) => serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}")),
            Err(error) => panic!("no line ({error}); stderr: {:?}", self.stderr.try_iter().collect::<Vec<_>>()),
        }
    }

    /// The next line that the condition holds for.
    pub(crate) fn line_where(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + DEADLINE;
        let mut others = Vec::new();
        while Instant::now() < end {
            let line = self.line();
            if wanted(&line) {
                return line;
            }
            others.push(line);
        }
        panic!("the line did not come, only {others:?}");
    }

    /// The next line of stderr that contains a text.
    pub(crate) fn notice(&mut self, wanted: &str) -> String {
        let end = Instant::now() + DEADLINE;
        let mut others = Vec::new();
        loop {
            match self.stderr.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(wanted) => return line,
                Ok(line) => others.push(line),
                Err(error) => panic!("`{wanted}` was not said ({error}), only {others:?}"),
            }
        }
    }

    /// The next attempt of an event.
    pub(crate) fn attempt_of(&mut self, event: &str) -> Value {
        self.line_where(|line| line["kind"] == "delivery" && line["event"] == event)
    }

    /// Runs a command against it, which must end with this exit code; answers its JSON.
    pub(crate) fn ask(&self, arguments: &[&str], exit: i32) -> Value {
        let server = format!("http://{}", self.address);
        let output = run(&[&["--server", &server, "--output", "json"], arguments].concat());
        let (code, stdout, stderr) = told(&output);
        assert_eq!(code, exit, "{arguments:?}: {stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap_or(Value::Null)
    }

    /// Publishes an event and answers its identity.
    pub(crate) fn publish(&self, event_type: &str, data: &str) -> String {
        let answer = self.ask(&["event", "publish", "--type", event_type, "--data", data], 0);
        answer["event_id"].as_str().unwrap().to_owned()
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let command = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        // Both outputs end when the process does, so that their ends are what there is to wait for.
        for output in [&self.stdout, &self.stderr] {
            let end = Instant::now() + DEADLINE;
            while let Err(RecvTimeoutError::Timeout) | Ok(_) =
                output.recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                assert!(Instant::now() < end, "the process did not end");
            }
        }
        self.child.wait().unwrap()
    }

    /// SIGTERM, and a good end.
    pub(crate) fn stop(mut self) {
        self.terminate();
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The address in the first line.
fn listening(first: &Value) -> String {
    assert_eq!(first["kind"], "listening", "{first}");
    first["address"].as_str().unwrap().to_owned()
}

/// Waits until a condition holds that takes a process to look at.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "{what}");
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
