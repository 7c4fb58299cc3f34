//! Where the system remembers. Each change is *decided* first, and used at once for further decisions; then it is
//! *durable*, and only then shown, answered or told, and only then does anything reach the agent server that follows from
//! it. Failpoints rise with every append, and what is durable is always everything up to some place.
//!
//! What a registry or a notifier needs to take over from one that died is folded from these changes ([`Fold`]). The
//! in-memory form ([`MemoryJournal`]) outlives the actors, one on disk the process.

#[cfg(feature = "conformance")]
pub mod conformance;
mod fold;
mod memory;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::domain::batch::CompletionReport;
use crate::domain::concurrency::QueueSeq;
use crate::domain::idempotency::LaunchKey;
use crate::domain::ids::{NoticeId, Run, SessionId, TaskId};
use crate::domain::outbox::{DeliveryStatus, Outbox, OutboxMessage};
use crate::domain::task::{Task, TaskStatus};
use crate::domain::time::Timestamp;
use crate::domain::timeline::TimelineEntry;

pub use self::fold::Fold;
pub use self::memory::MemoryJournal;

/// A change of a task's state, as readers of changes get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Its number among all changes; they rise strictly, also over a restart of the process.
    pub number: u64,
    /// Where the task stood before; none for a new one.
    pub from: Option<TaskStatus>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JournalEntry {
    /// A task's record after a change. `accepted` is its place in the order of acceptance, `age` its run's place in line.
    Task {
        /// The place of the task.
        accepted: QueueSeq,
        /// The place of its run.
        #[serde(rename = "age")]
        queue_seq: QueueSeq,
        /// The record.
        task: Arc<Task>,
        /// Set if its state has changed, or it is new.
        changed: Option<Changed>,
    },
    /// The run was granted its slot: a session may be made from here on.
    Granted(TaskId, Run),
    /// The server has accepted the run's prompt.
    Prompted(TaskId, Run),
    /// Something was seen or done that readers of the task's story should know; nothing else follows from it.
    Noted(TaskId, TimelineEntry),
    /// Nobody has to abort the session of that ended run any more.
    Aborted(TaskId, Run),
    /// A run belongs to a parent's batch.
    Joined {
        /// Whose batch.
        parent: SessionId,
        /// The task.
        task: TaskId,
        /// Its run.
        run: Run,
        /// Where the launch said it works.
        directory: Option<Arc<str>>,
    },
    /// A run has ended: this is the debt to its parent.
    Settled {
        /// Who is to be told.
        parent: SessionId,
        /// What.
        #[serde(rename = "told")]
        report: Box<CompletionReport>,
    },
    /// A run leaves a parent's batch without a word.
    Left(SessionId, TaskId),
    /// A batch is closed; its final is owed.
    Closed {
        /// To whom.
        parent: SessionId,
        /// The message.
        #[serde(rename = "posted")]
        message: Box<OutboxMessage>,
        /// Everybody who was in the batch.
        tasks: Vec<TaskId>,
    },
    /// A message is about to be sent to a parent.
    Sending {
        /// To whom.
        parent: SessionId,
        /// The message.
        #[serde(rename = "posted")]
        message: Box<OutboxMessage>,
    },
    /// An individual message was refused; the next one says it too.
    Returned(SessionId, NoticeId),
    /// What became of a message.
    #[serde(rename = "fate")]
    Delivery {
        /// To whom it was.
        parent: SessionId,
        /// Which.
        id: NoticeId,
        /// What.
        #[serde(rename = "fate")]
        status: DeliveryStatus,
        /// When.
        at: Timestamp,
    },
    /// A parent is no more: nothing is owed to it.
    ParentGone(SessionId, Timestamp),
    /// A parent's user has stopped it, or has spoken again.
    Silenced(SessionId, bool),
    /// A launch was accepted under a key.
    Key(LaunchKey),
    /// A task has left memory.
    Forgotten(TaskId, Timestamp),
    /// A launch could not be made durable in time and was refused: its key is free again.
    Unaccepted(TaskId),
}

