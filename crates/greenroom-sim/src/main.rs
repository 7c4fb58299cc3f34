//! The `greenroom-sim` command: tells stories under virtual time and prints what happened. stdout carries data, stderr
//! everything else. Exit codes: 0 done, 1 a story differs from what it demands, 2 a file cannot be used.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use greenroom_sim::explore::scenario::{Profile, Scenario};
use greenroom_sim::{StoryError, check, explore, run};
use serde_json::Value;

/// Tells recorded stories to Greenroom under virtual time.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Seconds of real time a story may take.
    #[arg(long, global = true, default_value_t = 60)]
    limit: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints the trace of a story.
    Trace {
        /// The story.
        story: PathBuf,
    },
    /// Tells a random scenario for each seed and looks for broken promises.
    Explore {
        /// The seeds, `A..B`; without `B` until the time is over.
        #[arg(long, value_parser = seeds)]
        seeds: std::ops::Range<u64>,
        /// Whose policies hold.
        #[arg(long, default_value = "default", value_parser = profile)]
        profile: Profile,
        /// Real time for all of them, in minutes.
        #[arg(long)]
        minutes: Option<u64>,
        /// How many are told at once; as many as there are processors without it.
        #[arg(long)]
        threads: Option<usize>,
        /// Goes on after a broken promise and tells how many kinds there are.
        #[arg(long)]
        survey: bool,
        /// Tells each twice and compares the traces.
        #[arg(long)]
        twice: bool,
        /// Where the scenario of a broken promise is written.
        #[arg(long, default_value = ".")]
        into: PathBuf,
    },
    /// Tells stories and prints where each differs from what it demands.
    Check {
        /// The stories.
        #[arg(required = true)]
        stories: Vec<PathBuf>,
    },
}

/// Why a file gave no trace.
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
                if let Some(broken) = &outcome.violation {
                    println!(
                        "breaks promise {} at {}: {}",
                        broken.promise, broken.at, broken.text
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
            let usual = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let bounds = explore::seeds::ExploreOptions {
                threads: threads.unwrap_or(usual),
                time: minutes.map(|minutes| Duration::from_secs(minutes * 60)),
                survey: *survey,
                twice: *twice,
            };
            Ok(explored(seeds.clone(), *profile, bounds, into))
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

/// A file that names the model of opencode is a scenario; any other is a story.
fn scenario(path: &Path) -> Option<Scenario> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

/// `A..B` or `A..`.
fn seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("{text:?} is no number; write --seeds 0..1000"))
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
        _ => Err("default or reference".to_owned()),
    }
}

/// How many of the last events of a broken promise are shown.
const SHOWN: usize = 40;
/// Real time for making a scenario smaller.
const PATIENCE: Duration = Duration::from_secs(120);

/// Explores; true if every promise was kept.
fn explored(
    seeds: std::ops::Range<u64>,
    profile: Profile,
    bounds: explore::seeds::ExploreOptions,
    into: &Path,
) -> bool {
    let (from, began) = (seeds.start, std::time::Instant::now());
    let found = explore::seeds::explore(seeds, profile, bounds);
    for (kind, (count, seed)) in found.kinds.iter().filter(|_| bounds.survey) {
        println!("{count:>6} from seed {seed}: {kind}");
    }
    if bounds.survey {
        println!(
            "{} scenarios from seed {from} in {:.1} s; go on with --seeds {}..",
            found.told,
            began.elapsed().as_secs_f64(),
            found.next
        );
        return found.broken.is_none();
    }
    let Some((seed, scenario, outcome)) = found.broken else {
        println!(
            "{} scenarios from seed {from} in {:.1} s, every promise kept; go on with --seeds {}..",
            found.told,
            began.elapsed().as_secs_f64(),
            found.next
        );
        return true;
    };
    show(&format!("seed {seed}"), &outcome);
    eprintln!("making it smaller …");
    let (small, outcome) = explore::shrink::shrink(&scenario, &outcome, PATIENCE);
    show(
        &format!("seed {seed}, {} steps", small.steps.len()),
        &outcome,
    );
    let file = into.join(format!("seed-{seed}.json"));
    let text = serde_json::to_string_pretty(&small).unwrap_or_default();
    match std::fs::write(&file, text) {
        Ok(()) => println!(
            "written to {}; greenroom-sim trace tells it again",
            file.display()
        ),
        Err(failure) => eprintln!(
            "{} cannot be written: {failure}; name a folder with --into",
            file.display()
        ),
    }
    println!(
        "{} scenarios told; go on with --seeds {}..",
        found.told,
        seed + 1
    );
    false
}

fn show(name: &str, outcome: &explore::Outcome) {
    let Some(broken) = &outcome.violation else {
        return;
    };
    for line in outcome.lines.iter().rev().take(SHOWN).rev() {
        println!("    {line}");
    }
    println!(
        "{name} breaks promise {} at {}: {}",
        broken.promise, broken.at, broken.text
    );
}

/// The text of a story and its trace.
fn trace(path: &Path, limit: Duration) -> Result<(String, String), FileError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| FileError::Unreadable(path.to_owned(), error))?;
    let trace = run(&text, limit).map_err(|error| FileError::Story(path.to_owned(), error))?;
    Ok((text, trace))
}

/// Prints where a story's trace differs; true if it does not.
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
