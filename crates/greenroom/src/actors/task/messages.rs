//! The messages of a task actor: from the registry and the poller, and the answers of its own calls and timers.

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

/// How a run starts.
#[derive(Debug, Clone)]
pub(crate) enum StartMode {
    /// Creates a session. The lineage is known if the parent is the session of a task, or if there is no parent.
    Launch(Option<Lineage>),
    /// Looks up the session that an earlier actor may have created; creates one if there is none.
    Relaunch(Option<Lineage>),
    /// Prompts the session of an earlier run again.
    Resume(SessionId),
    /// Prompts the session of this run, which was cut off, to continue.
    Continue(SessionId),
    /// Watches a session that was started elsewhere, or prompted by an earlier actor, since that time.
    Watch(SessionId, Timestamp),
    /// Watches the session of this run since that time, and looks up its prompt; prompts if there is none.
    Reattach(SessionId, Timestamp),
}

/// An event in the session, and when it was received.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SessionEventReceived {
    pub(crate) kind: SessionEventKind,
    pub(crate) at: Timestamp,
}

/// The status read by a poll, as of the moment its call began.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StatusPolled {
    pub(crate) run: Run,
    /// The watch number in the poller, sent back with the run's poll interest.
    pub(crate) number: u64,
    pub(crate) status: PolledStatus,
    pub(crate) polled_at: Timestamp,
    pub(crate) context: PollContext,
}

/// Ends the run. The answer is false if another end was decided before.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EndRun {
    pub(crate) end: End,
    pub(crate) reply: Option<oneshot::Sender<bool>>,
}

/// The system shuts down and the session goes on: the actor starts no further call and does not end the run.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Detach;

impl EndRun {
    /// Answers the request: true if the run ends by it.
    pub(super) fn reply_decided(self, decided: bool) {
        if let Some(reply) = self.reply {
            // The caller may have been dropped.
            let _ = reply.send(decided);
        }
    }
}

/// The registry has recorded the start, with this record: the prompt may be sent.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StartRecorded(pub(crate) Arc<Task>);

/// Replaces the record of the task, for example after a track that gives the task another parent.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RecordChanged(pub(crate) Arc<Task>);

/// The registry has recorded the end. The holder of the ticket is responsible for the abort.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EndAccepted(pub(crate) AbortTicket);

/// An abort of the session, which a registry or actor before received, waits for its judgement.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct AbortHeld;

/// The registry has judged the abort of the session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct AbortJudged {
    /// True if the agent server cut off the turn, false if a person stopped it.
    pub(crate) cut_off: bool,
}

/// The registry has recorded that the run was cut off. A later actor continues it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CutOffAccepted;

/// The registry was restarted: reports that it may have missed are sent again.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RegistryRestarted;

/// The slot manager was restarted: a pending request for a slot may be lost.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SlotManagerRestarted;

/// The run cannot complete now: its session has dependents that the actor did not know.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EndRefused;

/// What depends on the session, sent when it changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub(crate) struct Dependents {
    /// The open tasks below the session.
    pub(crate) open: usize,
    /// True if messages to the session are pending.
    pub(crate) has_pending: bool,
}

/// A message that wakes was accepted by the session.
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

/// Why a further prompt was not sent.
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
pub(super) struct CreateLookedUp {
    pub(super) found: Result<Option<SessionId>, ServerError>,
    /// False if the call of an earlier actor is still in flight.
    pub(super) is_over: bool,
}

/// A prompt call begins: errors of the session are errors of this run from here on.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct PromptBegins {
    pub(super) prompt: u32,
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct PromptAnswered {
    pub(super) prompt: u32,
    pub(super) answer: PromptAnswer,
}

/// The answer to a prompt call.
pub(super) enum PromptAnswer {
    /// The answer of the server.
    Server(Result<(), ServerError>),
    /// The prompt was not sent: it was not known whether the user has reverted messages of the session.
    NotRead(ServerError),
    /// The prompt was not sent: it would delete messages that the user has reverted.
    Reverted,
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct PromptLookedUp {
    pub(super) prompt: u32,
    pub(super) arrived: Result<bool, ServerError>,
}

/// A prompt in flight at the end of the run was not answered in time.
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

/// The decided end, with a more detailed error text.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct EndExplained(pub(super) End);
