//! Counts the instructions of small fixed benchmarks under callgrind and compares them with a committed table. The counts
//! do not depend on the load or speed of the machine. Each benchmark runs twice, the second time with twice the count; the
//! difference is compared. Called by `cargo xtask instructions`.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::benchmarks::counted::{COUNTED, CountedBenchmark};
use crate::lock;

/// The options of a count.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Write the table instead of comparing with it
    #[arg(long)]
    write: bool,
    /// The path of the table
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.toml"))]
    table: PathBuf,
}

/// The allowed increase over the table, as a fraction. Counts of the same build differ by less than 1 %.
const ALLOWED_INCREASE: f64 = 0.05;
/// The decrease, as a fraction, from which on the table is out of date: it would hide a later regression.
const STALE_DECREASE: f64 = 0.10;

const HEADER: &str = "\
# Instructions per unit of each benchmark in the profile that tests are built in, counted by callgrind.
# Written by `cargo xtask instructions --write`; the same without --write compares, in .ci/run too.
";

/// The committed table.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Counts depend on the compiler.
    rustc: String,
    instructions: BTreeMap<String, u64>,
}

/// Counts, and compares or writes.
///
/// # Errors
/// Returns a text if a benchmark takes more than the table allows, if valgrind is missing, or if the table cannot be read
/// or written.
pub fn compare(options: &Options) -> Result<(), String> {
    if !cfg!(debug_assertions) {
        return Err(
            "the table is of the profile that tests are built in: count without --release".into(),
        );
    }
    let counted = Table {
        rustc: rustc()?,
        instructions: count_all()?,
    };
    if options.write {
        return write(&options.table, &counted);
    }
    let committed = read(&options.table)?;
    let verdict = judge(&committed, &counted);
    println!("{}", verdict.lines.join("\n"));
    if !verdict.out_of_date.is_empty() {
        eprintln!(
            "{}: out of date; write the table again (cargo xtask instructions --write), so that it does not hide a later regression",
            verdict.out_of_date.join(", ")
        );
    }
    if verdict.too_many.is_empty() {
        return Ok(());
    }
    let mut problem = format!(
        "more instructions than {} allows (+{:.0} %): {}\n\
         look at the profile (callgrind_annotate target/instructions/….2) and fix the regression; if the change is worth it, \
         write the table again (cargo xtask instructions --write) and commit it with the reason",
        options.table.display(),
        ALLOWED_INCREASE * 100.0,
        verdict.too_many.join(", "),
    );
    if committed.rustc != counted.rustc {
        problem += &format!(
            "\nthe table was counted with {}, this build with {}: if only the compiler changed, write it again",
            committed.rustc, counted.rustc
        );
    }
    Err(problem)
}

/// The comparison of counts with the committed table.
#[derive(Debug, Default)]
struct Verdict {
    /// Lines to print, one per benchmark.
    lines: Vec<String>,
    too_many: Vec<String>,
    out_of_date: Vec<String>,
}

fn judge(committed: &Table, counted: &Table) -> Verdict {
    let mut verdict = Verdict::default();
    for (name, now) in &counted.instructions {
        let Some(before) = committed.instructions.get(name) else {
            verdict
                .lines
                .push(format!("{name}: {now}, not in the table"));
            verdict.out_of_date.push(name.clone());
            continue;
        };
        let change = *now as f64 / *before as f64 - 1.0;
        verdict.lines.push(format!(
            "{name}: {now}, in the table {before} ({:+.1} %)",
            change * 100.0
        ));
        if change > ALLOWED_INCREASE {
            verdict.too_many.push(name.clone());
        } else if change < -STALE_DECREASE {
            verdict.out_of_date.push(name.clone());
        }
    }
    let gone = committed.instructions.keys();
    let gone = gone.filter(|name| !counted.instructions.contains_key(*name));
    verdict.out_of_date.extend(gone.cloned());
    verdict
}

fn read(path: &Path) -> Result<Table, String> {
    let at = |error: &dyn std::fmt::Display| {
        format!(
            "{}: {error}; cargo xtask instructions --write writes it",
            path.display()
        )
    };
    let text = std::fs::read_to_string(path).map_err(|error| at(&error))?;
    toml::from_str(&text).map_err(|error| at(&error))
}

