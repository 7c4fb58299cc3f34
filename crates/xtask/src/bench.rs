//! `cargo xtask bench`: what is measured and not tested, as tables of the form that the pages in docs/ hold.

use clap::Args;

use crate::steps::{StepError, cargo, step};

/// What is measured, and how it is told.
#[derive(Debug, Args)]
pub struct Options {
    /// Only the works whose name contains this
    filter: Option<String>,
    /// JSON for programs instead of tables; without the journal alone
    #[arg(long)]
    json: bool,
    /// Small sizes and single rounds: whether it works, not how fast it is
    #[arg(long)]
    quick: bool,
}

/// Measures. Only the packages that are measured are built: everything else would be built anew for a release.
pub fn run(options: &Options) -> Result<(), StepError> {
    let mut system = vec![
        "run",
        "--release",
        "--package",
        "greenroom-bench",
        // Virtual time makes the clock dearer.
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
