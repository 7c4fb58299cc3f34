//! The output of a run: its detection, results and transcripts.

use serde::{Deserialize, Serialize};

use super::task::Task;
use super::transcript::Message;

/// Options of reading a task's output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputOptions {
    /// Returns all messages, not only the last answer.
    pub full_session: bool,
    /// Includes reasoning.
    pub include_thinking: bool,
    /// Includes tool results.
    pub include_tool_results: bool,
    /// The maximum number of messages; 100 by default and at most.
    pub message_limit: Option<usize>,
    /// Returns the newest messages instead of the oldest.
    pub from_end: bool,
    /// Returns only messages after this one.
    pub since_message: Option<String>,
    /// The maximum length of reasoning in characters; 2,000 by default.
    pub thinking_max_chars: Option<usize>,
    /// The number of characters to skip at the start of the result.
    pub result_offset: usize,
}

/// The output of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Output {
    /// The current task.
    pub task: Task,
    /// The text of the last answer of an ended task, at most 32,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// The messages of the session or of the answer, if requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<OutputMessage>>,
    /// True if there are more messages than returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_more: Option<bool>,
    /// True if the caller's wait for the end timed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timed_out: Option<bool>,
}

/// One message, for readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OutputMessage {
    /// The server's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `user`, `assistant`, …
    pub role: String,
    /// The agent that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The text.
    pub text: String,
    /// The reasoning, if requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    /// The tool calls, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<OutputTool>,
}

/// One tool call, for readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OutputTool {
    /// Its name.
    pub tool: String,
    /// Its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The result, if requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// A page of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagePage {
    /// The messages, oldest first.
    pub messages: Vec<OutputMessage>,
    /// True if there are more messages.
    pub has_more: bool,
}

/// Returns true if a message contains output: non-blank text or reasoning, a tool part, or a tool result that is not
/// empty.
pub fn is_output(message: &Message) -> bool {
    message.is_from_agent()
        && message.parts.iter().any(|part| match part.kind.as_str() {
            "text" | "reasoning" => part
                .text
                .as_deref()
                .is_some_and(|text| !text.trim().is_empty()),
            "tool" => true,
            "tool_result" => part.has_content,
            _ => false,
        })
}

/// Selects the messages of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunScope {
    /// The task.
    pub task: super::ids::TaskId,
    /// Its run.
    pub run: super::ids::Run,
    /// The start of the run.
    pub started: super::time::Timestamp,
    /// True for the first run in a session created for it: every message belongs to the run.
    pub own_session: bool,
    /// The attempt that continues the session of a run that was cut off: only messages after its prompt count. None
    /// for the whole run.
    pub attempt: Option<u32>,
}

/// Returns the messages of a run. The prompt carries task and run, so the messages after it belong to the run. Without
/// the prompt, messages created since the start of the run count, and messages without a time.
pub fn of_run<'a>(messages: &'a [Message], scope: &RunScope) -> &'a [Message] {
    if scope.own_session && scope.attempt.is_none() {
        return messages;
    }
    let is_prompt = |message: &Message| match scope.attempt {
        Some(attempt) => message.is_prompt_of_attempt(&scope.task, scope.run, attempt),
        None => message.is_prompt_of(&scope.task, scope.run),
    };
    if let Some(prompt) = messages.iter().position(is_prompt) {
        return &messages[prompt + 1..];
    }
    let old = |message: &Message| {
        message
            .created
            .is_some_and(|created| created.is_wall_before(scope.started))
    };
    let first = messages
        .iter()
        .rposition(old)
        .map_or(0, |last_old| last_old + 1);
    &messages[first..]
}

/// Returns the findings of a completion check in the messages of a run. Todos are counted separately.
pub fn findings(messages: &[Message], scope: &RunScope) -> super::watch::CheckFindings {
    let own = of_run(messages, scope);
    let last = own
        .iter()
        .rev()
        .find(|message| message.role.as_deref() == Some("assistant") && !message.summary);
    super::watch::CheckFindings {
        prompted: match scope.attempt {
            None => {
                scope.own_session
                    || messages
                        .iter()
                        .any(|message| message.is_prompt_of(&scope.task, scope.run))
            }
            Some(attempt) => messages
                .iter()
                .any(|message| message.is_prompt_of_attempt(&scope.task, scope.run, attempt)),
        },
        output: own.iter().any(is_output),
        finished: own.iter().any(|message| {
            message.role.as_deref() == Some("assistant")
                && message.completed.is_some()
                && message.finish.is_some()
                && message.error.is_none()
        }),
        answered: last.is_some(),
        // Only a message with a time can be unfinished: without one its completion is unknown.
        unfinished: last.is_some_and(|message| {
            message.created.is_some()
                && message.completed.is_none()
                && message.finish.is_none()
                && message.error.is_none()
        }),
        failed: last.and_then(failure_of),
        open_todos: 0,
    }
}

/// Returns the failure of a message. An abort during the server's backoff leaves neither an event nor an error: only a
/// completed message without a finish reason and without output.
fn failure_of(message: &Message) -> Option<super::watch::Failure> {
    if let Some(text) = message.error.clone() {
        return Some(super::watch::Failure {
            aborted: message.aborted,
            text,
        });
    }
    let cut_off = message.completed.is_some() && message.finish.is_none() && !is_output(message);
    cut_off.then(|| super::watch::Failure {
        aborted: true,
        text: "aborted".to_owned(),
    })
}

