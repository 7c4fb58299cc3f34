//! Looks up tasks that are no longer in memory: in the file, and in the unwritten appends. The state is locked meanwhile, so that
//! no append is missed or read twice.

use std::fmt::Display;
use std::sync::MutexGuard;
use std::time::Duration;

use greenroom::domain::ids::{SessionId, TaskId};
use greenroom::domain::outbox::Outbox;
use greenroom::domain::task::Task;
use greenroom::domain::time::Timestamp;
use greenroom::domain::timeline::{self, TimelineEntry};
use greenroom::ports::journal::{JournalEntry, MIN_PREFIX_LEN};
use rusqlite::Connection;

use crate::journal::SqliteJournal;
use crate::lock;
use crate::queries::{self, RowResult};
use crate::retention::earlier;
use crate::state::State;

impl SqliteJournal {
    pub(crate) fn reader(&self) -> MutexGuard<'_, Connection> {
        lock(&self.reader)
    }

    /// Returns the result of a look-up; an error is logged and returned as none.
    pub(crate) fn log_errors<T>(&self, read: RowResult<Option<T>>) -> Option<T> {
        let failed = |error: &dyn Display| {
            tracing::error!(journal = %self.path.display(), %error, "could not read the journal");
        };
        match read {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                failed(&error);
                None
            }
            Err(error) => {
                failed(&error);
                None
            }
        }
    }

    /// Reads the outbox of a parent from the file and the unwritten appends.
    pub(crate) fn load_outbox(&self, state: &State, parent: &SessionId) -> Option<Outbox> {
        let stored = self.log_errors(self.snapshot(|db| {
            let lsn = queries::counter(db, "place")?;
            Ok(queries::outbox(db, parent.as_str())?.map(|outbox| Some((lsn, outbox))))
        }));
        let (lsn, mut outbox) = stored.unwrap_or_default();
        for entry in state.entries_after(lsn) {
            if entry.parent() == Some(parent) {
                outbox.get_or_insert_default().apply(entry.clone());
            }
        }
        outbox
    }

    /// Runs several queries on one snapshot.
    pub(crate) fn snapshot<T>(
        &self,
        read: impl FnOnce(&Connection) -> RowResult<T>,
    ) -> RowResult<T> {
        let mut reader = self.reader();
        let snapshot = reader.transaction()?;
        read(&snapshot)
    }

    /// Returns true if an evicted task of that id is still kept.
    pub(crate) fn knows_evicted(&self, state: &State, task: &TaskId) -> bool {
        let since = state.retained_since(self.retention);
        let known = queries::contains(&self.reader(), task.as_str(), since);
        self.log_errors(known.map(|known| Ok(Some(known))))
            .unwrap_or_default()
    }

    /// Finds an evicted task by its id, a unique prefix of its id, or its session.
    pub(crate) fn find_evicted(&self, state: &State, name: &str) -> Option<Task> {
        let since = state.retained_since(self.retention);
        let named = self.snapshot(|db| queries::named(db, name, since));
        if let Some(task) = self.log_errors(named) {
            return Some(task);
        }
        if name.len() < MIN_PREFIX_LEN {
            return None;
        }
        let on_disk = self.snapshot(|db| Ok(Ok(Some(queries::ids_with_prefix(db, name, since)?))));
        let on_disk = self.log_errors(on_disk).unwrap_or_default();
        let in_memory = state.fold.by_prefix(name).map(|task| task.id.as_str());
        let mut fitting: Vec<&str> = on_disk
            .iter()
            .map(String::as_str)
            .chain(in_memory)
            .collect();
        fitting.sort_unstable();
        fitting.dedup();
        let [only] = fitting[..] else {
            return None;
        };
        let in_memory = state.fold.by_prefix(name).next();
        in_memory
            .map(|task| Task::clone(task))
            .or_else(|| self.log_errors(self.snapshot(|db| queries::named(db, only, since))))
    }

    /// Reads the timeline of a task from the file and the unwritten appends.
    pub(crate) fn timeline(&self, task: &TaskId) -> Vec<(Timestamp, TimelineEntry)> {
        let state = self.shared.state();
        let mut reader = self.reader();
        let snapshot = reader.transaction();
        let lsn = snapshot
            .as_ref()
            .ok()
            .and_then(|db| queries::counter(db, "place").ok());
        timeline::of_task(task, |subject| {
            let on_disk = match &snapshot {
                Ok(db) => queries::timeline_entries(db, subject),
                Err(_) => Ok(Vec::new()),
            };
            let mut lines = self
                .log_errors(on_disk.map(|lines| Ok(Some(lines))))
                .unwrap_or_default();
            let lsn = lsn.unwrap_or(u64::MAX);
            for append in state.unwritten.iter().filter(|append| append.lsn > lsn) {
                for entry in &append.entries {
                    for (about, line) in timeline::entries_of(entry) {
                        if about == subject {
                            // Ordered among the times on disk, which have no monotonic time.
                            let at = Timestamp::from_millis(append.at.as_millis());
                            timeline::push(&mut lines, at, line);
                        }
                    }
                }
            }
            lines
        })
    }
}

impl State {
    /// Returns the unwritten entries after that log position.
    fn entries_after(&self, lsn: u64) -> impl Iterator<Item = &JournalEntry> {
        self.unwritten
            .iter()
            .filter(move |append| append.lsn > lsn)
            .flat_map(|append| &append.entries)
    }

    /// Returns the time before which evicted tasks are no longer kept.
    pub(crate) fn retained_since(&self, retention: Duration) -> Timestamp {
        earlier(self.newest, retention)
    }
}
