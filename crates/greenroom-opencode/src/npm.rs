//! Selects the npm package of opencode for this machine, and runs npm. Only used by [`crate::install`].

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::install::{InstallError, PINNED_VERSION};

const INSTALL_LIMIT: Duration = Duration::from_secs(600);

/// Installs the package into the folder. The package of this platform is requested by its name, since npm would select
/// among optional packages and might fetch several. Install scripts are not needed.
pub(crate) async fn install(npm: &Path, folder: &Path, package: &str) -> Result<(), InstallError> {
    let wanted = format!("{package}@{PINNED_VERSION}");
    let failed = |problem: String| InstallError::Npm {
        package: wanted.clone(),
        problem,
    };
    // Without a `package.json` npm would search the parent folders for one.
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

/// Returns the name of the npm package with the binary for this machine.
pub(crate) fn platform_package() -> Result<String, InstallError> {
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
    // Without `/proc/cpuinfo` the processor is assumed to be recent.
    std::fs::read_to_string("/proc/cpuinfo").map_or(true, |text| {
        text.split_whitespace().any(|flag| flag == "avx2")
    })
}

/// Returns the end of a program's output, in one line.
pub(crate) fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let last = lines[lines.len().saturating_sub(5)..].join("; ");
    if last.is_empty() {
        "it printed nothing".to_owned()
    } else {
        greenroom::domain::task::cut(&last, 1000).to_owned()
    }
}
