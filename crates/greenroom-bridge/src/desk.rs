//! Who answers the tools that agents use through a bridge. The host gives its [`ToolDesk`] to the bridge; sockets bring
//! the calls to it and its answers back.

use async_trait::async_trait;
use greenroom::domain::ids::{MessageId, SessionId};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::protocol::FrameId;

/// An agent's use of one of our tools.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// Chosen by the bridge; the same call repeated has the same.
    pub id: FrameId,
    /// The tool's name.
    pub tool: String,
    /// As the agent gave them: nobody has checked them.
    pub args: Value,
    /// Who calls.
    pub context: ToolContext,
}

/// Who calls a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolContext {
    /// The session that calls.
    pub session_id: SessionId,
    /// The message in which it does.
    pub message_id: Option<MessageId>,
    /// The agent that works in it.
    pub agent: Option<String>,
    /// The agent server's own id of the call.
    pub call_id: Option<String>,
    /// Where the session works.
    pub directory: Option<String>,
    /// True if its process ends with its turn: nothing can wake it then.
    pub ends_with_turn: bool,
}

impl ToolContext {
    /// None without a session.
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

/// What a tool answers.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ToolAnswer {
    /// What the agent reads.
    pub output: String,
    /// What people read above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What programs read beside it, for instance the child's session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

impl ToolAnswer {
    /// An answer that is only a text.
    pub fn saying(output: impl Into<String>) -> Self {
        Self {
            output: output.into(),
            ..Self::default()
        }
    }
}

/// What answers tools, and what sessions carry through their compaction.
#[async_trait]
pub trait ToolDesk: Send + Sync + 'static {
    /// Answers one call. Dropping the future ends the wait and takes nothing back.
    async fn call(&self, call: ToolCall) -> ToolAnswer;

    /// What that session's compaction carries along, as Markdown; none if there is nothing to say.
    async fn compaction(&self, session: &SessionId) -> Option<String>;
}
