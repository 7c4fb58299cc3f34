//! Runs steps: each prints its name, and its duration at the end. Also calls cargo and built programs.

use std::process::Command;
use std::time::Instant;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A command could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The command.
        program: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// A command failed, and has printed the reason.
    #[error("{0} failed: see above")]
    Failed(String),
    /// A program is missing.
    #[error(
        "{0} is not on PATH: {1}; install it and try again (or leave the end-to-end tests out: --fast)"
    )]
    Missing(&'static str, &'static str),
    /// The agent server could not be fetched.
    #[error(transparent)]
    Opencode(#[from] greenroom_opencode::install::InstallError),
    /// Faults could not be tried, or were not caught.
    #[error(transparent)]
    Faults(#[from] crate::faults::FaultsError),
    /// The language of the sources could not be counted, or is above its table.
    #[error(transparent)]
    Language(#[from] crate::language::LanguageError),
    /// The runtime of the installation could not be started.
    #[error("cannot start a runtime: {0}")]
    Runtime(std::io::Error),
}

/// Runs a step. It prints to stderr, so that stdout ends with the output of the tests.
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

/// Runs the last step. Nothing is printed after it, so that the output ends with cargo's summary, which has the time.
pub fn last_step(
    name: &str,
    work: impl FnOnce() -> Result<(), StepError>,
) -> Result<(), StepError> {
    eprintln!("==> {name}");
    work()
}

/// Runs the cargo that runs this program.
pub fn cargo(args: &[&str], environment: &[(&str, &std::ffi::OsStr)]) -> Result<(), StepError> {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(&program);
    command.envs(environment.iter().copied());
    run(command, &program, args)
}

/// Runs a program of the workspace that is built already.
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
    if status.success() {
        Ok(())
    } else {
        Err(StepError::Failed(format!("{name} {}", args.join(" "))))
    }
}