/// The maximum length of a result, in characters.
pub const MAX_RESULT: usize = 32_000;
/// The end of a cut result. Readers for which the text has no meaning replace it.
pub const RESULT_CUT: &str = "\n… (cut at 32000 characters; resultOffset reads on)";
/// The maximum number of messages of a page.
pub const MAX_MESSAGES: usize = 100;

/// Returns the text of the last answer: the newest finished assistant message that is not a summary and has text, else
/// the newest assistant message with text. Skips `offset` characters and returns at most [`MAX_RESULT`].
pub fn result_text(messages: &[Message], offset: usize) -> String {
    let answers = || {
        messages
            .iter()
            .rev()
            .filter(|message| message.role.as_deref() == Some("assistant") && !message.summary)
    };
    let finished = answers()
        .find(|message| message.finish.as_deref() == Some("stop") && message.error.is_none());
    let text = match finished {
        Some(message) => message.text(),
        None => answers()
            .map(Message::text)
            .find(|text| !text.trim().is_empty())
            .unwrap_or_default(),
    };
    let text = &text[super::task::cut(&text, offset).len()..];
    match super::task::cut(text, MAX_RESULT) {
        page if page.len() == text.len() => text.to_owned(),
        page => format!("{page}{RESULT_CUT}"),
    }
}

/// Returns the messages of the last answer, and whether there are more: the messages after the newest user message,
/// limited to the newest, with the requested reasoning and tool results.
pub fn answer(messages: &[Message], options: &OutputOptions) -> MessagePage {
    let of_user = |message: &Message| message.role.as_deref() == Some("user");
    let begin = messages
        .iter()
        .rposition(of_user)
        .map_or(0, |prompt| prompt + 1);
    let of_answer = &messages[begin..];
    let limit = options
        .message_limit
        .unwrap_or(MAX_MESSAGES)
        .clamp(1, MAX_MESSAGES);
    let page_messages = &of_answer[of_answer.len().saturating_sub(limit)..];
    let read = page_messages
        .iter()
        .map(|message| output_message(message, options));
    MessagePage {
        messages: read.collect(),
        has_more: of_answer.len() > page_messages.len(),
    }
}

/// Returns the requested messages, and whether there are more. None if the message to start after does not exist.
pub fn page(messages: &[Message], options: &OutputOptions) -> Option<MessagePage> {
    let after = match &options.since_message {
        Some(since) => {
            let named =
                |message: &Message| message.id.as_ref().is_some_and(|id| id.as_str() == since);
            messages.iter().position(named)? + 1
        }
        None => 0,
    };
    let candidates = &messages[after..];
    let limit = options
        .message_limit
        .unwrap_or(MAX_MESSAGES)
        .clamp(1, MAX_MESSAGES);
    let page_messages = if options.from_end {
        &candidates[candidates.len().saturating_sub(limit)..]
    } else {
        &candidates[..candidates.len().min(limit)]
    };
    let read = page_messages
        .iter()
        .map(|message| output_message(message, options));
    Some(MessagePage {
        messages: read.collect(),
        has_more: candidates.len() > page_messages.len(),
    })
}

fn output_message(message: &Message, options: &OutputOptions) -> OutputMessage {
    let thinking: Vec<&str> = message
        .parts
        .iter()
        .filter(|part| part.kind == "reasoning")
        .filter_map(|part| part.text.as_deref())
        .filter(|text| !text.trim().is_empty())
        .collect();
    let thinking = (options.include_thinking && !thinking.is_empty()).then(|| {
        super::task::cut(
            &thinking.join("\n"),
            options.thinking_max_chars.unwrap_or(2000),
        )
        .to_owned()
    });
    let tools = message
        .parts
        .iter()
        .filter(|part| part.is_tool())
        .map(|part| OutputTool {
            tool: part.tool.clone().unwrap_or_else(|| "tool".to_owned()),
            status: part.tool_status.clone(),
            output: part
                .output
                .as_deref()
                .filter(|_| options.include_tool_results)
                .map(|output| super::task::cut(output, MAX_RESULT).to_owned()),
        });
    OutputMessage {
        id: message.id.as_ref().map(|id| id.as_str().to_owned()),
        role: message.role.clone().unwrap_or_else(|| "unknown".to_owned()),
        agent: message.agent.clone(),
        text: super::task::cut(&message.text(), MAX_RESULT).to_owned(),
        thinking,
        tools: tools.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn long_answer_is_read_in_pieces() {
        let text = "é".repeat(MAX_RESULT) + "the rest";
        let message = Message::read(&json!({
            "info": {"role": "assistant", "finish": "stop"}, "parts": [{"type": "text", "text": text}],
        }));
        let piece = |offset| result_text(std::slice::from_ref(&message), offset);
        let first = piece(0);
        let page = first.strip_suffix(RESULT_CUT).unwrap();
        assert_eq!(page.chars().count(), MAX_RESULT);
        assert_eq!(piece(MAX_RESULT), "the rest");
        assert_eq!(format!("{page}{}", piece(MAX_RESULT)), text);
        assert_eq!(piece(8), "é".repeat(MAX_RESULT - 8) + "the rest");
        assert_eq!(piece(usize::MAX), "");
    }
}
