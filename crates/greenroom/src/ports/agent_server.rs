//! The trait of the agent server. Implementations make one attempt per call and report exactly the known state of its
//! effect. Timeouts, retries and look-ups belong to the system.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::domain::correlation_tag::CorrelationTag;
use crate::domain::ids::{MessageId, ModelRef, NoticeId, SessionId, TaskId};
use crate::domain::notice::NoticeFacts;
use crate::domain::task::{AskAnswer, AskKind, PermissionRule};
use crate::domain::time::Timestamp;
use crate::domain::transcript::Message;

/// An error of a call. The variants differ in the known effect of the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// The call did not reach the server (connection refused). It had no effect.
    #[error("the agent server cannot be reached: {0}")]
    Unreachable(String),
    /// The process that ran the sessions has ended. Only [`AgentServer::statuses`] returns it.
    #[error("the agent server has ended: {0}")]
    ProcessEnded(String),
    /// The connection was cut, or the answer was unreadable. The call may have had its effect.
    #[error("no answer from the agent server: {0}")]
    OutcomeUnknown(String),
    /// The timeout passed without an answer. The call may still have its effect.
    #[error("no answer from the agent server within {0:?}")]
    TimedOut(std::time::Duration),
    /// The server returned "not found".
    #[error("{0}")]
    NotFound(String),
    /// The server refused the call.
    #[error("{message}")]
    Refused {
        /// The HTTP status, if there was one.
        status: Option<u16>,
        /// The server's text.
        message: String,
    },
}

impl ServerError {
    /// Returns true if the call may have had its effect.
    pub fn outcome_is_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_) | Self::TimedOut(_))
    }
}

/// A session on the server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SessionRecord {
    /// Its id.
    pub id: Option<SessionId>,
    /// The parent session.
    pub parent: Option<SessionId>,
    /// The working directory.
    pub directory: Option<Arc<str>>,
    /// The metadata attached at its creation.
    pub metadata: Option<Value>,
    /// True while a revert hides messages that the user can still restore. A prompt would delete them.
    pub reverted: bool,
}

/// The status of a session, as the status call returns it. Idle sessions are usually absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionStatus {
    /// The session is busy.
    Busy,
    /// The session is idle.
    Idle,
    /// The server backs off for its provider.
    Retry {
        /// The attempt reached.
        attempt: Option<u32>,
        /// The provider's text.
        message: String,
        /// When the server tries again.
        until: Option<Timestamp>,
    },
}

/// A session to create.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSession {
    /// The task. Servers ignore it; observers use it.
    pub task: TaskId,
    /// `<description> (@<agent> subagent)`
    pub title: String,
    /// The parent session.
    pub parent: Option<SessionId>,
    /// The working directory.
    pub directory: Arc<str>,
    /// The agent.
    pub agent: Arc<str>,
    /// The model.
    pub model: Option<Arc<ModelRef>>,
    /// The permission rules.
    pub permission: Vec<PermissionRule>,
    /// The tag that identifies it later.
    pub tag: CorrelationTag,
}

/// The prompt of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskPrompt {
    /// The agent that answers.
    pub agent: Arc<str>,
    /// The model and its variant.
    pub model: Option<Arc<ModelRef>>,
    /// The system text.
    pub system: Option<Arc<str>>,
    /// The text of the prompt.
    pub text: Arc<str>,
    /// The tag that identifies it later.
    pub tag: CorrelationTag,
}

/// A message from the system to a parent.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// The id, kept in the metadata of its part.
    pub id: NoticeId,
    /// The whole text, marked as machine-written.
    pub text: String,
    /// True if it must not wake the parent.
    pub silent: bool,
    /// The agent that the parent continues as.
    pub agent: Option<String>,
    /// The model that the parent continues with, and its variant.
    pub model: Option<ModelRef>,
    /// The message that this one repeats, because the turn of that one failed.
    pub retry_of: Option<NoticeId>,
    /// The content as facts. They become the metadata of the part, and observers read them.
    pub facts: Arc<NoticeFacts>,
}

/// An entry of a session's todo list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Todo {
    /// The text of the entry.
    pub content: String,
    /// `pending`, `in_progress`, `completed`, `cancelled`, …
    pub status: String,
}

impl Todo {
    /// Returns true in any state but completed and cancelled.
    pub fn is_open(&self) -> bool {
        !matches!(self.status.as_str(), "completed" | "cancelled")
    }
}

