//! Allows one process per journal: a lock file beside the journal, locked for the lifetime of the process, with its process
//! id. The system releases the lock at the end of a process, so that a stale lock never blocks.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::OpenError;
use crate::file;

/// How long to wait for a lock that is held briefly: by a look at its holder, or by a process that is about to end.
const HELD_BRIEFLY: Duration = Duration::from_millis(200);

/// The right to write a journal, released on drop. The file stays: removing it could remove the lock of another process.
#[derive(Debug)]
pub(crate) struct ProcessLock {
    held: File,
    /// True if a journal was created beside it before.
    had_journal: bool,
}

/// Written to the lock file once the journal exists: an empty journal is then known to be truncated.
const JOURNAL_MARKER: &str = "made";

fn beside(journal: &Path) -> PathBuf {
    file::sibling(journal, ".lock")
}

impl ProcessLock {
    /// Acquires the lock.
    ///
    /// # Errors
    /// Fails if another process holds it, with that process's id, or if the file cannot be written.
    pub(crate) fn acquire(journal: &Path) -> Result<Self, OpenError> {
        let path = beside(journal);
        let unusable = |source| OpenError::Unusable {
            path: path.clone(),
            source,
        };
        let mut held = file::open_private(&path).map_err(unusable)?;
        let deadline = Instant::now() + HELD_BRIEFLY;
        loop {
            match held.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(HELD_BRIEFLY / 10);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(OpenError::InUse {
                        path: journal.to_owned(),
                        pid: recorded_pid(&mut held),
                    });
                }
                Err(TryLockError::Error(source)) => return Err(unusable(source)),
            }
        }
        let had_journal = content(&mut held).lines().nth(1) == Some(JOURNAL_MARKER);
        let mut lock = Self { held, had_journal };
        lock.write_content(if had_journal { JOURNAL_MARKER } else { "" });
        Ok(lock)
    }

    /// Returns true if a journal was created beside it before.
    pub(crate) fn had_journal(&self) -> bool {
        self.had_journal
    }

    /// Records that the journal exists.
    pub(crate) fn record_journal(&mut self) {
        if !self.had_journal {
            self.write_content(JOURNAL_MARKER);
        }
    }

    /// Writes the process id and the marker. Failures are ignored: the lock holds without them, for instance on a full disk.
    fn write_content(&mut self, marker: &str) {
        let write = |held: &mut File| {
            held.set_len(0)?;
            held.seek(SeekFrom::Start(0))?;
            write!(held, "{}\n{marker}\n", std::process::id())
        };
        let _ = write(&mut self.held);
    }
}

/// Returns the process that uses the journal: none if no process does, none within if its id is not known.
pub(crate) fn holder(journal: &Path) -> Option<Option<u32>> {
    let mut lock = file::open_to_read(&beside(journal)).ok()?;
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(recorded_pid(&mut lock)),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn recorded_pid(lock: &mut File) -> Option<u32> {
    content(lock).lines().next()?.parse().ok()
}

fn content(lock: &mut File) -> String {
    let mut text = String::new();
    // A valid file has fewer than 40 bytes; a file that is not a text is read as empty.
    let read = lock.take(40).read_to_string(&mut text);
    read.map_or_else(|_| String::new(), |_| text)
}
