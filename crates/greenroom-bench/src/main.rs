//! `greenroom-bench`: what the actor system costs. `cargo xtask bench` has a table of how fast it is, each figure beside
//! what the bare mechanism costs in the same run; `cargo xtask instructions` counts instructions, which are the same
//! however busy the machine is, and holds them against a table that was committed; `cargo xtask load` lets a service live
//! for many minutes and watches its memory.

mod bare;
mod clock;
mod instant_server;
#[cfg(feature = "virtual-time")]
mod instructions;
mod process;
mod report;
mod stage;
mod table;
mod works;

use std::process::ExitCode;

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
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measures how fast it is, and prints a table
    Table(table::Options),
    #[cfg(feature = "virtual-time")]
    /// Counts instructions, and compares them with the table that was committed
    Instructions(instructions::Options),
    /// Loads a service for many minutes, and watches its memory
    Load(process::load::Options),
    /// The service itself, in a process of its own: the words after it are those of `greenroom serve`
    #[command(hide = true, disable_help_flag = true)]
    Serve {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// One round of one work, by its exact name; prints what it measured as JSON
    #[command(hide = true)]
    Round { name: String },
    #[cfg(feature = "virtual-time")]
    /// One work whose instructions are counted from outside, with so many
    #[command(hide = true)]
    Counted { name: String, count: usize },
}

fn main() -> ExitCode {
    let done = match Args::parse().what {
        What::Table(options) => {
            table::measure(&options).map(|rows| report::print(&rows, options.json))
        }
        #[cfg(feature = "virtual-time")]
        What::Instructions(options) => instructions::compare(&options),
        What::Load(options) => process::load::run(&options),
        What::Serve { .. } => return greenroom_server::cli::main(),
        What::Round { name } => round(&name),
        #[cfg(feature = "virtual-time")]
        What::Counted { name, count } => works::counted::run(&name, count),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("greenroom-bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn round(name: &str) -> Result<(), String> {
    let (work, scale) = works::named(name).ok_or_else(|| format!("there is no work {name}"))?;
    let round = (work.run)(scale);
    let round = serde_json::to_string(&round).expect("numbers have a JSON form");
    println!("{round}");
    Ok(())
}