/// A short message on the user's screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toast {
    /// The headline.
    pub title: String,
    /// The text.
    pub message: String,
    /// Its colour.
    pub variant: ToastVariant,
}

/// The colours of a toast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToastVariant {
    /// News.
    Info,
    /// Something went well.
    Success,
    /// Something went wrong.
    Error,
}

/// The agent server.
#[async_trait]
pub trait AgentServer: Send + Sync + 'static {
    /// Returns the session with this id; [`ServerError::NotFound`] if it does not exist.
    async fn session(&self, session: &SessionId) -> Result<SessionRecord, ServerError>;

    /// Creates a session and returns its id. An answer without an id is [`ServerError::Refused`].
    async fn create(&self, session: NewSession) -> Result<SessionId, ServerError>;

    /// Sends the prompt of a task to its session. Acceptance does not prove that the session takes it up.
    async fn prompt(
        &self,
        session: &SessionId,
        directory: Option<&str>,
        prompt: TaskPrompt,
    ) -> Result<(), ServerError>;

    /// Sends a message to a parent session.
    async fn notify(&self, parent: &SessionId, notice: Notice) -> Result<(), ServerError>;

    /// Aborts the current turn of a session.
    async fn abort(&self, session: &SessionId) -> Result<(), ServerError>;

    /// Returns the status of the sessions of one directory. Idle sessions may be absent.
    async fn statuses(
        &self,
        directory: &str,
    ) -> Result<BTreeMap<SessionId, SessionStatus>, ServerError>;

    /// Returns the newest `limit` messages of a session, oldest first; all messages without a limit.
    async fn messages(
        &self,
        session: &SessionId,
        limit: Option<usize>,
    ) -> Result<Vec<Message>, ServerError>;

    /// Returns the todo list of a session.
    async fn todos(&self, session: &SessionId) -> Result<Vec<Todo>, ServerError>;

    /// Returns the children of `parent`, or all sessions of the directory without a parent. Used to look up a create
    /// with an unknown outcome.
    async fn sessions_below(
        &self,
        parent: Option<&SessionId>,
        directory: &str,
    ) -> Result<Vec<SessionRecord>, ServerError>;

    /// Answers a request that blocks a session. The answer fits the kind of the request.
    async fn answer_ask(
        &self,
        session: &SessionId,
        ask: &str,
        kind: AskKind,
        answer: &AskAnswer,
    ) -> Result<(), ServerError>;

    /// Rejects a request that blocks a session.
    async fn reject_ask(
        &self,
        session: &SessionId,
        ask: &str,
        kind: AskKind,
    ) -> Result<(), ServerError> {
        self.answer_ask(session, ask, kind, &AskAnswer::Reject)
            .await
    }

    /// Shows a toast, if a user interface is connected.
    async fn toast(&self, toast: Toast) -> Result<(), ServerError>;

    /// Returns the available models as `provider/model`, for error texts. A server that cannot list models returns
    /// none.
    async fn models(&self, _directory: &str) -> Result<Vec<String>, ServerError> {
        Ok(Vec::new())
    }

    /// Returns the model that a prompt without a model should name: the configured default of the directory. A session
    /// keeps the model of its last prompt, so a prompt that names none does not get the default. None if the server does
    /// not know one.
    async fn default_model(&self, _directory: &str) -> Result<Option<ModelRef>, ServerError> {
        Ok(None)
    }

    /// Returns Ok if some server can run sessions of this directory now.
    ///
    /// # Errors
    /// [`ServerError::Unreachable`] if none is connected; the error names the missing server.
    async fn serves(&self, _directory: &str) -> Result<(), ServerError> {
        self.health().await
    }

    /// Returns the id of the process that runs a session, if several processes serve this system and it is known which one.
    /// Answered from memory.
    fn process_of(&self, _session: &SessionId) -> Option<u32> {
        None
    }

    /// Returns Ok if the server answers at all.
    async fn health(&self) -> Result<(), ServerError>;
}

/// Finds the message with this notice, and returns the message's id if it has one.
pub fn find_notice(messages: &[Message], id: &NoticeId) -> Option<Option<MessageId>> {
    messages
        .iter()
        .rev()
        .find(|message| {
            message
                .parts
                .iter()
                .any(|part| part.notice_id() == Some(id.as_str()))
        })
        .map(|message| message.id.clone())
}
