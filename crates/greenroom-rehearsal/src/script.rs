//! Parses the markers of a prompt and returns the turn that a request plays. Pure; used by the server once per request.

use std::time::Duration;

use serde_json::Value;

/// The greatest number of calls in one `[[repeat …]]`.
const MAX_REPEAT: usize = 10_000;
/// The longest single wait, so that a forgotten request ends.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// Why a prompt cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("marker [[{marker}: {problem}")]
pub struct ScriptError {
    marker: String,
    problem: String,
}

/// The markers of a prompt, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Script {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Wait(Duration),
    Slow(Duration),
    Say(String),
    RetryAfter(Duration),
    Fault(Fault),
    Call {
        tool: String,
        args: Value,
        times: usize,
    },
}

/// A failure in a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The request is refused with a status, that many times or always.
    Fail { status: u16, times: Option<u32> },
    /// The connection is cut, that many times or always.
    Drop { times: Option<u32> },
    /// The answer never ends.
    Hang,
}

/// The part of a script that one request plays.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Turn {
    /// The time before the first word.
    pub wait: Duration,
    /// The time over which the words are spread.
    pub slow: Duration,
    /// The text of the answer; `None` stands for the default answer.
    pub text: Option<String>,
    /// The `retry-after` header of refusals.
    pub retry_after: Option<Duration>,
    /// The failures in order; a counted failure that is used up is skipped.
    pub faults: Vec<Fault>,
    /// The tool called at the end of the turn, and its arguments.
    pub call: Option<(String, Value)>,
}

impl Script {
    /// Reads all markers of a text. A marker without a known name is ordinary text.
    pub fn read(text: &str) -> Result<Self, ScriptError> {
        let mut steps = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("[[") {
            rest = &rest[at + 2..];
            let name_end = rest
                .find(|c: char| !c.is_ascii_lowercase() && c != '-')
                .unwrap_or(rest.len());
            let (name, body) = rest.split_at(name_end);
            let Some(read) = read_step(name, body) else {
                continue;
            };
            let (step, after) = read.map_err(|problem| ScriptError {
                marker: brief(rest),
                problem,
            })?;
            steps.push(step);
            rest = after;
        }
        Ok(Self { steps })
    }

    /// Returns the turn after that many answers to this prompt; after the last turn, the last again.
    pub fn turn(&self, mut answers: usize) -> Turn {
        let mut turn = Turn::default();
        for step in &self.steps {
            match step {
                Step::Wait(time) => turn.wait += *time,
                Step::Slow(time) => turn.slow += *time,
                Step::RetryAfter(time) => turn.retry_after = Some(*time),
                Step::Fault(fault) => turn.faults.push(fault.clone()),
                Step::Say(text) => match &mut turn.text {
                    Some(before) => {
                        before.push(' ');
                        before.push_str(text);
                    }
                    None => turn.text = Some(text.clone()),
                },
                Step::Call { tool, args, times } => {
                    if answers < *times {
                        // The steps before a repeated call are played once, before the first call.
                        let before = if answers == 0 { turn } else { Turn::default() };
                        return Turn {
                            call: Some((tool.clone(), args.clone())),
                            ..before
                        };
                    }
                    answers -= times;
                    turn = Turn::default();
                }
            }
        }
        turn
    }
}

/// Reads a marker after its name; `None` if the name is unknown.
fn read_step<'a>(name: &str, body: &'a str) -> Option<Result<(Step, &'a str), String>> {
    Some(match name {
        "wait" => duration(body).map(|(time, rest)| (Step::Wait(time), rest)),
        "slow" => duration(body).map(|(time, rest)| (Step::Slow(time), rest)),
        "retry-after" => duration(body).map(|(time, rest)| (Step::RetryAfter(time), rest)),
        "say" => closed(body).map(|(text, rest)| (Step::Say(text.to_owned()), rest)),
        "hang" => closed(body).and_then(|(text, rest)| {
            if text.is_empty() {
                Ok((Step::Fault(Fault::Hang), rest))
            } else {
                Err("takes nothing".to_owned())
            }
        }),
        "drop" => closed(body).and_then(|(text, rest)| {
            Ok((
                Step::Fault(Fault::Drop {
                    times: times(text)?,
                }),
                rest,
            ))
        }),
        "fail" => closed(body).and_then(|(text, rest)| {
            let (status, count) = text.split_once(' ').unwrap_or((text, ""));
            let status = status
                .parse()
                .ok()
                .filter(|status| (400..600).contains(status));
            let status =
                status.ok_or("a status from 400 to 599 is expected, as in [[fail 500 x2]]")?;
            Ok((
                Step::Fault(Fault::Fail {
                    status,
                    times: times(count.trim())?,
                }),
                rest,
            ))
        }),
        "call" => call(body, 1),
        "repeat" => {
            let body = body.trim_start();
            let (count, body) = body.split_once(' ').unwrap_or((body, ""));
            match count.parse() {
                Ok(count) if (1..=MAX_REPEAT).contains(&count) => call(body, count),
                _ => Err(format!(
                    "a number from 1 to {MAX_REPEAT} is expected first, as in [[repeat 3 bash {{}}]]"
                )),
            }
        }
        _ => return None,
    })
}

