//! The state of the model: its sessions, its timed events, and whether the server is reachable. Every change
//! goes through this type, which also logs the facts about sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use greenroom::clock::Clock;
use greenroom::domain::ids::{NoticeId, SessionId};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use super::session::{Session, user_message};
use crate::explore::log::{Fact, Log, LogEvent};
use crate::explore::rng::DecisionRng;
use crate::explore::scenario::{Action, Odds};

/// An event at some virtual time.
#[derive(Debug, Clone)]
pub(super) enum TimedEvent {
    /// A server event is delivered to the system.
    Event(EmittedEvent),
    /// The next step of a turn.
    TurnStep { session: SessionId, turn: u32 },
    /// The server becomes reachable again.
    ServerOnline,
    /// The event stream connects or breaks.
    Link(bool),
    /// The instance begins to end.
    Dispose,
    /// The server aborts a turn of the ending instance.
    CutOff { session: SessionId, turn: u32 },
    /// The end of the instance is reported to the system. A lost bridge is reported in any case.
    InstanceEnded { bridge_lost: bool },
    /// Another process of the folder has ended.
    SecondProcessEnded,
    /// The process ends; another serves after some milliseconds.
    ProcessEnds { ms: i64 },
    /// A prompt that was accepted is stored, unless the server has ended since.
    Store {
        prompt: Box<AcceptedPrompt>,
        epoch: u32,
    },
}

/// A server event in flight.
#[derive(Debug, Clone)]
pub(super) struct EmittedEvent {
    pub(super) session: SessionId,
    pub(super) kind: String,
    pub(super) sign: bool,
    pub(super) value: Value,
}

/// A prompt that the server has accepted.
#[derive(Debug, Clone)]
pub(super) struct AcceptedPrompt {
    pub(super) session: SessionId,
    pub(super) agent: Option<String>,
    /// The model, as `provider/model`.
    pub(super) model: Option<String>,
    /// The metadata of its part; `None` for a prompt of a user.
    pub(super) metadata: Option<Value>,
    pub(super) replies: bool,
    /// The notification, if it is one.
    pub(super) notice: Option<NoticeId>,
}

/// The state of the server.
#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) odds: Odds,
    pub(super) rng: DecisionRng,
    pub(super) clock: Clock,
    pub(super) log: Log,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    scheduled: BTreeMap<(i64, u64), TimedEvent>,
    sequence: u64,
    due: Arc<Notify>,
    pub(super) online: bool,
    /// When the process ended that ran the sessions, until the next one serves. None in an outage.
    pub(super) process_ended: Option<i64>,
    pub(super) link_up: bool,
    /// Counts the outages and restarts, which cut calls in flight.
    pub(super) epoch: u32,
    pub(super) healed: bool,
    /// True if the call that takes effect now is also answered.
    pub(super) answers_call: bool,
    /// Agents that are not configured any more, and whether the healing leaves it so.
    pub(super) lost_agents: BTreeMap<String, bool>,
    /// Models that are not configured any more, and whether the healing leaves it so.
    pub(super) lost_models: BTreeMap<String, bool>,
    messages: u64,
    /// Ordered events are not delivered before this time.
    last_event_at: i64,
    pub(super) calls: BTreeMap<String, u32>,
    /// Receives the actions that race with the answers of calls.
    pub(super) race_actions: Option<mpsc::UnboundedSender<Action>>,
}

impl ServerState {
    pub(super) fn new(
        odds: Odds,
        rng: DecisionRng,
        clock: Clock,
        log: Log,
        due: Arc<Notify>,
    ) -> Self {
        Self {
            odds,
            rng,
            clock,
            log,
            sessions: BTreeMap::new(),
            scheduled: BTreeMap::new(),
            sequence: 0,
            due,
            online: true,
            process_ended: None,
            link_up: true,
            epoch: 0,
            healed: false,
            answers_call: true,
            lost_agents: BTreeMap::new(),
            lost_models: BTreeMap::new(),
            messages: 0,
            last_event_at: 0,
            calls: BTreeMap::new(),
            race_actions: None,
        }
    }

