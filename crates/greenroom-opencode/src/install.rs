//! Finds an opencode to run: the one named, else the one on PATH, else the pinned version, installed through npm into
//! the cache folder. `greenroom up` and the end-to-end tests both come here. Installs are made aside and renamed into
//! place, so that several at a time, or one that is cut off, never leave half an opencode.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use tokio::process::Command;

use crate::npm;

/// The version this was made for, and the one that is installed.
pub const PINNED_VERSION: &str = "1.18.33";

const VERSION_LIMIT: Duration = Duration::from_secs(30);
/// What an install that was cut off leaves is removed by a later one after this time.
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);
const ASIDE: &str = ".installing-";

/// An opencode that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The binary.
    pub program: PathBuf,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where an opencode comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was named.
    Given,
    /// It is the user's own, on PATH.
    Path,
    /// It is ours, in the cache folder.
    Cache,
}

/// Why there is no opencode to start.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The one named is no file that can be run.
    #[error("{path} is no program that can be run; give the path of the opencode binary")]
    NotAProgram {
        /// What was named.
        path: PathBuf,
    },
    /// It starts and fails, or says no version.
    #[error("{program} does not work: {problem}")]
    Broken {
        /// The binary.
        program: PathBuf,
        /// What it did.
        problem: String,
    },
    /// opencode has no binary for this machine.
    #[error(
        "opencode has no binary for {os} on {arch}; attach to a server elsewhere with `greenroom serve --opencode URL`"
    )]
    Platform {
        /// The operating system.
        os: &'static str,
        /// The processor.
        arch: &'static str,
    },
    /// Nowhere to install to.
    #[error("there is no cache folder: neither GREENROOM_CACHE, XDG_CACHE_HOME nor HOME is set")]
    NoCacheFolder,
    /// npm is needed and missing.
    #[error(
        "opencode is not installed and npm is not on PATH; install Node.js with npm, or opencode itself, or give --opencode-bin"
    )]
    NoNpm,
    /// npm failed.
    #[error("npm could not install {package}: {problem}")]
    Npm {
        /// What was to be installed.
        package: String,
        /// The end of what npm said.
        problem: String,
    },
    /// A file or folder could not be made.
    #[error("cannot write to the cache folder {path}; set GREENROOM_CACHE to another one")]
    Cache {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Finds opencode: `explicit`, else PATH, else the pinned version, which is installed after `say` was told so.
///
/// # Errors
/// There is none and it cannot be installed; each error says what to do.
pub async fn find(
    explicit: Option<&Path>,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<Found, InstallError> {
    if let Some(found) = present(explicit)? {
        return Ok(found);
    }
    let program = pinned(&cache_folder()?, say).await?;
    Ok(Found {
        program,
        origin: Origin::Cache,
    })
}

/// The one [`find`] would find without installing anything; none if it would have to.
///
/// # Errors
/// The one that is named is none, or there can be none on this machine.
pub fn present(explicit: Option<&Path>) -> Result<Option<Found>, InstallError> {
    if let Some(path) = explicit {
        let program = which::which(path).map_err(|_| InstallError::NotAProgram {
            path: path.to_owned(),
        })?;
        let origin = Origin::Given;
        return Ok(Some(Found { program, origin }));
    }
    if let Ok(program) = which::which("opencode") {
        let origin = Origin::Path;
        return Ok(Some(Found { program, origin }));
    }
    let program = program_in(&place_in(&cache_folder()?), &npm::platform_package()?);
    let origin = Origin::Cache;
    Ok(program.is_file().then_some(Found { program, origin }))
}

/// `$GREENROOM_CACHE`, else `$XDG_CACHE_HOME/greenroom`, else `~/.cache/greenroom`.
///
/// # Errors
/// None of them is set.
pub fn cache_folder() -> Result<PathBuf, InstallError> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("GREENROOM_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("greenroom")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/greenroom")))
        .ok_or(InstallError::NoCacheFolder)
}

