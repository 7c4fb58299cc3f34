//! The frames of the bridge: JSON texts with a `type`. Reading is tolerant: types we do not know are ignored, fields we
//! do not know too; a frame of a known type that cannot be read is [`FromBridge::Malformed`], never an error that ends
//! the socket.

use std::collections::BTreeMap;

use greenroom::domain::halves;
use greenroom::domain::ids::SessionId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::desk::{ToolAnswer, ToolCall};

/// The version of the protocol spoken here.
pub const PROTOCOL: u32 = 1;

/// The first frame of a bridge: who it is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The version it speaks.
    pub protocol: u32,
    /// The directory of the agent server's instance.
    pub directory: String,
    /// The process it lives in; with the directory it is the identity of a bridge.
    pub pid: u32,
    /// Where its server listens, if it does.
    #[serde(rename = "serverURL", default)]
    pub server_url: Option<String>,
    /// The version of the agent server.
    #[serde(default)]
    pub opencode_version: Option<String>,
    /// The secret, if the service has one and no bearer header brought it.
    #[serde(default)]
    pub token: Option<String>,
}

/// What pairs a question with its answer: a text or a number, given back as it came.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FrameId {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
}

impl FrameId {
    fn of(frame: &Map<String, Value>) -> Option<Self> {
        match frame.get("id")? {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Number(number) => number.as_i64().map(Self::Number),
            _ => None,
        }
    }
}

impl From<&str> for FrameId {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl std::fmt::Display for FrameId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// The answer to a [`ToBridge::Request`].
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// Of the request.
    pub id: FrameId,
    /// The HTTP status that the agent server has answered.
    pub status: u16,
    /// The body: JSON as it is, another body as its text, null if there was none.
    pub body: Value,
}

/// What a bridge says.
#[derive(Debug, Clone, PartialEq)]
pub enum FromBridge {
    /// Who it is.
    Hello(Hello),
    /// An event of the agent server, as it is.
    Event(Value),
    /// An agent uses one of our tools.
    ToolCall(ToolCall),
    /// A call of a tool that cannot be read; its caller waits for an answer all the same.
    BadToolCall {
        /// Of the call.
        id: FrameId,
        /// What is wrong with it.
        problem: String,
    },
    /// Nobody waits for that call any more.
    ToolAbort(FrameId),
    /// The agent server has answered a request of ours.
    Response(Response),
    /// A session is being compacted: what is to be carried along?
    Compaction {
        /// Given back with the answer.
        id: Option<FrameId>,
        /// The session.
        session: SessionId,
    },
    /// Events were lost: everything that runs is to be looked at.
    Reconcile,
    /// A type of a later version: ignored.
    Unknown(String),
    /// No frame of ours; why.
    Malformed(String),
}

impl FromBridge {
    /// Reads one text frame.
    pub fn read(text: &str) -> Self {
        let mut frame = match halves::read::<Value>(text.as_bytes()) {
            Ok(Value::Object(frame)) => frame,
            Ok(_) => return Self::Malformed("a frame is a JSON object with a `type`".to_owned()),
            Err(error) => return unreadable(text, &error),
        };
        let Some(kind) = frame.get("type").and_then(Value::as_str).map(str::to_owned) else {
            return Self::Malformed("the frame has no `type`".to_owned());
        };
        match kind.as_str() {
            "hello" => match serde_json::from_value(Value::Object(frame)) {
                Ok(hello) => Self::Hello(hello),
                Err(error) => Self::Malformed(format!("hello: {error}")),
            },
            "event" => match frame.remove("event") {
                Some(event @ Value::Object(_)) => Self::Event(event),
                _ => Self::Malformed(
                    "event: `event` is the agent server's event, an object".to_owned(),
                ),
            },
            "toolCall" => tool_call(frame),
            "toolAbort" => match FrameId::of(&frame) {
                Some(id) => Self::ToolAbort(id),
                None => Self::Malformed("toolAbort: `id` is that of the call".to_owned()),
            },
            "response" => response(frame),
            "compactionContext" => match text_at(&frame, "sessionID") {
                Some(session) => Self::Compaction {
                    id: FrameId::of(&frame),
                    session: SessionId::from(session),
                },
                None => Self::Malformed(
                    "compactionContext: `sessionID` is the session that is compacted".to_owned(),
                ),
            },
            "reconcile" => Self::Reconcile,
            _ => Self::Unknown(kind),
        }
    }
}

