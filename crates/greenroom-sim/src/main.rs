//! The `greenroom-sim` command: tells stories under virtual time and prints what happened. stdout carries data, stderr
//! everything else. Exit codes: 0 done, 1 a story differs from what it demands, 2 a file cannot be used.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use greenroom_sim::{StoryError, check, run};
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
        Command::Trace { story } => trace(story, limit).map(|(_, trace)| {
            println!("{trace}");
            true
        }),
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
