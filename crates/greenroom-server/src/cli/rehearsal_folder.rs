//! The temporary folder of a rehearsal. Its name contains the process id, so that folders of killed rehearsals can be
//! removed later.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tempfile::TempDir;

const PREFIX: &str = "greenroom-rehearsal-";

/// Creates a temporary folder, which is removed on drop. Also removes stale folders.
///
/// # Errors
/// Fails if the folder cannot be created.
pub fn create() -> std::io::Result<TempDir> {
    let parent = std::env::temp_dir();
    let folder = tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir_in(&parent)?;
    remove_stale(&parent, folder.path());
    Ok(folder)
}

/// Removes the folders of rehearsals whose process no longer exists. Ignores errors.
fn remove_stale(parent: &Path, current: &Path) {
    let Ok(owner) = std::fs::metadata(current).map(|current| current.uid()) else {
        return;
    };
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok())
            .map(Pid::from_raw);
        // `metadata` does not follow links, so nothing outside of the folder is removed.
        let is_ours = entry
            .metadata()
            .is_ok_and(|entry| entry.is_dir() && entry.uid() == owner);
        if is_ours && process.is_some_and(|process| kill(process, None) == Err(Errno::ESRCH)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_dead_processes_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let place = |name: String| parent.path().join(name);
        let stale = place(format!("{PREFIX}{}-abc", dead.id()));
        let alive = place(format!("{PREFIX}{}-abc", std::process::id()));
        let others = place(format!("other-{}-abc", dead.id()));
        let unparsable = place(format!("{PREFIX}abc"));
        for folder in [&stale, &alive, &others, &unparsable] {
            std::fs::create_dir_all(folder.join("home")).unwrap();
        }
        remove_stale(parent.path(), &alive);
        assert!(!stale.exists());
        assert!(alive.exists() && others.exists() && unparsable.exists());
    }
}
