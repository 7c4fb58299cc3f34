//! The `greenroom-sim` command: runs stories in virtual time and prints their traces. stdout carries data,
//! stderr everything else. Exit codes: 0 success, 1 a story differs from its expected result, 2 a file cannot
//! be used.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use greenroom_sim::explore::scenario::{Profile, Scenario};
use greenroom_sim::{StoryError, check, explore, run};
use serde_json::Value;

/// Runs recorded stories and random scenarios against Greenroom in virtual time.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Limit of real time for one story, in seconds.
    #[arg(long, global = true, default_value_t = 60)]
    limit: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints the trace of a story.
    Trace {
        /// The file of the story or scenario.
        story: PathBuf,
    },
    /// Runs a random scenario for each seed and checks the promises.
    Explore {
        /// The seeds, `A..B`. Without `B` it runs until the time is over.
        #[arg(long, value_parser = seeds)]
        seeds: std::ops::Range<u64>,
        /// The profile: `default`, `reference`, `crashes`, `ordinary` or `ordinary-crashes`.
        #[arg(long, default_value = "default", value_parser = profile)]
        profile: Profile,
        /// Limit of real time for all scenarios, in minutes.
        #[arg(long)]
        minutes: Option<u64>,
        /// The number of threads [default: the number of processors].
        #[arg(long)]
        threads: Option<usize>,
        /// Continues after a broken promise and counts the kinds of violations.
        #[arg(long)]
        survey: bool,
        /// Runs each scenario twice and compares the traces.
        #[arg(long)]
        twice: bool,
        /// The folder for the scenario of a broken promise.
        #[arg(long, default_value = ".")]
        into: PathBuf,
    },
    /// Runs stories and prints their differences from the expected result.
    Check {
        /// The files of the stories.
        #[arg(required = true)]
        stories: Vec<PathBuf>,
    },
}

/// Why a file has no trace.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("{0} cannot be read: {1}; name the file of a story")]
    Unreadable(PathBuf, std::io::Error),
    #[error("{0}: {1}")]
    Story(PathBuf, StoryError),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let limit = Duration::from_secs(arguments.limit);
    let done = match &arguments.command {
        Command::Trace { story } => match scenario(story) {
            Some(scenario) => {
                let outcome = explore::run(&scenario, limit);
                outcome.lines.iter().for_each(|line| println!("{line}"));
                if let Some(violation) = &outcome.violation {
                    println!(
                        "breaks promise {} at {}: {}",
                        violation.promise, violation.at, violation.text
                    );
                }
                Ok(outcome.violation.is_none())
            }
            None => trace(story, limit).map(|(_, trace)| {
                println!("{trace}");
                true
            }),
        },
        Command::Explore {
            seeds,
            profile,
            minutes,
            threads,
            survey,
            twice,
            into,
        } => {
            let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let options = explore::seeds::ExploreOptions {
                threads: threads.unwrap_or(processors),
                time: minutes.map(|minutes| Duration::from_secs(minutes * 60)),
                survey: *survey,
                twice: *twice,
            };
            Ok(run_exploration(seeds.clone(), *profile, options, into))
        }
        Command::Check { stories } => stories
            .iter()
            .try_fold(true, |same, story| Ok(differences(story, limit)? && same)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("greenroom-sim: {error}");
            ExitCode::from(2)
        }
    }
}

/// Reads a file as a scenario. A file without a model of opencode is a story.
fn scenario(path: &Path) -> Option<Scenario> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

/// Parses `A..B` or `A..`.
fn seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("{text:?} is not a number; write --seeds 0..1000"))
    };
    let (from, to) = text.split_once("..").ok_or("write --seeds 0..1000")?;
    let to = if to.is_empty() { u64::MAX } else { number(to)? };
    Ok(number(from)?..to)
}

