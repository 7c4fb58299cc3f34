//! Looking up what has left memory: on disk, and in what waits for it. The state is held meanwhile, so that nothing is
//! taken for written that was not read, and nothing is counted twice.

use std::fmt::Display;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use greenroom::domain::ids::{SessionId, TaskId};
use greenroom::domain::ledger::Account;
use greenroom::domain::story::{self, Line};
use greenroom::domain::task::Task;
use greenroom::domain::time::Timestamp;
use greenroom::ports::journal::{Entry, SHORTEST_BEGINNING};
use rusqlite::Connection;

use crate::journal::SqliteJournal;
use crate::reading::{self, Read};
use crate::retention::before;
use crate::state::State;

impl SqliteJournal {
    pub(crate) fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer of a look-up; one that fails is logged, and nothing is known then.
    pub(crate) fn known<T>(&self, read: Read<Option<T>>) -> Option<T> {
        let failed = |error: &dyn Display| {
            tracing::error!(journal = %self.path.display(), %error, "the journal cannot be read");
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

    /// What the disk and what waits for it say of a parent. The state is held meanwhile, so that nothing is taken for
    /// written that was not read.
    pub(crate) fn recall(&self, state: &State, parent: &SessionId) -> Option<Account> {
        let mut account = self.known(self.snapshot(|db| {
            let place = reading::mark(db, "place")?;
            Ok(reading::account(db, parent.as_str())?.map(|account| Some((place, account))))
        }));
        let (place, kept) = account.take().unwrap_or_default();
        let mut account = kept;
        for entry in state.after(place) {
            if entry.parent() == Some(parent) {
                account.get_or_insert_default().apply(entry.clone());
            }
        }
        account
    }

    /// Reads several things as of one moment.
    pub(crate) fn snapshot<T>(&self, read: impl FnOnce(&Connection) -> Read<T>) -> Read<T> {
        let mut reader = self.reader();
        let moment = reader.transaction()?;
        read(&moment)
    }

    /// True if a task of that id has left memory and is remembered.
    pub(crate) fn knows_left(&self, state: &State, task: &TaskId) -> bool {
        let since = state.since(self.retention);
        let known = reading::knows(&self.reader(), task.as_str(), since);
        self.known(known.map(|known| Ok(Some(known))))
            .unwrap_or_default()
    }

    /// A task that has left memory.
    pub(crate) fn find_left(&self, state: &State, name: &str) -> Option<Task> {
        let since = state.since(self.retention);
        let named = self.snapshot(|db| reading::named(db, name, since));
        if let Some(task) = self.known(named) {
            return Some(task);
        }
        if name.len() < SHORTEST_BEGINNING {
            return None;
        }
        let on_disk = self.snapshot(|db| Ok(Ok(Some(reading::beginning(db, name, since)?))));
        let on_disk = self.known(on_disk).unwrap_or_default();
        let in_memory = state.fold.beginning(name).map(|task| task.id.as_str());
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
        let in_memory = state.fold.beginning(name).next();
        in_memory
            .map(|task| Task::clone(task))
            .or_else(|| self.known(self.snapshot(|db| reading::named(db, only, since))))
    }

    /// What the disk and what waits for it say of a story.
    pub(crate) fn told(&self, task: &TaskId) -> Vec<(Timestamp, Line)> {
        let state = self.shared.state();
        let mut reader = self.reader();
        let moment = reader.transaction();
        let place = moment
            .as_ref()
            .ok()
            .and_then(|db| reading::mark(db, "place").ok());
        story::told(task, |subject| {
            let on_disk = match &moment {
                Ok(db) => reading::lines(db, subject),
                Err(_) => Ok(Vec::new()),
            };
            let mut lines = self
                .known(on_disk.map(|lines| Ok(Some(lines))))
                .unwrap_or_default();
            let place = place.unwrap_or(u64::MAX);
            for appended in state
                .waiting
                .iter()
                .filter(|appended| appended.place > place)
            {
                for entry in &appended.entries {
                    for (about, line) in story::lines(entry) {
                        if about == subject {
                            story::keep(&mut lines, appended.at, line);
                        }
                    }
                }
            }
            lines
        })
    }
}

impl State {
    /// What is not known to be on disk and came after that place.
    fn after(&self, place: u64) -> impl Iterator<Item = &Entry> {
        self.waiting
            .iter()
            .filter(move |appended| appended.place > place)
            .flat_map(|appended| &appended.entries)
    }

    /// What left memory before then is forgotten.
    pub(crate) fn since(&self, retention: Duration) -> Timestamp {
        before(self.newest, retention)
    }
}
