//! Decides the delay and the fault of each call. The scripted server asks once for each call.

use std::time::Duration;

use greenroom::domain::transcript::error_text;
use greenroom::ports::agent_server::ServerError;
use serde_json::Value;

use crate::story::{FaultMode, Rule, Script};

/// The name of a call in stories and traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallName {
    /// Reads a session.
    Get,
    /// Creates a session.
    Create,
    /// Prompts a task.
    Prompt,
    /// Notifies a parent.
    Notify,
    /// Aborts a session.
    Abort,
    /// Reads the messages of a session.
    Messages,
    /// Reads the todo list of a session.
    Todo,
    /// Reads the statuses of a directory.
    Status,
}

impl CallName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Get => "session.get",
            Self::Create => "session.create",
            Self::Prompt => "session.prompt",
            Self::Notify => "notify",
            Self::Abort => "session.abort",
            Self::Messages => "session.messages",
            Self::Todo => "session.todo",
            Self::Status => "session.status",
        }
    }
}

/// A call with aliases instead of ids.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// The name of the call.
    pub call: CallName,
    /// The session of the call; `None` for a create and a status call.
    pub session: Option<&'a str>,
    /// The task of the call.
    pub task: Option<&'a str>,
    /// The time, in virtual milliseconds.
    pub at: u64,
}

/// The delay and the result of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallOutcome {
    /// The delay of the answer.
    pub delay: Duration,
    /// The result of the call.
    pub result: CallResult,
}

/// The result of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallResult {
    /// The call succeeds.
    Answered,
    /// The call fails and has no effect.
    Failed(ServerError),
    /// The call is never answered and has no effect.
    Silent,
    /// The call is never answered but has its effect.
    Lost,
}

/// The delays and faults of a story, with their counters.
#[derive(Debug)]
pub struct Rules {
    delays: Vec<CountedRule>,
    faults: Vec<CountedRule>,
    create_delay: Duration,
}

#[derive(Debug)]
struct CountedRule {
    rule: Rule,
    seen: u32,
}

impl Rules {
    /// Returns the rules of a script with all counters at zero.
    pub fn of(script: &Script) -> Self {
        let counted = |rules: &[Rule]| {
            rules
                .iter()
                .map(|rule| CountedRule {
                    rule: rule.clone(),
                    seen: 0,
                })
                .collect()
        };
        Self {
            delays: counted(&script.delays),
            faults: counted(&script.faults),
            create_delay: Duration::from_millis(script.create_delay_ms),
        }
    }

    /// Counts a call and returns its outcome: the first matching rule of each list applies.
    pub fn next_outcome(&mut self, arrival: Arrival<'_>) -> CallOutcome {
        let default_delay = if arrival.call == CallName::Create {
            self.create_delay
        } else {
            Duration::ZERO
        };
        let delay = first(&mut self.delays, arrival)
            .map_or(default_delay, |rule| Duration::from_millis(rule.ms));
        let result = match first(&mut self.faults, arrival) {
            None => CallResult::Answered,
            Some(rule) => match rule.mode {
                FaultMode::Reject | FaultMode::Field => {
                    CallResult::Failed(refused(text(rule.error.as_ref())))
                }
                FaultMode::Noid => CallResult::Failed(refused(
                    "the answer to the create has no session id".to_owned(),
                )),
                FaultMode::Hang => CallResult::Silent,
                FaultMode::Lost => CallResult::Lost,
            },
        };
        CallOutcome { delay, result }
    }
}

/// Returns the first matching rule. Every rule counts its own matches, even if an earlier rule applies.
fn first<'a>(rules: &'a mut [CountedRule], arrival: Arrival<'_>) -> Option<&'a Rule> {
    let mut first_match = None;
    for counted in rules {
        if counted.matches_next(arrival) && first_match.is_none() {
            first_match = Some(&counted.rule);
        }
    }
    first_match
}

impl CountedRule {
    fn matches_next(&mut self, arrival: Arrival<'_>) -> bool {
        let rule = &self.rule;
        let named = |wanted: &Option<String>, got: Option<&str>| {
            wanted.is_none() || wanted.as_deref() == got
        };
        let matches = rule.call == arrival.call.as_str()
            && named(&rule.session, arrival.session)
            && named(&rule.task, arrival.task)
            && rule.from.is_none_or(|from| arrival.at >= from)
            && rule.until.is_none_or(|until| arrival.at < until);
        if matches {
            self.seen += 1;
        }
        matches && rule.nth.is_none_or(|nth| nth == self.seen)
    }
}

fn refused(message: String) -> ServerError {
    ServerError::Refused {
        status: None,
        message,
    }
}

fn text(error: Option<&Value>) -> String {
    match error {
        Some(Value::String(text)) => text.clone(),
        Some(error) => error_text(error),
        None => "refused by the story".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(script: &str) -> Rules {
        Rules::of(&serde_json::from_str(script).unwrap())
    }

    fn prompt(session: &str, at: u64) -> Arrival<'_> {
        Arrival {
            call: CallName::Prompt,
            session: Some(session),
            task: None,
            at,
        }
    }

    #[test]
    fn first_matching_rule_applies() {
        let mut rules = rules(
            r#"{"faults": [
                {"call": "session.prompt", "session": "$a", "nth": 2, "error": "second of a"},
                {"call": "session.prompt", "nth": 3, "mode": "hang"},
                {"call": "session.prompt", "session": "$a", "nth": 2, "error": "never reached"}]}"#,
        );
        let mut result = |session: &str| rules.next_outcome(prompt(session, 0)).result;
        assert_eq!(result("$b"), CallResult::Answered);
        assert_eq!(result("$a"), CallResult::Answered);
        assert_eq!(
            result("$a"),
            CallResult::Failed(refused("second of a".to_owned())),
            "the third of all, the second of a"
        );
        assert_eq!(result("$a"), CallResult::Answered);
    }

    #[test]
    fn window_includes_start_and_excludes_end() {
        let mut rules = rules(
            r#"{"faults": [{"call": "session.prompt", "from": 5, "until": 9, "mode": "lost"}]}"#,
        );
        let ends: Vec<bool> = [4, 5, 8, 9]
            .map(|at| rules.next_outcome(prompt("s", at)).result == CallResult::Lost)
            .into();
        assert_eq!(ends, [false, true, true, false]);
    }

    #[test]
    fn delay_replaces_create_delay() {
        let mut rules = rules(
            r#"{"createDelayMs": 90, "delays": [{"call": "session.create", "task": "b", "ms": 7}]}"#,
        );
        let mut delay = |task| {
            rules
                .next_outcome(Arrival {
                    call: CallName::Create,
                    session: None,
                    task: Some(task),
                    at: 0,
                })
                .delay
                .as_millis()
        };
        assert_eq!((delay("a"), delay("b")), (90, 7));
        assert_eq!(rules.next_outcome(prompt("s", 0)).delay, Duration::ZERO);
    }
}
