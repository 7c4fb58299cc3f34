//! Measures the works and makes the table of them: each round of each work in a process of its own, with a fresh heap and
//! fresh caches; medians and spreads of those. Times are processor time of the thread that the actors live on: what else
//! the machine does does not count.

use std::process::{Command, Stdio};

use crate::report::{Median, Row};
use crate::works::{self, Round, WORKS, Work};

/// What is measured, and how it is told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only the works whose name contains this
    filter: Option<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Small sizes and fewer rounds: whether it works, not how fast it is
    #[arg(long)]
    quick: bool,
}

/// Rounds of each work; the median counts.
const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 1;

/// Measures each work in its rounds.
///
/// # Errors
/// No work has that in its name, or a round failed.
pub fn measure(options: &Options) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for work in WORKS {
        if let Some(filter) = &options.filter
            && !work.name.contains(filter.as_str())
        {
            continue;
        }
        let scales = match options.quick {
            true => &work.scales[..1],
            false => work.scales,
        };
        for scale in scales {
            let rounds = match options.quick {
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
        .args(["round", &name])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{name} ended with {}", output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{name}: {error}"))
}
