//! Finds an opencode to run: the given program, else the program on PATH, else the pinned version, which npm installs into the cache
//! folder. Used by `greenroom up` and the end-to-end tests. An install is made in a staging folder and renamed, so that
//! concurrent or interrupted installs never leave an incomplete opencode.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use tokio::process::Command;

use crate::npm;

/// The supported version, which is installed.
pub const PINNED_VERSION: &str = "1.18.33";

const VERSION_LIMIT: Duration = Duration::from_secs(30);
/// The age at which the staging folder of an interrupted install is removed.
const STALE_STAGING_AGE: Duration = Duration::from_secs(3600);
const STAGING_PREFIX: &str = ".installing-";

/// An opencode that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The path of the binary.
    pub program: PathBuf,
    /// The origin of the binary.
    pub origin: Origin,
}

/// The origin of an opencode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was given explicitly.
    Given,
    /// It is on PATH.
    Path,
    /// It was installed into the cache folder.
    Cache,
}

/// Why opencode is not available.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The given path is not an executable file.
    #[error("{path} is not an executable program; give the path of the opencode binary")]
    NotAProgram {
        /// The given path.
        path: PathBuf,
    },
    /// The binary fails, or prints no version.
    #[error("{program} does not work: {problem}")]
    Broken {
        /// The path of the binary.
        program: PathBuf,
        /// The problem.
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
    /// There is no cache folder.
    #[error("there is no cache folder: neither GREENROOM_CACHE, XDG_CACHE_HOME nor HOME is set")]
    NoCacheFolder,
    /// npm is not on PATH.
    #[error(
        "opencode is not installed and npm is not on PATH; install Node.js with npm, or opencode itself, or give --opencode-bin"
    )]
    NoNpm,
    /// npm failed.
    #[error("npm could not install {package}: {problem}")]
    Npm {
        /// The package.
        package: String,
        /// The end of npm's output.
        problem: String,
    },
    /// A file or folder could not be created.
    #[error("cannot write to the cache folder {path}; set GREENROOM_CACHE to another one")]
    Cache {
        /// The cache folder.
        path: PathBuf,
        /// The error.
        #[source]
        source: std::io::Error,
    },
}

/// Finds opencode: `explicit`, else PATH, else the pinned version, which is installed after a line to `report`.
///
/// # Errors
/// Fails if opencode is not found and cannot be installed; each error names the next step.
pub async fn find(
    explicit: Option<&Path>,
    report: &mut (dyn FnMut(&str) + Send),
) -> Result<Found, InstallError> {
    if let Some(found) = find_installed(explicit)? {
        return Ok(found);
    }
    let program = pinned(&cache_folder()?, report).await?;
    Ok(Found {
        program,
        origin: Origin::Cache,
    })
}

/// Returns the opencode that [`find`] would return without an install; none if it would install one.
///
/// # Errors
/// Fails if the given path is not a program, or opencode does not support this platform.
pub fn find_installed(explicit: Option<&Path>) -> Result<Option<Found>, InstallError> {
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
    let program = program_in(&version_folder(&cache_folder()?), &npm::platform_package()?);
    let origin = Origin::Cache;
    Ok(program.is_file().then_some(Found { program, origin }))
}

/// Returns `$GREENROOM_CACHE`, else `$XDG_CACHE_HOME/greenroom`, else `~/.cache/greenroom`.
///
/// # Errors
/// Fails if none of them is set.
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

/// Returns the pinned version in that cache folder. Installs it if it is missing, after a line to `report`.
///
/// # Errors
/// Fails if npm is missing or fails, or the folder cannot be written.
pub async fn pinned(
    cache: &Path,
    report: &mut (dyn FnMut(&str) + Send),
) -> Result<PathBuf, InstallError> {
    let package = npm::platform_package()?;
    let program = program_in(&version_folder(cache), &package);
    if program.is_file() {
        return Ok(program);
    }
    let npm = which::which("npm").map_err(|_| InstallError::NoNpm)?;
    install(&npm, cache, &package, report).await
}

