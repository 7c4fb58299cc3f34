//! Where the system remembers. Each change is decided first and then durable, and only a durable one is shown, answered
//! or told. What a registry or a notifier needs to take over from one that died is folded from these changes; the
//! in-memory form ([`MemoryJournal`]) outlives the actors, one on disk the process.

mod memory;

use std::sync::Arc;

use crate::domain::batch::Told;
use crate::domain::concurrency::Age;
use crate::domain::idempotency::Kept as KeptKey;
use crate::domain::ids::{NoticeId, Run, SessionId, TaskId};
use crate::domain::ledger::{Account, Fate, Posted};
use crate::domain::task::Task;
use crate::domain::time::Timestamp;

pub use self::memory::MemoryJournal;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A task's record after a change. `accepted` is its place in the order of acceptance, `age` its run's place in line.
    Task {
        /// The place of the task.
        accepted: Age,
        /// The place of its run.
        age: Age,
        /// The record.
        task: Arc<Task>,
    },
    /// The run was granted its slot: a session may be made from here on.
    Granted(TaskId, Run),
    /// The server has accepted the run's prompt.
    Prompted(TaskId, Run),
    /// A run belongs to a parent's batch.
    Joined {
        /// Whose batch.
        parent: SessionId,
        /// The task.
        task: TaskId,
        /// Its run.
        run: Run,
        /// Where the launch said it works.
        directory: Option<String>,
    },
    /// A run has ended: this is the debt to its parent.
    Settled {
        /// Who is to be told.
        parent: SessionId,
        /// What.
        told: Box<Told>,
    },
    /// A run leaves a parent's batch without a word.
    Left(SessionId, TaskId),
    /// A batch is closed; its final is owed.
    Closed {
        /// To whom.
        parent: SessionId,
        /// The message.
        posted: Box<Posted>,
        /// Everybody who was in the batch.
        tasks: Vec<TaskId>,
    },
    /// A message is about to be sent to a parent.
    Sending {
        /// To whom.
        parent: SessionId,
        /// The message.
        posted: Box<Posted>,
    },
    /// An individual message was refused; the next one says it too.
    Returned(SessionId, NoticeId),
    /// What became of a message.
    Fate {
        /// To whom it was.
        parent: SessionId,
        /// Which.
        id: NoticeId,
        /// What.
        fate: Fate,
        /// When.
        at: Timestamp,
    },
    /// A parent is no more: nothing is owed to it.
    ParentGone(SessionId, Timestamp),
    /// A parent's user has stopped it, or has spoken again.
    Silenced(SessionId, bool),
    /// A launch was accepted under a key.
    Key(KeptKey),
    /// A task has left memory.
    Forgotten(TaskId, Timestamp),
}

/// A task as the journal knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptTask {
    /// Its place in the order of acceptance.
    pub accepted: Age,
    /// Its run's place in line.
    pub age: Age,
    /// The newest run that was granted a slot.
    pub granted: Option<Run>,
    /// The newest run whose prompt was accepted.
    pub prompted: Option<Run>,
    /// The record.
    pub task: Arc<Task>,
}

/// Everything a registry needs to go on where another stopped.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// Every task that has not left memory, in the order of acceptance.
    pub tasks: Vec<KeptTask>,
    /// Tasks that have left memory and are remembered, oldest first.
    pub left: Vec<Arc<Task>>,
    /// What parents are owed, for every parent with something open or owed.
    pub accounts: Vec<(SessionId, Account)>,
    /// The keys of launches, oldest first.
    pub keys: Vec<KeptKey>,
}

/// The journal cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JournalError(pub String);

/// The journal.
pub trait Journal: Send + Sync + 'static {
    /// Appends changes that belong together: all of them, or none.
    fn append(&self, entries: Vec<Entry>) -> Result<(), JournalError>;

    /// The task of that id or unique beginning of one, or the newest of that session, also after it has left memory.
    fn find(&self, name: &str) -> Option<Task>;

    /// What that parent is owed and was told, as far as it is remembered.
    fn account(&self, parent: &SessionId) -> Option<Account>;

    /// Everything a registry needs to go on.
    fn load(&self) -> Result<Kept, JournalError>;
}

/// The shortest beginning of an id that finds a task.
pub const SHORTEST_BEGINNING: usize = 3;
