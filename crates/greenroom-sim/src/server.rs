//! The scripted agent server: sessions in memory, with the delays and faults of the story. The actors call
//! it; the driver changes its script. A read returns the state at the arrival of the call; an effect happens
//! when the call is answered.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use greenroom::clock::Clock;
use greenroom::domain::ids::{NoticeId, SessionId};
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::domain::transcript::Message;
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use tokio::time::{Instant, sleep_until};

use crate::lock;
use crate::names::Names;
use crate::rules::{Arrival, CallName, CallOutcome, CallResult, Rules};
use crate::session::{Session, notice_message};
use crate::story::{Declared, Script};
use crate::trace::{Call, CallRow};

/// The scripted server. A cheap clone.
#[derive(Debug, Clone)]
pub struct ScriptedServer {
    clock: Clock,
    names: Names,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    rules: Rules,
    child_defaults: Declared,
    /// Declarations of sessions that are not created yet, by `$alias`.
    declared: HashMap<String, Declared>,
    sessions: BTreeMap<SessionId, Session>,
    /// Accepted notices by parent, including parents that are not declared.
    notices: HashMap<SessionId, Vec<NoticeId>>,
    calls: Vec<CallRow>,
    created: u32,
    /// Set when the story is over: calls dropped after that have no effect.
    finished: bool,
}

impl ScriptedServer {
    /// Returns the server of a story in its initial state.
    pub fn new(script: &Script, clock: Clock, names: Names) -> Self {
        let mut state = State {
            rules: Rules::of(script),
            child_defaults: script.child_defaults.clone(),
            declared: HashMap::new(),
            sessions: BTreeMap::new(),
            notices: HashMap::new(),
            calls: Vec::new(),
            created: 0,
            finished: false,
        };
        for (session, declared) in &script.sessions {
            state.declare(session, session, declared);
        }
        Self {
            clock,
            names,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Changes the script of a session; declares the session if it does not exist.
    pub fn change(&self, session: &str, change: &Declared) {
        let id = self.names.id(session);
        self.state().declare(session, &id, change);
    }

    /// Ends the server and returns the recorded calls.
    pub fn finish(&self) -> Vec<CallRow> {
        let mut state = self.state();
        state.finished = true;
        std::mem::take(&mut state.calls)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Records a call about a session and returns its outcome.
    fn arrive(&self, call: CallName, session: &SessionId, row: Option<Call>) -> CallOutcome {
        let alias = self.names.alias(session.as_str());
        self.record_call(call, Some(&alias), alias.strip_prefix('$'), row)
    }

    fn record_call(
        &self,
        call: CallName,
        session: Option<&str>,
        task: Option<&str>,
        row: Option<Call>,
    ) -> CallOutcome {
        let at = self.clock.now().as_millis();
        let mut state = self.state();
        state.calls.extend(row.map(|call| CallRow { at, call }));
        state.rules.next_outcome(Arrival {
            call,
            session,
            task,
            at: u64::try_from(at).unwrap_or(0),
        })
    }

    /// Answers a call after its delay, with the effect of its outcome. The effect happens even if the caller
    /// has given up by then, as on a real server.
    async fn answer<T: Default + Send>(
        &self,
        outcome: CallOutcome,
        effect: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, ServerError> {
        let due = Instant::now() + outcome.delay;
        if outcome.result == CallResult::Silent {
            return std::future::pending().await;
        }
        let effect = match &outcome.result {
            CallResult::Failed(_) => None,
            _ => Some(effect),
        };
        let mut delayed = DelayedEffect {
            due,
            effect,
            state: Arc::clone(&self.state),
        };
        if outcome.delay > Duration::ZERO {
            sleep_until(due).await;
        }
        let value = delayed
            .effect
            .take()
            .map(|effect| effect(&mut self.state()));
        match outcome.result {
            CallResult::Failed(error) => Err(error),
            CallResult::Lost => std::future::pending().await,
            CallResult::Answered | CallResult::Silent => Ok(value.unwrap_or_default()),
        }
    }
}

/// A pending effect. If the call is dropped early, the effect still happens when it is due.
struct DelayedEffect<E: FnOnce(&mut State) -> T + Send + 'static, T> {
    due: Instant,
    effect: Option<E>,
    state: Arc<Mutex<State>>,
}

impl<E: FnOnce(&mut State) -> T + Send + 'static, T> Drop for DelayedEffect<E, T> {
    fn drop(&mut self) {
        let Some(effect) = self.effect.take() else {
            return;
        };
        let (due, state) = (self.due, Arc::clone(&self.state));
        let finished = lock(&state).finished;
        if let (false, Ok(runtime)) = (finished, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                sleep_until(due).await;
                effect(&mut lock(&state));
            });
        }
    }
}

impl State {
    fn declare(&mut self, alias: &str, id: &str, change: &Declared) {
        match self.sessions.get_mut(&SessionId::new(id)) {
            Some(session) => session.apply(change),
            None if alias.starts_with('$') => {
                let declared = self.declared.entry(alias.to_owned()).or_default();
                declared.messages = change.messages.clone().or(declared.messages.take());
                declared.todos = change.todos.clone().or(declared.todos.take());
                declared.status = change.status.clone().or(declared.status.take());
                declared.directory = change.directory.clone().or(declared.directory.take());
            }
            None => {
                let mut session = Session::declared();
                session.apply(change);
                self.sessions.insert(SessionId::new(id), session);
            }
        }
    }

