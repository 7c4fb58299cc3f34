//! The state of the model: its sessions, what is due later, and whether the server can be reached. Every change goes through
//! here; the log is told what is true.

use std::collections::BTreeMap;
use std::sync::Arc;

use greenroom::clock::Clock;
use greenroom::domain::ids::SessionId;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use super::session::{Session, user_message};
use crate::explore::log::{Fact, Log, What};
use crate::explore::rng::Dice;
use crate::explore::scenario::{Deed, Odds};

/// What is due at some time.
#[derive(Debug, Clone)]
pub(super) enum Due {
    /// An event reaches the system.
    Event(Emitted),
    /// The next beat of a turn.
    Beat { session: SessionId, turn: u32 },
    /// The server can be reached again.
    Online,
    /// The event stream connects or breaks.
    Link(bool),
}

/// An event on its way.
#[derive(Debug, Clone)]
pub(super) struct Emitted {
    pub(super) session: SessionId,
    pub(super) kind: String,
    pub(super) sign: bool,
    pub(super) value: Value,
}

/// The state.
#[derive(Debug)]
pub(super) struct World {
    pub(super) odds: Odds,
    pub(super) dice: Dice,
    pub(super) clock: Clock,
    pub(super) log: Log,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    agenda: BTreeMap<(i64, u64), Due>,
    entered: u64,
    due: Arc<Notify>,
    pub(super) online: bool,
    pub(super) link_up: bool,
    /// Counts what cuts calls in flight: outages and restarts.
    pub(super) epoch: u32,
    pub(super) healed: bool,
    messages: u64,
    /// No event in order overtakes this time.
    last_event: i64,
    pub(super) calls: BTreeMap<String, u32>,
    /// Where what is to be done at the answers of calls goes.
    pub(super) ambushes: Option<mpsc::UnboundedSender<Deed>>,
}

impl World {
    pub(super) fn new(odds: Odds, dice: Dice, clock: Clock, log: Log, due: Arc<Notify>) -> Self {
        Self {
            odds,
            dice,
            clock,
            log,
            sessions: BTreeMap::new(),
            agenda: BTreeMap::new(),
            entered: 0,
            due,
            online: true,
            link_up: true,
            epoch: 0,
            healed: false,
            messages: 0,
            last_event: 0,
            calls: BTreeMap::new(),
            ambushes: None,
        }
    }

    pub(super) fn now(&self) -> i64 {
        self.clock.now().as_millis()
    }

    /// Takes what is due, or says when the next thing is.
    pub(super) fn take_due(&mut self, now: i64) -> (Option<Due>, Option<i64>) {
        match self.agenda.first_entry() {
            Some(first) if first.key().0 <= now => (Some(first.remove()), None),
            Some(first) => (None, Some(first.key().0)),
            None => (None, None),
        }
    }

    pub(super) fn schedule(&mut self, wait: i64, due: Due) {
        self.entered += 1;
        self.agenda.insert((self.now() + wait, self.entered), due);
        self.due.notify_one();
    }

    pub(super) fn truth(&self, session: &SessionId, fact: Fact) {
        self.log.push(What::Truth {
            session: session.clone(),
            fact,
        });
    }

