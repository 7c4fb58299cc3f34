//! The journal file: created for its owner alone, opened with crash-safe settings, checked before use, and identified, so
//! that a replaced file is detected.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// Opens a file for reading and writing. A new file is readable by its owner alone, regardless of the umask.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Creates the folder and the file if they do not exist. Returns true if the file existed. SQLite gives its other files the
/// mode of this one.
pub(crate) fn create(path: &Path) -> Result<bool, OpenError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
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
    } else if path.is_dir() {
        let source = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(unusable(path)(source));
    }
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
    let mut file = File::open(path)?;
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
