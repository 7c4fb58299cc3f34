//! `cargo xtask bench`: what is measured and not tested, as tables of the form that the pages in docs/ hold.

use crate::steps::{StepError, cargo, step};

/// Measures. Only the packages that are measured are built: everything else would be built anew for a release.
pub fn run() -> Result<(), StepError> {
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
