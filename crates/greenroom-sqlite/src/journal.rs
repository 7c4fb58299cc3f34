//! The journal port on SQLite. Decisions are made on a fold in memory; one thread writes them behind it; what has left
//! memory is looked up in the file.

use std::collections::HashSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use greenroom::domain::idempotency::REMEMBERED;
use greenroom::domain::ids::{SessionId, TaskId};
use greenroom::domain::ledger::Account;
use greenroom::domain::story::Line;
use greenroom::domain::task::Task;
use greenroom::domain::time::Timestamp;
use greenroom::ports::journal::{
    ChangesFrom, Entry, Fold, Journal, JournalError, Kept, KeptChange, Place, Standing,
};
use rusqlite::Connection;
use tokio::sync::watch;

use crate::error::{OpenError, RowError};
use crate::file::{self, Extent, Identity};
use crate::lock::Lock;
use crate::reading::{self, Read};
use crate::retention::before;
use crate::schema;
use crate::state::Shared;
use crate::store::{Appended, Touched};
use crate::writer::Writer;

/// Tasks that have left memory and are told to a registry that begins, for histories.
const LEFT: usize = 10_000;
/// How long the end waits for what is not written yet.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// A journal in one file.
#[derive(Debug)]
pub struct SqliteJournal {
    pub(crate) path: PathBuf,
    pub(crate) retention: Duration,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reader: Mutex<Connection>,
    /// What was read of tasks that had left, until the first registry has begun.
    left: Mutex<Option<Vec<Arc<Task>>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteJournal {
    /// Opens the journal at `path`, or makes one there, and reads what is needed to go on. Tasks are kept for `retention`
    /// after they have left memory (`lifecycle.retention`).
    ///
    /// # Errors
    /// The file cannot be used, is used by another process, is damaged or of a newer version. It is left as it is then.
    pub fn open(path: &Path, retention: Duration) -> Result<Self, OpenError> {
        let was_there = file::make(path)?;
        let mut lock = Lock::take(path)?;
        let unusable = |source| OpenError::Unusable {
            path: path.to_owned(),
            source,
        };
        if was_there {
            let damaged = |what| OpenError::Damaged {
                path: path.to_owned(),
                what,
            };
            match file::extent(path).map_err(unusable)? {
                // Made, and nothing in it yet, is what a crash may leave; nothing in it any more is not.
                Extent::Empty if lock.made_before() => {
                    return Err(damaged("it is empty".to_owned()));
                }
                Extent::CutOff { bytes, of } => {
                    return Err(damaged(format!("it has {bytes} bytes of {of}")));
                }
                Extent::Other => {
                    return Err(OpenError::Foreign {
                        path: path.to_owned(),
                        what: "it is not an SQLite database".to_owned(),
                    });
                }
                Extent::Whole | Extent::Empty => {}
            }
        }
        let identity = Identity::of(path).map_err(unusable)?;
        let mut db = file::writing(path)?;
        file::check(&db, path)?;
        schema::bring_up_to_date(&mut db, path)?;
        let failed = |source| OpenError::of(path, source);
        lock.made();
        let now = now();
        let (kept, left) = read(&db, now, retention)
            .map_err(failed)?
            .map_err(|error| OpenError::row(path, &error))?;
        // Places count from the start of a process; also shows that it can be written.
        db.execute("UPDATE marks SET value = 0 WHERE name = 'place'", [])
            .map_err(failed)?;
        let fold = Fold::resuming(retention, kept);
        let shared = Arc::new(Shared::new(fold, now));
        let writer = Writer {
            shared: Arc::clone(&shared),
            db,
            path: path.to_owned(),
            identity,
            retention,
            _lock: lock,
        };
        let reader = file::reading(path)?;
        let thread = std::thread::Builder::new().name("journal".to_owned());
        let thread = thread.spawn(|| writer.run()).map_err(unusable)?;
        Ok(Self {
            path: path.to_owned(),
            retention,
            shared,
            reader: Mutex::new(reader),
            left: Mutex::new(Some(left)),
            writer: Mutex::new(Some(thread)),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes its files have.
    pub fn file_bytes(&self) -> u64 {
        file::bytes(&self.path)
    }

    /// Writes what waits, for five seconds at most, and ends the writer: what is appended afterwards is not kept. Also
    /// done when the journal is dropped. Returns how many appends could not be written.
    pub fn close(&self) -> usize {
        let unwritten = self.shared.end(LAST_WRITES);
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = writer.take_if(|_| self.shared.has_ended()) {
            // Its panic was reported where it happened.
            let _ = thread.join();
        }
        if unwritten > 0 {
            tracing::error!(
                journal = %self.path.display(),
                appends = unwritten,
                "the end of the journal could not be written"
            );
        }
        unwritten
    }
}

/// The time of the wall clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

/// What a registry needs to go on, and the tasks that have left memory, oldest first.
fn read(db: &Connection, now: Timestamp, retention: Duration) -> Read<(Kept, Vec<Arc<Task>>)> {
    let (tasks, accounts) = (reading::live(db)?, reading::open_accounts(db)?);
    let keys = reading::keys(db, before(now, REMEMBERED))?;
    let left = reading::left(db, before(now, retention), LEFT)?;
    let newest_change = reading::newest_change(db)?;
    let all = || -> Result<_, RowError> {
        let kept = Kept {
            tasks: tasks?,
            left: Vec::new(),
            accounts: accounts?,
            keys: keys?,
            newest_change,
        };
        let mut left = left?;
        left.reverse();
        Ok((kept, left))
    };
    Ok(all())
}

impl Journal for SqliteJournal {
    fn outlives(&self) -> bool {
        true
    }

    fn append(&self, at: Timestamp, entries: Vec<Entry>) -> Place {
        let mut state = self.shared.state();
        let mut parents: Vec<SessionId> = Vec::new();
        for entry in &entries {
            let Some(parent) = entry.parent() else {
                continue;
            };
            if !parents.contains(parent) {
                parents.push(parent.clone());
            }
            // One that nothing was owed to for long: what it was told before still belongs to it.
            if state.fold.account(parent).is_none()
                && let Some(account) = self.recall(&state, parent)
            {
                state.fold.recall(parent.clone(), account);
            }
        }
        for entry in &entries {
            state.fold.append(entry.clone());
        }
        let touched = parents.into_iter().map(|parent| {
            let account = state.fold.account(&parent);
            Touched {
                settled: account.is_none_or(Account::is_settled),
                silenced: account.is_some_and(|account| account.silenced),
                parent,
            }
        });
        let touched = touched.collect();
        state.place += 1;
        state.newest = state.newest.max(at);
        let place = state.place;
        state.waiting.push_back(Arc::new(Appended {
            place,
            at,
            entries,
            touched,
        }));
        drop(state);
        self.shared.wake_writer();
        Place(place)
    }

    fn decided(&self) -> Place {
        Place(self.shared.state().place)
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.shared.standing()
    }

    fn find(&self, name: &str) -> Option<Task> {
        let state = self.shared.state();
        if let Some(task) = state.fold.named(name) {
            return Some(Task::clone(task));
        }
        self.find_left(&state, name)
    }

    fn knows(&self, task: &TaskId) -> bool {
        let state = self.shared.state();
        state.fold.knows(task) || self.knows_left(&state, task)
    }

    fn account(&self, parent: &SessionId) -> Option<Account> {
        let state = self.shared.state();
        if let Some(account) = state.fold.account(parent) {
            return Some(account.clone());
        }
        self.recall(&state, parent)
    }

    fn load(&self) -> Result<Kept, JournalError> {
        let first = self
            .left
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let state = self.shared.state();
        let mut kept = state.fold.kept();
        let on_disk = match first {
            Some(left) => left,
            None => {
                let since = state.since(self.retention);
                let read = self.snapshot(|db| reading::left(db, since, LEFT));
                let problem =
                    |error: &dyn Display| JournalError(format!("{}: {error}", self.path.display()));
                let left = read.map_err(|error| problem(&error))?;
                let mut left = left.map_err(|error| problem(&error))?;
                left.reverse();
                left
            }
        };
        drop(state);
        // What has left or come back in this process may not be on disk yet.
        let back = kept.tasks.iter().map(|kept| &kept.task);
        let newer = kept.left.iter().chain(back);
        let newer: HashSet<TaskId> = newer.map(|task| task.id.clone()).collect();
        let mut left: Vec<Arc<Task>> = on_disk
            .into_iter()
            .filter(|task| !newer.contains(&task.id))
            .collect();
        left.append(&mut kept.left);
        kept.left = left.split_off(left.len().saturating_sub(LEFT));
        Ok(kept)
    }

    fn story(&self, task: &TaskId) -> Vec<(Timestamp, Line)> {
        self.told(task)
    }

    fn changes(&self, from: ChangesFrom, most: usize) -> Option<Vec<KeptChange>> {
        self.known(self.snapshot(|db| reading::changes(db, from, most)))
    }
}

impl Drop for SqliteJournal {
    fn drop(&mut self) {
        self.close();
    }
}