/// The pinned version in that cache folder, installed if it is not there; `say` is told before anything is fetched.
///
/// # Errors
/// npm is missing or fails, or the folder cannot be written.
pub async fn pinned(
    cache: &Path,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<PathBuf, InstallError> {
    let package = npm::platform_package()?;
    let program = program_in(&place_in(cache), &package);
    if program.is_file() {
        return Ok(program);
    }
    let npm = which::which("npm").map_err(|_| InstallError::NoNpm)?;
    install(&npm, cache, &package, say).await
}

async fn install(
    npm: &Path,
    cache: &Path,
    package: &str,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<PathBuf, InstallError> {
    let place = place_in(cache);
    let program = program_in(&place, package);
    say(&format!(
        "installing opencode {PINNED_VERSION} with npm into {} (about 180 MB)",
        cache.display()
    ));
    let denied = |source| InstallError::Cache {
        path: cache.to_owned(),
        source,
    };
    std::fs::create_dir_all(cache).map_err(denied)?;
    remove_leftovers(cache);
    let aside = tempfile::Builder::new()
        .prefix(ASIDE)
        .tempdir_in(cache)
        .map_err(denied)?;
    npm::install(npm, aside.path(), package).await?;
    let version = version_of(&program_in(aside.path(), package)).await?;
    tracing::info!(%version, package, "opencode installed");
    put_in_place(aside, &place, &program).map_err(denied)?;
    Ok(program)
}

/// What `opencode --version` says.
///
/// # Errors
/// It cannot be run, fails, or does not end within 30 s.
pub async fn version_of(program: &Path) -> Result<String, InstallError> {
    let broken = |problem: String| InstallError::Broken {
        program: program.to_owned(),
        problem,
    };
    let run = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(VERSION_LIMIT, run)
        .await
        .map_err(|_| broken(format!("`--version` did not end within {VERSION_LIMIT:?}")))?
        .map_err(|error| broken(error.to_string()))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || version.is_empty() {
        return Err(broken(format!(
            "`--version` ended with {}: {}",
            output.status,
            npm::tail(&output.stderr)
        )));
    }
    Ok(version)
}

fn put_in_place(aside: tempfile::TempDir, place: &Path, program: &Path) -> std::io::Result<()> {
    match std::fs::rename(aside.path(), place) {
        Ok(()) => {
            // It is no temporary folder any more.
            let _ = aside.keep();
            Ok(())
        }
        // Another install was faster; its opencode is the same.
        Err(_) if program.is_file() => Ok(()),
        Err(_) if place.exists() => {
            let broken = tempfile::Builder::new()
                .prefix(ASIDE)
                .tempdir_in(place.parent().unwrap_or(place))?;
            std::fs::rename(place, broken.path().join("broken"))?;
            std::fs::rename(aside.path(), place)?;
            let _ = aside.keep();
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn remove_leftovers(cache: &Path) {
    let Ok(entries) = std::fs::read_dir(cache) else {
        return;
    };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(ASIDE);
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified
            .ok()
            .and_then(|modified| SystemTime::now().duration_since(modified).ok());
        if is_ours && age.is_some_and(|age| age > LEFTOVER_AGE) {
            // Only tidying: what cannot be removed is left for the next time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn place_in(cache: &Path) -> PathBuf {
    cache.join(format!("opencode-{PINNED_VERSION}"))
}

fn program_in(folder: &Path, package: &str) -> PathBuf {
    folder
        .join("node_modules")
        .join(package)
        .join("bin")
        .join("opencode")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const PACKAGE: &str = "opencode-test-x64";

    fn script(path: &Path, text: &str) {
        std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// An npm that installs a script; `$7` is the folder, as npm is called.
    fn npm(folder: &Path, first: &str) -> PathBuf {
        let path = folder.join("npm");
        let bin = format!("\"$7/node_modules/{PACKAGE}/bin\"");
        script(
            &path,
            &format!(
                "{first}\ntest \"$6\" = --prefix || exit 9\nmkdir -p {bin} && cp '{}' {bin}/",
                place(folder)
            ),
        );
        script(&folder.join("opencode"), "echo 1.18.33");
        path
    }

    fn place(folder: &Path) -> String {
        folder.join("opencode").display().to_string()
    }

    fn aside(cache: &Path) -> usize {
        let entries = std::fs::read_dir(cache).unwrap().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(ASIDE))
            .count()
    }

    #[tokio::test]
    async fn installs_at_the_same_time_do_not_break_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let npm = npm(folder.path(), "");
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let mut hear_first = |line: &str| first.push(line.to_owned());
        let mut hear_second = |line: &str| second.push(line.to_owned());
        let (one, two) = tokio::join!(
            install(&npm, &cache, PACKAGE, &mut hear_first),
            install(&npm, &cache, PACKAGE, &mut hear_second),
        );
        let program = one.unwrap();
        assert_eq!(program, two.unwrap());
        assert_eq!(version_of(&program).await.unwrap(), "1.18.33");
        assert_eq!(aside(&cache), 0, "nothing is left aside");
        assert!(first[0].contains("installing opencode 1.18.33") && second.len() == 1);
    }

    #[tokio::test]
    async fn a_place_that_is_broken_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        std::fs::create_dir_all(place_in(&cache).join("half")).unwrap();
        let program = install(&npm(folder.path(), ""), &cache, PACKAGE, &mut |_| ())
            .await
            .unwrap();
        assert!(program.is_file() && !place_in(&cache).join("half").exists());
        assert_eq!(aside(&cache), 0);
    }

    #[tokio::test]
    async fn an_npm_that_fails_is_quoted_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let npm = npm(folder.path(), "echo 'registry is down' >&2; exit 1");
        let error = install(&npm, &cache, PACKAGE, &mut |_| ())
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("opencode-test-x64@1.18.33: registry is down"),
            "{error}"
        );
        assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_binary_that_does_not_run_here_is_not_installed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let npm = npm(folder.path(), "");
        script(
            &folder.path().join("opencode"),
            "echo 'illegal instruction' >&2; exit 132",
        );
        let error = install(&npm, &cache, PACKAGE, &mut |_| ())
            .await
            .unwrap_err();
        assert!(
            matches!(&error, InstallError::Broken { problem, .. } if problem.contains("illegal")),
            "{error}"
        );
        assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn the_one_that_is_named_is_taken_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine");
        let error = find(Some(&path), &mut |_| ()).await.unwrap_err();
        assert!(matches!(error, InstallError::NotAProgram { .. }), "{error}");
        script(&path, "echo 9.9.9");
        let found = find(Some(&path), &mut |_| ()).await.unwrap();
        assert_eq!(
            found,
            Found {
                program: path,
                origin: Origin::Given
            }
        );
    }
}
