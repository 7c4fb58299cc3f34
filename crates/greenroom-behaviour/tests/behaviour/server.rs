//! The agent server of the behaviour tests: sessions in memory that behave like sessions of opencode (a prompt
//! makes a session busy, an abort idle; idle sessions are absent from the status map), a log of every call,
//! and outcomes for calls that must fail. Tests script it through [`Server`]; the actors call it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use crate::call_outcome::*;
use crate::fixtures::{error_event, message_event, part_event};
use crate::harness::lock;
use async_trait::async_trait;
use greenroom::Clock;
use greenroom::domain::ids::{ModelRef, SessionId, TaskId};
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::domain::time::Timestamp;
use greenroom::domain::transcript::Message;
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use greenroom_sim::session::Session;
use serde_json::{Value, json};

/// A call, as it arrived.
#[derive(Debug, Clone)]
pub struct Call {
    pub at: i64,
    pub kind: CallKind,
    pub session: Option<SessionId>,
    pub payload: CallPayload,
}

/// The payload of a call.
#[derive(Debug, Clone)]
pub enum CallPayload {
    Empty,
    Directory(String),
    Create(Box<NewSession>),
    Prompt(Option<String>, Box<TaskPrompt>),
    Notify(Box<Notice>),
    Ask(String),
    Toast(Toast),
}

struct Rule {
    kind: CallKind,
    session: Option<SessionId>,
    remaining: Option<u32>,
    outcome: CallOutcome,
}

#[derive(Default)]
struct State {
    sessions: BTreeMap<SessionId, Session>,
    created_for: Vec<(TaskId, SessionId)>,
    calls: Vec<Call>,
    rules: Vec<Rule>,
    offline: bool,
    /// True while no process serves: statuses say so.
    killed: bool,
    /// The process of all sessions, if it is known.
    process: Option<u32>,
    created: u32,
    messages: u32,
    on_next_session: Option<Box<dyn FnOnce() + Send>>,
    /// Receives the events of stored notifications; none are sent without it.
    events: Option<tokio::sync::mpsc::UnboundedSender<Value>>,
    /// Agents that the server does not know.
    unknown_agents: Vec<String>,
    unanswered: bool,
    default_model: Option<ModelRef>,
}

/// The server. A cheap clone.
#[derive(Clone)]
pub struct Server {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Returns a server with two idle parent sessions, `P` and `Q`.
    pub fn new(clock: Clock) -> Self {
        let server = Self {
            clock,
            state: Arc::default(),
        };
        server.add_session("P", None);
        server.add_session("Q", None);
        server
    }

    /// Adds a session, with an optional parent.
    pub fn add_session(&self, session: &str, parent: Option<&str>) {
        let mut known = Session::declared();
        known.parent = parent.map(SessionId::from);
        self.state().sessions.insert(session.into(), known);
    }

    /// Adds a session in another directory.
    pub fn add_session_in(&self, session: &str, directory: &str) {
        self.add_session(session, None);
        self.change(&session.into(), |known| {
            directory.clone_into(&mut known.directory)
        });
    }

    /// Removes a session: every call about it is answered with 404.
    pub fn remove_session(&self, session: &SessionId) {
        self.state().sessions.remove(session);
    }

    /// Makes all sessions idle, as after a restart of the server.
    pub fn forget_turns(&self) {
        for session in self.state().sessions.values_mut() {
            session.status = None;
        }
    }

    /// Sends the events of stored notifications to this channel; none are sent without a channel.
    pub fn send_events_to(&self, events: Option<tokio::sync::mpsc::UnboundedSender<Value>>) {
        self.state().events = events;
    }

    /// Makes the server answer a notification as this agent with an error instead of storing it.
    pub fn remove_agent(&self, agent: &str) {
        self.state().unknown_agents.push(agent.to_owned());
    }

    /// Stops the parents from answering the notifications that wake them.
    pub fn leave_wakes_unanswered(&self) {
        self.state().unanswered = true;
    }

    /// Sets the model of the server's configuration.
    pub fn set_default_model(&self, provider: &str, model: &str) {
        self.state().default_model = Some(ModelRef {
            provider_id: provider.to_owned(),
            model_id: model.to_owned(),
            variant: None,
        });
    }

