//! `cargo xtask explore`: ten thousand random schedules of the default profile, two thousand of the reference, three
//! thousand in which the process ends at random instants, and a thousand told twice. Bounded to a few minutes; the same seeds each time.

use crate::steps::{StepError, built, cargo, step};

/// Tells them; the first broken promise is shown, made small, and written to the current folder.
pub fn run() -> Result<(), StepError> {
    // Always the whole workspace: another choice of packages has other features, and builds everything anew.
    step("build", || {
        cargo(&["build", "--workspace", "--bin", "greenroom-sim"], &[])
    })?;
    let explore = |words: &[&str]| {
        let mut all = vec!["explore"];
        all.extend(words);
        built("greenroom-sim", &all)
    };
    step("10,000 seeds", || explore(&["--seeds", "0..10000"]))?;
    step("2,000 seeds of the reference profile", || {
        explore(&["--seeds", "0..2000", "--profile", "reference"])
    })?;
    step("3,000 seeds with crashes", || {
        explore(&["--seeds", "0..3000", "--profile", "crashes"])
    })?;
    step("1,000 seeds twice", || {
        explore(&["--seeds", "0..1000", "--twice"])
    })
}
