//! Commands for developers of the workspace. `cargo xtask test` runs all tests: it fetches their requirements, builds, runs,
//! and prints the time of each step.

mod bench;
mod explore;
mod faults;
mod instructions;
mod language;
mod load;
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
    /// Runs the benchmarks of the system and the journal, and prints tables.
    Bench(bench::Options),
    /// Counts the instructions of small benchmarks under callgrind, and compares them with the committed table.
    Instructions(instructions::Options),
    /// Counts words that plain technical English does not need, and compares the numbers with the committed table.
    Language(language::Options),
    /// Loads a service for many minutes, and samples its memory.
    Load(load::Options),
    /// Runs thousands of random schedules in virtual time, and checks the promises.
    Explore,
    /// Applies deliberate faults to a copy of the project, one at a time, and checks that the explorer finds each.
    Faults(faults::Options),
}

fn main() -> ExitCode {
    let done = match Args::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Instructions(options) => instructions::run(&options),
        Task::Language(options) => language::run(&options).map_err(Into::into),
        Task::Load(options) => load::run(&options),
        Task::Explore => explore::run(),
        Task::Faults(options) => faults::run(&options).map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}