    /// An event of a session goes out, unless it is lost.
    pub(super) fn emit(&mut self, id: &SessionId, kind: &str, mut properties: Value) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        session.events += 1;
        let number = session.events;
        properties["sessionID"] = json!(id);
        if !self.link_up || !self.online {
            return;
        }
        let odds = self.odds.clone();
        let name = |what: &str| format!("event {id} {number} {what}");
        if self.dice.decide(name("lost"), 0, |source| {
            i64::from(source.chance(odds.event_lost))
        }) > 0
        {
            return;
        }
        let late = self.dice.decide(name("late"), 0, |source| {
            if source.chance(odds.event_late) {
                source.between(1, odds.event_late_ms)
            } else {
                0
            }
        });
        let doubled = self.dice.decide(name("doubled"), 0, |source| {
            if source.chance(odds.event_doubled) {
                source.between(1, odds.event_late_ms.max(50))
            } else {
                0
            }
        });
        let now = self.now();
        let mut wait = late + 1;
        if !odds.event_reordered {
            wait = wait.max(self.last_event - now);
            self.last_event = now + wait;
        }
        let (shown, sign) = describe(kind, &properties);
        let event = Emitted {
            session: id.clone(),
            kind: shown,
            sign,
            value: json!({"type": kind, "properties": properties}),
        };
        if doubled > 0 {
            self.schedule(wait + doubled, Due::Event(event.clone()));
        }
        self.schedule(wait, Due::Event(event));
    }

    pub(super) fn emit_status(&mut self, id: &SessionId, status: Value) {
        self.emit(id, "session.status", json!({"status": status}));
    }

    /// Status idle and the event of it, as they come together.
    pub(super) fn emit_idle(&mut self, id: &SessionId) {
        self.emit_status(id, json!({"type": "idle"}));
        self.emit(id, "session.idle", json!({}));
    }

    pub(super) fn emit_error(&mut self, id: &SessionId, name: &str, message: &str) {
        self.emit(
            id,
            "session.error",
            json!({"error": {"name": name, "data": {"message": message}}}),
        );
    }

    /// The newest assistant message goes out as it is now.
    pub(super) fn emit_answer(&mut self, id: &SessionId) {
        let info = self
            .sessions
            .get_mut(id)
            .and_then(|session| session.answer().cloned());
        if let Some(info) = info {
            self.emit(id, "message.updated", json!({"info": info}));
        }
    }

    /// The newest user message goes out as it is now.
    pub(super) fn emit_question(&mut self, id: &SessionId) {
        let info = self
            .sessions
            .get(id)
            .and_then(|session| session.question().cloned());
        if let Some(info) = info {
            self.emit(id, "message.updated", json!({"info": info}));
        }
    }

    pub(super) fn next_message(&mut self) -> String {
        self.messages += 1;
        format!("msg_{:06}", self.messages)
    }

    /// A session that nobody of ours has made.
    pub(super) fn ensure(&mut self, id: &SessionId, parent: Option<SessionId>) {
        if !self.sessions.contains_key(id) {
            let session = Session {
                parent,
                directory: super::BASE.to_owned(),
                agent: "build".to_owned(),
                ..Session::default()
            };
            self.sessions.insert(id.clone(), session);
            self.emit(id, "session.created", json!({"info": {"id": id}}));
        }
    }

    /// A prompt arrives in a session: it is a message of its user from now on, and starts a turn, is queued, or is silent.
    pub(super) fn take_prompt(
        &mut self,
        id: &SessionId,
        agent: Option<&str>,
        metadata: Option<Value>,
        replies: bool,
    ) {
        let (message, now) = (self.next_message(), self.now());
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        if let Some(agent) = agent {
            agent.clone_into(&mut session.agent);
        }
        let ours = metadata.is_some();
        let mut part = json!({"id": format!("prt_{message}"), "type": "text", "text": "go", "messageID": message, "sessionID": id});
        if let Some(metadata) = metadata {
            part["metadata"] = metadata;
            part["synthetic"] = json!(true);
        }
        let agent = session.agent.clone();
        session
            .messages
            .push(user_message(&message, id, now, &agent, part.clone()));
        self.emit_question(id);
        self.emit(id, "message.part.updated", json!({"part": part}));
        if !ours {
            self.truth(id, Fact::Spoken);
        }
        self.answer_prompt(id, &agent, replies);
    }

    fn answer_prompt(&mut self, id: &SessionId, agent: &str, replies: bool) {
        if agent == "nobody" {
            if replies {
                self.truth(id, Fact::Failed);
                self.emit_error(
                    id,
                    "UnknownError",
                    "Agent not found: \"nobody\". Available agents: build, explore",
                );
                self.emit_error(
                    id,
                    "UnknownError",
                    "Agent not found: \"nobody\". at run (index.js)",
                );
            }
            return;
        }
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        match &mut session.turn {
            // Also a silent one costs a busy session a step.
            Some(turn) => turn.unanswered = true,
            None if replies => self.begin_turn(id),
            None => {}
        }
    }
}

/// How an event is called in the log, and whether it is a sign of life.
fn describe(kind: &str, properties: &Value) -> (String, bool) {
    let role = properties["info"]["role"].as_str();
    match kind {
        "session.status" => {
            let status = properties["status"]["type"].as_str().unwrap_or("?");
            (format!("{kind} {status}"), status != "idle")
        }
        "session.error" if properties["error"]["name"] == "MessageAbortedError" => {
            (format!("{kind} aborted"), false)
        }
        "message.updated" => (
            format!("{kind} {}", role.unwrap_or("?")),
            role == Some("assistant"),
        ),
        "message.part.updated" => {
            let part = properties["part"]["type"].as_str().unwrap_or("?");
            // Of a text only its message says whose it is: it counts as none here.
            (format!("{kind} {part}"), part == "tool")
        }
        "todo.updated" | "message.part.delta" | "permission.asked" | "question.asked"
        | "permission.replied" | "question.rejected" => (kind.to_owned(), true),
        _ => (kind.to_owned(), false),
    }
}
