//! What is done with the workspace besides building it. `cargo xtask test` is the one command that tests everything: it
//! fetches what the tests need, builds, runs, and says how long each step took.

mod steps;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Runs every test: units, stories in virtual time, and end to end on the real agent server.
    Test(test::Options),
}

fn main() -> ExitCode {
    let Args {
        task: Task::Test(options),
    } = Args::parse();
    match test::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}
