//! The messages of a session. The reader is tolerant: additional data is ignored, missing data is absent, and no input
//! is an error.

use serde_json::Value;

use super::ids::{MessageId, ModelRef, Run, SessionId, TaskId};
use super::time::Timestamp;

/// One message of a session.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message {
    /// The id; scripted servers omit it.
    pub id: Option<MessageId>,
    /// `user`, `assistant`, `tool`, …
    pub role: Option<String>,
    /// The time of creation, by the server's clock.
    pub created: Option<Timestamp>,
    /// The time of completion, by the server's clock.
    pub completed: Option<Timestamp>,
    /// The finish reason: `stop`, `tool-calls`, …
    pub finish: Option<String>,
    /// The text of its error.
    pub error: Option<String>,
    /// True if the error is an abort of the session.
    pub aborted: bool,
    /// The agent that it was sent to or by.
    pub agent: Option<String>,
    /// The model that it names.
    pub model: Option<ModelRef>,
    /// True for the summary a compaction leaves behind.
    pub summary: bool,
    /// The parts.
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
    /// The name of the tool.
    pub tool: Option<String>,
    /// The id of the tool call.
    pub call: Option<String>,
    /// The input of the tool.
    pub input: Option<Value>,
    /// `pending`, `running`, `completed` or `error`.
    pub tool_status: Option<String>,
    /// The output of the tool, or the content of a tool result.
    pub output: Option<String>,
    /// True if a tool result's content is not empty (an array counts by its elements).
    pub has_content: bool,
    /// True if created by a program, not typed by the user.
    pub synthetic: bool,
    /// The attached metadata; of a call of a `background_*` tool the metadata of its result.
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

    /// Returns true for a message of the agent, false for the user and the system.
    pub fn is_from_agent(&self) -> bool {
        matches!(self.role.as_deref(), Some("assistant" | "tool"))
    }

    /// Returns true if an assistant message ends a turn: it is completed, and not only to call a tool.
    pub fn is_finished_turn(&self) -> bool {
        self.role.as_deref() == Some("assistant")
            && self.completed.is_some()
            && self
                .finish
                .as_deref()
                .is_some_and(|finish| finish != "tool-calls")
    }

    /// Returns true if it is a prompt of this run: its part carries the correlation tag.
    pub fn is_prompt_of(&self, task: &TaskId, run: Run) -> bool {
        let metadata = self.parts.iter().filter_map(|part| part.metadata.as_ref());
        metadata
            .filter_map(|metadata| metadata.get("greenroom"))
            .any(|ours| {
                ours.get("task").and_then(Value::as_str) == Some(task.as_str())
                    && ours.get("run").and_then(Value::as_u64) == Some(u64::from(run.0))
            })
    }

    /// Returns true if the message is the prompt of this attempt of the run.
    pub fn is_prompt_of_attempt(&self, task: &TaskId, run: Run, attempt: u32) -> bool {
        let metadata = self.parts.iter().filter_map(|part| part.metadata.as_ref());
        self.is_prompt_of(task, run)
            && metadata
                .filter_map(|metadata| metadata.get("greenroom"))
                .any(|ours| ours.get("attempt").and_then(Value::as_u64) == Some(u64::from(attempt)))
    }

    /// Returns the text parts, joined by newlines. Blank parts are skipped: an answer that was interrupted and
    /// restarted leaves one.
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

/// Returns true for a call of a Greenroom tool. The metadata of other tools may be large and is not read.
fn is_own_tool(part: &Value) -> bool {
    let tool = part.get("tool").and_then(Value::as_str);
    tool.is_some_and(|tool| tool.contains("background_"))
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
                .or_else(|| state.get("metadata").filter(|_| is_own_tool(value)))
                .filter(|metadata| !metadata.is_null())
                .cloned(),
        }
    }

    /// Returns true for a part of type `tool`, or a part that names a tool.
    pub fn is_tool(&self) -> bool {
        self.kind == "tool" || self.tool.is_some()
    }

    /// Returns true if this part is a notice that names the task, or the result of a Greenroom tool about it.
    pub fn names_task(&self, task: &TaskId, session: Option<&SessionId>) -> bool {
        let Some(metadata) = &self.metadata else {
            return false;
        };
        let text = |key: &str| metadata.get(key).and_then(Value::as_str);
        if self.is_tool() {
            let names = self.tool.as_deref().unwrap_or_default();
            let of_session = [text("sessionId"), text("sessionID")];
            return names.contains("background_")
                && (text("taskId") == Some(task.as_str())
                    || session.is_some_and(|it| of_session.contains(&Some(it.as_str()))));
        }
        let tasks = metadata
            .pointer("/greenroom/tasks")
            .and_then(Value::as_array);
        let mut named = tasks.into_iter().flatten().filter_map(Value::as_str);
        self.notice_id().is_some() && named.any(|named| named == task.as_str())
    }

    /// Returns the id of the notice, if this part is a notice of the system.
    pub fn notice_id(&self) -> Option<&str> {
        self.metadata.as_ref()?.pointer("/greenroom/id")?.as_str()
    }
}

/// Returns the text of an error in any of the server's shapes: `data.message`, else `message`, else its name, else the
/// error itself if it is a text, else "unknown error"; at most 2,000 characters.
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

/// Returns the text without the stack trace that opencode appends to some messages. People need the sentence before the
/// frames.
pub fn without_stack(text: &str) -> &str {
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        if is_frame(line.trim()) {
            break;
        }
        end += line.len();
    }
    // A text of frames only is returned whole.
    match text[..end].trim_end() {
        "" => text,
        before => before,
    }
}

/// Returns true for `at name (file:1:2)`, `at file:1:2`, `at <anonymous>`; not for `at ["parts"]`, which is a position
/// in a request.
fn is_frame(line: &str) -> bool {
    line.strip_prefix("at ").is_some_and(|place| {
        place.ends_with(')')
            || place.ends_with('>')
            || place
                .rsplit_once(':')
                .is_some_and(|(_, column)| column.parse::<u32>().is_ok())
    })
}
