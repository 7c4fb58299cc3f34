//! Files that only their owner may read or write: the service's token, its description. They are created atomically with
//! mode 0600 in a folder with mode 0700, and a file that another user could have written is refused.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::geteuid;
use tempfile::NamedTempFile;

/// Maximum size of such a file, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or its folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file is a symbolic link, a folder, or a device.
    #[error("{}: not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The file or its folder belongs to another user.
    #[error("{}: it belongs to user {owner}, not to you", path.display())]
    ForeignOwner {
        /// The file or folder.
        path: PathBuf,
        /// The user id of the owner.
        owner: u32,
    },
    /// Other users can read or write the file, or write its folder.
    #[error("{}: other users can {access} it (mode {mode:03o})", path.display())]
    OpenToOthers {
        /// The file or folder.
        path: PathBuf,
        /// What others can do: read or write.
        access: &'static str,
        /// The mode.
        mode: u32,
        /// The mode that it needs.
        needed: u32,
    },
    /// The file is empty or too large.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: &'static str,
    },
}

impl SecretFileError {
    /// Returns what a person can do about the error.
    pub fn hint(&self) -> String {
        match self {
            Self::Io { .. } => "check the path and its permissions".to_owned(),
            Self::NotAFile { path } | Self::Content { path, .. } => {
                format!("remove {}; it is made again", path.display())
            }
            Self::ForeignOwner { path, .. } => {
                format!("find out who made {}, and remove it", path.display())
            }
            Self::OpenToOthers { path, needed, .. } => {
                format!("chmod {needed:o} {}", path.display())
            }
        }
    }

    fn io(path: &Path, source: io::Error) -> Self {
        // `O_NOFOLLOW` reports a symbolic link as a loop.
        if source.raw_os_error() == Some(nix::libc::ELOOP) {
            return Self::NotAFile {
                path: path.to_owned(),
            };
        }
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// Reads a file; none if it does not exist.
///
/// # Errors
/// Fails if the file is not regular, belongs to another user, can be read or written by others, or is too large, or if other
/// users can replace it in its folder.
pub fn read(path: &Path) -> Result<Option<String>, SecretFileError> {
    let failed = |source| SecretFileError::io(path, source);
    let file = match open_unfollowed(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    check_file(path, &file)?;
    check_folder(path.parent().unwrap_or(Path::new(".")))?;
    let mut text = String::new();
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
    if read.map_err(failed)? as u64 > MAX_BYTES {
        return Err(SecretFileError::Content {
            path: path.to_owned(),
            problem: "it is too large",
        });
    }
    Ok(Some(text))
}

/// Opens a path for reading, but no symbolic link, and without waiting for the writer of a FIFO.
pub(crate) fn open_unfollowed(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK);
    options.open(path)
}

/// Creates a file with this content. Returns false if the file exists already, without a change.
///
/// # Errors
/// Fails if its folder is not private or cannot be created, or the file cannot be written.
pub fn create(path: &Path, text: &str) -> Result<bool, SecretFileError> {
    match write_beside(path, text)?.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(SecretFileError::io(path, error.error)),
    }
}

/// Creates or replaces a file. A reader sees the old content or the new one.
///
/// # Errors
/// As [`create`].
pub fn replace(path: &Path, text: &str) -> Result<(), SecretFileError> {
    let written = write_beside(path, text)?.persist(path);
    written
        .map(|_| ())
        .map_err(|error| SecretFileError::io(path, error.error))
}

fn write_beside(path: &Path, text: &str) -> Result<NamedTempFile, SecretFileError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    private_folder(folder)?;
    let failed = |source| SecretFileError::io(path, source);
    // Created with mode 0600.
    let mut file = NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    Ok(file)
}

/// Creates a folder with mode 0700 if it does not exist. A folder of another user, or one that others can write, is
/// refused: they could replace the files in it.
fn private_folder(folder: &Path) -> Result<(), SecretFileError> {
    let failed = |source| SecretFileError::io(folder, source);
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed)?;
    check_folder(folder)
}

fn check_folder(folder: &Path) -> Result<(), SecretFileError> {
    // The folder of a bare file name.
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let found = fs::metadata(folder).map_err(|source| SecretFileError::io(folder, source))?;
    let owner = found.uid();
    if owner != geteuid().as_raw() {
        return Err(SecretFileError::ForeignOwner {
            path: folder.to_owned(),
            owner,
        });
    }
    let mode = found.mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(SecretFileError::OpenToOthers {
            path: folder.to_owned(),
            access: "write",
            mode,
            needed: 0o700,
        });
    }
    Ok(())
}

