//! The agent server of these stories: sessions in memory that behave as opencode's do (a prompt makes one busy, an abort
//! idle, idle ones are absent from the status map), a log of every call, and a fate for any call that is to go wrong. The
//! stories script it through [`Server`]; the actors call it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use crate::call_outcome::*;
use async_trait::async_trait;
use greenroom::Clock;
use greenroom::domain::ids::{SessionId, TaskId};
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::domain::time::Timestamp;
use greenroom::domain::transcript::Message;
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use greenroom_sim::session::Session;
use serde_json::{Value, json};

/// One call as it arrived.
#[derive(Debug, Clone)]
pub struct Call {
    pub at: i64,
    pub on: On,
    pub session: Option<SessionId>,
    pub what: What,
}

/// What a call carried.
#[derive(Debug, Clone)]
pub enum What {
    Nothing,
    Directory(String),
    Create(Box<NewSession>),
    Prompt(Option<String>, Box<TaskPrompt>),
    Notify(Box<Notice>),
    Ask(String),
    Toast(Toast),
}

struct Rule {
    on: On,
    session: Option<SessionId>,
    left: Option<u32>,
    fate: Fate,
}

#[derive(Default)]
struct State {
    sessions: BTreeMap<SessionId, Session>,
    made_for: Vec<(TaskId, SessionId)>,
    calls: Vec<Call>,
    rules: Vec<Rule>,
    down: bool,
    made: u32,
    messages: u32,
    when_made: Option<Box<dyn FnOnce() + Send>>,
}

/// The server. A cheap clone.
#[derive(Clone)]
pub struct Server {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Two sessions that may be parents, `P` and `Q`, both idle.
    pub fn new(clock: Clock) -> Self {
        let server = Self {
            clock,
            state: Arc::default(),
        };
        server.has("P", None);
        server.has("Q", None);
        server
    }

    /// There is a session of that name, maybe under another.
    pub fn has(&self, session: &str, parent: Option<&str>) {
        let mut known = Session::elsewhere();
        known.parent = parent.map(SessionId::from);
        self.state().sessions.insert(session.into(), known);
    }

    /// There is a session of that name in another directory.
    pub fn has_in(&self, session: &str, directory: &str) {
        self.has(session, None);
        self.change(&session.into(), |known| {
            directory.clone_into(&mut known.directory)
        });
    }

    /// The session is no more: every call about it is answered 404.
    pub fn gone(&self, session: &SessionId) {
        self.state().sessions.remove(session);
    }

    /// Nothing of what is said and done in any session is remembered as being under way: the server was restarted.
    pub fn restarted(&self) {
        for session in self.state().sessions.values_mut() {
            session.status = None;
        }
    }

    /// From now on no call gets there, until [`Server::up`].
    pub fn down(&self) {
        self.state().down = true;
    }

    /// Calls get there again.
    pub fn up(&self) {
        self.state().down = false;
    }

    /// The next call of that kind meets that fate.
    pub fn next(&self, on: On, fate: Fate) {
        self.rule(on, None, Some(1), fate);
    }

    /// The next call of that kind about that session meets that fate.
    pub fn next_for(&self, on: On, session: impl Into<SessionId>, fate: Fate) {
        self.rule(on, Some(session.into()), Some(1), fate);
    }

    /// Every call of that kind meets that fate, until [`Server::mend`].
    pub fn always(&self, on: On, fate: Fate) {
        self.rule(on, None, None, fate);
    }

    /// Every call of that kind about that session meets that fate, until [`Server::mend`].
    pub fn always_for(&self, on: On, session: impl Into<SessionId>, fate: Fate) {
        self.rule(on, Some(session.into()), None, fate);
    }

    /// Calls of that kind work again.
    pub fn mend(&self, on: On) {
        self.state().rules.retain(|rule| rule.on != on);
    }

    fn rule(&self, on: On, session: Option<SessionId>, left: Option<u32>, fate: Fate) {
        self.state().rules.push(Rule {
            on,
            session,
            left,
            fate,
        });
    }

    /// What happens in the instant in which the next session is made, before anybody hears of it.
    pub fn when_made(&self, what: Box<dyn FnOnce() + Send>) {
        self.state().when_made = Some(what);
    }

