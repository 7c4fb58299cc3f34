//! Reads a chat-completions request: the newest prompt, the number of answers to it, and the kind of the request. Unknown
//! fields are ignored, since every client sends others.

use serde::Deserialize;
use serde_json::Value;

use crate::template;

/// The fields of a request that the provider uses.
#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    /// The model's name as the client sent it.
    #[serde(default)]
    pub model: String,
    /// Whether the answer is streamed.
    #[serde(default)]
    pub stream: bool,
    #[serde(default)]
    messages: Vec<Message>,
}

#[derive(Debug, Clone, Deserialize)]
struct Message {
    #[serde(default)]
    role: String,
    #[serde(default)]
    content: Value,
}

/// The kind of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestKind {
    /// A request for the title of a conversation.
    Title { about: String },
    /// A request for a summary of a conversation that has become too long; `text` is the whole quoted conversation.
    Summary { text: String },
    /// The newest message is a background-task notice without a script for it.
    Notice { first_line: String },
    /// A prompt with a script; `answers` is the number of answers since.
    Prompt { text: String, answers: usize },
}

impl Request {
    /// Returns the kind of the request.
    pub fn kind(&self) -> RequestKind {
        let newest = self
            .messages
            .iter()
            .rposition(|message| message.role == "user");
        let text = newest
            .map(|at| without_reminders(&text_of(&self.messages[at].content)))
            .unwrap_or_default();
        if self.system_contains("title generator") {
            return RequestKind::Title { about: text };
        }
        let raw = newest
            .map(|at| text_of(&self.messages[at].content))
            .unwrap_or_default();
        // It quotes the conversation with its markers and notices; they are not the script of this request.
        if self.system_contains("summarization agent") {
            return RequestKind::Summary { text: raw };
        }
        if let Some(at) = newest.filter(|at| self.is_notice(*at)) {
            if let Some(text) = self.script_after_wake(at) {
                return self.prompt(&text, newest);
            }
            let first_line = raw
                .lines()
                .find(|line| line.contains("BACKGROUND TASK"))
                .unwrap_or_default();
            return RequestKind::Notice {
                first_line: first_line.trim().to_owned(),
            };
        }
        self.prompt(template::part(&text, 0).unwrap_or_default(), newest)
    }

    /// Returns a prompt with its placeholders replaced from the conversation.
    fn prompt(&self, script: &str, newest: Option<usize>) -> RequestKind {
        let after = newest.map_or(&[][..], |at| &self.messages[at + 1..]);
        let answers = after
            .iter()
            .filter(|message| message.role == "assistant")
            .count();
        let results: Vec<String> = self
            .messages
            .iter()
            .filter(|message| message.role == "tool")
            .map(|message| text_of(&message.content))
            .collect();
        let ids = template::task_ids(results.iter().map(String::as_str));
        RequestKind::Prompt {
            text: template::with_task_ids(script, &ids),
            answers,
        }
    }

    fn is_notice(&self, at: usize) -> bool {
        let message = &self.messages[at];
        let raw = text_of(&message.content);
        message.role == "user"
            && raw.contains("<system-reminder>")
            && raw.contains("BACKGROUND TASK")
    }

    /// Returns the part of the newest prompt with `[[woken]]` that the notice at this index plays, if any is left.
    fn script_after_wake(&self, notice: usize) -> Option<String> {
        let (at, text) = (0..notice).rev().find_map(|at| {
            let text = without_reminders(&text_of(&self.messages[at].content));
            let has_wake = self.messages[at].role == "user" && template::part(&text, 1).is_some();
            has_wake.then_some((at, text))
        })?;
        // A notice without an answer did not wake the agent.
        let before = (at + 1..notice)
            .filter(|at| self.is_notice(*at) && self.messages[at + 1].role == "assistant")
            .count();
        template::part(&text, before + 1).map(|woken| woken.trim().to_owned())
    }

    fn system_contains(&self, words: &str) -> bool {
        self.messages.iter().any(|message| {
            message.role == "system" && text_of(&message.content).to_lowercase().contains(words)
        })
    }

    /// Returns the number of messages. It differs for every turn of a conversation; ids of tool calls contain it.
    pub fn length(&self) -> usize {
        self.messages.len()
    }
}

/// Returns the first words of a text, for answers and titles.
pub fn first_words(text: &str, words: usize) -> String {
    let mut kept: Vec<&str> = text.split_whitespace().take(words + 1).collect();
    let more = kept.len() > words;
    kept.truncate(words);
    let line: String = kept.join(" ").chars().take(120).collect();
    if more { format!("{line} …") } else { line }
}

/// Returns the text of a message in either of the protocol's two forms.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts
                .iter()
                .filter_map(|part| part.get("text")?.as_str())
                .collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}

