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
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not used")] File);

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
        let say = |held: &mut File| {
            held.set_len(0)?;
            held.seek(SeekFrom::Start(0))?;
            writeln!(held, "{}", std::process::id())
        };
        // Only for the message: on a full disk the lock holds without it.
        let _ = say(&mut held);
        Ok(Self(held))
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
    let mut text = String::new();
    // A pid has no more digits than that, whatever somebody has put there.
    lock.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
