//! A call of a tool: who calls, and what comes back.

use greenroom::domain::idempotency::fingerprint;
use greenroom::domain::ids::{MessageId, SessionId};
use greenroom::domain::task::{Launch, Task, cut};
use serde_json::{Value, json};

use super::words::Told;

/// Characters of a title.
const TITLE: usize = 240;
/// Bytes of the key under which a call is remembered.
const LONGEST_KEY: usize = 255;

/// Who calls a tool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Caller {
    /// The session of the agent: it is told of the ends, and reaches only what is below it. Without one nobody is told, and
    /// everything is within reach.
    pub session: Option<SessionId>,
    /// The message in which it calls.
    pub message: Option<MessageId>,
    /// The agent.
    pub agent: Option<String>,
    /// The call, so that one that comes twice is carried out once.
    pub call: Option<String>,
    /// Where it works.
    pub directory: Option<String>,
    /// Its process ends with its turn, so that it cannot be woken.
    pub ends_with_turn: bool,
}

impl Caller {
    /// What its call is known by, so that one that comes again after a cut connection is the same launch. Some models
    /// number their calls from one in every message, and some give all calls of a message one id: then what is launched
    /// tells them apart.
    pub(super) fn key(&self, launch: &Launch) -> Option<String> {
        let (session, message) = (self.session.as_ref()?, self.message.as_ref()?);
        let print = fingerprint(launch);
        let key = format!("tool {session} {message} {} {print:x}", self.call.as_ref()?);
        (key.len() <= LONGEST_KEY).then_some(key)
    }

    /// A session is told of its tasks; who names none must ask.
    pub(super) fn told(&self) -> Told {
        match (&self.session, self.ends_with_turn) {
            (Some(_), false) => Told::Yes,
            (Some(_), true) => Told::TooLate,
            (None, _) => Told::No,
        }
    }
}

/// What an agent gets back.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolReply {
    /// What the agent reads.
    pub output: String,
    /// A few words for people.
    pub title: Option<String>,
    /// `taskId`, `sessionId`, `status` of the task it is about, if it is about one.
    pub metadata: Option<Value>,
    /// True if it was not done.
    pub is_error: bool,
}

impl ToolReply {
    /// A reply about one task. The names in the metadata are those that opencode's own tools use, so that its views can open
    /// the child from it.
    pub(super) fn about(task: &Task, output: String, title: String) -> Self {
        let mut metadata = json!({ "taskId": task.id, "status": task.status() });
        if let Some(session) = &task.session {
            metadata["sessionId"] = json!(session);
        }
        Self {
            output,
            title: Some(cut(&title, TITLE).to_owned()),
            metadata: Some(metadata),
            is_error: false,
        }
    }
}
