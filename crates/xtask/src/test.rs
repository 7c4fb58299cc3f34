//! `cargo xtask test` runs every test on a machine with Rust, Node, npm and git.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Args;
use greenroom_opencode::install;

use crate::steps::{StepError, cargo, last_step, step};

/// The options of a test run.
#[derive(Debug, Args)]
pub struct Options {
    /// Leave the end-to-end tests out: fetches nothing.
    #[arg(long)]
    pub fast: bool,
    /// Only the end-to-end tests.
    #[arg(long, conflicts_with = "fast")]
    pub e2e: bool,
    /// Arguments of the end-to-end tests: a name to filter by, flags such as --test-threads.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, requires = "e2e")]
    pub filter: Vec<String>,
}

/// Runs the tests; the output ends with the summary of the last test binary.
pub fn run(options: &Options) -> Result<(), StepError> {
    let program = if options.fast {
        None
    } else {
        Some(step("get opencode", opencode)?)
    };
    // Always the whole workspace: another choice of packages has other features, and rebuilds everything.
    let chosen: &[&str] = if options.e2e {
        &["test", "--workspace", "--test", "e2e"]
    } else {
        &["test", "--workspace", "--no-fail-fast"]
    };
    step("build", || cargo(&["test", "--workspace", "--no-run"], &[]))?;
    let environment: Vec<(&str, &OsStr)> = match &program {
        Some(program) => vec![
            ("GREENROOM_E2E", "1".as_ref()),
            ("GREENROOM_E2E_OPENCODE", program.as_os_str()),
        ],
        None => Vec::new(),
    };
    last_step("test", || {
        let mut tests = chosen.to_vec();
        tests.push("--");
        tests.extend(options.filter.iter().map(String::as_str));
        cargo(&tests, &environment)
    })
}

/// Returns the pinned agent server, installed if needed; a version on PATH is not used.
fn opencode() -> Result<PathBuf, StepError> {
    let works = |program: &str| {
        let mut run = Command::new(program);
        run.arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        run.status().is_ok_and(|status| status.success())
    };
    if !works("git") {
        return Err(StepError::Missing(
            "git",
            "projects of the end-to-end tests are repositories",
        ));
    }
    let cache = install::cache_folder()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StepError::Runtime)?;
    let program = runtime.block_on(install::pinned(&cache, &mut |line| eprintln!("    {line}")))?;
    Ok(program)
}
