//! The `greenroom` command. All of it is in the library, so that tests can call it.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Most of what a task costs besides its messages is small pieces of memory; this one hands them out in half the time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    greenroom_server::cli::main()
}
