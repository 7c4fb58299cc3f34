//! `cargo xtask load`: a service under load of every kind for many minutes, and how its memory went.

use clap::Args;

use crate::steps::{StepError, built, cargo, step};

/// How long, and how much.
#[derive(Debug, Args)]
pub struct Options {
    /// How long the load lasts
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// Launches a second
    #[arg(long, default_value_t = 20)]
    rate: u64,
}

/// Loads what tests are built with. It ends with a failure if memory still grows at the end, or if a call failed.
pub fn run(options: &Options) -> Result<(), StepError> {
    // Always the whole workspace: another choice of packages has other features, and builds everything anew.
    step("build", || {
        cargo(&["build", "--workspace", "--bin", "greenroom-bench"], &[])
    })?;
    let (minutes, rate) = (options.minutes.to_string(), options.rate.to_string());
    step("load", || {
        built(
            "greenroom-bench",
            &["load", "--minutes", &minutes, "--rate", &rate],
        )
    })
}
