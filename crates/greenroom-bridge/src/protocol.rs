//! The frames of the bridge: JSON texts with a `type`. Reading is tolerant: types we do not know are ignored, fields we
//! do not know too; a frame of a known type that cannot be read is [`FromBridge::Malformed`], never an error that ends
//! the socket.

use std::collections::BTreeMap;

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
        let mut frame = match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(frame)) => frame,
            Ok(_) => return Self::Malformed("a frame is a JSON object with a `type`".to_owned()),
            Err(error) => {
                return Self::Malformed(format!("a frame is a JSON object with a `type`; {error}"));
            }
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
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hello_of_a_later_plugin_is_read() {
        let frame = r#"{"type":"hello","protocol":1,"directory":"/p","pid":7,"color":"red"}"#;
        let FromBridge::Hello(hello) = FromBridge::read(frame) else {
            panic!("no hello")
        };
        assert_eq!(
            (hello.protocol, hello.directory.as_str(), hello.pid),
            (1, "/p", 7)
        );
    }

    #[test]
    fn an_event_is_handed_on_as_it_is() {
        let frame = r#"{"type":"event","event":{"type":"session.idle","properties":{"sessionID":"ses_1"}}}"#;
        let FromBridge::Event(event) = FromBridge::read(frame) else {
            panic!("no event")
        };
        assert_eq!(event["properties"]["sessionID"], "ses_1");
    }

    #[test]
    fn unknown_types_are_told_from_broken_frames() {
        assert_eq!(
            FromBridge::read(r#"{"type":"later"}"#),
            FromBridge::Unknown("later".to_owned())
        );
        for broken in [
            "",
            "no json",
            "[]",
            "{}",
            r#"{"type":7}"#,
            r#"{"type":"event"}"#,
            r#"{"type":"hello"}"#,
            r#"{"type":"toolCall","tool":"background_list"}"#,
            r#"{"type":"toolAbort","id":1.5}"#,
            r#"{"type":"response","id":"a"}"#,
            r#"{"type":"response","id":"a","status":70000}"#,
            r#"{"type":"compactionContext","sessionID":""}"#,
        ] {
            assert!(
                matches!(FromBridge::read(broken), FromBridge::Malformed(_)),
                "{broken}"
            );
        }
    }

    #[test]
    fn a_tool_call_is_read_with_what_its_context_says() {
        let frame = json!({"type": "toolCall", "id": 3, "tool": "background_list", "args": {"status": "running"},
            "context": {"sessionID": "ses_1", "messageID": "msg_1", "agent": "build", "directory": "/p", "later": 1}});
        let FromBridge::ToolCall(call) = FromBridge::read(&frame.to_string()) else {
            panic!("no call")
        };
        assert_eq!(call.id, FrameId::Number(3));
        assert_eq!(call.args, json!({"status": "running"}));
        assert_eq!(call.context.session_id, SessionId::from("ses_1"));
        assert_eq!(call.context.agent.as_deref(), Some("build"));
        assert_eq!(call.context.call_id, None);
    }

    #[test]
    fn a_tool_call_that_cannot_be_read_still_has_somebody_waiting() {
        for (frame, says) in [
            (json!({"type": "toolCall", "id": "a"}), "tool"),
            (
                json!({"type": "toolCall", "id": "a", "tool": "t"}),
                "context",
            ),
            (
                json!({"type": "toolCall", "id": "a", "tool": "t", "context": {"sessionID": " "}}),
                "sessionID",
            ),
        ] {
            let FromBridge::BadToolCall { id, problem } = FromBridge::read(&frame.to_string())
            else {
                panic!("{frame}")
            };
            assert_eq!(id, FrameId::from("a"));
            assert!(problem.contains(says), "{problem}");
        }
    }

    #[test]
    fn what_asks_and_answers_is_read() {
        let response = r#"{"type":"response","id":"rq_1","status":204}"#;
        let wanted = Response {
            id: "rq_1".into(),
            status: 204,
            body: Value::Null,
        };
        assert_eq!(FromBridge::read(response), FromBridge::Response(wanted));
        let compaction = r#"{"type":"compactionContext","id":"c","sessionID":"ses_1"}"#;
        let wanted = FromBridge::Compaction {
            id: Some("c".into()),
            session: "ses_1".into(),
        };
        assert_eq!(FromBridge::read(compaction), wanted);
        assert_eq!(
            FromBridge::read(r#"{"type":"toolAbort","id":"a"}"#),
            FromBridge::ToolAbort("a".into())
        );
        assert_eq!(
            FromBridge::read(r#"{"type":"reconcile"}"#),
            FromBridge::Reconcile
        );
    }

    fn json_of(frame: &ToBridge<'_>) -> Value {
        serde_json::from_str(&frame.text()).unwrap()
    }

    #[test]
    fn frames_read_as_the_protocol_says() {
        let welcome = ToBridge::Welcome {
            protocol: 1,
            instance: "gr_1",
        };
        assert_eq!(
            welcome.text(),
            r#"{"type":"welcome","protocol":1,"instance":"gr_1"}"#
        );
        assert_eq!(
            ToBridge::Error { message: "no" }.text(),
            r#"{"type":"error","message":"no"}"#
        );
        let id = FrameId::from("1");
        let query = BTreeMap::from([("limit".to_owned(), "5".to_owned())]);
        let request = ToBridge::Request {
            id: &id,
            method: "GET",
            path: "/session/ses_1/message",
            query: &query,
            body: None,
        };
        assert_eq!(
            json_of(&request),
            json!({"type": "request", "id": "1", "method": "GET", "path": "/session/ses_1/message",
                "query": {"limit": "5"}})
        );
        let (child, parent) = (SessionId::from("ses_2"), SessionId::from("ses_1"));
        let created = ToBridge::SessionCreated {
            session: &child,
            parent: &parent,
            title: "t",
        };
        assert_eq!(
            json_of(&created),
            json!({"type": "sessionCreated", "sessionID": "ses_2", "parentID": "ses_1", "title": "t"})
        );
        let context = ToBridge::CompactionContext {
            id: None,
            session: &parent,
            markdown: "",
        };
        assert_eq!(
            json_of(&context),
            json!({"type": "compactionContext", "sessionID": "ses_1", "markdown": ""})
        );
    }

    #[test]
    fn a_tools_answer_stands_beside_its_id() {
        let id = FrameId::Number(7);
        let answer = ToolAnswer {
            metadata: Some(json!({"sessionId": "ses_2"})),
            ..ToolAnswer::saying("launched")
        };
        let result = ToBridge::ToolResult {
            id: &id,
            answer: &answer,
        };
        assert_eq!(
            json_of(&result),
            json!({"type": "toolResult", "id": 7, "output": "launched", "metadata": {"sessionId": "ses_2"}})
        );
    }
}
