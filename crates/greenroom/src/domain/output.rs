//! Does a session have output of this run; results and transcripts for readers.

use serde::{Deserialize, Serialize};

use super::task::Task;
use super::transcript::Message;

/// What a reader wants to see of a task's session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputOptions {
    /// The messages, not only the last answer.
    pub full_session: bool,
    /// Reasoning too.
    pub include_thinking: bool,
    /// What tools gave back too.
    pub include_tool_results: bool,
    /// At most so many messages; at most and by default 100.
    pub message_limit: Option<usize>,
    /// The newest ones rather than the oldest.
    pub from_end: bool,
    /// Only those after this message.
    pub since_message: Option<String>,
    /// Reasoning is cut to so many characters; 2,000 by default.
    pub thinking_max_chars: Option<usize>,
    /// The result without so many characters at its beginning.
    pub result_offset: usize,
}

/// What there is to read of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Output {
    /// The task as it is now.
    pub task: Task,
    /// The text of the last answer of an ended task, at most 32,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// The messages of the session, or those of the answer, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<OutputMessage>>,
    /// True if there are more messages than shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_more: Option<bool>,
    /// True if the caller waited for the end in vain.
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
    /// Who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The text.
    pub text: String,
    /// Reasoning, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    /// The tools it called, in order.
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
    /// What it gave back, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// True if a message holds output: non-blank text or reasoning, a tool part, or a tool result that is not empty.
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

/// Which messages belong to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunScope {
    /// The task.
    pub task: super::ids::TaskId,
    /// Its run.
    pub run: super::ids::Run,
    /// When the run got its session.
    pub started: super::time::Timestamp,
    /// True for the first run in a session made for it: every message is its own.
    pub own_session: bool,
}

/// The messages of a run. Its prompt carries task and run, so what stands behind it is of this run; where the prompt is
/// not among them, what was made since the run began is, and a message that says neither id nor time counts.
pub fn of_run<'a>(messages: &'a [Message], scope: &RunScope) -> &'a [Message] {
    if scope.own_session {
        return messages;
    }
    let is_prompt = |message: &Message| message.is_prompt_of(&scope.task, scope.run);
    if let Some(prompt) = messages.iter().position(is_prompt) {
        return &messages[prompt + 1..];
    }
    let old = |message: &Message| {
        message
            .created
            .is_some_and(|created| created < scope.started)
    };
    let first = messages
        .iter()
        .rposition(old)
        .map_or(0, |last_old| last_old + 1);
    &messages[first..]
}

/// What a completion check finds in the messages of a run; todos are counted apart.
pub fn findings(messages: &[Message], scope: &RunScope) -> super::watch::CheckFindings {
    let own = of_run(messages, scope);
    let last = own
        .iter()
        .rev()
        .find(|message| message.role.as_deref() == Some("assistant") && !message.summary);
    super::watch::CheckFindings {
        prompted: scope.own_session
            || messages
                .iter()
                .any(|message| message.is_prompt_of(&scope.task, scope.run)),
        output: own.iter().any(is_output),
        answered: last.is_some(),
        // Only a message with a time can be unfinished: without one nothing is known of when it was completed.
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

/// The failure a message carries. An abort while the server backs off leaves neither an event nor an error: only a message
/// that is completed, says no reason why, and has nothing in it.
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

/// No result is longer, in characters.
pub const MAX_RESULT: usize = 32_000;
/// How a result that is cut ends; readers to whom its words mean nothing put their own in its place.
pub const RESULT_CUT: &str = "\n… (cut at 32000 characters; resultOffset reads on)";
/// No page has more messages.
pub const MAX_MESSAGES: usize = 100;

/// The text of the last answer: the newest assistant message that is finished, is no summary and has text; else the
/// newest that has text. Without so many characters at its beginning, and at most [`MAX_RESULT`] of them.
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

/// The messages of the last answer: what came after the newest message of a user, with the reasoning and tool results
/// asked for, at most the newest of them, and whether there are more.
pub fn answer(messages: &[Message], options: &OutputOptions) -> (Vec<OutputMessage>, bool) {
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
    (read.collect(), of_answer.len() > page_messages.len())
}

/// The messages a reader asked for, and whether there are more. None if the message to begin after is not there.
pub fn page(messages: &[Message], options: &OutputOptions) -> Option<(Vec<OutputMessage>, bool)> {
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
    Some((
        page_messages
            .iter()
            .map(|message| output_message(message, options))
            .collect(),
        candidates.len() > page_messages.len(),
    ))
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
