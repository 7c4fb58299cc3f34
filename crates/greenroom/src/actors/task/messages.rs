//! What a task actor is told, and what its own calls and timers come back with.

use std::sync::Arc;

use actix::Message;
use tokio::sync::oneshot;

use super::lineage::Lineage;
use crate::actors::runtime_state::AbortTicket;
use crate::domain::ids::{Run, SessionId};
use crate::domain::lifecycle::End;
use crate::domain::session_event::SessionEventKind;
use crate::domain::task::Task;
use crate::domain::time::Timestamp;
use crate::domain::watch::{CheckAnswer, CheckToken, PollContext, PolledStatus};
use crate::ports::agent_server::ServerError;

/// How a run begins.
#[derive(Debug, Clone)]
pub(crate) enum StartMode {
    /// A session is made; the lineage is known if the parent is a session of ours or there is none.
    Launch(Option<Lineage>),
    /// The same, but an actor before this one may have made the session: it is looked for first.
    Relaunch(Option<Lineage>),
    /// The session of an earlier run is prompted again.
    Resume(SessionId),
    /// A session started elsewhere, or prompted before this actor, is watched as it is.
    Watch(SessionId, Timestamp),
    /// The session of this run is there; whether its prompt was sent is looked for first.
    Reattach(SessionId, Timestamp),
}

/// Something happened in the session, and when it was heard of.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SessionEventReceived {
    pub(crate) kind: SessionEventKind,
    pub(crate) at: Timestamp,
}

/// What a poll saw, as of the moment it asked.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StatusPolled {
    pub(crate) run: Run,
    /// Under which the poller watches it, for what the run says of its interest.
    pub(crate) number: u64,
    pub(crate) status: PolledStatus,
    pub(crate) polled_at: Timestamp,
    pub(crate) context: PollContext,
}

/// Ends the run, unless it is ending already: the answer says which.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EndRun {
    pub(crate) end: End,
    pub(crate) reply: Option<oneshot::Sender<bool>>,
}

/// The system shuts down and the run goes on without it: nothing is begun for it any more, and nothing ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Detach;

impl EndRun {
    /// Answers whoever ordered it: whether this is how the run ends.
    pub(super) fn reply_decided(self, so: bool) {
        if let Some(reply) = self.reply {
            // A caller that has gone away needs no answer.
            let _ = reply.send(so);
        }
    }
}

/// The registry has recorded the start, as this: the prompt may be sent.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StartRecorded(pub(crate) Arc<Task>);

/// The registry has recorded the end. Whoever holds the ticket answers for the abort.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EndAccepted(pub(crate) AbortTicket);

/// The registry has been rebuilt: what it may not have heard is said again.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RegistryRestarted;

/// Slots are given out by another manager from now on: what the one before was asked for it may not have given.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SlotManagerRestarted;

/// The run cannot complete now: something depends on its session that it had not heard of.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EndRefused;

/// What depends on the session has changed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Dependents {
    pub(crate) open: usize,
    pub(crate) owed: bool,
}

/// A message of ours that wakes was accepted by the session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct WakeSent;

/// Events may have been missed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EventLinkLost;

/// A further prompt for the session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SendPrompt {
    pub(crate) text: String,
    pub(crate) reply: oneshot::Sender<Result<(), SendFailure>>,
}

/// Why a further prompt was not given.
#[derive(Debug)]
pub(crate) enum SendFailure {
    NotRunning,
    Server(ServerError),
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct LineageRead(pub(super) Result<Lineage, ServerError>);

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct CreateAnswered(pub(super) Result<SessionId, ServerError>);

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct CreateTimedOut;

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct CreateLookedUp(pub(super) Result<Option<SessionId>, ServerError>);

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct PromptAnswered {
    pub(super) prompt: u32,
    pub(super) answer: Result<(), ServerError>,
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct PromptLookedUp {
    pub(super) prompt: u32,
    pub(super) arrived: Result<bool, ServerError>,
}

/// A prompt that was on its way when the run ended has not been answered in time.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct LatePromptGivenUp;

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct SendAnswered {
    pub(super) accepted: bool,
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct CheckAnswered(pub(super) CheckToken, pub(super) CheckAnswer);

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct SessionLookedUp(pub(super) Option<bool>);

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct DeadlineReached;

/// The end that was decided, with a text that says more.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct EndExplained(pub(super) End);
