//! One process per journal: a lock file beside it, held for as long as the process lives, with the process's id in it for
//! people. The system lets go of the lock when a process ends, however it ends, so that no stale one is ever in the way.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::OpenError;
use crate::file;

/// Somebody who only looks who holds it, or is about to end, lets go of it within that time.
const BRIEFLY_HELD: Duration = Duration::from_millis(200);

/// The right to write a journal; given back when it is dropped. The file stays: removing it could remove another's.
#[derive(Debug)]
pub(crate) struct Lock {
    held: File,
    /// True if a journal was made beside it before.
    made_before: bool,
}

/// What is said in the file once there is a journal: an empty one is then known for what it is, one cut off.
const MADE: &str = "made";

fn beside(journal: &Path) -> PathBuf {
    file::beside(journal, ".lock")
}

impl Lock {
    /// Takes it, or says who has it.
    pub(crate) fn take(journal: &Path) -> Result<Self, OpenError> {
        let path = beside(journal);
        let unusable = |source| OpenError::Unusable {
            path: path.clone(),
            source,
        };
        let mut held = file::private(&path).map_err(unusable)?;
        let deadline = Instant::now() + BRIEFLY_HELD;
        loop {
            match held.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(BRIEFLY_HELD / 10);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(OpenError::Held {
                        path: journal.to_owned(),
                        pid: said(&mut held),
                    });
                }
                Err(TryLockError::Error(source)) => return Err(unusable(source)),
            }
        }
        let made_before = content(&mut held).lines().nth(1) == Some(MADE);
        let mut lock = Self { held, made_before };
        lock.say(if made_before { MADE } else { "" });
        Ok(lock)
    }

    /// True if a journal was made beside it before.
    pub(crate) fn made_before(&self) -> bool {
        self.made_before
    }

    /// There is a journal beside it from now on.
    pub(crate) fn made(&mut self) {
        if !self.made_before {
            self.say(MADE);
        }
    }

    /// For people, and for who takes it next: on a full disk the lock holds without it.
    fn say(&mut self, made: &str) {
        let write = |held: &mut File| {
            held.set_len(0)?;
            held.seek(SeekFrom::Start(0))?;
            write!(held, "{}\n{made}\n", std::process::id())
        };
        let _ = write(&mut self.held);
    }
}

/// Who uses the journal now: nobody, or a process that may have said its id.
pub(crate) fn holder(journal: &Path) -> Option<Option<u32>> {
    let mut lock = File::open(beside(journal)).ok()?;
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(said(&mut lock)),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn said(lock: &mut File) -> Option<u32> {
    content(lock).lines().next()?.parse().ok()
}

fn content(lock: &mut File) -> String {
    let mut text = String::new();
    // It is no longer than that, whatever somebody has put there; what is no text says nothing.
    let read = lock.take(40).read_to_string(&mut text);
    read.map_or_else(|_| String::new(), |_| text)
}