/// What a frame is and whose, where the rest of it cannot be read.
#[derive(Deserialize)]
struct Outline {
    #[serde(rename = "type")]
    kind: String,
    id: FrameId,
    status: Option<u16>,
}

/// A frame that cannot be read (it is nested too deep, or a number of it is too large): whoever waits for what it brings
/// is not left waiting.
fn unreadable(text: &str, error: &serde_json::Error) -> FromBridge {
    let problem = format!("a frame is a JSON object with a `type`; {error}");
    let Ok(outline) = serde_json::from_str::<Outline>(text) else {
        return FromBridge::Malformed(problem);
    };
    match (outline.kind.as_str(), outline.status) {
        ("toolCall", _) => FromBridge::BadToolCall {
            id: outline.id,
            problem: format!("toolCall: it cannot be read: {error}"),
        },
        ("response", Some(status)) => FromBridge::Response(Response {
            id: outline.id,
            status,
            body: Value::String(format!("it cannot be read: {error}")),
        }),
        _ => FromBridge::Malformed(problem),
    }
}

fn text_at<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object
        .get(key)
        .and_then(Value::as_str)
        .map(str::trim)
        .filter(|text| !text.is_empty())
}

fn tool_call(mut frame: Map<String, Value>) -> FromBridge {
    let Some(id) = FrameId::of(&frame) else {
        return FromBridge::Malformed("toolCall: `id` is a text of the caller's own".to_owned());
    };
    let bad = |problem: &str| FromBridge::BadToolCall {
        id: id.clone(),
        problem: problem.to_owned(),
    };
    let Some(tool) = text_at(&frame, "tool").map(str::to_owned) else {
        return bad("toolCall: `tool` is the tool's name");
    };
    let args = frame.remove("args").unwrap_or_default();
    let Some(context) = frame.get("context").and_then(Value::as_object) else {
        return bad("toolCall: `context` says which session calls");
    };
    match crate::desk::ToolContext::read(context) {
        Some(context) => FromBridge::ToolCall(ToolCall {
            id,
            tool,
            args,
            context,
        }),
        None => bad("toolCall: `context.sessionID` is the session that calls"),
    }
}

fn response(mut frame: Map<String, Value>) -> FromBridge {
    let Some(id) = FrameId::of(&frame) else {
        return FromBridge::Malformed("response: `id` is that of the request".to_owned());
    };
    let status = frame.get("status").and_then(Value::as_u64);
    let Some(status) = status.and_then(|status| u16::try_from(status).ok()) else {
        return FromBridge::Malformed("response: `status` is an HTTP status".to_owned());
    };
    let body = frame.remove("body").unwrap_or_default();
    FromBridge::Response(Response { id, status, body })
}

/// What is said to a bridge.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum ToBridge<'a> {
    /// The hello is accepted.
    Welcome {
        /// The version spoken.
        protocol: u32,
        /// Which service this is; another one after a restart.
        instance: &'a str,
    },
    /// The frame before was not understood and has had no effect.
    Error {
        /// What is wrong and what to do.
        message: &'a str,
    },
    /// What came of a call of a tool.
    ToolResult {
        /// Of the call.
        id: &'a FrameId,
        /// What the agent reads, and how it is shown.
        #[serde(flatten)]
        answer: &'a ToolAnswer,
    },
    /// A call of the agent server's API, to be made by the bridge.
    Request {
        /// Given back with the answer.
        id: &'a FrameId,
        /// `GET`, `POST`, …
        method: &'a str,
        /// Percent-encoded, for instance `/session/ses_1/message`.
        path: &'a str,
        /// Texts by name.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        query: &'a BTreeMap<String, String>,
        /// JSON.
        #[serde(skip_serializing_if = "Option::is_none")]
        body: Option<&'a Value>,
    },
    /// A child session was made and has its prompt.
    SessionCreated {
        /// The child.
        #[serde(rename = "sessionID")]
        session: &'a SessionId,
        /// Whose child.
        #[serde(rename = "parentID")]
        parent: &'a SessionId,
        /// What it is called.
        title: &'a str,
    },
    /// What a session's compaction carries along.
    CompactionContext {
        /// Of the question.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a FrameId>,
        /// The session.
        #[serde(rename = "sessionID")]
        session: &'a SessionId,
        /// Empty if there is nothing to carry.
        markdown: &'a str,
    },
}

impl ToBridge<'_> {
    /// The frame's text.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("texts, numbers and JSON always have a JSON form")
    }
}

#[cfg(test)]
mod tests;