/// Returns why the secret in a file that the user has named is not used: another user owns the file or can write it. Files of
/// the administrator are accepted, and files that others can read.
///
/// # Errors
/// As [`read`].
pub fn check_named(path: &Path) -> Result<(), SecretFileError> {
    let found = fs::metadata(path).map_err(|source| SecretFileError::io(path, source))?;
    let owner = found.uid();
    if owner != geteuid().as_raw() && owner != 0 {
        return Err(SecretFileError::ForeignOwner {
            path: path.to_owned(),
            owner,
        });
    }
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        let found = fs::metadata(folder).map_err(|source| SecretFileError::io(folder, source))?;
        let mode = found.mode() & 0o1777;
        // In a folder with the sticky bit other users cannot replace the file.
        if found.is_dir() && mode & 0o022 != 0 && mode & 0o1000 == 0 {
            return Err(SecretFileError::OpenToOthers {
                path: folder.to_owned(),
                access: "write",
                mode,
                needed: 0o700,
            });
        }
    }
    let mode = found.mode() & 0o777;
    // A pipe or a device has no content that others could have written before.
    if found.is_file() && mode & 0o022 != 0 {
        return Err(SecretFileError::OpenToOthers {
            path: path.to_owned(),
            access: "write",
            mode,
            needed: 0o600,
        });
    }
    Ok(())
}

fn check_file(path: &Path, file: &File) -> Result<(), SecretFileError> {
    let found = file
        .metadata()
        .map_err(|source| SecretFileError::io(path, source))?;
    if !found.is_file() {
        return Err(SecretFileError::NotAFile {
            path: path.to_owned(),
        });
    }
    let owner = found.uid();
    if owner != geteuid().as_raw() {
        return Err(SecretFileError::ForeignOwner {
            path: path.to_owned(),
            owner,
        });
    }
    let mode = found.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretFileError::OpenToOthers {
            path: path.to_owned(),
            access: if mode & 0o022 != 0 { "write" } else { "read" },
            mode,
            needed: 0o600,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn file_is_created_once_and_private() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("new/folder/token");
        assert!(read(&path).unwrap().is_none());
        assert!(create(&path, "one").unwrap());
        assert!(!create(&path, "two").unwrap());
        assert_eq!(read(&path).unwrap().as_deref(), Some("one"));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        replace(&path, "three").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("three"));
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn simultaneous_creators_agree() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("token");
        let created: usize = std::thread::scope(|scope| {
            let creators: Vec<_> = (0..8)
                .map(|number| {
                    let path = &path;
                    scope.spawn(move || create(path, &format!("secret {number}")).unwrap())
                })
                .collect();
            let results = creators
                .into_iter()
                .map(|it| usize::from(it.join().unwrap()));
            results.sum()
        });
        assert_eq!(created, 1);
        assert!(read(&path).unwrap().unwrap().starts_with("secret "));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_others_could_have_written_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("token");
        create(&path, "secret").unwrap();
        for mode in [0o644, 0o640, 0o606, 0o666] {
            set_mode(&path, mode);
            let error = read(&path).unwrap_err();
            assert!(
                matches!(error, SecretFileError::OpenToOthers { .. }),
                "{error}"
            );
            assert!(error.hint().starts_with("chmod 600"), "{}", error.hint());
        }
        set_mode(&path, 0o600);
        let link = root.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(
            read(&link).unwrap_err(),
            SecretFileError::NotAFile { .. }
        ));
        let fifo = root.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert!(matches!(
            read(&fifo).unwrap_err(),
            SecretFileError::NotAFile { .. }
        ));
        assert!(matches!(
            read(root.path()).unwrap_err(),
            SecretFileError::NotAFile { .. }
        ));

        set_mode(root.path(), 0o777);
        let error = create(&root.path().join("other"), "secret").unwrap_err();
        assert!(
            matches!(error, SecretFileError::OpenToOthers { .. }),
            "{error}"
        );
        assert!(error.hint().starts_with("chmod 700"), "{}", error.hint());
    }

    #[test]
    fn large_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("token");
        create(&path, &"x".repeat(70_000)).unwrap();
        assert!(matches!(
            read(&path).unwrap_err(),
            SecretFileError::Content { .. }
        ));
    }
}
