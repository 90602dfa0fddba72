//! What a machine lacks for servers of its own, and what the environment wants done about it.

use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};

use crate::{Environment, REQUIRE_SERVERS, announce};

/// Why this machine cannot have private servers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Missing {
    Root,
    /// A program, and how it is installed.
    Program(&'static str, &'static str),
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => formatter.write_str("it needs root; run the tests as root"),
            Self::Program(program, cure) => write!(formatter, "{program} is not installed; {cure}"),
        }
    }
}

/// The first thing that is missing: root, or one of these programs.
pub(crate) fn missing(programs: &[(&'static str, &'static str)]) -> Option<Missing> {
    if !rustix::process::geteuid().is_root() {
        return Some(Missing::Root);
    }
    let absent = programs.iter().find(|(program, _)| !is_installed(program))?;
    Some(Missing::Program(absent.0, absent.1))
}

/// `None` where something is missing and the environment does not say that servers are required. `alternative` is what
/// the user can do instead.
pub(crate) fn or_skip<Prepared>(
    prepared: Result<Prepared, Missing>,
    environment: &Environment,
    server: &str,
    alternative: &str,
) -> Result<Option<Prepared>> {
    match prepared {
        Ok(prepared) => Ok(Some(prepared)),
        Err(missing) if environment.require_servers => {
            bail!("{REQUIRE_SERVERS} is set, but no private {server} can be started: {missing}, or {alternative}")
        }
        Err(missing) => {
            announce(&format!("skipped: no private {server} can be started: {missing}, or {alternative}"));
            Ok(None)
        }
    }
}

/// Names a path, or a program on the PATH.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Path::new(program).is_file() || std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_part_names_the_cure_and_the_alternative() {
        let lack = Missing::Program("mmdebstrap", "apt-get install mmdebstrap");
        for (missing, cure) in [(Missing::Root, "as root"), (lack, "install mmdebstrap")] {
            let environment = Environment { require_servers: true, ..Environment::default() };
            let error = or_skip::<()>(Err(missing), &environment, "server", "name one").unwrap_err().to_string();
            assert!(error.contains(cure) && error.contains("name one"), "{error}");
        }
    }

    #[test]
    fn a_program_that_nobody_has_is_missing() {
        assert!(is_installed("sh") && is_installed("/bin/sh"));
        assert!(!is_installed("no-such-program") && !is_installed("/no/such/program"));
    }
}
