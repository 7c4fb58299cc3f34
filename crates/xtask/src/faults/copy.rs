//! A copy of the project for faults: a git worktree inside the target folder, with a separate target folder that all faults
//! share, so that each fault rebuilds only two crates. Its path is always the same, since cargo identifies packages by
//! path. The copy is of the last commit; uncommitted changes are not tried.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use super::FaultsError;
use super::list::Fault;
use super::search::{Ran, run_for};

/// The time limit of a build.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// The copy. Dropping this removes it; the build stays for the next run.
pub struct Copy {
    root: PathBuf,
    source: PathBuf,
    target: PathBuf,
}

impl Copy {
    /// Creates a copy of the last commit, and replaces a copy left by a killed run.
    pub fn create(root: &Path) -> Result<Self, FaultsError> {
        let of_project = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |named| root.join(named));
        let own = of_project.join("faults");
        let copy = Self {
            root: root.to_owned(),
            source: own.join("source"),
            target: own.join("target"),
        };
        std::fs::create_dir_all(&own)
            .map_err(|error| FaultsError::failed("creating the folder of the copy", error))?;
        copy.remove();
        let source = copy.source.display().to_string();
        git(
            root,
            &["worktree", "add", "--quiet", "--detach", &source, "HEAD"],
        )
        .map_err(|why| FaultsError::failed("copying the project", why))?;
        Ok(copy)
    }

    /// Builds the simulator without a fault, and returns its path; builds with faults do not overwrite it.
    pub fn build_clean(&self) -> Result<PathBuf, FaultsError> {
        let built = self
            .build()
            .map_err(|why| FaultsError::failed("building without a fault", why))?;
        let clean = self.target.join("greenroom-sim-clean");
        std::fs::copy(&built, &clean)
            .map_err(|error| FaultsError::failed("copying the build", error))?;
        Ok(clean)
    }

    /// Builds the simulator with only that fault, and returns its path, or the reason why it could not be built.
    pub fn build_with(&self, fault: &Fault) -> Result<PathBuf, String> {
        git(&self.source, &["checkout", "--quiet", "--force", "HEAD"])?;
        git(&self.source, &["apply", &fault.patch.display().to_string()])?;
        self.build()
    }

    fn build(&self) -> Result<PathBuf, String> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut command = Command::new(cargo);
        // Always the whole workspace: another choice of packages has other features.
        command
            .args(["build", "--quiet", "--workspace", "--bin", "greenroom-sim"])
            .current_dir(&self.source)
            .env("CARGO_TARGET_DIR", &self.target);
        match run_for(command, BUILD_LIMIT, |_| false)? {
            Ran::Ended { code: Some(0), .. } => Ok(self.target.join("debug/greenroom-sim")),
            Ran::Ended { output, .. } => {
                let error = output.lines().find(|line| line.starts_with("error"));
                Err(format!(
                    "it does not build: {}",
                    error.unwrap_or(output.trim())
                ))
            }
            Ran::Stopped(_) => Err(format!(
                "not built within {} min",
                BUILD_LIMIT.as_secs() / 60
            )),
        }
    }

    /// Removes the copy. If this fails, the next run removes it.
    fn remove(&self) {
        let source = self.source.display().to_string();
        let _ = git(&self.root, &["worktree", "remove", "--force", &source]);
        let _ = std::fs::remove_dir_all(&self.source);
        let _ = git(&self.root, &["worktree", "prune"]);
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Runs git in a folder; the error is the first line of its output.
fn git(folder: &Path, args: &[&str]) -> Result<(), String> {
    let Output { status, stderr, .. } = Command::new("git")
        .args(args)
        .current_dir(folder)
        .output()
        .map_err(|error| format!("cannot start git: {error}; install it"))?;
    if status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&stderr);
    Err(output.lines().next().unwrap_or("git failed").to_owned())
}
