//! The messages to the registry from key queues, task actors and notifiers.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix::Message;
use tokio::sync::oneshot;

use crate::actors::slot_manager::SlotPermit;
use crate::domain::concurrency::QueueSeq;
use crate::domain::ids::{ConcurrencyKey, Run, SessionId, TaskId};
use crate::domain::lifecycle::End;
use crate::domain::task::{Asking, Progress, Retrying};
use crate::domain::time::Timestamp;

/// A slot was granted to a waiting run.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Granted {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) queue_seq: QueueSeq,
    pub(crate) permit: SlotPermit,
}

/// A run has its session and is about to be prompted.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RunStarted {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) session: SessionId,
    pub(crate) directory: Option<Arc<str>>,
    pub(crate) depth: u32,
    pub(crate) root: Option<SessionId>,
    pub(crate) slot: Option<ConcurrencyKey>,
    pub(crate) at: Timestamp,
}

/// The server has accepted the prompt of a run.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RunPrompted {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
}

/// The state of a running run as readers see it.
#[derive(Debug, Clone)]
pub(crate) struct RunSnapshot {
    pub(crate) progress: Progress,
    pub(crate) retrying: Option<Retrying>,
    pub(crate) asking: Vec<Asking>,
    pub(crate) note: Option<String>,
    pub(crate) depth: u32,
    pub(crate) slot: Option<ConcurrencyKey>,
}

/// The state of a run as readers see it has changed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RunChanged {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) snapshot: RunSnapshot,
}

/// A run has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RunEnded {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) session: Option<SessionId>,
    pub(crate) end: End,
    pub(crate) snapshot: RunSnapshot,
    pub(crate) at: Timestamp,
}

/// The session of a run was aborted, not by the system.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RunAborted {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) at: Timestamp,
    /// When the aborted turn began, if it is known.
    pub(crate) turn_began: Option<Timestamp>,
}

/// A run was cut off: its attempt has ended, and the next one continues its session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RunCutOff {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) attempt: u32,
    pub(crate) snapshot: RunSnapshot,
    /// True if an assistant message was finished in the attempt.
    pub(crate) answered: bool,
}

/// The abort of an ended run was answered, given up, or not needed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct AbortCallEnded {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    /// The flag of the ticket: the registry repeats an abort only while it is not set.
    pub(crate) superseded: Arc<AtomicBool>,
    /// False if the abort was lost to a panic.
    pub(crate) settled: bool,
    /// True if no abort was needed and none is checked afterwards.
    pub(crate) needless: bool,
}

/// The session of an ended run needs no abort any more: the last abort was checked, or there is no session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct AbortCheckEnded {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
}

/// A call did not reach the server.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Unreachable;

/// Reads the depth and the root of a task's session; none for any other session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DepthOf {
    pub(crate) session: SessionId,
    pub(crate) reply: oneshot::Sender<Option<(u32, Option<SessionId>)>>,
}

/// A batch was closed: its ended tasks may be removed from memory after a while.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct BatchClosed {
    pub(crate) parent: SessionId,
    pub(crate) tasks: Vec<TaskId>,
}

/// Whether messages to a parent are pending, as of the message with number `sequence` to its notifier.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct PendingMessages {
    pub(crate) parent: SessionId,
    pub(crate) sequence: u64,
    pub(crate) has_pending: bool,
    pub(crate) idle: bool,
}

/// A message that wakes was accepted by a parent's session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct WakeAccepted {
    pub(crate) parent: SessionId,
}

/// The directory of a tracked task's session is known.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DirectoryKnown {
    pub(crate) task: TaskId,
    pub(crate) run: Run,
    pub(crate) directory: Arc<str>,
}
