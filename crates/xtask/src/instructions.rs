//! `cargo xtask instructions`: whether small works take more instructions than the committed table says. What is built is
//! what tests are built with, so that it costs nothing where those were built.

use clap::Args;

use crate::steps::{StepError, built, cargo, step};

/// What becomes of the counts.
#[derive(Debug, Args)]
pub struct Options {
    /// Write the table anew: after what made them fewer, or more with a reason
    #[arg(long)]
    write: bool,
}

/// Counts, and compares or writes.
pub fn run(options: &Options) -> Result<(), StepError> {
    // Always the whole workspace: another choice of packages has other features, and builds everything anew.
    step("build", || {
        cargo(&["build", "--workspace", "--bin", "greenroom-bench"], &[])
    })?;
    let mut words = vec!["instructions"];
    words.extend(options.write.then_some("--write"));
    step("instructions", || built("greenroom-bench", &words))
}
