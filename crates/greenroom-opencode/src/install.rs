//! Finds an opencode to run: the one named, else the one on PATH, else the pinned version, installed through npm into
//! the cache folder. `greenroom up` and the end-to-end tests both come here. Installs are made aside and renamed into
//! place, so that several at a time, or one that is cut off, never leave half an opencode.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use tokio::process::Command;

/// The version this was made for, and the one that is installed.
pub const PINNED_VERSION: &str = "1.18.33";

const INSTALL_LIMIT: Duration = Duration::from_secs(600);
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
    if let Some(path) = explicit {
        let program = which::which(path).map_err(|_| InstallError::NotAProgram {
            path: path.to_owned(),
        })?;
        return Ok(Found {
            program,
            origin: Origin::Given,
        });
    }
    if let Ok(program) = which::which("opencode") {
        return Ok(Found {
            program,
            origin: Origin::Path,
        });
    }
    let program = pinned(&cache_folder()?, say).await?;
    Ok(Found {
        program,
        origin: Origin::Cache,
    })
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
    let package = platform_package()?;
    let place = cache.join(format!("opencode-{PINNED_VERSION}"));
    let program = program_in(&place, &package);
    if program.is_file() {
        return Ok(program);
    }
    let npm = which::which("npm").map_err(|_| InstallError::NoNpm)?;
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
    npm_install(&npm, aside.path(), &package).await?;
    let version = version_of(&program_in(aside.path(), &package)).await?;
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
            tail(&output.stderr)
        )));
    }
    Ok(version)
}

/// npm would pick among optional packages, some of them for machines like this but not this one; the right one is asked
/// for by its name instead, which also fetches it once and not four times. Its install scripts are not needed.
async fn npm_install(npm: &Path, folder: &Path, package: &str) -> Result<(), InstallError> {
    let wanted = format!("{package}@{PINNED_VERSION}");
    let failed = |problem: String| InstallError::Npm {
        package: wanted.clone(),
        problem,
    };
    // Without a package of its own npm would look for one in the folders above.
    std::fs::write(folder.join("package.json"), "{\"private\": true}\n")
        .map_err(|error| failed(error.to_string()))?;
    let run = Command::new(npm)
        .args([
            "install",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
            "--prefix",
        ])
        .arg(folder)
        .arg(&wanted)
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(INSTALL_LIMIT, run)
        .await
        .map_err(|_| {
            failed(format!(
                "it did not end within {} minutes",
                INSTALL_LIMIT.as_secs() / 60
            ))
        })?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(failed(tail(&output.stderr)))
    }
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

fn program_in(folder: &Path, package: &str) -> PathBuf {
    folder
        .join("node_modules")
        .join(package)
        .join("bin")
        .join("opencode")
}

/// The npm package that holds the binary for this machine.
fn platform_package() -> Result<String, InstallError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let (system, processor) = match (os, arch) {
        ("linux", "x86_64") => ("linux", "x64"),
        ("linux", "aarch64") => ("linux", "arm64"),
        ("macos", "x86_64") => ("darwin", "x64"),
        ("macos", "aarch64") => ("darwin", "arm64"),
        _ => return Err(InstallError::Platform { os, arch }),
    };
    // The ordinary builds for x64 need a processor with AVX2.
    let old = os == "linux" && arch == "x86_64" && !has_avx2();
    let musl = os == "linux" && cfg!(target_env = "musl");
    let (old, musl) = (
        if old { "-baseline" } else { "" },
        if musl { "-musl" } else { "" },
    );
    Ok(format!("opencode-{system}-{processor}{old}{musl}"))
}

fn has_avx2() -> bool {
    // A machine that does not tell is taken for one of this decade.
    std::fs::read_to_string("/proc/cpuinfo").map_or(true, |text| {
        text.split_whitespace().any(|flag| flag == "avx2")
    })
}

fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let last = lines[lines.len().saturating_sub(5)..].join("; ");
    if last.is_empty() {
        "it said nothing".to_owned()
    } else {
        greenroom::domain::task::cut(&last, 1000).to_owned()
    }
}
