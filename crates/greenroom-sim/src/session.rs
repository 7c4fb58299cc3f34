//! One session of the scripted server: what the story says of it, and how that reads. Only the server holds any.

use greenroom::domain::ids::{NoticeId, SessionId};
use greenroom::domain::session_event::read_retry;
use greenroom::domain::transcript::{Message, Part};
use greenroom::ports::agent_server::{NewSession, SessionRecord, SessionStatus, Todo};
use serde_json::{Value, json};

use crate::story::Declared;

/// Where sessions are that nobody put elsewhere.
pub const BASE: &str = "/base";

/// A session as it is scripted now.
#[derive(Debug, Default, Clone)]
pub struct Session {
    /// The session it was made under.
    pub parent: Option<SessionId>,
    /// What was attached when it was made.
    pub metadata: Option<Value>,
    /// Where it works.
    pub directory: String,
    /// What is said in it.
    pub messages: Vec<Message>,
    /// Its todo list.
    pub todos: Vec<Todo>,
    /// What the status call says of it; none leaves it out.
    pub status: Option<SessionStatus>,
}

impl Session {
    /// One that is declared, not made: no messages, no todos, missing.
    pub fn declared() -> Self {
        Self {
            directory: BASE.to_owned(),
            ..Self::default()
        }
    }

    /// One that was just made: works, and has said something.
    pub fn created(new: &NewSession) -> Self {
        let message =
            json!({"info": {"role": "assistant"}, "parts": [{"type": "text", "text": "done"}]});
        Self {
            parent: new.parent.clone(),
            metadata: Some(new.mark.metadata()),
            directory: new.directory.to_string(),
            messages: vec![Message::read(&message)],
            todos: Vec::new(),
            status: Some(SessionStatus::Busy),
        }
    }

    /// Takes over what is declared; the rest stays.
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

    /// What the server answers when asked for it.
    pub fn record(&self, id: &SessionId) -> SessionRecord {
        SessionRecord {
            id: Some(id.clone()),
            parent: self.parent.clone(),
            directory: Some(self.directory.clone().into()),
            metadata: self.metadata.clone(),
        }
    }
}

/// A notice as the server would list it. It names no agent and no model: the story's messages decide those.
pub fn notice_message(id: &NoticeId) -> Message {
    let part = Part {
        kind: "text".to_owned(),
        text: Some("told".to_owned()),
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
