//! Reads a chat-completions request: what was asked last, how far the answer has come, and whether it is a script at
//! all. Tolerant: a field it does not know is no error, since every client sends others.

use serde::Deserialize;
use serde_json::Value;

use crate::cues;

/// A request, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    /// Whatever it calls the model.
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

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A name for a conversation.
    Title { about: String },
    /// A summary of a conversation that has become too long; `text` is all of it, as the host puts it.
    Summary { text: String },
    /// A background-task notice was put into the conversation.
    Notice { first_line: String },
    /// Somebody asked for something; `answers` have been given since.
    Prompt { text: String, answers: usize },
}

impl Request {
    /// What is asked for.
    pub fn ask(&self) -> Ask {
        let newest = self
            .messages
            .iter()
            .rposition(|message| message.role == "user");
        let text = newest
            .map(|at| spoken(&text_of(&self.messages[at].content)))
            .unwrap_or_default();
        if self.system_says("title generator") {
            return Ask::Title { about: text };
        }
        let raw = newest
            .map(|at| text_of(&self.messages[at].content))
            .unwrap_or_default();
        // What was said before is quoted in it, markers and notices too; none of it is meant for this request.
        if self.system_says("summarization agent") {
            return Ask::Summary { text: raw };
        }
        if let Some(at) = newest.filter(|at| self.is_notice(*at)) {
            if let Some(text) = self.script_of_the_woken(at) {
                return self.prompt(&text, newest);
            }
            let first_line = raw
                .lines()
                .find(|line| line.contains("BACKGROUND TASK"))
                .unwrap_or_default();
            return Ask::Notice {
                first_line: first_line.trim().to_owned(),
            };
        }
        self.prompt(cues::part(&text, 0).unwrap_or_default(), newest)
    }