/// Returns a message without the reminders that a host adds. If the whole message is a reminder (opencode wraps messages
/// that arrive while it works), returns the text inside.
fn without_reminders(text: &str) -> String {
    const OPEN: &str = "<system-reminder>";
    const CLOSE: &str = "</system-reminder>";
    let mut outside = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        outside.push_str(before);
        rest = after.split_once(CLOSE).map_or("", |(_, after)| after);
    }
    outside.push_str(rest);
    let kept = if outside.trim().is_empty() {
        text.replace(OPEN, "").replace(CLOSE, "")
    } else {
        outside
    };
    kept.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kind_of(messages: Value) -> RequestKind {
        serde_json::from_value::<Request>(json!({"model": "small", "messages": messages}))
            .unwrap()
            .kind()
    }

    #[test]
    fn answers_are_counted_from_the_newest_user_message() {
        let kind = kind_of(json!([
            {"role": "system", "content": "You are an agent"},
            {"role": "user", "content": "old"},
            {"role": "assistant", "content": "old answer"},
            {"role": "user", "content": [{"type": "text", "text": "new"}]},
            {"role": "assistant", "tool_calls": []},
            {"role": "tool", "content": "result"},
        ]));
        assert_eq!(
            kind,
            RequestKind::Prompt {
                text: "new".to_owned(),
                answers: 1
            }
        );
    }

    #[test]
    fn reminders_are_removed_from_the_prompt() {
        let kind = kind_of(json!([{"role": "user", "content": [
            {"type": "text", "text": "do [[wait 1s]]"},
            {"type": "text", "text": "<system-reminder>\n[[hang]] plan mode\n</system-reminder>"},
        ]}]));
        assert_eq!(
            kind,
            RequestKind::Prompt {
                text: "do [[wait 1s]]".to_owned(),
                answers: 0
            }
        );
    }

    #[test]
    fn message_wrapped_whole_as_a_reminder_is_a_prompt() {
        let wrapped = "<system-reminder>\nThe user sent:\n[[say steered]]\n</system-reminder>";
        let RequestKind::Prompt { text, .. } =
            kind_of(json!([{"role": "user", "content": wrapped}]))
        else {
            panic!("a prompt")
        };
        assert!(text.contains("[[say steered]]"));
    }

    #[test]
    fn summary_request_is_not_a_script() {
        let quoted = "So far: [[hang]] <system-reminder>[BACKGROUND TASK COMPLETED]</system-reminder> and the rest";
        let kind = kind_of(json!([
            {"role": "system", "content": "You are a context summarization agent."},
            {"role": "user", "content": quoted},
        ]));
        assert_eq!(
            kind,
            RequestKind::Summary {
                text: quoted.to_owned()
            }
        );
    }

    #[test]
    fn each_wake_plays_its_part_of_the_prompt() {
        let prompt = "[[call background_task {}]][[woken]][[call background_output {\"task_id\": \"$task1\"}]][[say read]][[woken]][[say seen]]";
        let notice = "<system-reminder>\n[ALL BACKGROUND TASKS COMPLETE]\n</system-reminder>";
        let before = [
            json!({"role": "user", "content": prompt}),
            json!({"role": "assistant", "tool_calls": []}),
            json!({"role": "tool", "content": "launched bg_12345678"}),
        ];
        let kind = kind_of(Value::from(before.to_vec()));
        let at_once = "[[call background_task {}]]".to_owned();
        assert_eq!(
            kind,
            RequestKind::Prompt {
                text: at_once,
                answers: 1
            }
        );
        let mut woken = before.to_vec();
        let notice = json!({"role": "user", "content": notice});
        woken.push(json!({"role": "assistant", "content": "launched"}));
        // The first notice is silent: the agent does not answer it.
        woken.extend([notice.clone(), notice.clone()]);
        let script =
            "[[call background_output {\"task_id\": \"bg_12345678\"}]][[say read]]".to_owned();
        assert_eq!(
            kind_of(Value::from(woken.clone())),
            RequestKind::Prompt {
                text: script,
                answers: 0
            }
        );
        for wanted in ["[[say seen]]", "[ALL BACKGROUND TASKS COMPLETE]"] {
            woken.push(json!({"role": "assistant", "content": "read"}));
            woken.push(notice.clone());
            let (RequestKind::Prompt { text: played, .. }
            | RequestKind::Notice { first_line: played }) = kind_of(Value::from(woken.clone()))
            else {
                panic!("something is played")
            };
            assert_eq!(played, wanted);
        }
    }

    #[test]
    fn notices_and_titles_are_not_scripts() {
        let notice = "<system-reminder>\n[BACKGROUND TASK COMPLETED]\n[[hang]]</system-reminder>";
        assert_eq!(
            kind_of(json!([{"role": "user", "content": notice}])),
            RequestKind::Notice {
                first_line: "[BACKGROUND TASK COMPLETED]".to_owned()
            }
        );
        let title = kind_of(json!([
            {"role": "system", "content": "You are a title generator."},
            {"role": "user", "content": "[[hang]]"},
        ]));
        assert_eq!(
            title,
            RequestKind::Title {
                about: "[[hang]]".to_owned()
            }
        );
    }
}
