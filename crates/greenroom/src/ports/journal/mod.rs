//! The journal: the record of every change. Each change is *decided* first, and further decisions use it at once. Then
//! it becomes *durable*, and only then it is published, answered, sent to a parent, or acted on at the agent server.
//! The log sequence number ([`Lsn`]) rises with every append, and everything up to [`JournalStatus::durable`] is
//! durable.
//!
//! A restarted registry or notifier continues from the state folded from these changes ([`Fold`]). The in-memory
//! journal ([`MemoryJournal`]) survives the actors, a journal on disk survives the process.

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
use crate::domain::session_owner::SessionOwner;
use crate::domain::task::{Task, TaskStatus};
use crate::domain::time::Timestamp;
use crate::domain::timeline::TimelineEntry;

pub use self::fold::Fold;
pub use self::memory::MemoryJournal;

/// The number and origin of a task's state change, for readers of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The number among all changes. Numbers rise strictly, also over a restart of the process.
    pub number: u64,
    /// The state before; none for a new task.
    pub from: Option<TaskStatus>,
}

/// One entry of the journal: a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JournalEntry {
    /// A task's record after a change.
    Task {
        /// The position of the task in the order of acceptance.
        accepted: QueueSeq,
        /// The position of its run in the queue.
        #[serde(rename = "age")]
        queue_seq: QueueSeq,
        /// The record.
        task: Arc<Task>,
        /// Set if the state has changed or the task is new.
        changed: Option<Changed>,
    },
    /// The run was granted its slot. From here on a session may be created.
    Granted(TaskId, Run),
    /// The server has accepted the run's prompt.
    Prompted(TaskId, Run),
    /// An observation for the timeline of a task. It has no further effect.
    Noted(TaskId, TimelineEntry),
    /// The session of the ended run needs no further abort.
    Aborted(TaskId, Run),
    /// A run joined a parent's batch.
    Joined {
        /// The parent that owns the batch.
        parent: SessionId,
        /// The task.
        task: TaskId,
        /// Its run.
        run: Run,
        /// The directory named by the launch.
        directory: Option<Arc<str>>,
    },
    /// A run has settled. Its report is pending for the parent.
    Settled {
        /// The parent to notify.
        parent: SessionId,
        /// The report.
        #[serde(rename = "told")]
        report: Box<CompletionReport>,
    },
    /// A run left a parent's batch without a report.
    Left(SessionId, TaskId),
    /// A batch is closed. Its final message is pending.
    Closed {
        /// The parent.
        parent: SessionId,
        /// The message.
        #[serde(rename = "posted")]
        message: Box<OutboxMessage>,
        /// All tasks of the batch.
        tasks: Vec<TaskId>,
    },
    /// A message is about to be sent to a parent.
    Sending {
        /// The parent.
        parent: SessionId,
        /// The message.
        #[serde(rename = "posted")]
        message: Box<OutboxMessage>,
    },
    /// An individual message was refused. The next message includes its reports.
    Returned(SessionId, NoticeId),
    /// The delivery status of a message changed.
    // The names that journals have on disk differ from today's: files of earlier releases open unchanged.
    #[serde(rename = "fate")]
    Delivery {
        /// The parent.
        parent: SessionId,
        /// The id of the message.
        id: NoticeId,
        /// The new status.
        #[serde(rename = "fate")]
        status: DeliveryStatus,
        /// True if the turn that the message begins is watched from here on.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        watched: bool,
        /// The time of the change.
        at: Timestamp,
    },
    /// The turn that a delivered message began failed for good.
    TurnFailed {
        /// The parent.
        parent: SessionId,
        /// The id of the message.
        id: NoticeId,
        /// The error of the turn.
        error: String,
        /// The time of the change.
        at: Timestamp,
    },
    /// The turn that a message began is not watched any more.
    TurnUnwatched(SessionId, NoticeId),
    /// A parent was deleted. Its pending messages are dropped.
    ParentGone(SessionId, Timestamp),
    /// A parent's user aborted it, or wrote a message again.
    Silenced(SessionId, bool),
    /// A launch was accepted under a key.
    Key(LaunchKey),
    /// A task has left memory.
    Forgotten(TaskId, Timestamp),
    /// A launch did not become durable in time and was refused. Its key is free again.
    Unaccepted(TaskId),
    /// A session was aborted, not by the system. The abort is not judged yet.
    AbortReceived(SessionId, Timestamp),
    /// The abort of a session was judged, or needs no judgement any more.
    AbortJudged(SessionId),
    /// The process that owns a session changed; none if no process owns it.
    Owner(SessionId, Option<SessionOwner>),
}

