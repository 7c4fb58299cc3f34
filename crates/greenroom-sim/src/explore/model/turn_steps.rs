//! Applies the steps of a turn: changes the session, sends events, logs facts.

use std::collections::VecDeque;

use greenroom::domain::ids::SessionId;
use serde_json::json;

use super::session::assistant_message;
use super::state::{ServerState, TimedEvent};
use super::turn::{Phase, Turn, TurnStep};
use crate::explore::log::Fact;

impl ServerState {
    pub(super) fn apply_step(&mut self, id: &SessionId, step: TurnStep, same_input: bool) {
        match step {
            TurnStep::Busy => self.emit_status(id, json!({"type": "busy"})),
            TurnStep::Begin => self.start_answer(id),
            TurnStep::Tool(phase) => self.tool(id, phase, same_input),
            TurnStep::EndStep => {
                self.finish_answer(id, "tool-calls");
                self.record_fact(id, Fact::StepCompleted);
                self.emit_status(id, json!({"type": "busy"}));
            }
            TurnStep::Text => self.text(id),
            TurnStep::Todos(open) => {
                self.set_todos(id, open);
            }
            TurnStep::Ask => self.ask(id),
            TurnStep::Retry(attempt) => {
                self.with_turn(id, |turn| turn.retry = Some(attempt));
                self.record_fact(id, Fact::Retrying);
                self.emit_status(
                    id,
                    json!({"type": "retry", "attempt": attempt, "message": "too many requests"}),
                );
            }
            TurnStep::Resume => {
                self.with_turn(id, |turn| turn.retry = None);
                self.emit_status(id, json!({"type": "busy"}));
            }
            TurnStep::Hang => self.record_fact(id, Fact::Hung),
            TurnStep::Fail => self.fail(id, "APIError", "the provider refused the request"),
            TurnStep::UnknownModel => {
                let (fact, model) = match self.sessions.get(id) {
                    Some(session) if self.has_lost_model(id) => {
                        let (provider, model) = session.model();
                        (Fact::NotConfigured, format!("{provider}/{model}"))
                    }
                    _ => (Fact::Failed, "acme/nothing".to_owned()),
                };
                self.record_fact(id, fact);
                let text = format!("Model not found: {model}.");
                self.emit_error(id, "UnknownError", &text);
                self.end_turn(id);
                self.emit_error(id, "UnknownError", &format!("{text} at run (index.js)"));
            }
            TurnStep::Finish => {
                self.finish_answer(id, "stop");
                self.record_fact(id, Fact::AnswerCompleted);
                self.with_turn(id, |turn| {
                    if std::mem::take(&mut turn.has_unanswered_prompt) {
                        turn.steps = VecDeque::from([
                            TurnStep::Begin,
                            TurnStep::Text,
                            TurnStep::Finish,
                            TurnStep::Idle,
                        ]);
                    }
                });
            }
            TurnStep::Idle => {
                self.emit_status(id, json!({"type": "busy"}));
                let has_unanswered_prompt = self
                    .sessions
                    .get(id)
                    .and_then(|session| session.turn.as_ref())
                    .is_some_and(|turn| turn.has_unanswered_prompt);
                self.end_turn(id);
                let twice =
                    self.rng
                        .decide(format!("idle {id} {} twice", self.turns(id)), 0, |rng| {
                            i64::from(rng.chance(200))
                        });
                if twice > 0 {
                    self.emit_idle(id);
                }
                self.emit(id, "session.updated", json!({"info": {"id": id}}));
                self.emit(id, "session.diff", json!({}));
                self.emit_user_message(id);
                if has_unanswered_prompt {
                    self.start_turn(id);
                }
            }
        }
    }

    fn with_turn(&mut self, id: &SessionId, change: impl FnOnce(&mut Turn)) {
        if let Some(turn) = self
            .sessions
            .get_mut(id)
            .and_then(|session| session.turn.as_mut())
        {
            change(turn);
        }
    }

    /// Returns true if the model of a session is not configured any more.
    pub(super) fn has_lost_model(&self, id: &SessionId) -> bool {
        self.sessions.get(id).is_some_and(|session| {
            let (provider, model) = session.model();
            self.lost_models
                .contains_key(&format!("{provider}/{model}"))
        })
    }

    fn turns(&self, id: &SessionId) -> u32 {
        self.sessions.get(id).map_or(0, |session| session.turns)
    }

    fn start_answer(&mut self, id: &SessionId) {
        let (message, now) = (self.next_message_id(), self.now());
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let answer = assistant_message(&message, id, now, &session.agent, session.model());
        session.messages.push(answer);
        self.with_turn(id, |turn| {
            turn.before_first_step = false;
            // A step reads every message that exists when it starts.
            turn.has_unanswered_prompt = false;
        });
        self.emit_assistant_message(id);
    }

