//! Messages of a session as the domain reads them. One tolerant reader: what the server sends beyond it is ignored, what
//! it leaves out is absent, and nothing it sends is an error.

use serde_json::Value;

use super::ids::{MessageId, ModelRef, Run, TaskId};
use super::time::Timestamp;

/// One message of a session.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message {
    /// Its id; scripted servers leave it out.
    pub id: Option<MessageId>,
    /// `user`, `assistant`, `tool`, …
    pub role: Option<String>,
    /// When it was made, by the server's clock.
    pub created: Option<Timestamp>,
    /// When it was finished, by the server's clock.
    pub completed: Option<Timestamp>,
    /// Why it finished: `stop`, `tool-calls`, …
    pub finish: Option<String>,
    /// What went wrong in it, as a text.
    pub error: Option<String>,
    /// True if that error says that somebody aborted the session.
    pub aborted: bool,
    /// The agent it was for or from.
    pub agent: Option<String>,
    /// The model it names, always a pair.
    pub model: Option<ModelRef>,
    /// True for the summary a compaction leaves behind.
    pub summary: bool,
    /// What it is made of.
    pub parts: Vec<Part>,
}

/// One part of a message.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Part {
    /// Its id.
    pub id: Option<String>,
    /// `text`, `reasoning`, `tool`, `tool_result`, `step-start`, …
    pub kind: String,
    /// The text of a text or reasoning part.
    pub text: Option<String>,
    /// The tool it names.
    pub tool: Option<String>,
    /// The call it belongs to.
    pub call: Option<String>,
    /// What the tool was given.
    pub input: Option<Value>,
    /// `pending`, `running`, `completed` or `error`.
    pub tool_status: Option<String>,
    /// What the tool gave back, or a tool result's content.
    pub output: Option<String>,
    /// True if a tool result's content is not empty (an array counts by its elements).
    pub has_content: bool,
    /// Made by a machine, not typed by the user.
    pub synthetic: bool,
    /// What we or others attached to it.
    pub metadata: Option<Value>,
}

impl Message {
    /// Reads `{"info": {…}, "parts": […]}`; anything missing or of another shape is absent.
    pub fn read(value: &Value) -> Message {
        let mut message = Self::read_info(value.get("info").unwrap_or(&Value::Null));
        message.parts = value
            .get("parts")
            .and_then(Value::as_array)
            .map(|parts| parts.iter().map(Part::read).collect())
            .unwrap_or_default();
        message
    }

    /// Reads a message's `info` alone, as events carry it.
    pub fn read_info(info: &Value) -> Message {
        let text = |key: &str| info.get(key).and_then(Value::as_str).map(str::to_owned);
        let time = |key: &str| info.pointer(&format!("/time/{key}")).and_then(millis);
        Message {
            id: text("id").map(MessageId::from),
            role: text("role"),
            created: time("created"),
            completed: time("completed"),
            finish: text("finish"),
            error: info
                .get("error")
                .filter(|error| !error.is_null())
                .map(error_text),
            aborted: info.pointer("/error/name").and_then(Value::as_str)
                == Some("MessageAbortedError"),
            agent: text("agent").filter(|agent| !agent.is_empty()),
            model: info
                .get("model")
                .and_then(read_model)
                .or_else(|| read_model(info)),
            summary: info
                .get("summary")
                .and_then(Value::as_bool)
                .unwrap_or(false)
                || text("agent").as_deref() == Some("compaction"),
            parts: Vec::new(),
        }
    }

    /// True for what the agent says or does, false for the user and the system.
    pub fn is_from_agent(&self) -> bool {
        matches!(self.role.as_deref(), Some("assistant" | "tool"))
    }

    /// True if an assistant message is really finished: completed, and not only to call a tool.
    pub fn is_finished_turn(&self) -> bool {
        self.role.as_deref() == Some("assistant")
            && self.completed.is_some()
            && self
                .finish
                .as_deref()
                .is_some_and(|finish| finish != "tool-calls")
    }

