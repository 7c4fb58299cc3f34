//! What a notifier is told, and what its own calls and timers come back with.

use std::sync::Arc;

use actix::Message;
use tokio::sync::oneshot;

use crate::domain::batch::CompletionReport;
use crate::domain::ids::TaskId;
use crate::domain::outbox::Outbox;
use crate::domain::session_event::SessionEventKind;
use crate::domain::transcript::Message as TranscriptMessage;
use crate::ports::agent_server::ServerError;

/// A run belongs to this parent's batch from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Joined {
    pub(crate) task: TaskId,
    pub(crate) directory: Option<Arc<str>>,
}

/// A run of the batch has ended. `debt` counts what the registry has told this notifier.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Settled {
    pub(crate) report: CompletionReport,
    pub(crate) wakes: bool,
    pub(crate) sequence: u64,
}

/// A run leaves the batch without a word.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Left {
    pub(crate) task: TaskId,
    pub(crate) sequence: u64,
}

/// What the journal says of this parent: a registry that has been rebuilt may not have told all of it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Reconcile {
    pub(crate) outbox: Outbox,
    pub(crate) ended: bool,
    pub(crate) sequence: u64,
}

/// Something happened in the parent's session. Numbered among what it is told if it may be a stop by its user.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ParentEvent(pub(crate) SessionEventKind, pub(crate) Option<u64>);

/// The parent is the session of a task that has ended (or goes on again).
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ParentEnded(pub(crate) bool);

/// The parent is no more: what is owed to it is dropped.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ParentGone;

/// Nothing is begun any more; what is in flight may finish.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop {
    pub(crate) done: oneshot::Sender<bool>,
}

/// The way to the agent server is open again: what waits because it was not is tried at once.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LinkRestored;

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StatusRead(pub(super) Option<bool>, pub(super) Option<Arc<str>>);

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct ContextRead(pub(super) Vec<TranscriptMessage>);

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Answered(pub(super) Result<(), ServerError>);

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct LookedUp(pub(super) Result<bool, ServerError>);

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct DeadlineReached;
