//! The frames of the bridge: JSON texts with a `type`. Unknown types and fields are ignored. A frame of a known type that
//! cannot be read is [`FromBridge::Malformed`]; it does not close the socket.

use std::collections::BTreeMap;

use greenroom::domain::ids::SessionId;
use greenroom::domain::lenient_json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::dispatcher::{ToolAnswer, ToolCall};

/// The supported version of the protocol.
pub const PROTOCOL: u32 = 1;

/// The first frame of a bridge, which identifies it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The protocol version of the bridge.
    pub protocol: u32,
    /// The directory of the opencode instance.
    pub directory: String,
    /// The id of its process; pid and directory together identify a bridge.
    pub pid: u32,
    /// The URL of its agent server, if that server listens on a port.
    #[serde(rename = "serverURL", default)]
    pub server_url: Option<String>,
    /// The version of the agent server.
    #[serde(default)]
    pub opencode_version: Option<String>,
    /// The user id of its process.
    #[serde(default)]
    pub uid: Option<u32>,
    /// The secret, unless it was sent as a bearer header.
    #[serde(default)]
    pub token: Option<String>,
}

/// The id that pairs a request with its response: a text or a number, returned unchanged.
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

/// The response to a [`ToBridge::Request`].
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The id of the request.
    pub id: FrameId,
    /// The HTTP status of the agent server.
    pub status: u16,
    /// The body: JSON unchanged, any other body as a text, null if there was none.
    pub body: Value,
}

/// A frame from a bridge.
#[derive(Debug, Clone, PartialEq)]
pub enum FromBridge {
    /// Identifies the bridge.
    Hello(Hello),
    /// An unchanged event of the agent server.
    Event(Value),
    /// An agent calls a Greenroom tool.
    ToolCall(ToolCall),
    /// A tool call that cannot be read; its caller still waits for an answer.
    BadToolCall {
        /// The id of the call.
        id: FrameId,
        /// The problem.
        problem: String,
    },
    /// The agent no longer waits for that call.
    ToolAbort(FrameId),
    /// The agent server's response to a request.
    Response(Response),
    /// A session is being compacted; asks for the text that it carries along.
    Compaction {
        /// Returned with the answer.
        id: Option<FrameId>,
        /// The session.
        session: SessionId,
    },
    /// Events were lost: running tasks are to be reconciled.
    Reconcile,
    /// An instance of the bridge's directory is being disposed; aborts of its sessions follow.
    Disposing,
    /// A type of a later protocol version, which is ignored.
    Unknown(String),
    /// A text that is not a valid frame, with the problem.
    Malformed(String),
}

impl FromBridge {
    /// Reads one text frame.
    pub fn read(text: &str) -> Self {
        let mut frame = match lenient_json::read::<Value>(text.as_bytes()) {
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
                None => Self::Malformed("toolAbort: `id` is the id of the call".to_owned()),
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
            "disposing" => Self::Disposing,
            _ => Self::Unknown(kind),
        }
    }
}

/// The type and id of a frame whose other fields cannot be read.
#[derive(Deserialize)]
struct Outline {
    #[serde(rename = "type")]
    kind: String,
    id: FrameId,
    status: Option<u16>,
}

/// Reads the outline of an unreadable frame (nested too deep, or with a number that is too large), so that a caller that
/// waits for it gets an answer.
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
        return bad("toolCall: `context` names the calling session");
    };
    match crate::dispatcher::ToolContext::read(context) {
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
        return FromBridge::Malformed("response: `id` is the id of the request".to_owned());
    };
    let status = frame.get("status").and_then(Value::as_u64);
    let Some(status) = status.and_then(|status| u16::try_from(status).ok()) else {
        return FromBridge::Malformed("response: `status` is an HTTP status".to_owned());
    };
    let body = frame.remove("body").unwrap_or_default();
    FromBridge::Response(Response { id, status, body })
}

/// A frame to a bridge.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum ToBridge<'a> {
    /// The hello is accepted.
    Welcome {
        /// The protocol version.
        protocol: u32,
        /// The id of this service process; another one after a restart.
        instance: &'a str,
    },
    /// The last frame was not valid and had no effect.
    Error {
        /// The problem and what to do.
        message: &'a str,
    },
    /// The result of a tool call.
    ToolResult {
        /// The id of the call.
        id: &'a FrameId,
        /// The answer of the tool.
        #[serde(flatten)]
        answer: &'a ToolAnswer,
    },
    /// A call of the agent server's API, to be made by the bridge.
    Request {
        /// Returned with the response.
        id: &'a FrameId,
        /// `GET`, `POST`, …
        method: &'a str,
        /// Percent-encoded, for instance `/session/ses_1/message`.
        path: &'a str,
        /// The query parameters.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        query: &'a BTreeMap<String, String>,
        /// The JSON body.
        #[serde(skip_serializing_if = "Option::is_none")]
        body: Option<&'a Value>,
    },
    /// A child session was created and prompted.
    SessionCreated {
        /// The child.
        #[serde(rename = "sessionID")]
        session: &'a SessionId,
        /// The parent session.
        #[serde(rename = "parentID")]
        parent: &'a SessionId,
        /// The title of the child.
        title: &'a str,
    },
    /// The text that the compaction of a session carries along.
    CompactionContext {
        /// The id of the request.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a FrameId>,
        /// The session.
        #[serde(rename = "sessionID")]
        session: &'a SessionId,
        /// The text; empty if the session has no tasks.
        markdown: &'a str,
    },
}

impl ToBridge<'_> {
    /// Returns the JSON text of the frame.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("a frame always has a JSON form")
    }
}

#[cfg(test)]
mod tests;
