//! Where the system remembers. One writer; each change is decided first and then durable, and only a durable one is
//! shown, answered or told. The in-memory form keeps what a rebuilt registry needs; the one on disk comes later behind
//! the same port.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::batch::Told;
use crate::domain::ids::{NoticeId, SessionId, TaskId};
use crate::domain::notice::NoticeFacts;
use crate::domain::task::Task;

/// One change, in the order in which it is appended.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A task's record after a change of its state. `accepted` is its place in the order of acceptance.
    Task {
        /// The place.
        accepted: u64,
        /// The record.
        task: Box<Task>,
    },
    /// A run has ended: this is the debt to its parent.
    Settled {
        /// Who is to be told.
        parent: SessionId,
        /// What.
        told: Box<Told>,
    },
    /// A message is about to be sent to a parent.
    Sending {
        /// To whom.
        parent: SessionId,
        /// Its id, by which it is found again.
        id: NoticeId,
        /// What it says.
        facts: NoticeFacts,
    },
    /// The server has accepted it.
    Delivered(NoticeId),
    /// It was given up, with the reason.
    Dropped(NoticeId, String),
    /// A task has left memory.
    Forgotten(TaskId),
}

/// The journal cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JournalError(pub String);

/// The journal.
pub trait Journal: Send + Sync + 'static {
    /// Appends one change.
    fn append(&self, entry: Entry) -> Result<(), JournalError>;

    /// The task of that id or unique beginning of one, or the newest of that session, also after it has left memory.
    fn find(&self, name: &str) -> Option<Task>;

    /// Every task that has not been forgotten, in the order of acceptance.
    fn load(&self) -> Result<Vec<(u64, Task)>, JournalError>;
}

/// How many tasks the in-memory journal remembers after they have left the registry's memory; the oldest goes first.
const REMEMBERED: usize = 1000;

/// The shortest beginning of an id that finds a task.
pub const SHORTEST_BEGINNING: usize = 3;

/// Keeps everything in memory and outlives the registry, but not the process. It grows with the tasks in the registry's
/// memory and remembers a bounded number of those that have left it, so that an id given to somebody still resolves.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    tasks: BTreeMap<TaskId, (u64, Task)>,
    left: VecDeque<Task>,
}

impl MemoryJournal {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for MemoryJournal {
    fn append(&self, entry: Entry) -> Result<(), JournalError> {
        let mut kept = self.kept();
        match entry {
            Entry::Task { accepted, task } => {
                kept.tasks.insert(task.id.clone(), (accepted, *task));
            }
            Entry::Forgotten(task) => {
                if let Some((_, task)) = kept.tasks.remove(&task) {
                    kept.left.push_back(task);
                }
                if kept.left.len() > REMEMBERED {
                    kept.left.pop_front();
                }
            }
            Entry::Settled { .. }
            | Entry::Sending { .. }
            | Entry::Delivered(_)
            | Entry::Dropped(..) => {}
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<Task> {
        let kept = self.kept();
        if let Some((_, task)) = kept.tasks.get(&TaskId::new(name)) {
            return Some(task.clone());
        }
        let newest_first = || kept.left.iter().rev();
        let named = |task: &&Task| {
            let session = task.session.as_ref().map(SessionId::as_str);
            task.id.as_str() == name || session == Some(name)
        };
        if let Some(task) = newest_first().find(named) {
            return Some(task.clone());
        }
        // A beginning must be long enough to mean something, and fit one task only.
        let mut fitting = newest_first().filter(|task| task.id.as_str().starts_with(name));
        let only = fitting
            .next()
            .filter(|_| name.len() >= SHORTEST_BEGINNING)?;
        fitting
            .all(|other| other.id == only.id)
            .then(|| only.clone())
    }

    fn load(&self) -> Result<Vec<(u64, Task)>, JournalError> {
        let mut all: Vec<(u64, Task)> = self.kept().tasks.values().cloned().collect();
        all.sort_by_key(|(accepted, _)| *accepted);
        Ok(all)
    }
}
