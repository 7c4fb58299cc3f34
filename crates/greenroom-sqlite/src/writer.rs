//! The thread that writes. It takes all that waits, writes it in one transaction and says how far it has come. What cannot
//! be written is kept and tried again every second, and everybody is told why. It tidies up when nothing waits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use crate::file::Identity;
use crate::journal::now;
use crate::lock::Lock;
use crate::retention::{self, Cut, Done};
use crate::state::{Shared, Work};
use crate::store::{self, Appended};

/// How long the writer waits before it tries again what could not be written.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it tidies up at least, and at most: as often as its retention in between.
const TIDY_AT_LEAST: Duration = Duration::from_secs(3600);
const TIDY_AT_MOST: Duration = Duration::from_secs(10);

/// What the writer works with.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) db: Connection,
    pub(crate) path: PathBuf,
    /// The file that was opened: what is written to another, or to none, would be lost.
    pub(crate) identity: Identity,
    /// How long tasks are kept after they have left memory.
    pub(crate) retention: Duration,
    /// Kept for as long as anything is written.
    pub(crate) _lock: Lock,
}

/// Says at the end of the thread that it has ended, and that something went wrong if it panicked.
struct Farewell(Arc<Shared>);

impl Drop for Farewell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0
                .failing("its writer has died of a bug; restart the service");
        }
        self.0.writer_ended();
    }
}

impl Writer {
    /// Works until the journal ends.
    pub(crate) fn run(mut self) {
        let _farewell = Farewell(Arc::clone(&self.shared));
        // At once: nobody may have let go of anything for long.
        let mut idle_at = Instant::now();
        loop {
            match self.shared.next(idle_at) {
                Work::Write(batch) => self.write(&batch),
                Work::Idle => idle_at = Instant::now() + self.tidy(),
                Work::End => return self.tidy_up(),
            }
        }
    }

    /// The file is whole without the log beside it from here on.
    fn tidy_up(&self) {
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        if let Err(error) = self.db.query_row(sql, [], |_| Ok(())) {
            // The next start does it.
            tracing::debug!(%error, "the journal's log stays");
        }
    }

    /// Lets go of some of what is over; says when to go on.
    fn tidy(&mut self) -> Duration {
        match retention::step(&mut self.db, Cut::by_age(now(), self.retention)) {
            Ok(Done { more: true, .. }) => Duration::ZERO,
            Ok(_) => tidy_every(self.retention),
            Err(error) => {
                let why = self.explain(&error);
                tracing::warn!(why, "the journal cannot let go of what is over");
                tidy_every(self.retention)
            }
        }
    }

    fn write(&mut self, batch: &[Arc<Appended>]) {
        let was_failing = self.shared.is_failing();
        match self.try_write(batch) {
            Ok(()) => {
                self.shared.written(batch.len());
                if was_failing {
                    tracing::info!(journal = %self.path.display(), "the journal is written again");
                }
            }
            Err(why) => {
                if !was_failing {
                    tracing::error!(journal = %self.path.display(), why, "the journal cannot be written");
                }
                self.shared.failing(&why);
                self.shared.pause(AGAIN);
            }
        }
    }

    fn try_write(&mut self, batch: &[Arc<Appended>]) -> Result<(), String> {
        match Identity::of(&self.path) {
            Ok(identity) if identity == self.identity => {}
            _ => {
                return Err(format!(
                    "{} was removed or replaced; put it back or restart the service",
                    self.path.display()
                ));
            }
        }
        store::write(&mut self.db, batch).map_err(|error| self.explain(&error))
    }

    /// What is wrong, for people, with what they can do.
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

/// What is kept for a minute is not to lie there for an hour.
fn tidy_every(retention: Duration) -> Duration {
    retention.clamp(TIDY_AT_MOST, TIDY_AT_LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_long_is_looked_at_hourly_and_the_rest_as_often_as_it_is_kept() {
        let every = |seconds| tidy_every(Duration::from_secs(seconds)).as_secs();
        assert_eq!([1, 60, 14 * 24 * 3600].map(every), [10, 60, 3600]);
    }
}
