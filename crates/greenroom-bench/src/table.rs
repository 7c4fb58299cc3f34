//! Measures the benchmarks and collects the rows of the table. Each round runs in a separate process with a fresh heap and
//! fresh caches. Times are processor time of the actors' thread, so that other load of the machine does not count.

use std::process::{Command, Stdio};

use crate::benchmarks::{self, BENCHMARKS, Benchmark, Round};
use crate::report::{Median, Row};

/// The options of a measurement.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only the benchmarks whose name contains this
    filter: Option<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Small sizes and fewer rounds: checks that the benchmarks run
    #[arg(long)]
    quick: bool,
}

/// Rounds of each benchmark; the table has the median.
const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 1;

/// Measures each benchmark.
///
/// # Errors
/// Returns a text if the filter matches nothing or a round failed.
pub fn measure(options: &Options) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for benchmark in BENCHMARKS {
        if let Some(filter) = &options.filter
            && !benchmark.name.contains(filter.as_str())
        {
            continue;
        }
        let scales = if options.quick {
            &benchmark.scales[..1]
        } else {
            benchmark.scales
        };
        for scale in scales {
            let rounds = if options.quick { QUICK_ROUNDS } else { ROUNDS };
            let rounds = (0..rounds)
                .map(|_| one_round(benchmark, *scale))
                .collect::<Result<Vec<_>, _>>()?;
            eprintln!("{} {scale}: done", benchmark.name);
            rows.push(Row {
                benchmark,
                scale: *scale,
                value: Median::of(rounds.iter().map(|round| round.value)),
                bare: rounds[0]
                    .bare
                    .map(|_| Median::of(rounds.iter().filter_map(|round| round.bare))),
                notes: rounds[0].notes.clone(),
            });
        }
    }
    if rows.is_empty() {
        return Err("the filter matches no benchmark".to_owned());
    }
    Ok(rows)
}

fn one_round(benchmark: &Benchmark, scale: usize) -> Result<Round, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let id = benchmarks::id(benchmark, scale);
    let output = Command::new(program)
        .args(["round", &id])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{id} ended with {}", output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{id}: {error}"))
}