    /// The newest session made for a task.
    pub fn session_of(&self, task: &TaskId) -> Option<SessionId> {
        let state = self.state();
        let made = state.made_for.iter().rev();
        made.clone()
            .find(|(known, _)| known == task)
            .map(|(_, session)| session.clone())
    }

    /// What the status call says of a session from now on; none leaves it out.
    pub fn set_status(&self, session: &SessionId, status: Option<SessionStatus>) {
        self.change(session, |session| session.status = status);
    }

    /// What the status call says of a session.
    pub fn status_of(&self, session: &SessionId) -> Option<SessionStatus> {
        self.state().sessions.get(session)?.status.clone()
    }

    /// The todos of a session, each with its state.
    pub fn set_todos(&self, session: &SessionId, todos: &[(&str, &str)]) {
        let todos = todos.iter().map(|(content, status)| Todo {
            content: (*content).to_owned(),
            status: (*status).to_owned(),
        });
        self.change(session, |session| session.todos = todos.collect());
    }

    /// A message is added, its id and time filled in; answers its `info` for the event that tells of it.
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

    /// An assistant message of a server that gives neither ids nor times.
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

    /// Every call of that kind so far.
    pub fn calls(&self, on: On) -> Vec<Call> {
        let state = self.state();
        state
            .calls
            .iter()
            .filter(|call| call.on == on)
            .cloned()
            .collect()
    }

    /// Every call so far, in order.
    pub fn log(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meet(&self, on: On, session: Option<&SessionId>, what: What) -> Option<Fate> {
        let at = self.clock.now().as_millis();
        let mut state = self.state();
        state.calls.push(Call {
            at,
            on,
            session: session.cloned(),
            what,
        });
        if state.down {
            return Some(Fate::Fails(unreachable()));
        }
        let rule = state.rules.iter_mut().find(|rule| {
            rule.on == on
                && rule.left != Some(0)
                && rule
                    .session
                    .as_ref()
                    .is_none_or(|wanted| Some(wanted) == session)
        })?;
        rule.left = rule.left.map(|left| left - 1);
        Some(rule.fate.clone())
    }

    async fn act<T: Default>(
        &self,
        fate: Option<Fate>,
        effect: impl FnOnce(&mut State, Timestamp) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        let effect = || effect(&mut self.state(), self.clock.now());
        match fate {
            None => effect(),
            Some(Fate::Ignored) => Ok(T::default()),
            Some(Fate::Fails(failure)) => Err(failure),
            Some(Fate::Cut(failure)) => effect().and(Err(failure)),
            Some(Fate::Hangs) => std::future::pending().await,
            Some(Fate::Lost) => {
                drop(effect());
                std::future::pending().await
            }
            Some(Fate::Late(millis)) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                effect()
            }
            Some(Fate::LateFailure(millis, failure)) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                Err(failure)
            }
            Some(Fate::Panics) => panic!("the client of the agent server broke"),
        }
    }

    /// A read answers what was true when it was asked, however long the answer takes.
    async fn read<T>(
        &self,
        fate: Option<Fate>,
        look: impl FnOnce(&State) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        let seen = look(&self.state());
        self.act(fate, |_, _| Ok(())).await?;
        seen
    }
}

fn known<'a>(state: &'a State, session: &SessionId) -> Result<&'a Session, ServerError> {
    state.sessions.get(session).ok_or_else(not_found)
}

#[async_trait]
impl AgentServer for Server {
    async fn session(&self, session: &SessionId) -> Result<SessionRecord, ServerError> {
        let fate = self.meet(On::Session, Some(session), What::Nothing);
        let look = |state: &State| Ok(known(state, session)?.record(session));
        self.read(fate, look).await
    }

