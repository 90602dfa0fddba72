//! The data plane's one program. See `docs/operations.md`.

mod program;

use std::process::ExitCode;

fn main() -> ExitCode {
    program::main()
}
