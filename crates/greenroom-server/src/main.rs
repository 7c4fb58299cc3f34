//! The `greenroom` command. The implementation is in the library, so that tests can call it.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Tasks cause many small allocations; this allocator needs half the time for them.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    greenroom_server::cli::main()
}
