//! Where the system remembers. One writer; each change is decided first and then durable, and only a durable one is
//! shown, answered or told. The in-memory form keeps what a rebuilt registry needs; the one on disk comes later behind
//! the same port.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

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

    /// Every task that has not been forgotten, in the order of acceptance.
    fn load(&self) -> Result<Vec<(u64, Task)>, JournalError>;
}

/// Keeps everything in memory and outlives the registry, but not the process. It grows only with the tasks in memory.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    tasks: Mutex<BTreeMap<TaskId, (u64, Task)>>,
}

impl Journal for MemoryJournal {
    fn append(&self, entry: Entry) -> Result<(), JournalError> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        match entry {
            Entry::Task { accepted, task } => {
                tasks.insert(task.id.clone(), (accepted, *task));
            }
            Entry::Forgotten(task) => {
                tasks.remove(&task);
            }
            Entry::Settled { .. }
            | Entry::Sending { .. }
            | Entry::Delivered(_)
            | Entry::Dropped(..) => {}
        }
        Ok(())
    }

    fn load(&self) -> Result<Vec<(u64, Task)>, JournalError> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<(u64, Task)> = tasks.values().cloned().collect();
        all.sort_by_key(|(accepted, _)| *accepted);
        Ok(all)
    }
}
