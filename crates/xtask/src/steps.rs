//! A step: something that takes time, is announced, and is told how long it took. Cargo is called by steps only.

use std::process::Command;
use std::time::Instant;

/// Why a step did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A command could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Which.
        program: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A command failed; it has said why itself.
    #[error("{0} failed: see above")]
    Failed(String),
    /// A program is not there.
    #[error(
        "{0} is not on PATH: {1}; install it and try again (or leave the end-to-end tests out: --fast)"
    )]
    Missing(&'static str, &'static str),
    /// The agent server is not there and could not be fetched.
    #[error(transparent)]
    Opencode(#[from] greenroom_opencode::install::InstallError),
    /// Faults could not be tried, or were not caught.
    #[error(transparent)]
    Faults(#[from] crate::faults::FaultsError),
    /// The language of the sources could not be counted, or is above its table.
    #[error(transparent)]
    Language(#[from] crate::language::LanguageError),
    /// The installation could not be run at all.
    #[error("cannot start a runtime: {0}")]
    Runtime(std::io::Error),
}

/// Does one step. What it says goes to stderr, so that the last words on stdout are the tests' own.
pub fn step<T>(name: &str, work: impl FnOnce() -> Result<T, StepError>) -> Result<T, StepError> {
    eprintln!("==> {name}");
    let begin = Instant::now();
    let done = work();
    let how = if done.is_ok() { "done" } else { "failed" };
    eprintln!(
        "==> {name}: {how} in {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    done
}

/// Does the last step. Nothing is said after it: cargo's own summary, which has the time, stays the last word.
pub fn last_step(
    name: &str,
    work: impl FnOnce() -> Result<(), StepError>,
) -> Result<(), StepError> {
    eprintln!("==> {name}");
    work()
}

/// Runs the cargo that runs us.
pub fn cargo(args: &[&str], environment: &[(&str, &std::ffi::OsStr)]) -> Result<(), StepError> {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(&program);
    command.envs(environment.iter().copied());
    run(command, &program, args)
}

/// Runs a program of the workspace that was built before.
pub fn built(name: &str, args: &[&str]) -> Result<(), StepError> {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let program = format!("{target}/debug/{name}");
    run(Command::new(&program), name, args)
}

fn run(mut command: Command, name: &str, args: &[&str]) -> Result<(), StepError> {
    let status = command
        .args(args)
        .status()
        .map_err(|source| StepError::Start {
            program: name.to_owned(),
            source,
        })?;
    match status.success() {
        true => Ok(()),
        false => Err(StepError::Failed(format!("{name} {}", args.join(" ")))),
    }
}