    fn make(&mut self, new: &NewSession, task_alias: &str, names: &Names) -> SessionId {
        self.created += 1;
        let id = SessionId::new(format!("ses_{:06}", self.created));
        let mut session = Session::created(new);
        session.apply(&self.child_defaults);
        if let Some(declared) = self.declared.get(&format!("${task_alias}")) {
            session.apply(declared);
        }
        self.sessions.insert(id.clone(), session);
        names.session_made(task_alias, id.as_str());
        id
    }

    /// Returns the scripted messages followed by the accepted notices. Notices do not count against the limit
    /// of the scripted messages.
    fn messages(&self, session: &SessionId, limit: Option<usize>) -> Vec<Message> {
        let scripted = self
            .sessions
            .get(session)
            .map(|session| session.messages.as_slice())
            .unwrap_or_default();
        let notices = self
            .notices
            .get(session)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let limit = limit.unwrap_or(usize::MAX);
        let newest = |length: usize| length.saturating_sub(limit);
        scripted[newest(scripted.len())..]
            .iter()
            .cloned()
            .chain(notices[newest(notices.len())..].iter().map(notice_message))
            .collect()
    }
}

#[async_trait]
impl AgentServer for ScriptedServer {
    async fn session(&self, session: &SessionId) -> Result<SessionRecord, ServerError> {
        let outcome = self.arrive(CallName::Get, session, None);
        let found = self
            .state()
            .sessions
            .get(session)
            .map(|known| known.record(session));
        let found = self.answer(outcome, move |_| found).await?;
        found.ok_or_else(|| ServerError::NotFound(format!("no session {session}")))
    }

    async fn create(&self, session: NewSession) -> Result<SessionId, ServerError> {
        let alias = self.names.alias_when_launched(session.task.as_str()).await;
        let outcome = self.record_call(
            CallName::Create,
            None,
            Some(&alias),
            Some(Call::create(&session)),
        );
        let names = self.names.clone();
        let created = self
            .answer(outcome, move |state| {
                Some(state.make(&session, &alias, &names))
            })
            .await?;
        created.ok_or_else(|| ServerError::OutcomeUnknown("the create was not answered".to_owned()))
    }

    async fn prompt(
        &self,
        session: &SessionId,
        _: Option<&str>,
        prompt: TaskPrompt,
    ) -> Result<(), ServerError> {
        let outcome = self.arrive(
            CallName::Prompt,
            session,
            Some(Call::prompt(session.as_str(), &prompt)),
        );
        self.answer(outcome, |_| ()).await
    }

    async fn notify(&self, parent: &SessionId, notice: Notice) -> Result<(), ServerError> {
        let outcome = self.arrive(
            CallName::Notify,
            parent,
            Some(Call::notify(parent.as_str(), &notice)),
        );
        let parent = parent.clone();
        self.answer(outcome, move |state| {
            state.notices.entry(parent).or_default().push(notice.id)
        })
        .await
    }

    async fn abort(&self, session: &SessionId) -> Result<(), ServerError> {
        let outcome = self.arrive(
            CallName::Abort,
            session,
            Some(Call::Abort {
                session: session.to_string(),
            }),
        );
        self.answer(outcome, |_| ()).await
    }

    async fn statuses(
        &self,
        directory: &str,
    ) -> Result<BTreeMap<SessionId, SessionStatus>, ServerError> {
        let outcome = self.record_call(CallName::Status, None, None, None);
        let statuses: BTreeMap<SessionId, SessionStatus> = self
            .state()
            .sessions
            .iter()
            .filter(|(_, session)| session.directory == directory)
            .filter_map(|(id, session)| Some((id.clone(), session.status.clone()?)))
            .collect();
        self.answer(outcome, move |_| statuses).await
    }

    async fn messages(
        &self,
        session: &SessionId,
        limit: Option<usize>,
    ) -> Result<Vec<Message>, ServerError> {
        let outcome = self.arrive(CallName::Messages, session, None);
        let messages = self.state().messages(session, limit);
        self.answer(outcome, move |_| messages).await
    }

    async fn todos(&self, session: &SessionId) -> Result<Vec<Todo>, ServerError> {
        let outcome = self.arrive(CallName::Todo, session, None);
        let todos = self
            .state()
            .sessions
            .get(session)
            .map(|session| session.todos.clone())
            .unwrap_or_default();
        self.answer(outcome, move |_| todos).await
    }

    async fn sessions_below(
        &self,
        parent: Option<&SessionId>,
        directory: &str,
    ) -> Result<Vec<SessionRecord>, ServerError> {
        let state = self.state();
        let below = state.sessions.iter().filter(|(_, session)| match parent {
            Some(parent) => session.parent.as_ref() == Some(parent),
            None => session.directory == directory,
        });
        Ok(below.map(|(id, session)| session.record(id)).collect())
    }

    async fn answer_ask(
        &self,
        _: &SessionId,
        _: &str,
        _: AskKind,
        _: &AskAnswer,
    ) -> Result<(), ServerError> {
        Ok(())
    }

    async fn toast(&self, _: Toast) -> Result<(), ServerError> {
        Ok(())
    }

    async fn health(&self) -> Result<(), ServerError> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