impl JournalEntry {
    /// Returns the parent whose outbox the entry changes, if there is one.
    pub fn parent(&self) -> Option<&SessionId> {
        match self {
            Self::Joined { parent, .. }
            | Self::Settled { parent, .. }
            | Self::Closed { parent, .. }
            | Self::Sending { parent, .. }
            | Self::Delivery { parent, .. }
            | Self::TurnFailed { parent, .. }
            | Self::Left(parent, _)
            | Self::Returned(parent, _)
            | Self::TurnUnwatched(parent, _)
            | Self::ParentGone(parent, _)
            | Self::Silenced(parent, _) => Some(parent),
            Self::Task { .. }
            | Self::Granted(..)
            | Self::Prompted(..)
            | Self::Noted(..)
            | Self::Aborted(..)
            | Self::Key(_)
            | Self::Forgotten(..)
            | Self::Unaccepted(_)
            | Self::AbortReceived(..)
            | Self::AbortJudged(_)
            | Self::Owner(..) => None,
        }
    }
}

/// A log sequence number: the number of appends, also of earlier processes if the journal is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Lsn(pub u64);

/// The progress of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JournalStatus {
    /// Everything up to this append is durable.
    pub durable: Lsn,
    /// The reason why writes fail at present, for people. Appended changes are kept and written once writes succeed.
    pub failing: Option<Arc<str>>,
}

/// A task recovered from the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct RecoveredTask {
    /// The position in the order of acceptance.
    pub accepted: QueueSeq,
    /// The position of its run in the queue.
    pub queue_seq: QueueSeq,
    /// The newest run that was granted a slot.
    pub granted: Option<Run>,
    /// The newest run whose prompt was accepted.
    pub prompted: Option<Run>,
    /// The newest run whose session needs no further abort.
    pub aborted: Option<Run>,
    /// The record.
    pub task: Arc<Task>,
}

/// The state from which a registry continues.
#[derive(Debug, Clone, Default)]
pub struct RecoveredState {
    /// Every task that has not left memory, in the order of acceptance.
    pub tasks: Vec<RecoveredTask>,
    /// Tasks that have left memory and are remembered, oldest first, at most the newest 10,000. A journal on disk omits
    /// their prompts.
    pub left: Vec<Arc<Task>>,
    /// The outboxes of parents with open tasks or pending messages.
    pub outboxes: Vec<(SessionId, Outbox)>,
    /// The keys of launches, oldest first.
    pub keys: Vec<LaunchKey>,
    /// The aborted sessions whose abort is not judged, and when the abort was received.
    pub aborts: Vec<(SessionId, Timestamp)>,
    /// The number of the newest change of a task's state; zero if there was none.
    pub newest_change: u64,
}

/// A change of a task's state that the journal keeps for readers.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedChange {
    /// The time of the change.
    pub at: Timestamp,
    /// The number of the change, and the state before.
    pub changed: Changed,
    /// The record after the change.
    pub task: Arc<Task>,
}

/// The start position of a reader of recorded changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangesFrom {
    /// The first change after this number.
    After(u64),
    /// The first change after this time.
    Since(Timestamp),
}

/// The journal cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JournalError(pub String);

/// The journal. It has one writer, the system that owns it.
pub trait Journal: Send + Sync + 'static {
    /// Appends changes atomically: after a crash there are all of them or none. The changes are decided when this
    /// returns: `find`, `outbox` and `load` include them. `status` reports when they are durable. Never waits and never
    /// fails: a journal that cannot be written keeps the changes until it can, and reports the failure in `status`.
    fn append(&self, at: Timestamp, entries: Vec<JournalEntry>) -> Lsn;

    /// Returns the number of the newest append.
    fn last_lsn(&self) -> Lsn;

    /// Returns the progress of the journal, as a watch channel.
    fn status(&self) -> watch::Receiver<JournalStatus>;

    /// Returns true if the journal survives the process: the next process continues with open tasks and pending
    /// messages.
    fn is_persistent(&self) -> bool;

    /// Returns the task with this id or unique id prefix, or the newest task of this session, also after it has left
    /// memory.
    fn find(&self, name: &str) -> Option<Task>;

    /// Returns true if this id is remembered, in memory or not, and must not be assigned again. Called at every launch,
    /// so it must be one lookup.
    fn contains(&self, task: &TaskId) -> bool;

    /// Returns the parent's outbox, as far as it is remembered.
    fn outbox(&self, parent: &SessionId) -> Option<Outbox>;

    /// Returns the state from which a registry continues.
    ///
    /// # Errors
    /// [`JournalError`] if the journal cannot be read.
    fn load(&self) -> Result<RecoveredState, JournalError>;

    /// Returns the owners of sessions as last recorded, at most the newest 10,000, the longest unchanged first. Empty for a
    /// journal that does not survive the process.
    ///
    /// # Errors
    /// [`JournalError`] if the journal cannot be read.
    fn owners(&self) -> Result<Vec<(SessionId, SessionOwner)>, JournalError> {
        Ok(Vec::new())
    }

    /// Returns the timeline of a task, oldest first, as far as it is remembered ([`crate::domain::timeline`]).
    fn timeline(&self, task: &TaskId) -> Vec<(Timestamp, TimelineEntry)>;

    /// Returns at most `limit` durable changes of task states, by number. None if changes after the start number are
    /// missing. From a start time it returns the changes that are kept.
    fn changes(&self, from: ChangesFrom, limit: usize) -> Option<Vec<RecordedChange>>;
}

/// The minimum length of an id prefix that finds a task.
pub const MIN_PREFIX_LEN: usize = 3;
