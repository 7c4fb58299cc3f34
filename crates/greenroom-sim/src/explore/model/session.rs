//! One session of the model: its messages as the server lists them, its todos, and the turn it is in.

use greenroom::domain::ids::SessionId;
use greenroom::domain::transcript::Message;
use greenroom::ports::agent_server::{SessionRecord, SessionStatus, Todo};
use serde_json::{Value, json};

use super::turn::Turn;

/// A session.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) parent: Option<SessionId>,
    pub(super) directory: String,
    pub(super) metadata: Option<Value>,
    /// As `GET /session/{id}/message` has them.
    pub(super) messages: Vec<Value>,
    pub(super) open_todos: usize,
    pub(super) turn: Option<Turn>,
    /// How many turns there were.
    pub(super) turns: u32,
    /// How many events were emitted: they are named by it.
    pub(super) events: u32,
    pub(super) deleted: bool,
    pub(super) agent: String,
}

impl Session {
    /// What the status call says; none leaves it out.
    pub(super) fn status(&self) -> Option<SessionStatus> {
        let turn = self.turn.as_ref()?;
        Some(match &turn.retry {
            None => SessionStatus::Busy,
            Some(attempt) => SessionStatus::Retry {
                attempt: Some(*attempt),
                message: "too many requests".to_owned(),
                until: None,
            },
        })
    }

    /// What the server answers when asked for it.
    pub(super) fn record(&self, id: &SessionId) -> SessionRecord {
        SessionRecord {
            id: Some(id.clone()),
            parent: self.parent.clone(),
            directory: Some(self.directory.clone().into()),
            metadata: self.metadata.clone(),
        }
    }

    /// The newest messages, oldest first.
    pub(super) fn newest(&self, limit: Option<usize>) -> Vec<Message> {
        let from = self
            .messages
            .len()
            .saturating_sub(limit.unwrap_or(usize::MAX));
        self.messages[from..].iter().map(Message::read).collect()
    }

    /// Its todo list.
    pub(super) fn todos(&self) -> Vec<Todo> {
        (0..self.open_todos)
            .map(|number| Todo {
                content: format!("todo {number}"),
                status: "pending".to_owned(),
            })
            .collect()
    }

    /// The info of the newest assistant message.
    pub(super) fn answer(&mut self) -> Option<&mut Value> {
        self.messages
            .iter_mut()
            .rev()
            .find(|message| message["info"]["role"] == "assistant")
            .map(|message| &mut message["info"])
    }

    /// The info of the newest user message.
    pub(super) fn question(&self) -> Option<&Value> {
        self.messages
            .iter()
            .rev()
            .map(|message| &message["info"])
            .find(|info| info["role"] == "user")
    }

    /// Adds a part to the newest message, or replaces the part of that id, and gives it.
    pub(super) fn put_part(&mut self, part: Value) -> Value {
        if let Some(message) = self.messages.last_mut() {
            let mut part = part;
            part["messageID"] = message["info"]["id"].clone();
            part["sessionID"] = message["info"]["sessionID"].clone();
            if let Some(parts) = message["parts"].as_array_mut() {
                match parts.iter_mut().find(|known| known["id"] == part["id"]) {
                    Some(known) => *known = part.clone(),
                    None => parts.push(part.clone()),
                }
            }
            return part;
        }
        part
    }
}

/// A user's message with one text part.
pub(super) fn user_message(
    id: &str,
    session: &SessionId,
    now: i64,
    agent: &str,
    part: Value,
) -> Value {
    json!({
        "info": {
            "id": id, "sessionID": session, "role": "user", "time": {"created": now}, "agent": agent,
            "model": {"providerID": "acme", "modelID": "small"},
        },
        "parts": [part],
    })
}

/// An assistant's message that has only begun.
pub(super) fn assistant_message(id: &str, session: &SessionId, now: i64, agent: &str) -> Value {
    json!({
        "info": {
            "id": id, "sessionID": session, "role": "assistant", "time": {"created": now}, "agent": agent,
            "providerID": "acme", "modelID": "small",
        },
        "parts": [],
    })
}
