//! The journal as a file: made for its owner alone, opened with what makes it safe over a crash, checked before it is
//! used, and recognised again when somebody has put another in its place.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::error::OpenError;

/// How long a statement waits for another program that has the file locked, before that is an error.
const LOCKED_WITHIN: Duration = Duration::from_secs(1);
/// The write-ahead log is cut to so many bytes once it is written back.
const LOG_KEPT: i64 = 16 * 1024 * 1024;

/// The path with that at its end.
pub(crate) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// Opens a file for reading and writing; a new one is readable by its owner alone, whatever the umask says.
pub(crate) fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Makes the folder and the file where they are not there yet; returns true if the file was there. SQLite gives its other files the mode of this one.
pub(crate) fn make(path: &Path) -> Result<bool, OpenError> {
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
        private(path).map_err(unusable(path))?;
        // The name must outlive a power cut as the contents do.
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(unusable(folder))?;
    } else if path.is_dir() {
        let source = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(unusable(path)(source));
    }
    Ok(was_there)
}

/// Which file is at that path: two are the same only if this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity(u64, u64);

impl Identity {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let about = std::fs::metadata(path)?;
        Ok(Self(about.dev(), about.ino()))
    }
}

/// How much of the file a connection keeps in memory; negative numbers are KiB. What is written and looked up are a few
/// rows, and a service that runs for months should not grow by pages it has no use for.
const CACHE: i64 = -512;

/// A connection that writes.
pub(crate) fn writing(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(LOCKED_WITHIN)?;
        // Answers with the mode that holds.
        db.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        db.pragma_update(None, "synchronous", "full")?;
        db.pragma_update_and_check(None, "journal_size_limit", LOG_KEPT, |_| Ok(()))?;
        db.pragma_update(None, "cache_size", CACHE)?;
        db.set_prepared_statement_cache_capacity(64);
        Ok(db)
    };
    open().map_err(|source| OpenError::of(path, source))
}

/// A connection that only reads.
pub(crate) fn reading(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(LOCKED_WITHIN)?;
        db.pragma_update(None, "cache_size", CACHE)?;
        db.set_prepared_statement_cache_capacity(32);
        Ok(db)
    };
    open().map_err(|source| OpenError::of(path, source))
}

/// What a file holds by its size and its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// As much as it says, or the rest may be in the log beside it.
    Whole,
    /// Nothing at all.
    Empty,
    /// Not all that it says it holds.
    CutOff { bytes: u64, of: u64 },
    /// No database.
    Other,
}

/// Looks before SQLite does, which would take a file that was cut off very short for a new one.
pub(crate) fn extent(path: &Path) -> io::Result<Extent> {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    if bytes == 0 {
        return Ok(Extent::Empty);
    }
    let mut head = [0; 100];
    let read = usize::try_from(bytes).map_or(head.len(), |bytes| bytes.min(head.len()));
    file.read_exact(&mut head[..read])?;
    let begins = read.min(MAGIC.len());
    if head[..begins] != MAGIC[..begins] {
        return Ok(Extent::Other);
    }
    if read < head.len() {
        let of = head.len() as u64;
        return Ok(Extent::CutOff { bytes, of });
    }
    // Where the form of the file has them: the size of a page, of which 65,536 does not fit, and how many there are.
    let page = match u64::from(u16::from_be_bytes([head[16], head[17]])) {
        1 => 65_536,
        page => page,
    };
    let pages = u32::from_be_bytes([head[28], head[29], head[30], head[31]]);
    // What is in the log may be on its way into it; without a first page SQLite would throw the log away.
    let log = std::fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len());
    let of = page * if log > 0 { 1 } else { u64::from(pages) };
    Ok(if bytes < of {
        Extent::CutOff { bytes, of }
    } else {
        Extent::Whole
    })
}

/// How many bytes the journal's files have together.
pub(crate) fn bytes(path: &Path) -> u64 {
    ["", "-wal", "-shm"]
        .iter()
        .filter_map(|end| std::fs::metadata(beside(path, end)).ok())
        .map(|about| about.len())
        .sum()
}

/// Looks at every page.
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