    pub(super) fn now(&self) -> i64 {
        self.clock.now().as_millis()
    }

    /// Returns an event that is due, or the time of the next one.
    pub(super) fn pop_due(&mut self, now: i64) -> (Option<TimedEvent>, Option<i64>) {
        match self.scheduled.first_entry() {
            Some(first) if first.key().0 <= now => (Some(first.remove()), None),
            Some(first) => (None, Some(first.key().0)),
            None => (None, None),
        }
    }

    pub(super) fn schedule(&mut self, wait: i64, due: TimedEvent) {
        self.sequence += 1;
        self.scheduled
            .insert((self.now() + wait, self.sequence), due);
        self.due.notify_one();
    }

    pub(super) fn record_fact(&self, session: &SessionId, fact: Fact) {
        self.log.push(LogEvent::SessionFact {
            session: session.clone(),
            fact,
        });
    }

    /// Sends an event of a session, unless it is lost.
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
        if self.rng.decide(name("lost"), 0, |rng| {
            i64::from(rng.chance(odds.event_lost))
        }) > 0
        {
            return;
        }
        let late = self.rng.decide(name("late"), 0, |rng| {
            if rng.chance(odds.event_late) {
                rng.between(1, odds.event_late_ms)
            } else {
                0
            }
        });
        let doubled = self.rng.decide(name("doubled"), 0, |rng| {
            if rng.chance(odds.event_doubled) {
                rng.between(1, odds.event_late_ms.max(50))
            } else {
                0
            }
        });
        let now = self.now();
        let mut wait = late + 1;
        if !odds.event_reordered {
            wait = wait.max(self.last_event_at - now);
            self.last_event_at = now + wait;
        }
        let (mut shown, sign) = describe(kind, &properties);
        let aborted = properties["info"]["error"]["name"] == "MessageAbortedError";
        if odds.exact_effects && kind == "message.updated" && aborted {
            "message.updated aborted".clone_into(&mut shown);
        }
        let event = EmittedEvent {
            session: id.clone(),
            kind: shown,
            // The message of an abort that was delayed is no sign of life of the next attempt.
            sign: sign && !aborted,
            value: json!({"type": kind, "properties": properties}),
        };
        if doubled > 0 {
            self.schedule(wait + doubled, TimedEvent::Event(event.clone()));
        }
        self.schedule(wait, TimedEvent::Event(event));
    }

    pub(super) fn emit_status(&mut self, id: &SessionId, status: Value) {
        self.emit(id, "session.status", json!({"status": status}));
    }

    /// Sends the idle status and the idle event together.
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

    /// Sends the newest assistant message as it is now.
    pub(super) fn emit_assistant_message(&mut self, id: &SessionId) {
        let info = self
            .sessions
            .get_mut(id)
            .and_then(|session| session.answer().cloned());
        if let Some(info) = info {
            self.emit(id, "message.updated", json!({"info": info}));
        }
    }

    /// Sends the newest user message as it is now.
    pub(super) fn emit_user_message(&mut self, id: &SessionId) {
        let info = self
            .sessions
            .get(id)
            .and_then(|session| session.question().cloned());
        if let Some(info) = info {
            self.emit(id, "message.updated", json!({"info": info}));
        }
    }

    pub(super) fn next_message_id(&mut self) -> String {
        self.messages += 1;
        format!("msg_{:06}", self.messages)
    }

    /// Adds a session that Greenroom has not created.
    pub(super) fn ensure_session(&mut self, id: &SessionId, parent: Option<SessionId>) {
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

    /// Adds a prompt to a session as a user message. It starts a turn, is queued, or is silent.
    pub(super) fn accept_prompt(&mut self, prompt: AcceptedPrompt) {
        let id = &prompt.session;
        if let Some(agent) = prompt.agent.as_ref().filter(|agent| self.is_unknown(agent)) {
            self.record_fact(id, Fact::NotConfigured);
            return self.emit_unknown_agent(id, agent);
        }
        self.delete_reverted(id);
        let (message, now) = (self.next_message_id(), self.now());
        let known = self.sessions.get(id);
        let default = known
            .filter(|session| self.is_unknown(&session.agent))
            .map(|_| self.default_agent());
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        if let Some(agent) = prompt.agent.or(default) {
            session.agent = agent;
        }
        if let Some(model) = prompt.model {
            session.model = model;
        }
        let ours = prompt.metadata.is_some();
        let mut part = json!({"id": format!("prt_{message}"), "type": "text", "text": "go", "messageID": message, "sessionID": id});
        if let Some(metadata) = prompt.metadata {
            part["metadata"] = metadata;
            part["synthetic"] = json!(true);
        }
        let agent = session.agent.clone();
        let stored = user_message(&message, id, now, &agent, session.model(), part.clone());
        session.messages.push(stored);
        self.emit_user_message(id);
        self.emit(id, "message.part.updated", json!({"part": part}));
        if !ours {
            self.record_fact(id, Fact::UserPrompted);
        }
        if let Some(notice) = prompt.notice {
            self.log.push(LogEvent::NoticeStored {
                parent: id.clone(),
                notice,
                wakes: prompt.replies,
            });
        }
        self.respond_to_prompt(id, &agent, prompt.replies);
    }

    /// Returns true if a prompt for this agent is accepted and not stored.
    fn is_unknown(&self, agent: &str) -> bool {
        self.lost_agents.contains_key(agent) || self.odds.exact_effects && agent == "nobody"
    }

    fn default_agent(&self) -> String {
        let build = !self.lost_agents.contains_key("build");
        if build { "build" } else { "plan" }.to_owned()
    }

    fn emit_unknown_agent(&mut self, id: &SessionId, agent: &str) {
        for rest in [". Available agents: build, explore", ". at run (index.js)"] {
            let text = format!("{UNKNOWN_AGENT}{agent}\"{rest}");
            self.emit_error(id, "UnknownError", &text);
        }
    }

    /// Deletes the messages that a revert hides, as every prompt does.
    fn delete_reverted(&mut self, id: &SessionId) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let Some(from) = session.reverted.take() else {
            return;
        };
        let removed = session.messages.split_off(from.min(session.messages.len()));
        for message in removed {
            let message = message["info"]["id"].clone();
            self.emit(id, "message.removed", json!({"messageID": message}));
        }
        self.emit(id, "session.updated", json!({"info": {"id": id}}));
        self.record_fact(id, Fact::RevertedDeleted);
        self.record_fact(id, Fact::Restored);
    }

    fn respond_to_prompt(&mut self, id: &SessionId, agent: &str, replies: bool) {
        if agent == "nobody" {
            if replies {
                self.record_fact(id, Fact::Failed);
                self.emit_unknown_agent(id, agent);
            }
            return;
        }
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        match &mut session.turn {
            // A silent prompt also costs a busy session a step.
            Some(turn) => turn.has_unanswered_prompt = true,
            None if replies => self.start_turn(id),
            None => {}
        }
    }
}

/// The text before the name in the error of an unknown agent.
const UNKNOWN_AGENT: &str = "Agent not found: \"";

/// Returns the name of an event in the log, and whether it is a sign of life.
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
        "session.error" => {
            let text = properties["error"]["data"]["message"].as_str();
            let quoted = text.and_then(|text| text.strip_prefix(UNKNOWN_AGENT)?.split('"').next());
            match quoted {
                Some(agent) => (format!("{kind} unknown agent {agent}"), false),
                None => (kind.to_owned(), false),
            }
        }
        "message.updated" => (
            format!("{kind} {}", role.unwrap_or("?")),
            role == Some("assistant"),
        ),
        "message.part.updated" => {
            let part = properties["part"]["type"].as_str().unwrap_or("?");
            // A text part does not say whether it belongs to the user, so it is not counted as a sign of
            // life.
            (format!("{kind} {part}"), part == "tool")
        }
        "todo.updated" | "message.part.delta" | "permission.asked" | "question.asked"
        | "permission.replied" | "question.rejected" => (kind.to_owned(), true),
        _ => (kind.to_owned(), false),
    }
}