    /// Adds an assistant message with these fields to a session, without an event.
    pub fn push_answer(&self, session: &SessionId, fields: &Value) {
        push_answer(&mut self.state(), session, fields);
    }

    /// Sets whether a session is reverted, without an event.
    pub fn set_reverted(&self, session: &SessionId, reverted: bool) {
        self.change(session, |session| session.reverted = reverted);
    }

    /// Makes every call fail as unreachable, until [`Server::come_online`].
    pub fn go_offline(&self) {
        self.state().offline = true;
    }

    /// Makes the server reachable again.
    pub fn come_online(&self) {
        self.state().offline = false;
    }

    /// Sets the process that runs all sessions.
    pub fn set_process(&self, process: u32) {
        self.state().process = Some(process);
    }

    /// Ends the process of the server, until [`Server::serve_again`].
    pub fn kill(&self) {
        let mut state = self.state();
        (state.offline, state.killed) = (true, true);
    }

    /// Starts the next process. All sessions are idle.
    pub fn serve_again(&self) {
        self.forget_turns();
        let mut state = self.state();
        (state.offline, state.killed) = (false, false);
    }

    /// Sets the outcome of the next call of a kind.
    pub fn set_next_outcome(&self, kind: CallKind, outcome: CallOutcome) {
        self.add_rule(kind, None, Some(1), outcome);
    }

    /// Sets the outcome of the next call of a kind about a session.
    pub fn set_next_outcome_for(
        &self,
        kind: CallKind,
        session: impl Into<SessionId>,
        outcome: CallOutcome,
    ) {
        self.add_rule(kind, Some(session.into()), Some(1), outcome);
    }

    /// Sets the outcome of every call of a kind, until [`Server::clear_outcomes`].
    pub fn set_outcome(&self, kind: CallKind, outcome: CallOutcome) {
        self.add_rule(kind, None, None, outcome);
    }

    /// Sets the outcome of every call of a kind about a session, until [`Server::clear_outcomes`].
    pub fn set_outcome_for(
        &self,
        kind: CallKind,
        session: impl Into<SessionId>,
        outcome: CallOutcome,
    ) {
        self.add_rule(kind, Some(session.into()), None, outcome);
    }

    /// Makes calls of a kind succeed again.
    pub fn clear_outcomes(&self, kind: CallKind) {
        self.state().rules.retain(|rule| rule.kind != kind);
    }

    fn add_rule(
        &self,
        kind: CallKind,
        session: Option<SessionId>,
        remaining: Option<u32>,
        outcome: CallOutcome,
    ) {
        self.state().rules.push(Rule {
            kind,
            session,
            remaining,
            outcome,
        });
    }

    /// Sets a hook that runs when the next session is created, before the create is answered.
    pub fn on_next_session(&self, hook: Box<dyn FnOnce() + Send>) {
        self.state().on_next_session = Some(hook);
    }

    /// Returns the newest session created for a task.
    pub fn session_of(&self, task: &TaskId) -> Option<SessionId> {
        let state = self.state();
        let created = state.created_for.iter().rev();
        created
            .clone()
            .find(|(known, _)| known == task)
            .map(|(_, session)| session.clone())
    }

    /// Sets the status of a session in the status call; `None` leaves it out.
    pub fn set_status(&self, session: &SessionId, status: Option<SessionStatus>) {
        self.change(session, |session| session.status = status);
    }

    /// Returns the status of a session in the status call.
    pub fn status_of(&self, session: &SessionId) -> Option<SessionStatus> {
        self.state().sessions.get(session)?.status.clone()
    }

    /// Sets the todos of a session, each with its status.
    pub fn set_todos(&self, session: &SessionId, todos: &[(&str, &str)]) {
        let todos = todos.iter().map(|(content, status)| Todo {
            content: (*content).to_owned(),
            status: (*status).to_owned(),
        });
        self.change(session, |session| session.todos = todos.collect());
    }