/// Reads `TOOL {json}]]`. The JSON may contain `]]`.
fn call(body: &str, times: usize) -> Result<(Step, &str), String> {
    let body = body.trim_start();
    let end = body
        .find(|c: char| c.is_whitespace() || c == ']')
        .ok_or("it is not closed by ]]")?;
    let (tool, body) = body.split_at(end);
    if tool.is_empty() {
        return Err("a tool is expected, as in [[call bash {\"command\": \"true\"}]]".to_owned());
    }
    let body = body.trim_start();
    let (args, rest) = if body.starts_with("]]") {
        (Value::Object(serde_json::Map::new()), body)
    } else {
        let mut values = serde_json::Deserializer::from_str(body).into_iter::<Value>();
        match values.next() {
            Some(Ok(args @ Value::Object(_))) => (args, &body[values.byte_offset()..]),
            Some(Err(error)) => return Err(format!("its arguments are not JSON ({error})")),
            _ => return Err("its arguments must be a JSON object".to_owned()),
        }
    };
    let rest = rest
        .trim_start()
        .strip_prefix("]]")
        .ok_or("it is not closed by ]]")?;
    Ok((
        Step::Call {
            tool: tool.to_owned(),
            args,
            times,
        },
        rest,
    ))
}

/// Returns the text before `]]` and the text after it.
fn closed(body: &str) -> Result<(&str, &str), String> {
    body.split_once("]]")
        .map(|(text, rest)| (text.trim(), rest))
        .ok_or_else(|| "it is not closed by ]]".to_owned())
}

fn duration(body: &str) -> Result<(Duration, &str), String> {
    let (text, rest) = closed(body)?;
    match humantime::parse_duration(text) {
        Ok(time) if time <= MAX_WAIT => Ok((time, rest)),
        Ok(_) => Err("an hour is the most".to_owned()),
        Err(_) => Err("a time is expected, as in [[wait 2s]] or [[wait 300ms]]".to_owned()),
    }
}

/// Reads `x2`; an empty text stands for always.
fn times(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let count = text.strip_prefix('x').and_then(|count| count.parse().ok());
    count
        .map(Some)
        .ok_or_else(|| "how often is written x2".to_owned())
}

/// Returns the beginning of a marker, for an error.
fn brief(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn script(text: &str) -> Script {
        Script::read(text).unwrap()
    }

    #[test]
    fn prompt_without_markers_is_an_empty_turn() {
        assert_eq!(
            script("Look at a[[0]] and [[unknown thing]]").turn(0),
            Turn::default()
        );
    }

    #[test]
    fn call_ends_a_turn() {
        let script = script(
            "[[wait 2s]] [[say first]] [[call bash {\"a\": [[1]]}]] then [[wait 300ms]][[say last]]",
        );
        let first = script.turn(0);
        assert_eq!(first.wait, Duration::from_secs(2));
        assert_eq!(first.text.as_deref(), Some("first"));
        assert_eq!(first.call, Some(("bash".to_owned(), json!({"a": [[1]]}))));
        let last = script.turn(1);
        assert_eq!(
            (last.wait, last.text.as_deref(), last.call.clone()),
            (Duration::from_millis(300), Some("last"), None)
        );
        assert_eq!(script.turn(7), last);
    }

    #[test]
    fn repeated_call_takes_one_turn_each_and_waits_once() {
        let script = script("[[wait 1s]][[repeat 3 read {\"filePath\": \"a\"}]][[say done]]");
        let waits: Vec<_> = (0..4)
            .map(|turn| {
                (
                    script.turn(turn).wait.as_secs(),
                    script.turn(turn).call.is_some(),
                )
            })
            .collect();
        assert_eq!(waits, [(1, true), (0, true), (0, true), (0, false)]);
    }

    #[test]
    fn faults_are_read_with_and_without_a_count() {
        let turn =
            script("[[fail 500 x2]][[retry-after 2s]][[fail 401]][[drop x1]][[drop]][[hang]]")
                .turn(0);
        assert_eq!(turn.retry_after, Some(Duration::from_secs(2)));
        assert_eq!(
            turn.faults,
            [
                Fault::Fail {
                    status: 500,
                    times: Some(2)
                },
                Fault::Fail {
                    status: 401,
                    times: None
                },
                Fault::Drop { times: Some(1) },
                Fault::Drop { times: None },
                Fault::Hang,
            ]
        );
    }

    #[test]
    fn unreadable_marker_is_an_error_with_the_expected_form() {
        for (text, expected) in [
            ("[[wait soon]]", "a time is expected"),
            ("[[wait 2h]]", "an hour is the most"),
            ("[[wait 2s", "not closed"),
            ("[[fail 200]]", "a status from 400 to 599"),
            ("[[fail 500 2]]", "written x2"),
            ("[[repeat 0 bash]]", "a number from 1"),
            ("[[call bash {]]", "not JSON"),
            ("[[call bash 3]]", "must be a JSON object"),
            ("[[call ]]", "a tool is expected"),
            ("[[hang 3s]]", "takes nothing"),
        ] {
            let error = Script::read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
