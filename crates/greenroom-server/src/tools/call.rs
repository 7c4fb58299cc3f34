//! The caller and the reply of a tool call.

use greenroom::domain::foreign_text::one_line;
use greenroom::domain::idempotency::fingerprint;
use greenroom::domain::ids::{MessageId, SessionId};
use greenroom::domain::task::{Launch, Task, cut};
use serde_json::{Value, json};

use super::text::WakeMode;

/// Maximum length of a title, in characters.
const MAX_TITLE_CHARS: usize = 240;
/// Maximum length of an idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// The caller of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Caller {
    /// The session of the agent. It gets messages when tasks end, and its scope is its own tree. A caller without a
    /// session gets no messages and reaches all tasks.
    pub session: Option<SessionId>,
    /// The message that contains the call.
    pub message: Option<MessageId>,
    /// The agent.
    pub agent: Option<String>,
    /// The id of the call. Repeated calls are carried out once.
    pub call: Option<String>,
    /// The working directory.
    pub directory: Option<String>,
    /// True if the process ends with its turn and cannot be woken.
    pub ends_with_turn: bool,
}

impl Caller {
    /// Returns the idempotency key of a launch. It contains a fingerprint of the launch, because some models number
    /// their calls from one in each message, and some give all calls of a message one id.
    pub(super) fn key(&self, launch: &Launch) -> Option<String> {
        let (session, message) = (self.session.as_ref()?, self.message.as_ref()?);
        let print = fingerprint(launch);
        let key = format!("tool {session} {message} {} {print:x}", self.call.as_ref()?);
        (key.len() <= MAX_KEY_BYTES).then_some(key)
    }

    /// Returns how the caller learns of the end of its tasks.
    pub(super) fn wake_mode(&self) -> WakeMode {
        match (&self.session, self.ends_with_turn) {
            (Some(_), false) => WakeMode::Message,
            (Some(_), true) => WakeMode::EndsWithTurn,
            (None, _) => WakeMode::None,
        }
    }
}

/// The reply of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolReply {
    /// The text for the agent.
    pub output: String,
    /// A short title for people.
    pub title: Option<String>,
    /// `taskId`, `sessionId` and `status` of the task, if the reply is about one task.
    pub metadata: Option<Value>,
    /// True if the call failed.
    pub is_error: bool,
}

impl ToolReply {
    /// Creates a reply about one task. The metadata has the names of opencode's own tools, so that its views can open
    /// the child session.
    pub(super) fn about(task: &Task, output: String, title: String) -> Self {
        let mut metadata = json!({ "taskId": task.id, "status": task.status() });
        if let Some(session) = &task.session {
            metadata["sessionId"] = json!(session);
        }
        Self {
            output,
            title: Some(cut(&one_line(&title), MAX_TITLE_CHARS).to_owned()),
            metadata: Some(metadata),
            is_error: false,
        }
    }
}