    /// Adds a message with an id and a time. Returns its `info` for the event.
    pub fn add_message(&self, session: &SessionId, info: Value, parts: Value) -> Value {
        let now = self.clock.now().as_millis();
        let mut state = self.state();
        state.messages += 1;
        let mut info = info;
        info["id"] = json!(format!("msg_{:06}", state.messages));
        info["sessionID"] = json!(session);
        if info["time"]["created"].is_null() {
            info["time"]["created"] = json!(now);
        }
        let message = Message::read(&json!({ "info": info, "parts": parts }));
        if let Some(known) = state.sessions.get_mut(session) {
            known.messages.push(message);
        }
        info
    }

    /// Adds an assistant message without id and time.
    pub fn add_bare_message(&self, session: &SessionId, text: &str) {
        let message = json!({"info": {"role": "assistant"},
            "parts": [{"type": "text", "text": text}]});
        self.change(session, |session| {
            session.messages.push(Message::read(&message));
        });
    }

    fn change(&self, session: &SessionId, change: impl FnOnce(&mut Session)) {
        if let Some(known) = self.state().sessions.get_mut(session) {
            change(known);
        }
    }

    /// Returns every call of a kind so far.
    pub fn calls(&self, kind: CallKind) -> Vec<Call> {
        let state = self.state();
        state
            .calls
            .iter()
            .filter(|call| call.kind == kind)
            .cloned()
            .collect()
    }

    /// Returns every call so far, in order.
    pub fn log(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn record_call(
        &self,
        kind: CallKind,
        session: Option<&SessionId>,
        payload: CallPayload,
    ) -> Option<CallOutcome> {
        let at = self.clock.now().as_millis();
        let mut state = self.state();
        state.calls.push(Call {
            at,
            kind,
            session: session.cloned(),
            payload,
        });
        if state.killed && kind == CallKind::Statuses {
            let ended = ServerError::ProcessEnded("connection refused".to_owned());
            return Some(CallOutcome::Fails(ended));
        }
        if state.offline {
            return Some(CallOutcome::Fails(unreachable()));
        }
        let rule = state.rules.iter_mut().find(|rule| {
            rule.kind == kind
                && rule.remaining != Some(0)
                && rule
                    .session
                    .as_ref()
                    .is_none_or(|expected| Some(expected) == session)
        })?;
        rule.remaining = rule.remaining.map(|remaining| remaining - 1);
        Some(rule.outcome.clone())
    }

    async fn respond<T: Default>(
        &self,
        outcome: Option<CallOutcome>,
        effect: impl FnOnce(&mut State, Timestamp) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        let effect = || effect(&mut self.state(), self.clock.now());
        match outcome {
            None => effect(),
            Some(CallOutcome::Ignored) => Ok(T::default()),
            Some(CallOutcome::Fails(failure)) => Err(failure),
            Some(CallOutcome::Cut(failure)) => effect().and(Err(failure)),
            Some(CallOutcome::Hangs) => std::future::pending().await,
            Some(CallOutcome::Lost) => {
                drop(effect());
                std::future::pending().await
            }
            Some(CallOutcome::Late(millis)) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                effect()
            }
            Some(CallOutcome::LateFailure(millis, failure)) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                Err(failure)
            }
            Some(CallOutcome::Panics) => panic!("the client of the agent server broke"),
        }
    }

    /// Answers a read with the state at its arrival, independent of its delay.
    async fn read<T>(
        &self,
        outcome: Option<CallOutcome>,
        look: impl FnOnce(&State) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        let seen = look(&self.state());
        self.respond(outcome, |_, _| Ok(())).await?;
        seen
    }
}

fn known<'a>(state: &'a State, session: &SessionId) -> Result<&'a Session, ServerError> {
    state.sessions.get(session).ok_or_else(not_found)
}

#[async_trait]
impl AgentServer for Server {
    fn process_of(&self, _: &SessionId) -> Option<u32> {
        self.state().process
    }

    async fn session(&self, session: &SessionId) -> Result<SessionRecord, ServerError> {
        let outcome = self.record_call(CallKind::Session, Some(session), CallPayload::Empty);
        let look = |state: &State| Ok(known(state, session)?.record(session));
        self.read(outcome, look).await
    }

