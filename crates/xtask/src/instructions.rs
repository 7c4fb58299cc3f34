//! `cargo xtask instructions` compares the instruction counts of small benchmarks with the committed table. It uses the
//! build of the tests, so that it costs no further build.

use clap::Args;

use crate::steps::{StepError, built, cargo, step};

/// The options of a count.
#[derive(Debug, Args)]
pub struct Options {
    /// Write the table again: after a change that lowers the counts, or raises them with a reason
    #[arg(long)]
    write: bool,
}

/// Counts the instructions, and compares or writes the table.
pub fn run(options: &Options) -> Result<(), StepError> {
    // Always the whole workspace: another choice of packages has other features, and rebuilds everything.
    step("build", || {
        cargo(&["build", "--workspace", "--bin", "greenroom-bench"], &[])
    })?;
    let mut args = vec!["instructions"];
    args.extend(options.write.then_some("--write"));
    step("instructions", || built("greenroom-bench", &args))
}
