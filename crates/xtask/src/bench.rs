//! `cargo xtask bench` runs the benchmarks and prints their tables in the form of the pages in docs/.

use clap::Args;

use crate::steps::{StepError, cargo, step};

/// The options of the benchmarks.
#[derive(Debug, Args)]
pub struct Options {
    /// Only the benchmarks whose name contains this
    filter: Option<String>,
    /// JSON for programs instead of tables; leaves the journal out
    #[arg(long)]
    json: bool,
    /// Small sizes and single rounds: checks that the benchmarks run
    #[arg(long)]
    quick: bool,
}

/// Runs the benchmarks. Only the measured packages are built: anything else would be rebuilt for a release.
pub fn run(options: &Options) -> Result<(), StepError> {
    let mut system = vec![
        "run",
        "--release",
        "--package",
        "greenroom-bench",
        // Virtual time makes the clock more expensive.
        "--no-default-features",
        "--",
        "table",
    ];
    system.extend(options.filter.as_deref());
    system.extend(options.json.then_some("--json"));
    system.extend(options.quick.then_some("--quick"));
    step("the system", || cargo(&system, &[]))?;
    if options.json || options.quick || options.filter.is_some() {
        return Ok(());
    }
    step("the journal", || {
        cargo(
            &[
                "bench",
                "--package",
                "greenroom-sqlite",
                "--bench",
                "journal",
            ],
            &[],
        )
    })
}
