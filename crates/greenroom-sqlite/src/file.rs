//! The journal file: created for its owner alone, opened with crash-safe settings, checked before use, and identified, so
//! that a replaced file is detected.

use std::fs::{DirBuilder, File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::Uid;
use rusqlite::{Connection, OpenFlags};

use crate::error::OpenError;

/// How long a statement waits for the lock of another program before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// The size in bytes to which the write-ahead log is truncated after a checkpoint.
const WAL_SIZE_LIMIT: i64 = 16 * 1024 * 1024;

/// Returns the path with a suffix.
pub(crate) fn sibling(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// Flags of each open: neither waits for the other end of a FIFO nor makes a terminal the controlling one.
const NEVER_WAIT: OFlag = OFlag::O_NONBLOCK.union(OFlag::O_NOCTTY);

/// Opens a file of the journal for reading and writing. A new file is readable by its owner alone, regardless of the
/// umask. A symbolic link is not followed.
///
/// # Errors
/// Fails for a symbolic link, and for anything that is not a regular file.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(NEVER_WAIT.union(OFlag::O_NOFOLLOW).bits())
        .open(path);
    match file {
        Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => {
            Err(io::Error::other("it is a symbolic link"))
        }
        Err(error) => Err(error),
        Ok(file) => regular(file),
    }
}

/// Opens a file for reading, without waiting.
///
/// # Errors
/// Fails for anything that is not a regular file.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(NEVER_WAIT.bits());
    regular(file.open(path)?)
}

fn regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        Ok(file)
    } else {
        Err(not_regular(kind))
    }
}

fn not_regular(kind: FileType) -> io::Error {
    let kind = if kind.is_dir() {
        return io::ErrorKind::IsADirectory.into();
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    io::Error::other(format!("it is {kind}, not a regular file"))
}

/// Checks the files of an existing journal: each is a regular file of this user that others can neither read nor write,
/// in a folder that others cannot write. Only the journal itself may be a symbolic link.
///
/// # Errors
/// Fails if any user could replace or write the journal. Logs a warning if a group could, or if others can read it.
pub(crate) fn check_access(path: &Path) -> Result<(), OpenError> {
    let folder = folder_of(path);
    let folder_mode = std::fs::metadata(folder)
        .map_err(|source| OpenError::Unusable {
            path: folder.to_owned(),
            source,
        })?
        .mode();
    // In a folder with the sticky bit, such as /tmp, others cannot replace files.
    if folder_mode & STICKY == 0 {
        if folder_mode & WRITABLE_BY_ALL != 0 {
            return Err(OpenError::Exposed {
                path: folder.to_owned(),
                what: "all users can write in the folder",
                mode: "go-w",
            });
        }
        if folder_mode & WRITABLE_BY_GROUP != 0 {
            warn_exposed(folder, "go-w", "the group can write in the folder");
        }
    }
    let user = Uid::effective();
    for end in ["", "-wal", "-shm", ".lock"] {
        let path = sibling(path, end);
        let about = match end {
            "" => std::fs::metadata(&path),
            _ => std::fs::symlink_metadata(&path),
        };
        let about = match about {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(OpenError::Unusable { path, source }),
        };
        if !about.is_file() {
            let source = not_regular(about.file_type());
            return Err(OpenError::Unusable { path, source });
        }
        // A service that runs as root may use the file of another user.
        if about.uid() != user.as_raw() && !user.is_root() {
            return Err(OpenError::ForeignOwner {
                path,
                owner: about.uid(),
            });
        }
        if about.mode() & WRITABLE_BY_ALL != 0 {
            return Err(OpenError::Exposed {
                path,
                what: "all users can write the file",
                mode: "600",
            });
        }
        if about.mode() & OPEN_TO_OTHERS != 0 {
            warn_exposed(&path, "600", "other users can use the journal");
        }
    }
    Ok(())
}

/// The sticky bit of a folder.
const STICKY: u32 = 0o1000;
const WRITABLE_BY_ALL: u32 = 0o002;
const WRITABLE_BY_GROUP: u32 = 0o020;
/// The permission bits with which the group or others can read or write.
const OPEN_TO_OTHERS: u32 = 0o066;

fn warn_exposed(path: &Path, mode: &str, problem: &str) {
    let cure = format!("chmod {mode} {}", path.display());
    tracing::warn!(path = %path.display(), %cure, "{problem}");
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Creates the folder and the file if they do not exist. Returns true if the file existed. SQLite gives its other files the
/// mode of this one.
pub(crate) fn create(path: &Path) -> Result<bool, OpenError> {
    let folder = folder_of(path);
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Unusable { path, source }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(unusable(folder))?;
    let was_there = path.exists();
    if !was_there {
        open_private(path).map_err(unusable(path))?;
        // The directory entry must survive a power cut, like the contents.
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(unusable(folder))?;
    }
    check_access(path)?;
    Ok(was_there)
}

/// Identifies a file by device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let about = std::fs::metadata(path)?;
        Ok(Self(about.dev(), about.ino()))
    }
}

