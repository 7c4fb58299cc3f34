//! The tolerant reader of server events: the only code that knows the positions of ids and parts. Unknown types, fields
//! and shapes are ignored and never an error.

use serde_json::Value;

use super::ids::{MessageId, SessionId};
use super::task::AskKind;
use super::time::Timestamp;
use super::transcript::{Message, Part, error_text};

/// One event that concerns one session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionEvent {
    /// The session that the event names.
    pub session: SessionId,
    /// The kind of event.
    pub kind: SessionEventKind,
}

/// The kind of a session event.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEventKind {
    /// A message was created or changed. The event does not contain its parts.
    Message(Box<Message>),
    /// A part of a message was created or changed.
    Part {
        /// The message it belongs to.
        message: Option<MessageId>,
        /// The part, as far as the event contains it.
        part: Box<Part>,
    },
    /// Text is being streamed into a part.
    Delta {
        /// The message it belongs to.
        message: Option<MessageId>,
    },
    /// The todo list changed, or a step began or ended.
    Work,
    /// The session is busy.
    Busy,
    /// The server backs off.
    Retry {
        /// The attempt reached.
        attempt: Option<u32>,
        /// The provider's text.
        message: String,
        /// When the server tries again.
        until: Option<Timestamp>,
    },
    /// The session is idle.
    Idle,
    /// The session failed.
    Error {
        /// True if the session was aborted.
        aborted: bool,
        /// The text, at most 2,000 characters.
        text: String,
    },
    /// The session waits for an answer to a request.
    AskOpened {
        /// The request.
        id: String,
        /// Its kind.
        kind: AskKind,
        /// The request in one line.
        what: String,
    },
    /// A request was answered or withdrawn.
    Answered {
        /// The request.
        id: String,
    },
    /// The record of the session changed.
    Updated {
        /// True while a revert hides messages that the user can still restore.
        reverted: bool,
    },
    /// The session was deleted.
    Deleted,
}

impl SessionEvent {
    /// Reads one server event, `{"type", "properties"}`. None for an event without a session or without relevance.
    pub fn read(event: &Value) -> Option<SessionEvent> {
        let kind = event.get("type")?.as_str()?;
        let properties = event.get("properties").unwrap_or(event);
        let session = session_of(properties)?;
        let event_kind = match kind {
            "message.updated" => {
                SessionEventKind::Message(Box::new(Message::read_info(properties.get("info")?)))
            }
            "message.part.updated" => part(properties.get("part").unwrap_or(properties)),
            "message.part.delta" => SessionEventKind::Delta {
                message: message_of(properties),
            },
            "todo.updated" => SessionEventKind::Work,
            "session.idle" => SessionEventKind::Idle,
            "session.deleted" => SessionEventKind::Deleted,
            "session.updated" => updated(properties.get("info")?),
            "session.error" => error(properties.get("error").unwrap_or(&Value::Null)),
            "session.status" => status(properties.get("status")?)?,
            "permission.asked" => SessionEventKind::AskOpened {
                id: properties.get("id")?.as_str()?.to_owned(),
                kind: AskKind::Permission,
                what: permission_line(properties),
            },
            "question.asked" => SessionEventKind::AskOpened {
                id: properties.get("id")?.as_str()?.to_owned(),
                kind: AskKind::Question,
                what: question_line(properties),
            },
            "permission.replied" | "question.replied" | "question.rejected" => {
                let id = properties
                    .get("requestID")
                    .or_else(|| properties.get("permissionID"))?;
                SessionEventKind::Answered {
                    id: id.as_str()?.to_owned(),
                }
            }
            _ => return None,
        };
        Some(SessionEvent {
            session,
            kind: event_kind,
        })
    }
}

pub(super) fn part(body: &Value) -> SessionEventKind {
    SessionEventKind::Part {
        message: message_of(body),
        part: Box::new(Part::read(body)),
    }
}

pub(super) fn updated(info: &Value) -> SessionEventKind {
    SessionEventKind::Updated {
        reverted: info.get("revert").is_some_and(|revert| !revert.is_null()),
    }
}

pub(super) fn error(error: &Value) -> SessionEventKind {
    SessionEventKind::Error {
        aborted: error.get("name").and_then(Value::as_str) == Some("MessageAbortedError"),
        text: error_text(error),
    }
}

pub(super) fn status(status: &Value) -> Option<SessionEventKind> {
    let kind = status.get("type").and_then(Value::as_str);
    match kind.or_else(|| status.as_str())? {
        "busy" => Some(SessionEventKind::Busy),
        "idle" => Some(SessionEventKind::Idle),
        "retry" => {
            let (attempt, message, until) = read_retry(status);
            Some(SessionEventKind::Retry {
                attempt,
                message,
                until,
            })
        }
        _ => None,
    }
}

/// Returns `(attempt, message, next)` of a retry status. The message is empty if the server sends none.
pub fn read_retry(status: &Value) -> (Option<u32>, String, Option<Timestamp>) {
    let attempt = status
        .get("attempt")
        .and_then(Value::as_u64)
        .and_then(|attempt| u32::try_from(attempt).ok());
    let message = status
        .get("message")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let until = status
        .get("next")
        .and_then(Value::as_i64)
        .map(Timestamp::from_millis);
    (attempt, super::task::cut(message, 2000).to_owned(), until)
}

/// Returns the session that an event names.
pub fn session_id(event: &Value) -> Option<SessionId> {
    session_of(event.get("properties").unwrap_or(event))
}

fn session_of(properties: &Value) -> Option<SessionId> {
    [
        "/sessionID",
        "/info/sessionID",
        "/part/sessionID",
        "/info/id",
    ]
    .iter()
    .find_map(|place| properties.pointer(place).and_then(Value::as_str))
    .filter(|id| !id.is_empty())
    .map(SessionId::from)
}

fn message_of(body: &Value) -> Option<MessageId> {
    body.get("messageID")
        .and_then(Value::as_str)
        .map(MessageId::from)
}

fn permission_line(properties: &Value) -> String {
    let name = properties
        .get("permission")
        .and_then(Value::as_str)
        .unwrap_or("permission");
    let patterns: Vec<&str> = properties
        .get("patterns")
        .and_then(Value::as_array)
        .map(|patterns| patterns.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    super::task::cut(&format!("{name} {}", patterns.join(" ")), 500)
        .trim_end()
        .to_owned()
}

fn question_line(properties: &Value) -> String {
    let first = properties
        .pointer("/questions/0/question")
        .and_then(Value::as_str)
        .unwrap_or("a question");
    super::task::cut(first, 500).to_owned()
}
