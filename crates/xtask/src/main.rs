//! What is done with the workspace besides building it. `cargo xtask test` is the one command that tests everything: it
//! fetches what the tests need, builds, runs, and says how long each step took.

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
    /// Measures, and prints tables: the system beside bare mechanisms, and the journal.
    Bench(bench::Options),
    /// Counts the instructions of small works under callgrind, and compares them with the committed table.
    Instructions(instructions::Options),
    /// Counts words that plain technical English does not need, and compares the numbers with the committed table.
    Language(language::Options),
    /// Loads a service for many minutes and watches its memory.
    Load(load::Options),
    /// Tells thousands of random schedules under virtual time and looks for broken promises.
    Explore,
    /// Puts deliberate faults into a copy of the project, one at a time, and has the explorer look for each.
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
