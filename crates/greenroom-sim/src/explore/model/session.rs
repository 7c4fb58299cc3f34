//! One session of the model: its messages as the server lists them, its todos, and its turn.

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
    /// In the format of `GET /session/{id}/message`.
    pub(super) messages: Vec<Value>,
    pub(super) open_todos: usize,
    pub(super) turn: Option<Turn>,
    /// The number of turns so far.
    pub(super) turns: u32,
    /// The number of events so far. Decisions about events are named by it.
    pub(super) events: u32,
    pub(super) deleted: bool,
    pub(super) agent: String,
    /// The model of the last prompt, which the next prompt without a model inherits; empty for [`MODEL`].
    pub(super) model: String,
    /// The index of the first message that a revert hides.
    pub(super) reverted: Option<usize>,
    /// The number of forks so far.
    pub(super) forks: u32,
}

/// The model of a session before its first prompt, as `provider/model`.
pub(super) const MODEL: &str = "acme/small";

impl Session {
    /// Returns the status in the status call; `None` leaves the session out.
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

    /// Returns provider and name of the model.
    pub(super) fn model(&self) -> (&str, &str) {
        let model = if self.model.is_empty() {
            MODEL
        } else {
            &self.model
        };
        model.split_once('/').unwrap_or((model, ""))
    }

    /// Returns the record that the server answers with.
    pub(super) fn record(&self, id: &SessionId) -> SessionRecord {
        SessionRecord {
            id: Some(id.clone()),
            parent: self.parent.clone(),
            directory: Some(self.directory.clone().into()),
            metadata: self.metadata.clone(),
            reverted: self.reverted.is_some(),
        }
    }

    /// Returns the newest messages, oldest first.
    pub(super) fn newest(&self, limit: Option<usize>) -> Vec<Message> {
        let from = self
            .messages
            .len()
            .saturating_sub(limit.unwrap_or(usize::MAX));
        self.messages[from..].iter().map(Message::read).collect()
    }

    /// Returns the todo list.
    pub(super) fn todos(&self) -> Vec<Todo> {
        (0..self.open_todos)
            .map(|number| Todo {
                content: format!("todo {number}"),
                status: "pending".to_owned(),
            })
            .collect()
    }

    /// Returns the info of the newest assistant message.
    pub(super) fn answer(&mut self) -> Option<&mut Value> {
        self.messages
            .iter_mut()
            .rev()
            .find(|message| message["info"]["role"] == "assistant")
            .map(|message| &mut message["info"])
    }

    /// Returns the info of the newest user message.
    pub(super) fn question(&self) -> Option<&Value> {
        self.messages
            .iter()
            .rev()
            .map(|message| &message["info"])
            .find(|info| info["role"] == "user")
    }

    /// Adds a part to the newest message, or replaces the part with its id, and returns it.
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

/// Returns a user message with one text part.
pub(super) fn user_message(
    id: &str,
    session: &SessionId,
    now: i64,
    agent: &str,
    (provider, model): (&str, &str),
    part: Value,
) -> Value {
    json!({
        "info": {
            "id": id, "sessionID": session, "role": "user", "time": {"created": now}, "agent": agent,
            "model": {"providerID": provider, "modelID": model},
        },
        "parts": [part],
    })
}

/// Returns an assistant message without parts.
pub(super) fn assistant_message(
    id: &str,
    session: &SessionId,
    now: i64,
    agent: &str,
    (provider, model): (&str, &str),
) -> Value {
    json!({
        "info": {
            "id": id, "sessionID": session, "role": "assistant", "time": {"created": now}, "agent": agent,
            "providerID": provider, "modelID": model,
        },
        "parts": [],
    })
}
