//! `cargo xtask explore` runs ten thousand random schedules of the default profile, two thousand of the reference profile,
//! three thousand in which the process ends at random instants, three thousand of the ordinary life of opencode, two
//! thousand of both together, and a thousand twice. It takes a few minutes and uses the same seeds each time.

use crate::steps::{StepError, built, cargo, step};

/// Runs the schedules. The first broken promise is printed, reduced, and written to the current folder.
pub fn run() -> Result<(), StepError> {
    // Always the whole workspace: another choice of packages has other features, and rebuilds everything.
    step("build", || {
        cargo(&["build", "--workspace", "--bin", "greenroom-sim"], &[])
    })?;
    let explore = |args: &[&str]| {
        let mut all = vec!["explore"];
        all.extend(args);
        built("greenroom-sim", &all)
    };
    step("10,000 seeds", || explore(&["--seeds", "0..10000"]))?;
    step("2,000 seeds of the reference profile", || {
        explore(&["--seeds", "0..2000", "--profile", "reference"])
    })?;
    step("3,000 seeds with crashes", || {
        explore(&["--seeds", "0..3000", "--profile", "crashes"])
    })?;
    step("3,000 seeds of the ordinary life of opencode", || {
        explore(&["--seeds", "0..3000", "--profile", "ordinary"])
    })?;
    step("2,000 seeds of the ordinary life with crashes", || {
        explore(&["--seeds", "0..2000", "--profile", "ordinary-crashes"])
    })?;
    step("1,000 seeds twice", || {
        explore(&["--seeds", "0..1000", "--twice"])
    })
}
