//! The journal port on SQLite. Entries are applied to a fold in memory at once; a separate thread writes them to the file;
//! tasks that were evicted from memory are looked up in the file.

use std::collections::HashSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use greenroom::clock::Clock;
use greenroom::domain::idempotency::KEY_LIFETIME;
use greenroom::domain::ids::{SessionId, TaskId};
use greenroom::domain::outbox::Outbox;
use greenroom::domain::session_owner::SessionOwner;
use greenroom::domain::task::Task;
use greenroom::domain::time::Timestamp;
use greenroom::domain::timeline::TimelineEntry;
use greenroom::ports::journal::{
    ChangesFrom, Fold, Journal, JournalEntry, JournalError, JournalStatus, Lsn, RecordedChange,
    RecoveredState,
};
use rusqlite::{Connection, params};
use tokio::sync::watch;

use crate::error::{OpenError, RowError};
use crate::file::{self, FileContent, FileId};
use crate::lock;
use crate::process_lock::ProcessLock;
use crate::queries::{self, RowResult};
use crate::retention::earlier;
use crate::schema;
use crate::state::Shared;
use crate::store::{ChangedOutbox, PendingAppend, to_sql};
use crate::writer::Writer;

/// The most evicted tasks that [`Journal::load`] returns, for histories.
const MAX_EVICTED: usize = 10_000;
/// How long closing waits for unwritten appends.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A journal in one file.
#[derive(Debug)]
pub struct SqliteJournal {
    pub(crate) path: PathBuf,
    pub(crate) retention: Duration,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reader: Mutex<Connection>,
    /// The evicted tasks that were read at the start, until the first `load`.
    evicted: Mutex<Option<Vec<Arc<Task>>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteJournal {
    /// Opens the journal at `path`, or creates it, and reads the state to continue from. Tasks are kept for `retention`
    /// after they were evicted from memory (`lifecycle.retention`).
    ///
    /// # Errors
    /// Fails if the file cannot be used, is used by another process, is damaged or has a newer version. The file is then
    /// left as it is.
    pub fn open(path: &Path, retention: Duration) -> Result<Self, OpenError> {
        let existed = file::create(path)?;
        let mut process_lock = ProcessLock::acquire(path)?;
        let unusable = |source| OpenError::Unusable {
            path: path.to_owned(),
            source,
        };
        if existed {
            let damaged = |what| OpenError::Damaged {
                path: path.to_owned(),
                what,
            };
            match file::inspect(path).map_err(unusable)? {
                // A crash may leave a new file empty; a journal that existed before must not be empty.
                FileContent::Empty if process_lock.record().existed => {
                    return Err(damaged("it is empty".to_owned()));
                }
                FileContent::Truncated { bytes, expected } => {
                    return Err(damaged(format!("it has {bytes} bytes of {expected}")));
                }
                FileContent::NotSqlite => {
                    return Err(OpenError::Foreign {
                        path: path.to_owned(),
                        what: "it is not an SQLite database".to_owned(),
                    });
                }
                FileContent::Complete | FileContent::Empty => {}
            }
        }
        let file_id = FileId::of(path).map_err(unusable)?;
        let mut db = file::open_writer(path)?;
        file::check(&db, path)?;
        schema::migrate(&mut db, path)?;
        let failed = |source| OpenError::of(path, source);
        let now = now();
        let (recovered, evicted) = recover(&db, now, retention)
            .map_err(failed)?
            .map_err(|error| OpenError::row(path, &error))?;
        let recorded = process_lock.record().written.filter(|_| existed);
        let lsn = check_complete(&db, path, recorded, now).map_err(failed)?;
        process_lock.record_written(lsn);
        let fold = Fold::from_recovered(retention, recovered);
        let shared = Arc::new(Shared::new(fold, now, lsn));
        let writer = Writer {
            shared: Arc::clone(&shared),
            db,
            path: path.to_owned(),
            file_id,
            retention,
            lock: process_lock,
        };
        let reader = file::open_reader(path)?;
        let thread = std::thread::Builder::new().name("journal".to_owned());
        let thread = thread.spawn(|| writer.run()).map_err(unusable)?;
        Ok(Self {
            path: path.to_owned(),
            retention,
            shared,
            reader: Mutex::new(reader),
            evicted: Mutex::new(Some(evicted)),
            writer: Mutex::new(Some(thread)),
        })
    }

    /// Returns the path of the journal.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the size of its files together, in bytes.
    pub fn file_bytes(&self) -> u64 {
        file::total_bytes(&self.path)
    }

    /// Writes the unwritten appends, for at most five seconds, and stops the writer. Later appends are not written. Also
    /// called on drop. Returns the number of appends that could not be written.
    pub fn close(&self) -> usize {
        let unwritten = self.shared.stop(CLOSE_TIMEOUT);
        let mut writer = lock(&self.writer);
        if let Some(thread) = writer.take_if(|_| self.shared.has_ended()) {
            // The panic of the thread was reported when it happened.
            let _ = thread.join();
        }
        if unwritten > 0 {
            tracing::error!(
                journal = %self.path.display(),
                appends = unwritten,
                "closed the journal with unwritten appends"
            );
        }
        unwritten
    }
}

/// Returns the time of the wall clock.
pub(crate) fn now() -> Timestamp {
    Clock::system().now()
}

/// Compares the appends in the file with the number that an earlier process recorded beside it. A journal that is shorter
/// has lost durable appends, as by a truncated write-ahead log: that is logged and kept for [`crate::maintenance::stats`].
/// Returns the number in the file.
fn check_complete(
    db: &Connection,
    path: &Path,
    recorded: Option<u64>,
    now: Timestamp,
) -> rusqlite::Result<u64> {
    let found = queries::counter(db, "place")?;
    // Also checks that the file can be written.
    db.execute("UPDATE marks SET value = value WHERE name = 'place'", [])?;
    if let Some(recorded) = recorded
        && recorded > found
    {
        let missing = recorded - found;
        tracing::warn!(
            journal = %path.display(),
            found,
            recorded,
            missing,
            "the journal is shorter than when it was last written; its newest changes are lost"
        );
        let set = "UPDATE marks SET value = ?2 WHERE name = ?1";
        db.execute(set, params!["missing", to_sql(missing)])?;
        db.execute(set, params!["missing_at", now.as_millis()])?;
    }
    Ok(found)
}

/// Reads the state to continue from, and the evicted tasks, oldest first.
fn recover(
    db: &Connection,
    now: Timestamp,
    retention: Duration,
) -> RowResult<(RecoveredState, Vec<Arc<Task>>)> {
    let (tasks, outboxes) = (queries::live_tasks(db)?, queries::open_outboxes(db)?);
    let keys = queries::keys(db, earlier(now, KEY_LIFETIME))?;
    let aborts = queries::aborts(db)?;
    let left = queries::evicted(db, earlier(now, retention), MAX_EVICTED)?;
    let newest_change = queries::newest_change(db)?;
    let all = || -> Result<_, RowError> {
        let recovered = RecoveredState {
            tasks: tasks?,
            left: Vec::new(),
            outboxes: outboxes?,
            keys: keys?,
            aborts,
            newest_change,
        };
        let mut left = left?;
        left.reverse();
        Ok((recovered, left))
    };
    Ok(all())
}

impl Journal for SqliteJournal {
    fn is_persistent(&self) -> bool {
        true
    }