/// SQLite's `cache_size` of a connection; a negative number is in KiB. Statements touch few rows, so that a large cache
/// would only hold unused pages.
const CACHE_SIZE: i64 = -512;

/// Opens a connection for writing.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(BUSY_TIMEOUT)?;
        // Returns the mode in effect.
        db.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        db.pragma_update(None, "synchronous", "full")?;
        db.pragma_update_and_check(None, "journal_size_limit", WAL_SIZE_LIMIT, |_| Ok(()))?;
        db.pragma_update(None, "cache_size", CACHE_SIZE)?;
        db.set_prepared_statement_cache_capacity(64);
        Ok(db)
    };
    open().map_err(|source| OpenError::of(path, source))
}

/// Opens a connection for reading only.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(BUSY_TIMEOUT)?;
        db.pragma_update(None, "cache_size", CACHE_SIZE)?;
        db.set_prepared_statement_cache_capacity(32);
        Ok(db)
    };
    open().map_err(|source| OpenError::of(path, source))
}

/// The content of a file, by its size and header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileContent {
    /// As many pages as the header states, or the rest may be in the write-ahead log.
    Complete,
    /// No bytes.
    Empty,
    /// Fewer bytes than the header states.
    Truncated { bytes: u64, expected: u64 },
    /// Not an SQLite database.
    NotSqlite,
}

/// Inspects a file before SQLite opens it: SQLite would treat a file that was truncated to almost nothing as a new one.
pub(crate) fn inspect(path: &Path) -> io::Result<FileContent> {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let mut file = open_to_read(path)?;
    let bytes = file.metadata()?.len();
    if bytes == 0 {
        return Ok(FileContent::Empty);
    }
    let mut head = [0; 100];
    let read = usize::try_from(bytes).map_or(head.len(), |bytes| bytes.min(head.len()));
    file.read_exact(&mut head[..read])?;
    let begins = read.min(MAGIC.len());
    if head[..begins] != MAGIC[..begins] {
        return Ok(FileContent::NotSqlite);
    }
    if read < head.len() {
        let expected = head.len() as u64;
        return Ok(FileContent::Truncated { bytes, expected });
    }
    // The page size (1 stands for 65,536) and the number of pages, at their offsets in SQLite's header.
    let page = match u64::from(u16::from_be_bytes([head[16], head[17]])) {
        1 => 65_536,
        page => page,
    };
    let pages = u32::from_be_bytes([head[28], head[29], head[30], head[31]]);
    // Pages may still be in the log; without a first page SQLite would discard the log.
    let log = std::fs::metadata(sibling(path, "-wal")).map_or(0, |log| log.len());
    let expected = page * if log > 0 { 1 } else { u64::from(pages) };
    Ok(if bytes < expected {
        FileContent::Truncated { bytes, expected }
    } else {
        FileContent::Complete
    })
}

/// Returns the size of the journal's files together, in bytes.
pub(crate) fn total_bytes(path: &Path) -> u64 {
    ["", "-wal", "-shm"]
        .iter()
        .filter_map(|end| std::fs::metadata(sibling(path, end)).ok())
        .map(|about| about.len())
        .sum()
}

/// Checks every page.
pub(crate) fn check(db: &Connection, path: &Path) -> Result<(), OpenError> {
    let found = db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match found {
        Ok(found) if found == "ok" => Ok(()),
        Ok(what) => Err(OpenError::Damaged {
            path: path.to_owned(),
            what,
        }),
        Err(source) => Err(OpenError::of(path, source)),
    }
}
