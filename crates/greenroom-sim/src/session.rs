//! One session of the scripted server, and how its script is read. Owned by the server.

use greenroom::domain::ids::{NoticeId, SessionId};
use greenroom::domain::session_event::read_retry;
use greenroom::domain::transcript::{Message, Part};
use greenroom::ports::agent_server::{NewSession, SessionRecord, SessionStatus, Todo};
use serde_json::{Value, json};

use crate::story::Declared;

/// The directory of sessions without a declared directory.
pub const BASE: &str = "/base";

/// A session as it is scripted now.
#[derive(Debug, Default, Clone)]
pub struct Session {
    /// The parent session.
    pub parent: Option<SessionId>,
    /// The metadata of the create call.
    pub metadata: Option<Value>,
    /// The directory of the session.
    pub directory: String,
    /// The messages of the session.
    pub messages: Vec<Message>,
    /// The todo list.
    pub todos: Vec<Todo>,
    /// The status in the status call; `None` leaves the session out.
    pub status: Option<SessionStatus>,
    /// True while the session is reverted.
    pub reverted: bool,
}

impl Session {
    /// Returns a declared session: without messages and todos, missing from the status call.
    pub fn declared() -> Self {
        Self {
            directory: BASE.to_owned(),
            ..Self::default()
        }
    }

    /// Returns a created session: busy, with one assistant message.
    pub fn created(new: &NewSession) -> Self {
        let message =
            json!({"info": {"role": "assistant"}, "parts": [{"type": "text", "text": "done"}]});
        Self {
            parent: new.parent.clone(),
            metadata: Some(new.tag.metadata()),
            directory: new.directory.to_string(),
            messages: vec![Message::read(&message)],
            todos: Vec::new(),
            status: Some(SessionStatus::Busy),
            reverted: false,
        }
    }

    /// Applies a declaration; fields that it leaves out stay.
    pub fn apply(&mut self, change: &Declared) {
        if let Some(messages) = &change.messages {
            self.messages = messages.iter().map(Message::read).collect();
        }
        if let Some(todos) = &change.todos {
            self.todos = todos.iter().map(read_todo).collect();
        }
        if let Some(status) = &change.status {
            self.status = read_status(status);
        }
        if let Some(directory) = &change.directory {
            self.directory.clone_from(directory);
        }
    }

    /// Returns the record that the server answers with.
    pub fn record(&self, id: &SessionId) -> SessionRecord {
        SessionRecord {
            id: Some(id.clone()),
            parent: self.parent.clone(),
            directory: Some(self.directory.clone().into()),
            metadata: self.metadata.clone(),
            reverted: self.reverted,
        }
    }
}

/// Returns a notice as the server lists it. It names neither agent nor model; the messages of the story
/// decide those.
pub fn notice_message(id: &NoticeId) -> Message {
    let part = Part {
        kind: "text".to_owned(),
        text: Some("notice".to_owned()),
        synthetic: true,
        metadata: Some(json!({ "greenroom": { "id": id } })),
        ..Part::default()
    };
    Message {
        role: Some("user".to_owned()),
        parts: vec![part],
        ..Message::default()
    }
}

fn read_todo(value: &Value) -> Todo {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    Todo {
        content: text("content"),
        status: text("status"),
    }
}

fn read_status(value: &Value) -> Option<SessionStatus> {
    match value.as_str().or_else(|| value["type"].as_str())? {
        "busy" => Some(SessionStatus::Busy),
        "idle" => Some(SessionStatus::Idle),
        "retry" => {
            let (attempt, message, until) = read_retry(value);
            Some(SessionStatus::Retry {
                attempt,
                message,
                until,
            })
        }
        _ => None,
    }
}