    fn append(&self, at: Timestamp, entries: Vec<JournalEntry>) -> Lsn {
        let mut state = self.shared.state();
        let mut parents: Vec<SessionId> = Vec::new();
        for entry in &entries {
            let Some(parent) = entry.parent() else {
                continue;
            };
            if !parents.contains(parent) {
                parents.push(parent.clone());
            }
            // The fold may have dropped the outbox of a parent without pending messages: it is read back first.
            if state.fold.outbox(parent).is_none()
                && let Some(outbox) = self.load_outbox(&state, parent)
            {
                state.fold.restore_outbox(parent.clone(), outbox);
            }
        }
        for entry in &entries {
            state.fold.append(entry.clone());
        }
        let changed_outboxes = parents.into_iter().map(|parent| {
            let outbox = state.fold.outbox(&parent);
            ChangedOutbox {
                settled: outbox.is_none_or(Outbox::is_settled),
                silenced: outbox.is_some_and(|outbox| outbox.silenced),
                parent,
            }
        });
        let changed_outboxes = changed_outboxes.collect();
        state.lsn += 1;
        state.newest = state.newest.max(at);
        let lsn = state.lsn;
        state.unwritten.push_back(Arc::new(PendingAppend {
            lsn,
            at,
            entries,
            changed_outboxes,
        }));
        drop(state);
        self.shared.wake_writer();
        Lsn(lsn)
    }

    fn last_lsn(&self) -> Lsn {
        Lsn(self.shared.state().lsn)
    }

    fn status(&self) -> watch::Receiver<JournalStatus> {
        self.shared.status()
    }

    fn find(&self, name: &str) -> Option<Task> {
        let state = self.shared.state();
        if let Some(task) = state.fold.by_name(name) {
            return Some(Task::clone(task));
        }
        self.find_evicted(&state, name)
    }

    fn contains(&self, task: &TaskId) -> bool {
        let state = self.shared.state();
        state.fold.contains(task) || self.knows_evicted(&state, task)
    }

    fn outbox(&self, parent: &SessionId) -> Option<Outbox> {
        let state = self.shared.state();
        if let Some(outbox) = state.fold.outbox(parent) {
            return Some(outbox.clone());
        }
        self.load_outbox(&state, parent)
    }

    fn load(&self) -> Result<RecoveredState, JournalError> {
        let first = lock(&self.evicted).take();
        let state = self.shared.state();
        let mut recovered = state.fold.recovered();
        let on_disk = match first {
            Some(left) => left,
            None => {
                let since = state.retained_since(self.retention);
                let read = self.snapshot(|db| queries::evicted(db, since, MAX_EVICTED));
                let problem =
                    |error: &dyn Display| JournalError(format!("{}: {error}", self.path.display()));
                let left = read.map_err(|error| problem(&error))?;
                let mut left = left.map_err(|error| problem(&error))?;
                left.reverse();
                left
            }
        };
        drop(state);
        // Tasks that were evicted or resumed in this process may not be on disk yet.
        let back = recovered.tasks.iter().map(|task| &task.task);
        let newer = recovered.left.iter().chain(back);
        let newer: HashSet<TaskId> = newer.map(|task| task.id.clone()).collect();
        let mut left: Vec<Arc<Task>> = on_disk
            .into_iter()
            .filter(|task| !newer.contains(&task.id))
            .collect();
        left.append(&mut recovered.left);
        recovered.left = left.split_off(left.len().saturating_sub(MAX_EVICTED));
        Ok(recovered)
    }

    fn owners(&self) -> Result<Vec<(SessionId, SessionOwner)>, JournalError> {
        queries::owners(&self.reader())
            .map_err(|error| JournalError(format!("{}: {error}", self.path.display())))
    }

    fn timeline(&self, task: &TaskId) -> Vec<(Timestamp, TimelineEntry)> {
        self.timeline(task)
    }

    fn changes(&self, from: ChangesFrom, most: usize) -> Option<Vec<RecordedChange>> {
        self.log_errors(self.snapshot(|db| queries::changes(db, from, most)))
    }
}

impl Drop for SqliteJournal {
    fn drop(&mut self) {
        self.close();
    }
}