    /// A script that is played, with what it may know of the conversation.
    fn prompt(&self, script: &str, newest: Option<usize>) -> Ask {
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
        let tasks = cues::tasks(results.iter().map(String::as_str));
        Ask::Prompt {
            text: cues::with_tasks(script, &tasks),
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

    /// What the newest prompt that says so plays when its agent is woken by the notice there, if anything is left to be
    /// played.
    fn script_of_the_woken(&self, notice: usize) -> Option<String> {
        let (at, text) = (0..notice).rev().find_map(|at| {
            let text = spoken(&text_of(&self.messages[at].content));
            let says = self.messages[at].role == "user" && cues::part(&text, 1).is_some();
            says.then_some((at, text))
        })?;
        // A notice that nobody has answered has woken nobody.
        let before = (at + 1..notice)
            .filter(|at| self.is_notice(*at) && self.messages[at + 1].role == "assistant")
            .count();
        cues::part(&text, before + 1).map(|woken| woken.trim().to_owned())
    }

    fn system_says(&self, words: &str) -> bool {
        self.messages.iter().any(|message| {
            message.role == "system" && text_of(&message.content).to_lowercase().contains(words)
        })
    }

    /// Unlike for every turn of a conversation: ids of tool calls are made of it.
    pub fn length(&self) -> usize {
        self.messages.len()
    }
}

/// The first words of a text, for answers and titles.
pub fn first_words(text: &str, words: usize) -> String {
    let mut kept: Vec<&str> = text.split_whitespace().take(words + 1).collect();
    let more = kept.len() > words;
    kept.truncate(words);
    let line: String = kept.join(" ").chars().take(120).collect();
    if more { format!("{line} …") } else { line }
}

/// The text of a message, whichever of the protocol's two forms it has.
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

/// What was said besides the reminders a host adds. If all of it is a reminder (opencode wraps what is said while it
/// works), the inside of it.
fn spoken(text: &str) -> String {
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

    fn ask(messages: Value) -> Ask {
        serde_json::from_value::<Request>(json!({"model": "small", "messages": messages}))
            .unwrap()
            .ask()
    }

    #[test]
    fn answers_are_counted_from_the_newest_message_of_the_user() {
        let asked = ask(json!([
            {"role": "system", "content": "You are an agent"},
            {"role": "user", "content": "old"},
            {"role": "assistant", "content": "old answer"},
            {"role": "user", "content": [{"type": "text", "text": "new"}]},
            {"role": "assistant", "tool_calls": []},
            {"role": "tool", "content": "result"},
        ]));
        assert_eq!(
            asked,
            Ask::Prompt {
                text: "new".to_owned(),
                answers: 1
            }
        );
    }

    #[test]
    fn reminders_of_the_host_are_no_part_of_the_prompt() {
        let asked = ask(json!([{"role": "user", "content": [
            {"type": "text", "text": "do [[wait 1s]]"},
            {"type": "text", "text": "<system-reminder>\n[[hang]] plan mode\n</system-reminder>"},
        ]}]));
        assert_eq!(
            asked,
            Ask::Prompt {
                text: "do [[wait 1s]]".to_owned(),
                answers: 0
            }
        );
    }

    #[test]
    fn what_the_host_wrapped_whole_is_still_heard() {
        let wrapped = "<system-reminder>\nThe user said:\n[[say steered]]\n</system-reminder>";
        let Ask::Prompt { text, .. } = ask(json!([{"role": "user", "content": wrapped}])) else {
            panic!("a prompt")
        };
        assert!(text.contains("[[say steered]]"));
    }

    #[test]
    fn a_summary_plays_nothing_of_what_it_quotes() {
        let quoted = "So far: [[hang]] <system-reminder>[BACKGROUND TASK COMPLETED]</system-reminder> and the rest";
        let asked = ask(json!([
            {"role": "system", "content": "You are a context summarization agent."},
            {"role": "user", "content": quoted},
        ]));
        assert_eq!(
            asked,
            Ask::Summary {
                text: quoted.to_owned()
            }
        );
    }

    #[test]
    fn an_agent_that_is_woken_plays_what_it_was_told_for_then() {
        let prompt = "[[call background_task {}]][[woken]][[call background_output {\"task_id\": \"$task1\"}]][[say read]][[woken]][[say seen]]";
        let notice = "<system-reminder>\n[ALL BACKGROUND TASKS COMPLETE]\n</system-reminder>";
        let before = [
            json!({"role": "user", "content": prompt}),
            json!({"role": "assistant", "tool_calls": []}),
            json!({"role": "tool", "content": "launched bg_12345678"}),
        ];
        let asked = ask(Value::from(before.to_vec()));
        let at_once = "[[call background_task {}]]".to_owned();
        assert_eq!(
            asked,
            Ask::Prompt {
                text: at_once,
                answers: 1
            }
        );
        let mut woken = before.to_vec();
        let notice = json!({"role": "user", "content": notice});
        woken.push(json!({"role": "assistant", "content": "launched"}));
        // The first of them is silent: nobody answers it.
        woken.extend([notice.clone(), notice.clone()]);
        let script =
            "[[call background_output {\"task_id\": \"bg_12345678\"}]][[say read]]".to_owned();
        assert_eq!(
            ask(Value::from(woken.clone())),
            Ask::Prompt {
                text: script,
                answers: 0
            }
        );
        for wanted in ["[[say seen]]", "[ALL BACKGROUND TASKS COMPLETE]"] {
            woken.push(json!({"role": "assistant", "content": "read"}));
            woken.push(notice.clone());
            let (Ask::Prompt { text: played, .. } | Ask::Notice { first_line: played }) =
                ask(Value::from(woken.clone()))
            else {
                panic!("something is played")
            };
            assert_eq!(played, wanted);
        }
    }

    #[test]
    fn notices_and_titles_are_no_scripts() {
        let notice = "<system-reminder>\n[BACKGROUND TASK COMPLETED]\n[[hang]]</system-reminder>";
        assert_eq!(
            ask(json!([{"role": "user", "content": notice}])),
            Ask::Notice {
                first_line: "[BACKGROUND TASK COMPLETED]".to_owned()
            }
        );
        let title = ask(json!([
            {"role": "system", "content": "You are a title generator."},
            {"role": "user", "content": "[[hang]]"},
        ]));
        assert_eq!(
            title,
            Ask::Title {
                about: "[[hang]]".to_owned()
            }
        );
    }
}
