//! A copy of the project to put faults into: a git worktree inside the target folder, with a target folder of its own that
//! all faults share, so that each costs two crates. It stands in the same place every time, since cargo knows packages by
//! their path. What is committed is tried, not what is being written.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use super::FaultsError;
use super::list::Fault;
use super::search::{Ran, run_for};

/// How long a build may take.
const BUILD: Duration = Duration::from_secs(30 * 60);

/// The copy; it goes when this is dropped, what was built stays for the next time.
pub struct Copy {
    root: PathBuf,
    source: PathBuf,
    target: PathBuf,
}

impl Copy {
    /// Makes the copy of what is committed. One that a killed run has left is made anew.
    pub fn make(root: &Path) -> Result<Self, FaultsError> {
        let of_project = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |named| root.join(named));
        let own = of_project.join("faults");
        let copy = Self {
            root: root.to_owned(),
            source: own.join("source"),
            target: own.join("target"),
        };
        std::fs::create_dir_all(&own)
            .map_err(|error| FaultsError::failed("making room for a copy", error))?;
        copy.remove();
        let source = copy.source.display().to_string();
        git(
            root,
            &["worktree", "add", "--quiet", "--detach", &source, "HEAD"],
        )
        .map_err(|why| FaultsError::failed("copying the project", why))?;
        Ok(copy)
    }

    /// Builds the simulator without a fault and answers where it is; it stays there while faults are built.
    pub fn build_clean(&self) -> Result<PathBuf, FaultsError> {
        let built = self
            .build()
            .map_err(|why| FaultsError::failed("building without a fault", why))?;
        let clean = self.target.join("greenroom-sim-clean");
        std::fs::copy(&built, &clean)
            .map_err(|error| FaultsError::failed("keeping what was built", error))?;
        Ok(clean)
    }

    /// Builds the simulator with that fault, and no other, in the system and answers where it is, or why it could not be
    /// built.
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
        match run_for(command, BUILD, |_| false)? {
            Ran::Ended { code: Some(0), .. } => Ok(self.target.join("debug/greenroom-sim")),
            Ran::Ended { said, .. } => {
                let error = said.lines().find(|line| line.starts_with("error"));
                Err(format!(
                    "it does not build: {}",
                    error.unwrap_or(said.trim())
                ))
            }
            Ran::Stopped(_) => Err(format!("not built within {} min", BUILD.as_secs() / 60)),
        }
    }

    /// What cannot be removed is found by the next run.
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

/// Runs git in a folder; an error is what it says, in one line.
fn git(folder: &Path, words: &[&str]) -> Result<(), String> {
    let Output { status, stderr, .. } = Command::new("git")
        .args(words)
        .current_dir(folder)
        .output()
        .map_err(|error| format!("git cannot be started: {error}; install it"))?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&stderr);
    Err(said.lines().next().unwrap_or("git failed").to_owned())
}