    async fn create(&self, new: NewSession) -> Result<SessionId, ServerError> {
        let outcome = self.record_call(
            CallKind::Create,
            None,
            CallPayload::Create(Box::new(new.clone())),
        );
        let created = self.respond(outcome, move |state, _| {
            state.created += 1;
            let id = SessionId::new(format!("ses_{:06}", state.created));
            let mut session = Session::declared();
            session.parent.clone_from(&new.parent);
            session.metadata = Some(new.tag.metadata());
            session.directory = new.directory.to_string();
            state.sessions.insert(id.clone(), session);
            state.created_for.push((new.task.clone(), id.clone()));
            if let Some(hook) = state.on_next_session.take() {
                hook();
            }
            Ok(Some(id))
        });
        created.await?.ok_or_else(|| ServerError::Refused {
            status: None,
            message: "the answer has no id".to_owned(),
        })
    }

    async fn prompt(
        &self,
        session: &SessionId,
        directory: Option<&str>,
        prompt: TaskPrompt,
    ) -> Result<(), ServerError> {
        let payload = CallPayload::Prompt(directory.map(str::to_owned), Box::new(prompt.clone()));
        let outcome = self.record_call(CallKind::Prompt, Some(session), payload);
        let part = json!({"type": "text", "text": prompt.text, "metadata": prompt.tag.metadata()});
        self.respond(outcome, |state, now| {
            known(state, session)?;
            push_user_message(state, session, part, now);
            set_busy(state, session);
            Ok(())
        })
        .await
    }

    async fn notify(&self, parent: &SessionId, notice: Notice) -> Result<(), ServerError> {
        let payload = CallPayload::Notify(Box::new(notice.clone()));
        let outcome = self.record_call(CallKind::Notify, Some(parent), payload);
        let part = json!({"type": "text", "text": notice.text, "synthetic": true,
            "metadata": {"greenroom": {"id": notice.id}}});
        self.respond(outcome, |state, now| {
            known(state, parent)?;
            let unknown = |agent: &&String| state.unknown_agents.contains(*agent);
            if let Some(agent) = notice.agent.as_ref().filter(unknown) {
                let text = format!("Agent not found: \"{agent}\". Available agents: build, plan");
                send_error(state, parent, &text);
                send_error(state, parent, "UnknownError: UnknownError");
                return Ok(());
            }
            let info = push_user_message(state, parent, part.clone(), now);
            send_stored(state, parent, &info, part);
            if !notice.silent && !state.unanswered {
                let finished = json!({"finish": "stop", "time": {"completed": now.as_millis()}});
                let answer = push_answer(state, parent, &finished);
                if let Some(events) = &state.events {
                    let _ = events.send(message_event(parent, &answer));
                }
            }
            Ok(())
        })
        .await
    }

    async fn default_model(&self, _: &str) -> Result<Option<ModelRef>, ServerError> {
        Ok(self.state().default_model.clone())
    }

    async fn abort(&self, session: &SessionId) -> Result<(), ServerError> {
        let outcome = self.record_call(CallKind::Abort, Some(session), CallPayload::Empty);
        self.respond(outcome, |state, _| {
            if let Some(known) = state.sessions.get_mut(session) {
                known.status = None;
            }
            Ok(())
        })
        .await
    }

    async fn statuses(
        &self,
        directory: &str,
    ) -> Result<BTreeMap<SessionId, SessionStatus>, ServerError> {
        let outcome = self.record_call(
            CallKind::Statuses,
            None,
            CallPayload::Directory(directory.to_owned()),
        );
        let look = |state: &State| {
            let here = state
                .sessions
                .iter()
                .filter(|(_, session)| session.directory == directory);
            Ok(here
                .filter_map(|(id, session)| Some((id.clone(), session.status.clone()?)))
                .collect())
        };
        self.read(outcome, look).await
    }

    async fn messages(
        &self,
        session: &SessionId,
        limit: Option<usize>,
    ) -> Result<Vec<Message>, ServerError> {
        let outcome = self.record_call(CallKind::Messages, Some(session), CallPayload::Empty);
        let look = |state: &State| {
            let messages = &known(state, session)?.messages;
            let first = messages.len().saturating_sub(limit.unwrap_or(usize::MAX));
            Ok(messages[first..].to_vec())
        };
        self.read(outcome, look).await
    }