fn write(path: &Path, table: &Table) -> Result<(), String> {
    let text = toml::to_string(table).map_err(|error| error.to_string())?;
    std::fs::write(path, format!("{HEADER}{text}"))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    eprintln!("written: {}", path.display());
    Ok(())
}

fn rustc() -> Result<String, String> {
    let program = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(&program).arg("--version").output();
    let output = output.map_err(|error| format!("{program} --version: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Returns the instructions per unit of every benchmark. As many runs are concurrent as there are processors.
fn count_all() -> Result<BTreeMap<String, u64>, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    // Next to the folder of the profile, so that `cargo clean` removes it.
    let folder = program.ancestors().nth(2).unwrap_or(Path::new("."));
    let folder = folder.join("instructions");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let jobs: VecDeque<(&CountedBenchmark, usize)> = COUNTED
        .iter()
        .flat_map(|benchmark| [(benchmark, 2), (benchmark, 1)])
        .collect();
    let jobs = Mutex::new(jobs);
    let totals = Mutex::new(BTreeMap::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let worker = || -> Result<(), String> {
        loop {
            let job = lock(&jobs).pop_front();
            let Some((benchmark, times)) = job else {
                return Ok(());
            };
            let profile = folder.join(format!(
                "{}.{times}",
                benchmark.name.replace([' ', '\''], "-")
            ));
            let total = total(&program, benchmark, benchmark.count * times, &profile)?;
            let mut totals = lock(&totals);
            totals.insert((benchmark.name, times), total);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("no worker panics"))
    })?;
    let totals = totals.into_inner().expect("no worker panics");
    Ok(COUNTED
        .iter()
        .map(|benchmark| {
            let more = totals[&(benchmark.name, 2)].saturating_sub(totals[&(benchmark.name, 1)]);
            (
                benchmark.name.to_owned(),
                more / (benchmark.count * benchmark.units) as u64,
            )
        })
        .collect())
}

/// Returns the instructions of one process.
fn total(
    program: &Path,
    benchmark: &CountedBenchmark,
    count: usize,
    profile: &Path,
) -> Result<u64, String> {
    let ended = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .args(["counted", benchmark.name, &count.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind: {error}; install it (apt-get install valgrind)"))?;
    if !ended.status.success() {
        let stderr = String::from_utf8_lossy(&ended.stderr);
        return Err(format!(
            "{}: {} under valgrind: {stderr}",
            benchmark.name, ended.status
        ));
    }
    let text = std::fs::read_to_string(profile)
        .map_err(|error| format!("{}: {error}", profile.display()))?;
    let total = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("totals: "));
    total
        .and_then(|total| total.trim().parse().ok())
        .ok_or_else(|| format!("{}: callgrind wrote no total", profile.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(counts: &[(&str, u64)]) -> Table {
        Table {
            rustc: "rustc 1".to_owned(),
            instructions: counts
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
        }
    }

    #[test]
    fn increase_above_the_limit_fails() {
        let committed = table(&[("launch", 1000), ("poll", 1000)]);
        let verdict = judge(&committed, &table(&[("launch", 1049), ("poll", 1051)]));
        assert_eq!(verdict.too_many, ["poll"]);
        assert!(verdict.out_of_date.is_empty());
        assert_eq!(verdict.lines[1], "poll: 1051, in the table 1000 (+5.1 %)");
    }

    #[test]
    fn decrease_or_unknown_benchmark_makes_the_table_out_of_date() {
        let committed = table(&[("launch", 1000), ("gone", 1)]);
        let verdict = judge(&committed, &table(&[("launch", 800), ("poll", 7)]));
        assert_eq!(verdict.out_of_date, ["launch", "poll", "gone"]);
        assert!(verdict.too_many.is_empty());
    }

    #[test]
    fn table_is_read_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instructions.toml");
        let written = table(&[("a frame through the bridge's reader", 12)]);
        write(&path, &written).unwrap();
        assert_eq!(read(&path), Ok(written));
        let missing = read(&folder.path().join("none")).unwrap_err();
        assert!(missing.contains("--write writes it"), "{missing}");
    }
}
