//! Allows one process per journal: a lock file beside the journal, locked for the lifetime of the process, with its process
//! id. The system releases the lock at the end of a process, so that a stale lock never blocks.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
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
    record: JournalRecord,
}

/// The facts about the journal in the lock file, which outlive damage to the journal's own files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct JournalRecord {
    /// True if a journal was created beside it before: an empty journal is then known to be truncated.
    pub(crate) existed: bool,
    /// The number of appends that were on disk; none if an earlier version wrote the file.
    pub(crate) written: Option<u64>,
}

/// The second line of the lock file of an existing journal. The third line is the number of appends on disk.
const JOURNAL_MARKER: &str = "made";
/// The size limit of a valid file, in bytes.
const MAX_BYTES: u64 = 80;

impl JournalRecord {
    fn parse(text: &str) -> Self {
        let mut lines = text.lines().skip(1);
        Self {
            existed: lines.next() == Some(JOURNAL_MARKER),
            written: lines.next().and_then(|number| number.parse().ok()),
        }
    }
}

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
        let record = JournalRecord::parse(&content(&mut held));
        let lock = Self { held, record };
        lock.write();
        Ok(lock)
    }

    /// Returns the record of the last process.
    pub(crate) fn record(&self) -> JournalRecord {
        self.record
    }

    /// Records that the journal exists, with that number of appends on disk.
    pub(crate) fn record_written(&mut self, written: u64) {
        self.record = JournalRecord {
            existed: true,
            written: Some(written),
        };
        self.write();
    }

    /// Makes the record survive a power cut.
    pub(crate) fn sync(&self) {
        // The file may be older after a power cut; the journal is then not shorter than it.
        let _ = self.held.sync_data();
    }

    /// Writes the process id and the record in one piece. Failures are ignored: the lock holds without them, for instance
    /// on a full disk.
    fn write(&self) {
        let marker = if self.record.existed {
            JOURNAL_MARKER
        } else {
            ""
        };
        let mut text = format!("{}\n{marker}\n", std::process::id());
        if let Some(written) = self.record.written {
            // Of fixed width, so that a larger number does not change the size of the file.
            text.push_str(&format!("{written:020}\n"));
        }
        let write = || {
            self.held.write_all_at(text.as_bytes(), 0)?;
            let length = text.len() as u64;
            if self.held.metadata()?.len() != length {
                self.held.set_len(length)?;
            }
            Ok::<_, io::Error>(())
        };
        let _ = write();
    }
}

/// Returns the record beside a journal.
pub(crate) fn record(journal: &Path) -> JournalRecord {
    let lock = file::open_to_read(&beside(journal)).ok();
    lock.map_or_else(JournalRecord::default, |mut lock| {
        JournalRecord::parse(&content(&mut lock))
    })
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
    // A file that is not a text is read as empty.
    let read = lock.take(MAX_BYTES).read_to_string(&mut text);
    read.map_or_else(|_| String::new(), |_| text)
}