    async fn todos(&self, session: &SessionId) -> Result<Vec<Todo>, ServerError> {
        let outcome = self.record_call(CallKind::Todos, Some(session), CallPayload::Empty);
        self.read(outcome, |state| Ok(known(state, session)?.todos.clone()))
            .await
    }

    async fn sessions_below(
        &self,
        parent: Option<&SessionId>,
        directory: &str,
    ) -> Result<Vec<SessionRecord>, ServerError> {
        let outcome = self.record_call(
            CallKind::Below,
            parent,
            CallPayload::Directory(directory.to_owned()),
        );
        let look = |state: &State| {
            let below = state.sessions.iter().filter(|(_, session)| match parent {
                Some(parent) => session.parent.as_ref() == Some(parent),
                None => session.directory == directory,
            });
            Ok(below.map(|(id, session)| session.record(id)).collect())
        };
        self.read(outcome, look).await
    }

    async fn answer_ask(
        &self,
        session: &SessionId,
        ask: &str,
        _: AskKind,
        answer: &AskAnswer,
    ) -> Result<(), ServerError> {
        if *answer != AskAnswer::Reject {
            return Ok(());
        }
        let outcome = self.record_call(
            CallKind::RejectAsk,
            Some(session),
            CallPayload::Ask(ask.to_owned()),
        );
        self.respond(outcome, |_, _| Ok(())).await
    }

    async fn toast(&self, toast: Toast) -> Result<(), ServerError> {
        let outcome = self.record_call(CallKind::Toast, None, CallPayload::Toast(toast));
        self.respond(outcome, |_, _| Ok(())).await
    }

    async fn models(&self, directory: &str) -> Result<Vec<String>, ServerError> {
        let outcome = self.record_call(
            CallKind::Models,
            None,
            CallPayload::Directory(directory.to_owned()),
        );
        let models = ["acme/big", "acme/small"].map(str::to_owned).to_vec();
        self.read(outcome, |_| Ok(models)).await
    }

    async fn health(&self) -> Result<(), ServerError> {
        let outcome = self.record_call(CallKind::Health, None, CallPayload::Empty);
        self.respond(outcome, |_, _| Ok(())).await
    }
}

fn push_user_message(state: &mut State, session: &SessionId, part: Value, now: Timestamp) -> Value {
    state.messages += 1;
    let info = json!({"id": format!("msg_{:06}", state.messages), "role": "user",
        "time": {"created": now.as_millis()}});
    if let Some(known) = state.sessions.get_mut(session) {
        known
            .messages
            .push(Message::read(&json!({ "info": info, "parts": [part] })));
    }
    info
}

/// Adds an assistant message with these fields. Returns its `info`.
fn push_answer(state: &mut State, session: &SessionId, fields: &Value) -> Value {
    state.messages += 1;
    let mut info = json!({"id": format!("msg_{:06}", state.messages), "role": "assistant"});
    if let (Some(info), Some(fields)) = (info.as_object_mut(), fields.as_object()) {
        info.extend(fields.clone());
    }
    if let Some(known) = state.sessions.get_mut(session) {
        let message = Message::read(&json!({ "info": info, "parts": [] }));
        known.messages.push(message);
    }
    info
}

/// Sends the events of a stored message.
fn send_stored(state: &State, session: &SessionId, info: &Value, mut part: Value) {
    let Some(events) = &state.events else { return };
    part["messageID"] = info["id"].clone();
    part["sessionID"] = json!(session);
    // The receiver is gone after a crash.
    let _ = events.send(message_event(session, info));
    let _ = events.send(part_event(session, part));
}

fn send_error(state: &State, session: &SessionId, text: &str) {
    if let Some(events) = &state.events {
        let error = json!({"name": "UnknownError", "data": {"message": text}});
        let _ = events.send(error_event(session, error));
    }
}

fn set_busy(state: &mut State, session: &SessionId) {
    if let Some(known) = state.sessions.get_mut(session) {
        known.status = Some(SessionStatus::Busy);
    }
}