    async fn create(&self, new: NewSession) -> Result<SessionId, ServerError> {
        let fate = self.meet(On::Create, None, What::Create(Box::new(new.clone())));
        let made = self.act(fate, move |state, _| {
            state.made += 1;
            let id = SessionId::new(format!("ses_{:06}", state.made));
            let mut session = Session::elsewhere();
            session.parent.clone_from(&new.parent);
            session.metadata = Some(new.mark.metadata());
            session.directory = new.directory.to_string();
            state.sessions.insert(id.clone(), session);
            state.made_for.push((new.task.clone(), id.clone()));
            if let Some(what) = state.when_made.take() {
                what();
            }
            Ok(Some(id))
        });
        made.await?.ok_or_else(|| ServerError::Refused {
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
        let what = What::Prompt(directory.map(str::to_owned), Box::new(prompt.clone()));
        let fate = self.meet(On::Prompt, Some(session), what);
        let part = json!({"type": "text", "text": prompt.text, "metadata": prompt.mark.metadata()});
        self.act(fate, |state, now| {
            known(state, session)?;
            push_user_message(state, session, part, now);
            set_busy(state, session);
            Ok(())
        })
        .await
    }

    async fn notify(&self, parent: &SessionId, notice: Notice) -> Result<(), ServerError> {
        let what = What::Notify(Box::new(notice.clone()));
        let fate = self.meet(On::Notify, Some(parent), what);
        let part = json!({"type": "text", "text": notice.text, "synthetic": true,
            "metadata": {"greenroom": {"id": notice.id}}});
        self.act(fate, |state, now| {
            known(state, parent)?;
            push_user_message(state, parent, part, now);
            Ok(())
        })
        .await
    }

    async fn abort(&self, session: &SessionId) -> Result<(), ServerError> {
        let fate = self.meet(On::Abort, Some(session), What::Nothing);
        self.act(fate, |state, _| {
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
        let fate = self.meet(On::Statuses, None, What::Directory(directory.to_owned()));
        let look = |state: &State| {
            let here = state
                .sessions
                .iter()
                .filter(|(_, session)| session.directory == directory);
            Ok(here
                .filter_map(|(id, session)| Some((id.clone(), session.status.clone()?)))
                .collect())
        };
        self.read(fate, look).await
    }

    async fn messages(
        &self,
        session: &SessionId,
        limit: Option<usize>,
    ) -> Result<Vec<Message>, ServerError> {
        let fate = self.meet(On::Messages, Some(session), What::Nothing);
        let look = |state: &State| {
            let messages = &known(state, session)?.messages;
            let first = messages.len().saturating_sub(limit.unwrap_or(usize::MAX));
            Ok(messages[first..].to_vec())
        };
        self.read(fate, look).await
    }

    async fn todos(&self, session: &SessionId) -> Result<Vec<Todo>, ServerError> {
        let fate = self.meet(On::Todos, Some(session), What::Nothing);
        self.read(fate, |state| Ok(known(state, session)?.todos.clone()))
            .await
    }

    async fn sessions_below(
        &self,
        parent: Option<&SessionId>,
        directory: &str,
    ) -> Result<Vec<SessionRecord>, ServerError> {
        let fate = self.meet(On::Below, parent, What::Directory(directory.to_owned()));
        let look = |state: &State| {
            let below = state.sessions.iter().filter(|(_, session)| match parent {
                Some(parent) => session.parent.as_ref() == Some(parent),
                None => session.directory == directory,
            });
            Ok(below.map(|(id, session)| session.record(id)).collect())
        };
        self.read(fate, look).await
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
        let fate = self.meet(On::RejectAsk, Some(session), What::Ask(ask.to_owned()));
        self.act(fate, |_, _| Ok(())).await
    }

    async fn toast(&self, toast: Toast) -> Result<(), ServerError> {
        let fate = self.meet(On::Toast, None, What::Toast(toast));
        self.act(fate, |_, _| Ok(())).await
    }

    async fn models(&self, directory: &str) -> Result<Vec<String>, ServerError> {
        let fate = self.meet(On::Models, None, What::Directory(directory.to_owned()));
        let models = ["acme/big", "acme/small"].map(str::to_owned).to_vec();
        self.read(fate, |_| Ok(models)).await
    }

    async fn health(&self) -> Result<(), ServerError> {
        let fate = self.meet(On::Health, None, What::Nothing);
        self.act(fate, |_, _| Ok(())).await
    }
}

fn push_user_message(state: &mut State, session: &SessionId, part: Value, now: Timestamp) {
    state.messages += 1;
    let info = json!({"id": format!("msg_{:06}", state.messages), "role": "user",
        "time": {"created": now.as_millis()}});
    if let Some(known) = state.sessions.get_mut(session) {
        known
            .messages
            .push(Message::read(&json!({ "info": info, "parts": [part] })));
    }
}

fn set_busy(state: &mut State, session: &SessionId) {
    if let Some(known) = state.sessions.get_mut(session) {
        known.status = Some(SessionStatus::Busy);
    }
}