fn profile(text: &str) -> Result<Profile, String> {
    match text {
        "default" => Ok(Profile::Default),
        "reference" => Ok(Profile::Reference),
        "crashes" => Ok(Profile::Crashes),
        "ordinary" => Ok(Profile::Ordinary),
        "ordinary-crashes" => Ok(Profile::OrdinaryCrashes),
        _ => Err("write default, reference, crashes, ordinary or ordinary-crashes".to_owned()),
    }
}

/// The number of events shown before a broken promise.
const EVENTS_SHOWN: usize = 40;
/// Real time for shrinking a scenario.
const SHRINK_TIME: Duration = Duration::from_secs(120);

/// Explores; returns true if every promise was kept.
fn run_exploration(
    seeds: std::ops::Range<u64>,
    profile: Profile,
    options: explore::seeds::ExploreOptions,
    into: &Path,
) -> bool {
    let from = seeds.start;
    let started = std::time::Instant::now();
    let report = explore::seeds::explore(seeds, profile, options);
    for (kind, (count, seed)) in report.kinds.iter().filter(|_| options.survey) {
        println!("{count:>6} from seed {seed}: {kind}");
    }
    if options.survey {
        println!(
            "{} scenarios from seed {from} in {:.1} s; go on with --seeds {}..",
            report.explored,
            started.elapsed().as_secs_f64(),
            report.next
        );
        return report.first_broken.is_none();
    }
    let Some(explore::seeds::BrokenSeed {
        seed,
        scenario,
        outcome,
    }) = report.first_broken
    else {
        println!(
            "{} scenarios from seed {from} in {:.1} s, every promise kept; go on with --seeds {}..",
            report.explored,
            started.elapsed().as_secs_f64(),
            report.next
        );
        return true;
    };
    show(&format!("seed {seed}"), &outcome);
    eprintln!("shrinking the scenario …");
    let (small, outcome) = explore::shrink::shrink(&scenario, &outcome, SHRINK_TIME);
    show(
        &format!("seed {seed}, {} steps", small.steps.len()),
        &outcome,
    );
    let file = into.join(format!("seed-{seed}.json"));
    let text = serde_json::to_string_pretty(&small).unwrap_or_default();
    match std::fs::write(&file, text) {
        Ok(()) => println!(
            "written to {}; greenroom-sim trace runs it again",
            file.display()
        ),
        Err(failure) => eprintln!(
            "{} cannot be written: {failure}; name a folder with --into",
            file.display()
        ),
    }
    println!(
        "{} scenarios run; go on with --seeds {}..",
        report.explored,
        seed + 1
    );
    false
}

fn show(name: &str, outcome: &explore::Outcome) {
    let Some(violation) = &outcome.violation else {
        return;
    };
    for line in outcome.lines.iter().rev().take(EVENTS_SHOWN).rev() {
        println!("    {line}");
    }
    println!(
        "{name} breaks promise {} at {}: {}",
        violation.promise, violation.at, violation.text
    );
}

/// Returns the text of a story and its trace.
fn trace(path: &Path, limit: Duration) -> Result<(String, String), FileError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| FileError::Unreadable(path.to_owned(), error))?;
    let trace = run(&text, limit).map_err(|error| FileError::Story(path.to_owned(), error))?;
    Ok((text, trace))
}

/// Prints the differences of a story; returns true if there are none.
fn differences(path: &Path, limit: Duration) -> Result<bool, FileError> {
    let unreadable = |error| FileError::Story(path.to_owned(), StoryError::Unreadable(error));
    let (text, trace) = trace(path, limit)?;
    let story: Value = serde_json::from_str(&text).map_err(unreadable)?;
    let trace: Value = serde_json::from_str(&trace).map_err(unreadable)?;
    let lines = check::differences(&story, &trace);
    println!(
        "{} {}",
        if lines.is_empty() {
            "same     "
        } else {
            "different"
        },
        path.display()
    );
    for line in &lines {
        println!("    {line}");
    }
    Ok(lines.is_empty())
}