    /// True if it is a prompt of that run: its part carries the metadata it was sent with.
    pub fn is_prompt_of(&self, task: &TaskId, run: Run) -> bool {
        let metadata = self.parts.iter().filter_map(|part| part.metadata.as_ref());
        metadata
            .filter_map(|metadata| metadata.get("greenroom"))
            .any(|ours| {
                ours.get("task").and_then(Value::as_str) == Some(task.as_str())
                    && ours.get("run").and_then(Value::as_u64) == Some(u64::from(run.0))
            })
    }

    /// The text of its text parts, joined. Blank ones are left out: an answer that was cut off and begun again leaves one.
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self
            .parts
            .iter()
            .filter(|part| part.kind == "text")
            .filter_map(|part| part.text.as_deref())
            .filter(|text| !text.trim().is_empty())
            .collect();
        texts.join("\n")
    }
}

impl Part {
    /// Reads one part; anything missing or of another shape is absent.
    pub fn read(value: &Value) -> Part {
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let state = value.get("state").unwrap_or(&Value::Null);
        let content = value.get("content").unwrap_or(&Value::Null);
        let output = state
            .get("output")
            .or_else(|| state.get("error"))
            .and_then(Value::as_str)
            .map(str::to_owned);
        Part {
            id: text("id"),
            kind: text("type").unwrap_or_default(),
            text: text("text"),
            tool: text("tool").filter(|tool| !tool.is_empty()),
            call: text("callID").or_else(|| text("callId")),
            input: state.get("input").filter(|input| !input.is_null()).cloned(),
            tool_status: state
                .get("status")
                .and_then(Value::as_str)
                .map(str::to_owned),
            output: output.or_else(|| content_text(content)),
            has_content: match content {
                Value::String(text) => !text.trim().is_empty(),
                Value::Array(items) => !items.is_empty(),
                _ => false,
            },
            synthetic: value
                .get("synthetic")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            metadata: value
                .get("metadata")
                .filter(|metadata| !metadata.is_null())
                .cloned(),
        }
    }

    /// True for a part of type `tool`, or one that names a tool.
    pub fn is_tool(&self) -> bool {
        self.kind == "tool" || self.tool.is_some()
    }

    /// The id of our notice, if this part is one.
    pub fn notice_id(&self) -> Option<&str> {
        self.metadata.as_ref()?.pointer("/greenroom/id")?.as_str()
    }
}

/// The text of an error in any of the server's shapes: `data.message`, else `message`, else its name, else the error
/// itself if it is a text, else "unknown error"; at most 2,000 characters.
pub fn error_text(error: &Value) -> String {
    let text = error
        .pointer("/data/message")
        .and_then(Value::as_str)
        .or_else(|| error.get("message").and_then(Value::as_str))
        .or_else(|| error.get("name").and_then(Value::as_str))
        .or_else(|| error.as_str())
        .filter(|text| !text.trim().is_empty())
        .map_or("unknown error", without_stack);
    super::task::cut(text, 2000).to_owned()
}

fn content_text(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            let texts: Vec<&str> = items
                .iter()
                .filter_map(|item| item.get("text").and_then(Value::as_str))
                .collect();
            Some(texts.join("\n"))
        }
        _ => None,
    }
}

fn read_model(value: &Value) -> Option<ModelRef> {
    let text = |key: &str| {
        value
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    Some(ModelRef {
        provider_id: text("providerID")?,
        model_id: text("modelID")?,
        variant: text("variant"),
    })
}

fn millis(value: &Value) -> Option<Timestamp> {
    let number = value
        .as_i64()
        .or_else(|| value.as_f64().map(|float| float as i64))?;
    Some(Timestamp::from_millis(number))
}

/// A text without the stack trace that opencode puts behind some of its messages: frames are its own business, and
/// people look for the sentence before them.
pub fn without_stack(text: &str) -> &str {
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        if is_frame(line.trim()) {
            break;
        }
        end += line.len();
    }
    // A text of frames alone is better than none.
    match text[..end].trim_end() {
        "" => text,
        before => before,
    }
}

/// `at name (file:1:2)`, `at file:1:2`, `at <anonymous>`; not `at ["parts"]`, which names a place in what was sent.
fn is_frame(line: &str) -> bool {
    line.strip_prefix("at ").is_some_and(|place| {
        place.ends_with(')')
            || place.ends_with('>')
            || place
                .rsplit_once(':')
                .is_some_and(|(_, column)| column.parse::<u32>().is_ok())
    })
}
