//! `greenroom-bench`: how fast the actor system is, as a table, each figure beside what the bare mechanism costs in the
//! same run. `cargo xtask bench` builds it for a release and runs it.
//!
//! Each round of each work happens in a process of its own, with a fresh heap and fresh caches; this process starts them,
//! takes medians, and prints. Times are processor time of the thread that the actors live on: what else the machine does
//! does not count, and nothing waits for anything outside.

mod bare;
mod clock;
mod instant_server;
mod report;
mod stage;
mod works;

use std::process::{Command, ExitCode};

use clap::Parser;
use mimalloc::MiMalloc;

use crate::report::{Median, Row};
use crate::works::{Round, WORKS, Work};

/// The allocator of the service.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Measures the actor system and prints a table.
#[derive(Debug, Parser)]
#[command(name = "greenroom-bench")]
struct Args {
    /// Only the works whose name contains this
    filter: Option<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Small sizes and fewer rounds: whether it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// One round of one work, by its exact name; prints what it measured as JSON
    #[arg(long, hide = true)]
    round: Option<String>,
}

/// Rounds of each work; the median counts.
const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 1;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(name) = &args.round {
        let Some((work, scale)) = works::named(name) else {
            eprintln!("greenroom-bench: there is no work {name}");
            return ExitCode::from(2);
        };
        let round = (work.run)(scale);
        println!(
            "{}",
            serde_json::to_string(&round).expect("numbers have a JSON form")
        );
        return ExitCode::SUCCESS;
    }
    match measure(&args) {
        Ok(rows) => {
            report::print(&rows, args.json);
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("greenroom-bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for work in WORKS {
        if let Some(filter) = &args.filter
            && !work.name.contains(filter.as_str())
        {
            continue;
        }
        let scales = match args.quick {
            true => &work.scales[..1],
            false => work.scales,
        };
        for scale in scales {
            let rounds = match args.quick {
                true => QUICK_ROUNDS,
                false => ROUNDS,
            };
            let rounds = (0..rounds)
                .map(|_| one_round(work, *scale))
                .collect::<Result<Vec<_>, _>>()?;
            eprintln!("{} {scale}: done", work.name);
            rows.push(Row {
                work,
                scale: *scale,
                value: Median::of(rounds.iter().map(|round| round.value)),
                bare: rounds[0]
                    .bare
                    .map(|_| Median::of(rounds.iter().filter_map(|round| round.bare))),
                notes: rounds[0].notes.clone(),
            });
        }
    }
    match rows.is_empty() {
        true => Err("no work has that in its name".to_owned()),
        false => Ok(rows),
    }
}

fn one_round(work: &Work, scale: usize) -> Result<Round, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let name = works::name(work, scale);
    let output = Command::new(program)
        .args(["--round", &name])
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{name} ended with {}", output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{name}: {error}"))
}
