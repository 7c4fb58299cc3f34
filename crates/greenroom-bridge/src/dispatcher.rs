//! The receiver of tool calls. The host gives its [`ToolDispatcher`] to the bridge; sockets pass it the calls of agents and
//! send its answers back.

use async_trait::async_trait;
use greenroom::domain::ids::{MessageId, SessionId};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::protocol::FrameId;

/// A call of a Greenroom tool by an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// Chosen by the bridge; a repeated call has the same id.
    pub id: FrameId,
    /// The name of the tool.
    pub tool: String,
    /// The arguments of the agent, unchecked.
    pub args: Value,
    /// The caller.
    pub context: ToolContext,
}

/// The caller of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolContext {
    /// The calling session.
    pub session_id: SessionId,
    /// The message that holds the call.
    pub message_id: Option<MessageId>,
    /// The agent of the session.
    pub agent: Option<String>,
    /// The agent server's id of the call.
    pub call_id: Option<String>,
    /// The directory of the session.
    pub directory: Option<String>,
    /// True if the process exits at the end of the turn: the session cannot be woken after that.
    pub ends_with_turn: bool,
}

impl ToolContext {
    /// Reads a context; none if it names no session.
    pub(crate) fn read(context: &Map<String, Value>) -> Option<Self> {
        let text = |key: &str| {
            let text = context.get(key)?.as_str()?;
            (!text.trim().is_empty()).then(|| text.to_owned())
        };
        Some(Self {
            session_id: SessionId::from(text("sessionID")?),
            message_id: text("messageID").map(MessageId::from),
            agent: text("agent"),
            call_id: text("callID"),
            directory: text("directory"),
            ends_with_turn: context.get("endsWithTurn") == Some(&Value::Bool(true)),
        })
    }
}

/// The answer of a tool.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ToolAnswer {
    /// The text for the agent.
    pub output: String,
    /// The title that the agent server shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Data for programs, for instance the child session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

impl ToolAnswer {
    /// Returns an answer that is only a text.
    pub fn text(output: impl Into<String>) -> Self {
        Self {
            output: output.into(),
            ..Self::default()
        }
    }
}

/// Answers tool calls, and returns what a session carries through its compaction.
#[async_trait]
pub trait ToolDispatcher: Send + Sync + 'static {
    /// Answers one call. Dropping the future ends the wait; effects of the call stay.
    async fn call(&self, call: ToolCall) -> ToolAnswer;

    /// Returns the Markdown that the compaction of a session carries along; none if the session has no tasks.
    async fn compaction(&self, session: &SessionId) -> Option<String>;
}
