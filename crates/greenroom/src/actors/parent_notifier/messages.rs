//! The messages of a notifier: from the registry, and the answers of its own calls and timers.

use std::sync::Arc;

use actix::Message;
use tokio::sync::oneshot;

use crate::domain::batch::CompletionReport;
use crate::domain::ids::{ModelRef, NoticeId, TaskId};
use crate::domain::outbox::Outbox;
use crate::domain::session_event::SessionEventKind;
use crate::domain::time::Timestamp;
use crate::domain::transcript::Message as TranscriptMessage;
use crate::ports::agent_server::ServerError;

/// Adds a run to the parent's batch.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Joined {
    pub(crate) task: TaskId,
    pub(crate) directory: Option<Arc<str>>,
}

/// A run of the batch has ended. `sequence` counts the registry's messages to this notifier.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Settled {
    pub(crate) report: CompletionReport,
    pub(crate) wakes: bool,
    pub(crate) sequence: u64,
}

/// Removes a run from the batch without a message.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Left {
    pub(crate) task: TaskId,
    pub(crate) sequence: u64,
}

/// The outbox of this parent from the journal: a restarted registry may not have sent all earlier messages.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Reconcile {
    pub(crate) outbox: Outbox,
    pub(crate) ended: bool,
    pub(crate) sequence: u64,
}

/// An event in the parent's session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ParentEvent {
    pub(crate) kind: SessionEventKind,
    /// When the event was received.
    pub(crate) at: Timestamp,
    /// Set if the event may be an abort by the user.
    pub(crate) sequence: Option<u64>,
}

/// An abort in the parent's session, received at that time, waits for its judgement. Sent to a notifier that has not
/// received the event.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ParentAbortHeld(pub(crate) Timestamp);

/// The registry has judged the abort in the parent's session that was received at `at`.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ParentAbortJudged {
    pub(crate) at: Timestamp,
    /// True if the agent server cut off the turn, false if a person stopped it.
    pub(crate) cut_off: bool,
}

/// The parent is the session of a task, which has ended (true) or runs again (false).
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ParentEnded(pub(crate) bool);

/// The parent was deleted: its pending messages are dropped.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ParentGone;

/// Stops the notifier: a message in flight may finish, no other is sent.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop {
    /// Receives true if messages are still pending.
    pub(crate) done: oneshot::Sender<bool>,
}

/// An instance of the agent server has ended, in this directory or in all.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ParentInstanceEnded(pub(crate) Option<Arc<str>>);

/// The agent server is reachable again: messages that wait for it are retried at once.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LinkRestored;

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StatusRead {
    /// None if the status could not be read.
    pub(super) busy: Option<bool>,
    pub(super) directory: Option<Arc<str>>,
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct ContextRead {
    /// The parent's newest messages.
    pub(super) messages: Result<Vec<TranscriptMessage>, ServerError>,
    /// Whether the parent is reverted; None if its record is not read.
    pub(super) reverted: Option<Result<bool, ServerError>>,
    /// The default model of the parent's directory, read if the server does not know the parent's model.
    pub(super) default_model: Option<ModelRef>,
    /// When the record was read.
    pub(super) at: Timestamp,
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct TurnRead {
    /// The message that began the turn.
    pub(super) notice: NoticeId,
    /// None if the status could not be read.
    pub(super) busy: Option<bool>,
    /// The parent's newest messages.
    pub(super) messages: Result<Vec<TranscriptMessage>, ServerError>,
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Answered(pub(super) Result<(), ServerError>);

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct LookedUp {
    /// The message that was looked up.
    pub(super) id: NoticeId,
    /// Whether its turn is answered; none if the parent's history does not contain the message.
    pub(super) found: Result<Option<bool>, ServerError>,
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct DeadlineReached;
