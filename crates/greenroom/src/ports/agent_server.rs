//! The agent server as the system needs it. Implementations make one attempt per call and say truly what is known of
//! its fate; time limits, repeats and look-ups are the system's.

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

/// Why a call did not give what was asked for. The variants differ in what is known of the call's effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// The call never got there (connection refused): it had no effect.
    #[error("the agent server cannot be reached: {0}")]
    Unreachable(String),
    /// The connection was cut, or the answer unreadable: the call may have had its effect.
    #[error("no answer from the agent server: {0}")]
    OutcomeUnknown(String),
    /// The time limit passed without an answer: the call may still have its effect.
    #[error("no answer from the agent server within {0:?}")]
    TimedOut(std::time::Duration),
    /// The server says there is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The server refused, with its status and text.
    #[error("{message}")]
    Refused {
        /// The HTTP status, if there was one.
        status: Option<u16>,
        /// The server's text.
        message: String,
    },
}

impl ServerError {
    /// True if the call may have had its effect.
    pub fn outcome_is_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_) | Self::TimedOut(_))
    }
}

/// A session as the server knows it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SessionRecord {
    /// Its id.
    pub id: Option<SessionId>,
    /// The session it is a child of.
    pub parent: Option<SessionId>,
    /// Where it works.
    pub directory: Option<Arc<str>>,
    /// What was attached at its creation.
    pub metadata: Option<Value>,
}

/// What a session does, as the status call says. Idle sessions are usually absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionStatus {
    /// It works.
    Busy,
    /// It has nothing to do.
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

/// A session to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSession {
    /// For which task; servers ignore it, observers use it.
    pub task: TaskId,
    /// `<description> (@<agent> subagent)`
    pub title: String,
    /// The session that asked.
    pub parent: Option<SessionId>,
    /// Where it works.
    pub directory: Arc<str>,
    /// Who works in it.
    pub agent: Arc<str>,
    /// With which model.
    pub model: Option<Arc<ModelRef>>,
    /// What it may do.
    pub permission: Vec<PermissionRule>,
    /// By which it is found again.
    pub tag: CorrelationTag,
}

/// The prompt of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskPrompt {
    /// Who answers.
    pub agent: Arc<str>,
    /// With which model (its variant in it).
    pub model: Option<Arc<ModelRef>>,
    /// The system text.
    pub system: Option<Arc<str>>,
    /// What is asked.
    pub text: Arc<str>,
    /// By which it is found again.
    pub tag: CorrelationTag,
}

/// A message of ours to a parent.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// Its own id, kept in its part's metadata.
    pub id: NoticeId,
    /// The whole text, marked as machine-written.
    pub text: String,
    /// True if it must not wake the parent.
    pub silent: bool,
    /// The agent the parent goes on as.
    pub agent: Option<String>,
    /// The model the parent goes on with (its variant in it).
    pub model: Option<ModelRef>,
    /// What it says, as facts: the metadata of its part is made of them, and observers read them.
    pub facts: Arc<NoticeFacts>,
}

/// An entry of a session's todo list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Todo {
    /// What is to be done.
    pub content: String,
    /// `pending`, `in_progress`, `completed`, `cancelled`, …
    pub status: String,
}

impl Todo {
    /// True in any state but completed and cancelled.
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
    /// The session of that id; [`ServerError::NotFound`] if there is none.
    async fn session(&self, session: &SessionId) -> Result<SessionRecord, ServerError>;

    /// Makes a session and answers its id; an answer without an id is [`ServerError::Refused`].
    async fn create(&self, session: NewSession) -> Result<SessionId, ServerError>;

    /// Gives a task's session its prompt. Acceptance proves nothing.
    async fn prompt(
        &self,
        session: &SessionId,
        directory: Option<&str>,
        prompt: TaskPrompt,
    ) -> Result<(), ServerError>;

    /// Gives a parent a message of ours.
    async fn notify(&self, parent: &SessionId, notice: Notice) -> Result<(), ServerError>;

    /// Stops what the session does.
    async fn abort(&self, session: &SessionId) -> Result<(), ServerError>;

    /// What the sessions of one directory do; idle ones may be absent.
    async fn statuses(
        &self,
        directory: &str,
    ) -> Result<BTreeMap<SessionId, SessionStatus>, ServerError>;

    /// The newest `limit` messages of a session, oldest first; all of them without a limit.
    async fn messages(
        &self,
        session: &SessionId,
        limit: Option<usize>,
    ) -> Result<Vec<Message>, ServerError>;

    /// The todo list of a session.
    async fn todos(&self, session: &SessionId) -> Result<Vec<Todo>, ServerError>;

    /// The sessions that are children of `parent`, or without one all of the directory: where a create of unknown fate
    /// is looked for.
    async fn sessions_below(
        &self,
        parent: Option<&SessionId>,
        directory: &str,
    ) -> Result<Vec<SessionRecord>, ServerError>;

    /// Answers a request a session hangs on. The answer fits its kind.
    async fn answer_ask(
        &self,
        session: &SessionId,
        ask: &str,
        kind: AskKind,
        answer: &AskAnswer,
    ) -> Result<(), ServerError>;

    /// Rejects a request a session hangs on.
    async fn reject_ask(
        &self,
        session: &SessionId,
        ask: &str,
        kind: AskKind,
    ) -> Result<(), ServerError> {
        self.answer_ask(session, ask, kind, &AskAnswer::Reject)
            .await
    }

    /// Shows a toast, if anybody looks.
    async fn toast(&self, toast: Toast) -> Result<(), ServerError>;

    /// The models that exist, as `provider/model`, for a text that says so. A server that cannot tell answers none.
    async fn models(&self, _directory: &str) -> Result<Vec<String>, ServerError> {
        Ok(Vec::new())
    }

    /// Ok if the server answers at all.
    async fn health(&self) -> Result<(), ServerError>;
}

/// Finds a message by the id of the notice in it.
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