async fn install(
    npm: &Path,
    cache: &Path,
    package: &str,
    report: &mut (dyn FnMut(&str) + Send),
) -> Result<PathBuf, InstallError> {
    let target = version_folder(cache);
    let program = program_in(&target, package);
    report(&format!(
        "installing opencode {PINNED_VERSION} with npm into {} (about 180 MB)",
        cache.display()
    ));
    let denied = |source| InstallError::Cache {
        path: cache.to_owned(),
        source,
    };
    std::fs::create_dir_all(cache).map_err(denied)?;
    remove_stale_staging(cache);
    let staging = tempfile::Builder::new()
        .prefix(STAGING_PREFIX)
        .tempdir_in(cache)
        .map_err(denied)?;
    npm::install(npm, staging.path(), package).await?;
    let version = version_of(&program_in(staging.path(), package)).await?;
    tracing::info!(%version, package, "opencode installed");
    activate(staging, &target, &program).map_err(denied)?;
    Ok(program)
}

/// Returns the output of `opencode --version`.
///
/// # Errors
/// Fails if the program cannot be run, fails, or does not end within 30 s.
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

fn activate(staging: tempfile::TempDir, target: &Path, program: &Path) -> std::io::Result<()> {
    match std::fs::rename(staging.path(), target) {
        Ok(()) => {
            // The folder is permanent now.
            let _ = staging.keep();
            Ok(())
        }
        // A concurrent install has finished with the same version.
        Err(_) if program.is_file() => Ok(()),
        Err(_) if target.exists() => {
            let broken = tempfile::Builder::new()
                .prefix(STAGING_PREFIX)
                .tempdir_in(target.parent().unwrap_or(target))?;
            std::fs::rename(target, broken.path().join("broken"))?;
            std::fs::rename(staging.path(), target)?;
            let _ = staging.keep();
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn remove_stale_staging(cache: &Path) {
    let Ok(entries) = std::fs::read_dir(cache) else {
        return;
    };
    for entry in entries.flatten() {
        let is_ours = entry
            .file_name()
            .to_string_lossy()
            .starts_with(STAGING_PREFIX);
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified
            .ok()
            .and_then(|modified| SystemTime::now().duration_since(modified).ok());
        if is_ours && age.is_some_and(|age| age > STALE_STAGING_AGE) {
            // Errors are ignored: the next install tries again.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn version_folder(cache: &Path) -> PathBuf {
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

    fn staging(cache: &Path) -> usize {
        let entries = std::fs::read_dir(cache).unwrap().flatten();
        entries
            .filter(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(STAGING_PREFIX)
            })
            .count()
    }

    #[tokio::test]
    async fn concurrent_installs_succeed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let npm = npm(folder.path(), "");
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let mut report_first = |line: &str| first.push(line.to_owned());
        let mut report_second = |line: &str| second.push(line.to_owned());
        let (one, two) = tokio::join!(
            install(&npm, &cache, PACKAGE, &mut report_first),
            install(&npm, &cache, PACKAGE, &mut report_second),
        );
        let program = one.unwrap();
        assert_eq!(program, two.unwrap());
        assert_eq!(version_of(&program).await.unwrap(), "1.18.33");
        assert_eq!(staging(&cache), 0, "no staging folder is left");
        assert!(first[0].contains("installing opencode 1.18.33") && second.len() == 1);
    }

    #[tokio::test]
    async fn incomplete_install_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        std::fs::create_dir_all(version_folder(&cache).join("half")).unwrap();
        let program = install(&npm(folder.path(), ""), &cache, PACKAGE, &mut |_| ())
            .await
            .unwrap();
        assert!(program.is_file() && !version_folder(&cache).join("half").exists());
        assert_eq!(staging(&cache), 0);
    }

    #[tokio::test]
    async fn npm_failure_is_quoted_and_leaves_nothing() {
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
    async fn unusable_binary_is_not_installed() {
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
    async fn given_path_is_used_or_refused() {
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
