//! The folder of a rehearsal: made under a name that tells whose it is, and what earlier rehearsals left is removed. A
//! rehearsal that is ended by a second signal, or killed, cannot clear up after itself.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tempfile::TempDir;

const PREFIX: &str = "greenroom-rehearsal-";

/// A new folder among the temporary ones, which goes with its value.
///
/// # Errors
/// It cannot be made.
pub fn make() -> std::io::Result<TempDir> {
    let temporary = std::env::temp_dir();
    let folder = tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir_in(&temporary)?;
    sweep(&temporary, folder.path());
    Ok(folder)
}

/// Removes the folders of rehearsals whose process is gone. Only tidying: what cannot be removed is left for the next.
fn sweep(temporary: &Path, own: &Path) {
    let Ok(owner) = std::fs::metadata(own).map(|own| own.uid()) else {
        return;
    };
    for entry in std::fs::read_dir(temporary).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok())
            .map(Pid::from_raw);
        // Of a link this is the link's own: nothing outside the folder is followed.
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
    fn only_what_the_dead_left_is_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let place = |name: String| temporary.path().join(name);
        let left = place(format!("{PREFIX}{}-abc", dead.id()));
        let alive = place(format!("{PREFIX}{}-abc", std::process::id()));
        let others = place(format!("other-{}-abc", dead.id()));
        let odd = place(format!("{PREFIX}abc"));
        for folder in [&left, &alive, &others, &odd] {
            std::fs::create_dir_all(folder.join("home")).unwrap();
        }
        sweep(temporary.path(), &alive);
        assert!(!left.exists());
        assert!(alive.exists() && others.exists() && odd.exists());
    }
}