impl JournalEntry {
    /// The parent whose outbox it changes, if it changes one.
    pub fn parent(&self) -> Option<&SessionId> {
        match self {
            Self::Joined { parent, .. }
            | Self::Settled { parent, .. }
            | Self::Closed { parent, .. }
            | Self::Sending { parent, .. }
            | Self::Delivery { parent, .. }
            | Self::Left(parent, _)
            | Self::Returned(parent, _)
            | Self::ParentGone(parent, _)
            | Self::Silenced(parent, _) => Some(parent),
            Self::Task { .. }
            | Self::Granted(..)
            | Self::Prompted(..)
            | Self::Noted(..)
            | Self::Aborted(..)
            | Self::Key(_)
            | Self::Forgotten(..)
            | Self::Unaccepted(_) => None,
        }
    }
}

/// How many appends there were: where a journal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Lsn(pub u64);

/// How far a journal has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JournalStatus {
    /// Everything up to here is durable.
    pub durable: Lsn,
    /// Why it cannot be written at present, for people. What is appended meanwhile is kept and written once it can be.
    pub failing: Option<Arc<str>>,
}

/// A task as the journal knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct RecoveredTask {
    /// Its place in the order of acceptance.
    pub accepted: QueueSeq,
    /// Its run's place in line.
    pub queue_seq: QueueSeq,
    /// The newest run that was granted a slot.
    pub granted: Option<Run>,
    /// The newest run whose prompt was accepted.
    pub prompted: Option<Run>,
    /// The newest run whose session needs no abort any more.
    pub aborted: Option<Run>,
    /// The record.
    pub task: Arc<Task>,
}

/// Everything a registry needs to go on where another stopped.
#[derive(Debug, Clone, Default)]
pub struct RecoveredState {
    /// Every task that has not left memory, in the order of acceptance.
    pub tasks: Vec<RecoveredTask>,
    /// Tasks that have left memory and are remembered, oldest first: the newest 10,000 at most. A journal on disk leaves
    /// their prompts out.
    pub left: Vec<Arc<Task>>,
    /// What parents are owed, for every parent with something open or owed.
    pub outboxes: Vec<(SessionId, Outbox)>,
    /// The keys of launches, oldest first.
    pub keys: Vec<LaunchKey>,
    /// The number of the newest change of a task's state; zero if there was none.
    pub newest_change: u64,
}

/// A change of a task's state that a journal has kept for readers that come back.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedChange {
    /// When it was.
    pub at: Timestamp,
    /// Its number, and where the task stood before.
    pub changed: Changed,
    /// The record after it.
    pub task: Arc<Task>,
}

/// Where a reader of kept changes begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangesFrom {
    /// With the first one after that number.
    After(u64),
    /// With the first one after that time.
    Since(Timestamp),
}

/// The journal cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JournalError(pub String);

/// The journal. There is one writer, the system it was given to.
pub trait Journal: Send + Sync + 'static {
    /// Appends changes that belong together: after a crash there are all of them, or none. They are decided when this
    /// returns, so that `find`, `outbox` and `load` know them; when they are durable is told by `status`. Never waits
    /// and never fails: a journal that cannot be written keeps what was appended until it can, and says so in `status`.
    fn append(&self, at: Timestamp, entries: Vec<JournalEntry>) -> Lsn;

    /// The place of the newest append.
    fn last_lsn(&self) -> Lsn;

    /// How far it has come, and every change of that.
    fn status(&self) -> watch::Receiver<JournalStatus>;

    /// True if it outlives the process: what is open or owed at the end of one is taken up by the next.
    fn is_persistent(&self) -> bool;

    /// The task of that id or unique beginning of one, or the newest of that session, also after it has left memory.
    fn find(&self, name: &str) -> Option<Task>;

    /// True if that whole id is remembered, whether its task is in memory or has left it: nobody else may be given it.
    /// Asked at every launch, so that it is to cost one look.
    fn contains(&self, task: &TaskId) -> bool;

    /// What that parent is owed and was told, as far as it is remembered.
    fn outbox(&self, parent: &SessionId) -> Option<Outbox>;

    /// Everything a registry needs to go on.
    fn load(&self) -> Result<RecoveredState, JournalError>;

    /// What happened to a task, oldest first, as far as it is remembered ([`crate::domain::timeline`]).
    fn timeline(&self, task: &TaskId) -> Vec<(Timestamp, TimelineEntry)>;

    /// At most so many changes of tasks' states that are durable, by number; none if those after that number are not all
    /// kept. From a time on it is those that are kept.
    fn changes(&self, from: ChangesFrom, limit: usize) -> Option<Vec<RecordedChange>>;
}

/// The shortest beginning of an id that finds a task.
pub const MIN_PREFIX_LEN: usize = 3;
