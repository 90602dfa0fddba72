//! The control plane's one program. See `docs/operator.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    operator::program::main()
}
