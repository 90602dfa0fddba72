//! The data plane's one program. See `docs/operations.md`.

mod program;

use std::process::ExitCode;

/// What deliveries allocate is small, lives briefly, and is often freed by another thread than the one that made it.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    program::main()
}
