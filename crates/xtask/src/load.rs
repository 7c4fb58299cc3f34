//! `cargo xtask load` runs a service under load of every kind for many minutes, and prints its memory figures.

use clap::Args;

use crate::steps::{StepError, built, cargo, step};

/// The options of a load run.
#[derive(Debug, Args)]
pub struct Options {
    /// How long the load lasts
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// Launches per second
    #[arg(long, default_value_t = 20)]
    rate: u64,
}

/// Loads the build of the tests. Fails if memory still grows at the end, or if a call failed.
pub fn run(options: &Options) -> Result<(), StepError> {
    // Always the whole workspace: another choice of packages has other features, and rebuilds everything.
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