    fn finish_answer(&mut self, id: &SessionId, finish: &str) {
        let now = self.now();
        if let Some(info) = self
            .sessions
            .get_mut(id)
            .and_then(|session| session.answer())
        {
            info["time"]["completed"] = json!(now);
            info["finish"] = json!(finish);
        }
        self.emit_assistant_message(id);
    }

    /// Adds a part to the assistant message in progress, even if a user message follows it.
    fn put(&mut self, id: &SessionId, mut part: serde_json::Value) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let Some(index) = session
            .messages
            .iter()
            .rposition(|message| message["info"]["role"] == "assistant")
        else {
            return;
        };
        let behind = session.messages.split_off(index + 1);
        part["id"] = json!(format!(
            "prt_{}_{}",
            session.messages[index]["info"]["id"]
                .as_str()
                .unwrap_or_default(),
            part["id"].as_str().unwrap_or_default()
        ));
        let part = session.put_part(part);
        session.messages.extend(behind);
        self.emit(id, "message.part.updated", json!({"part": part}));
    }

    fn tool(&mut self, id: &SessionId, phase: Phase, same_input: bool) {
        if phase == Phase::Pending {
            self.with_turn(id, |turn| turn.tools += 1);
            self.record_fact(id, Fact::Output);
        }
        let number = self
            .sessions
            .get(id)
            .and_then(|session| session.turn.as_ref())
            .map_or(0, |turn| turn.tools);
        let turn = self.turns(id);
        let status = match phase {
            Phase::Pending => "pending",
            Phase::Running => "running",
            Phase::Completed => "completed",
        };
        let input = if same_input {
            json!({"command": "ls"})
        } else {
            json!({"command": format!("{turn} {number}")})
        };
        let input = if phase == Phase::Pending {
            json!({})
        } else {
            input
        };
        self.put(id, json!({
            "id": "tool", "type": "tool", "tool": "bash", "callID": format!("call_{turn}_{number}"),
            "state": {"status": status, "input": input},
        }));
    }

    fn text(&mut self, id: &SessionId) {
        self.put(id, json!({"id": "text", "type": "text", "text": ""}));
        self.emit(
            id,
            "message.part.delta",
            json!({"field": "text", "delta": "done"}),
        );
        self.put(id, json!({"id": "text", "type": "text", "text": "done"}));
        self.record_fact(id, Fact::Output);
    }

    fn set_todos(&mut self, id: &SessionId, open: usize) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.open_todos = open;
        }
        self.record_fact(id, Fact::Todos(open));
        self.emit(id, "todo.updated", json!({"todos": []}));
    }

    fn ask(&mut self, id: &SessionId) {
        let ask = format!("per_{id}_{}", self.turns(id));
        self.with_turn(id, |turn| turn.ask = Some(ask.clone()));
        self.record_fact(id, Fact::AwaitingInput);
        self.emit(
            id,
            "permission.asked",
            json!({"id": ask, "permission": "bash", "patterns": ["ls"]}),
        );
    }

    /// Answers the question of a session, which then continues.
    pub(super) fn answer_ask(&mut self, id: &SessionId) -> bool {
        let turn = self
            .sessions
            .get_mut(id)
            .and_then(|session| session.turn.as_mut());
        let Some((ask, number)) = turn.and_then(|turn| Some((turn.ask.take()?, turn.number)))
        else {
            return false;
        };
        self.emit(
            id,
            "permission.replied",
            json!({"requestID": ask, "reply": "once"}),
        );
        self.schedule(
            5,
            TimedEvent::TurnStep {
                session: id.clone(),
                turn: number,
            },
        );
        true
    }

    /// Ends the turn and makes the session idle.
    pub(super) fn end_turn(&mut self, id: &SessionId) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.turn = None;
        }
        self.record_fact(id, Fact::Idle);
        self.emit_idle(id);
    }

    /// Fails the turn: sends the error, idle, the message with the error, and idle again.
    pub(super) fn fail(&mut self, id: &SessionId, name: &str, message: &str) {
        let fact = if name == "MessageAbortedError" {
            Fact::Aborted
        } else {
            Fact::Failed
        };
        self.record_fact(id, fact);
        self.emit_error(id, name, message);
        self.end_turn(id);
        let now = self.now();
        if let Some(info) = self
            .sessions
            .get_mut(id)
            .and_then(|session| session.answer())
        {
            info["error"] = json!({"name": name, "data": {"message": message}});
            info["time"]["completed"] = json!(now);
        }
        self.emit_assistant_message(id);
        self.emit_idle(id);
    }
}
