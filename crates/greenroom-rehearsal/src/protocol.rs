//! Encodes a turn in the protocol: as frames of a stream, as a whole answer, or as a refusal. Pure; the server sends the
//! frames at their times.

use std::time::Duration;

use serde_json::{Value, json};

/// The time after which a hanging answer is cut.
pub const HANG_ENDS: Duration = Duration::from_secs(3600);

/// The answer to a request that is not refused.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// The time before the first word.
    pub wait: Duration,
    /// The time over which the words are spread.
    pub slow: Duration,
    /// The words.
    pub text: String,
    /// The tool called at its end.
    pub call: Option<ToolCall>,
    /// How it ends.
    pub end: AnswerEnd,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// The id that the tool's result refers to.
    pub id: String,
    /// The tool's name.
    pub tool: String,
    /// The arguments, a JSON object.
    pub args: Value,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AnswerEnd {
    /// It is sent completely.
    #[default]
    Complete,
    /// The connection is cut after the words.
    Cut,
    /// Nothing is sent after the words until [`HANG_ENDS`].
    Hang,
}

/// A piece of a stream and its delay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The delay since the previous frame.
    pub after: Duration,
    /// The bytes to send; `None` cuts the connection.
    pub bytes: Option<String>,
}

impl Answer {
    /// Returns the answer as a stream of server-sent events.
    pub fn frames(&self, id: &str, model: &str) -> Vec<Frame> {
        let chunk = |after: Duration, delta: Value, finish: Option<&str>| Frame {
            after,
            bytes: Some(format!(
                "data: {}\n\n",
                json!({
                    "id": id, "object": "chat.completion.chunk", "created": 0, "model": model,
                    "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
                })
            )),
        };
        let mut frames = vec![chunk(
            Duration::ZERO,
            json!({"role": "assistant", "content": ""}),
            None,
        )];
        // Words are sent one by one only if that takes time; else one frame does.
        let words: Vec<&str> = self.text.split_inclusive(' ').collect();
        if self.slow.is_zero() && !self.text.is_empty() {
            frames.push(chunk(self.wait, json!({"content": self.text}), None));
        } else {
            let pace = self.slow / u32::try_from(words.len().max(1)).unwrap_or(u32::MAX);
            for (nth, word) in words.iter().enumerate() {
                let after = if nth == 0 { self.wait } else { pace };
                frames.push(chunk(after, json!({"content": word}), None));
            }
        }
        let wait = if words.is_empty() {
            self.wait
        } else {
            Duration::ZERO
        };
        match self.end {
            AnswerEnd::Cut => frames.push(Frame {
                after: wait,
                bytes: None,
            }),
            AnswerEnd::Hang => frames.push(Frame {
                after: HANG_ENDS,
                bytes: None,
            }),
            AnswerEnd::Complete => {
                if let Some(ToolCall {
                    id: call,
                    tool,
                    args,
                }) = &self.call
                {
                    let call = json!({"index": 0, "id": call, "type": "function",
                        "function": {"name": tool, "arguments": args.to_string()}});
                    frames.push(chunk(wait, json!({"tool_calls": [call]}), None));
                }
                let wait = if self.call.is_none() {
                    wait
                } else {
                    Duration::ZERO
                };
                frames.push(chunk(wait, json!({}), Some(self.finish())));
                let usage = json!({"id": id, "object": "chat.completion.chunk", "created": 0, "model": model,
                    "choices": [], "usage": self.usage()});
                frames.push(Frame {
                    after: Duration::ZERO,
                    bytes: Some(format!("data: {usage}\n\ndata: [DONE]\n\n")),
                });
            }
        }
        frames
    }

    /// Returns the answer in one piece, for clients that do not stream.
    pub fn whole(&self, id: &str, model: &str) -> Value {
        let mut message = json!({"role": "assistant", "content": self.text});
        if let Some(ToolCall {
            id: call,
            tool,
            args,
        }) = &self.call
        {
            message["tool_calls"] = json!([{"id": call, "type": "function",
                "function": {"name": tool, "arguments": args.to_string()}}]);
        }
        json!({
            "id": id, "object": "chat.completion", "created": 0, "model": model, "usage": self.usage(),
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish()}],
        })
    }

    fn finish(&self) -> &'static str {
        if self.call.is_some() {
            "tool_calls"
        } else {
            "stop"
        }
    }

    /// Returns made-up but deterministic usage: one token per word.
    fn usage(&self) -> Value {
        let words = self.text.split_whitespace().count();
        json!({"prompt_tokens": 10, "completion_tokens": words, "total_tokens": 10 + words})
    }
}

/// Returns the body of a refusal. Clients do not know its type as a reason to retry: the status alone decides.
pub fn refusal(status: u16, message: &str) -> Value {
    json!({"error": {"message": message, "type": "rehearsed_failure", "code": status}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(frames: &[Frame]) -> Duration {
        frames.iter().map(|frame| frame.after).sum()
    }

    #[test]
    fn wait_is_played_once_for_every_kind_of_answer() {
        let wait = Duration::from_secs(2);
        let call = Some(ToolCall {
            id: "call_1".to_owned(),
            tool: "bash".to_owned(),
            args: json!({}),
        });
        for answer in [
            Answer {
                wait,
                text: "two words".to_owned(),
                ..Answer::default()
            },
            Answer {
                wait,
                ..Answer::default()
            },
            Answer {
                wait,
                call: call.clone(),
                ..Answer::default()
            },
            Answer {
                wait,
                call,
                text: "words too".to_owned(),
                ..Answer::default()
            },
            Answer {
                wait,
                end: AnswerEnd::Cut,
                ..Answer::default()
            },
        ] {
            assert_eq!(total(&answer.frames("id", "small")), wait, "{answer:?}");
        }
    }

    #[test]
    fn slow_answer_is_sent_word_by_word_within_its_time() {
        let slow = Duration::from_secs(10);
        let answer = Answer {
            slow,
            text: "one two three four".to_owned(),
            ..Answer::default()
        };
        let frames = answer.frames("id", "small");
        assert!(
            total(&frames) <= slow && total(&frames) >= slow / 2,
            "{:?}",
            total(&frames)
        );
        assert_eq!(
            frames.iter().filter(|frame| !frame.after.is_zero()).count(),
            3
        );
    }

    #[test]
    fn cut_or_hanging_answer_has_no_end() {
        for end in [AnswerEnd::Cut, AnswerEnd::Hang] {
            let frames = Answer {
                text: "half".to_owned(),
                end,
                ..Answer::default()
            }
            .frames("id", "small");
            let sent: String = frames
                .iter()
                .filter_map(|frame| frame.bytes.clone())
                .collect();
            assert!(sent.contains("half") && !sent.contains("[DONE]"));
            assert_eq!(frames.last().map(|frame| frame.bytes.is_none()), Some(true));
        }
    }
}
