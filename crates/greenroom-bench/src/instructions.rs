//! Counts the instructions of small fixed works under callgrind and holds them against a table that was committed: a
//! regression shows however busy or slow the machine is. Each work runs twice, the second time with twice as many; what
//! counts is the difference. `cargo xtask instructions` builds and calls it.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::works::counted::{COUNTED, Counted};

/// What becomes of the counts.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Write the table instead of comparing with it
    #[arg(long)]
    write: bool,
    /// The table
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.toml"))]
    table: PathBuf,
}

/// A unit of work may take so much more than the table says. Counts of the same build differ by less than 1 %.
const MORE: f64 = 0.05;
/// From so much less on the table is out of date: what was won could be lost again unseen.
const LESS: f64 = 0.10;

const HEADER: &str = "\
# Instructions that a unit of each work takes in the profile that tests are built in, counted by callgrind.
# Written by `cargo xtask instructions --write`; the same without --write compares, in .ci/run too.
";

/// What was committed.
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
/// A work takes more than the table allows; the text says what to do. Or valgrind is not there, or the table is not to
/// be read or written.
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
            "{}: out of date; write the table anew (cargo xtask instructions --write), so that what was won is kept",
            verdict.out_of_date.join(", ")
        );
    }
    if verdict.too_many.is_empty() {
        return Ok(());
    }
    let mut problem = format!(
        "more instructions than {} allows (+{:.0} %): {}\n\
         see where they are in the profile (callgrind_annotate target/instructions/….2), and mend it; if the change is worth \
         them, write the table anew (cargo xtask instructions --write) and commit it with the reason",
        options.table.display(),
        MORE * 100.0,
        verdict.too_many.join(", "),
    );
    if committed.rustc != counted.rustc {
        problem += &format!(
            "\nthe table was counted with {}, this build with {}: if the compiler is all that changed, write it anew",
            committed.rustc, counted.rustc
        );
    }
    Err(problem)
}

/// How counts stand to what was committed.
#[derive(Debug, Default)]
struct Verdict {
    /// For people, one a work.
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
        if change > MORE {
            verdict.too_many.push(name.clone());
        } else if change < -LESS {
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
    let said = Command::new(&program).arg("--version").output();
    let said = said.map_err(|error| format!("{program} --version: {error}"))?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// Instructions a unit of every work: as many runs at a time as there are processors.
fn count_all() -> Result<BTreeMap<String, u64>, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    // Beside the folder of the profile, where it is found and cargo clean removes it.
    let folder = program.ancestors().nth(2).unwrap_or(Path::new("."));
    let folder = folder.join("instructions");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let jobs: VecDeque<(&Counted, usize)> = COUNTED
        .iter()
        .flat_map(|work| [(work, 2), (work, 1)])
        .collect();
    let jobs = Mutex::new(jobs);
    let totals = Mutex::new(BTreeMap::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let worker = || -> Result<(), String> {
        loop {
            let job = jobs.lock().expect("nobody panics with it").pop_front();
            let Some((work, times)) = job else {
                return Ok(());
            };
            let profile = folder.join(format!("{}.{times}", work.name.replace([' ', '\''], "-")));
            let total = total(&program, work, work.count * times, &profile)?;
            let mut totals = totals.lock().expect("nobody panics with it");
            totals.insert((work.name, times), total);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("no worker panics"))
    })?;
    let totals = totals.into_inner().expect("nobody panics with it");
    Ok(COUNTED
        .iter()
        .map(|work| {
            let more = totals[&(work.name, 2)].saturating_sub(totals[&(work.name, 1)]);
            (
                work.name.to_owned(),
                more / (work.count * work.units) as u64,
            )
        })
        .collect())
}

/// All instructions of one process.
fn total(program: &Path, work: &Counted, count: usize, profile: &Path) -> Result<u64, String> {
    let ended = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .args(["counted", work.name, &count.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind: {error}; install it (apt-get install valgrind)"))?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        return Err(format!(
            "{}: {} under valgrind: {said}",
            work.name, ended.status
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
    fn a_little_more_passes_and_too_much_is_named() {
        let committed = table(&[("launch", 1000), ("poll", 1000)]);
        let verdict = judge(&committed, &table(&[("launch", 1049), ("poll", 1051)]));
        assert_eq!(verdict.too_many, ["poll"]);
        assert!(verdict.out_of_date.is_empty());
        assert_eq!(verdict.lines[1], "poll: 1051, in the table 1000 (+5.1 %)");
    }

    #[test]
    fn what_became_much_cheaper_or_has_no_line_asks_for_a_new_table() {
        let committed = table(&[("launch", 1000), ("gone", 1)]);
        let verdict = judge(&committed, &table(&[("launch", 800), ("poll", 7)]));
        assert_eq!(verdict.out_of_date, ["launch", "poll", "gone"]);
        assert!(verdict.too_many.is_empty());
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instructions.toml");
        let written = table(&[("a frame through the bridge's reader", 12)]);
        write(&path, &written).unwrap();
        assert_eq!(read(&path), Ok(written));
        let missing = read(&folder.path().join("none")).unwrap_err();
        assert!(missing.contains("--write writes it"), "{missing}");
    }
}
