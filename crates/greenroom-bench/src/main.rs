//! `greenroom-bench` measures the actor system. `cargo xtask bench` prints a table of its speed, each figure next to the
//! figure of the bare mechanism in the same run. `cargo xtask instructions` counts instructions, which do not depend on the
//! load of the machine, and compares them with a committed table. `cargo xtask load` runs a service for many minutes and
//! samples its memory.

mod bare;
mod benchmarks;
mod clock;
mod instant_server;
#[cfg(feature = "virtual-time")]
mod instructions;
mod process;
mod report;
mod setup;
mod table;

use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

/// The allocator of the service.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Measures the actor system.
#[derive(Debug, Parser)]
#[command(name = "greenroom-bench")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures the speed, and prints a table
    Table(table::Options),
    #[cfg(feature = "virtual-time")]
    /// Counts instructions, and compares them with the committed table
    Instructions(instructions::Options),
    /// Loads a service for many minutes, and samples its memory
    Load(process::load::Options),
    /// Runs the service in a separate process: it takes the arguments of `greenroom serve`
    #[command(hide = true, disable_help_flag = true)]
    Serve {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Runs one round of one benchmark, by its id, and prints the result as JSON
    #[command(hide = true)]
    Round { id: String },
    #[cfg(feature = "virtual-time")]
    /// Runs one counted benchmark that many times; callgrind counts its instructions
    #[command(hide = true)]
    Counted { name: String, count: usize },
}

/// Locks a mutex.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Table(options) => {
            table::measure(&options).map(|rows| report::print(&rows, options.json))
        }
        #[cfg(feature = "virtual-time")]
        Command::Instructions(options) => instructions::compare(&options),
        Command::Load(options) => process::load::run(&options),
        Command::Serve { .. } => return greenroom_server::cli::main(),
        Command::Round { id } => round(&id),
        #[cfg(feature = "virtual-time")]
        Command::Counted { name, count } => benchmarks::counted::run(&name, count),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("greenroom-bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn round(id: &str) -> Result<(), String> {
    let (benchmark, scale) =
        benchmarks::by_id(id).ok_or_else(|| format!("not a known benchmark: {id}"))?;
    let round = (benchmark.run)(scale);
    let round = serde_json::to_string(&round).expect("numbers have a JSON form");
    println!("{round}");
    Ok(())
}
