//! The writer thread. It writes the unwritten appends in one transaction and publishes the status. If a write fails, it
//! publishes the reason and tries again every second. When it is idle it deletes expired rows.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use crate::file::FileId;
use crate::journal::now;
use crate::process_lock::ProcessLock;
use crate::retention::{self, Cutoff, StepResult};
use crate::state::{Shared, Work};
use crate::store::{self, PendingAppend};

/// The time between two attempts to write.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The bounds of the time between two clean-ups, which is otherwise the retention.
const MAX_CLEANUP_INTERVAL: Duration = Duration::from_secs(3600);
const MIN_CLEANUP_INTERVAL: Duration = Duration::from_secs(10);

/// The writer thread.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) db: Connection,
    pub(crate) path: PathBuf,
    /// The opened file: writes to a removed or replaced file would be lost.
    pub(crate) file_id: FileId,
    /// How long tasks are kept after they were evicted from memory.
    pub(crate) retention: Duration,
    /// Held while the thread runs. Also records the number of appends on disk.
    pub(crate) lock: ProcessLock,
}

/// Records the end of the thread when it is dropped, and publishes a failure if the thread panicked.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0
                .mark_failing("its writer has died of a bug; restart the service");
        }
        self.0.writer_ended();
    }
}

impl Writer {
    /// Runs until the journal is closed.
    pub(crate) fn run(mut self) {
        let _end_guard = EndGuard(Arc::clone(&self.shared));
        // The first clean-up is at once: the last one may be long ago.
        let mut cleanup_at = Instant::now();
        loop {
            match self.shared.next_work(cleanup_at) {
                Work::Write(batch) => self.write(&batch),
                Work::CleanUp => cleanup_at = Instant::now() + self.clean_up(),
                Work::Stop => return self.checkpoint(),
            }
        }
    }

    /// Moves the write-ahead log into the file.
    fn checkpoint(&self) {
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        if let Err(error) = self.db.query_row(sql, [], |_| Ok(())) {
            // The next start repeats it.
            tracing::debug!(%error, "could not checkpoint the journal");
        }
        self.lock.sync();
    }

    /// Deletes some expired rows; returns the time until the next clean-up.
    fn clean_up(&mut self) -> Duration {
        match retention::step(&mut self.db, Cutoff::by_age(now(), self.retention)) {
            Ok(StepResult { more: true, .. }) => Duration::ZERO,
            Ok(_) => cleanup_interval(self.retention),
            Err(error) => {
                let why = self.explain(&error);
                tracing::warn!(why, "could not delete expired rows of the journal");
                cleanup_interval(self.retention)
            }
        }
    }

    fn write(&mut self, batch: &[Arc<PendingAppend>]) {
        let was_failing = self.shared.is_failing();
        match self.try_write(batch) {
            Ok(()) => {
                if let Some(last) = batch.last() {
                    self.lock.record_written(last.lsn);
                }
                self.shared.mark_written(batch.len());
                if was_failing {
                    tracing::info!(journal = %self.path.display(), "the journal can be written again");
                }
            }
            Err(why) => {
                if !was_failing {
                    tracing::error!(journal = %self.path.display(), why, "could not write the journal");
                }
                self.shared.mark_failing(&why);
                self.shared.pause(RETRY_DELAY);
            }
        }
    }

    fn try_write(&mut self, batch: &[Arc<PendingAppend>]) -> Result<(), String> {
        match FileId::of(&self.path) {
            Ok(file_id) if file_id == self.file_id => {}
            _ => {
                return Err(format!(
                    "{} was removed or replaced; put it back or restart the service",
                    self.path.display()
                ));
            }
        }
        store::write(&mut self.db, batch).map_err(|error| self.explain(&error))
    }

    /// Returns the problem and what to do, for people.
    fn explain(&self, error: &rusqlite::Error) -> String {
        let next = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => "make room on its disk",
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                "end the other program that has it open"
            }
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                "repair permissions there"
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                "it is damaged: put a copy of it back and restart the service"
            }
            _ => "look at its folder and disk",
        };
        format!("{}: {error}; {next}", self.path.display())
    }
}

/// Returns the time between two clean-ups: short retentions are cleaned up more often.
fn cleanup_interval(retention: Duration) -> Duration {
    retention.clamp(MIN_CLEANUP_INTERVAL, MAX_CLEANUP_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleanup_interval_is_the_retention_within_bounds() {
        let every = |seconds| cleanup_interval(Duration::from_secs(seconds)).as_secs();
        assert_eq!([1, 60, 14 * 24 * 3600].map(every), [10, 60, 3600]);
    }
}
