//! A system that may lose its power: between it and its ports stands a plug. When that is pulled, calls whose effect has not
//! happened never have one, none is answered any more, nothing more becomes durable, and no actor fails on purpose: what is
//! left of the system speaks to nobody. It still runs in the same process; whoever pulled the plug shuts it down.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use greenroom::domain::ids::SessionId;
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::domain::transcript::Message;
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use greenroom::sabotage::Saboteur;
use tokio::sync::Notify;

use crate::disk::DiskJournal;

/// The power of one system.
#[derive(Debug, Clone)]
pub struct Power {
    on: Arc<AtomicBool>,
    // Wakes in the order of waiting, so that a scenario can be told again.
    loss: Arc<Notify>,
    journal: Arc<DiskJournal>,
}

impl Power {
    /// The power of a system that writes to this journal.
    pub fn new(journal: Arc<DiskJournal>) -> Self {
        Self {
            on: Arc::new(AtomicBool::new(true)),
            loss: Arc::default(),
            journal,
        }
    }

    /// True until it is lost.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// It is lost, now.
    pub fn lose(&self) {
        self.journal.kill();
        self.on.store(false, Ordering::Release);
        self.loss.notify_waiters();
    }

    /// Ready once it is lost.
    pub async fn lost(&self) {
        let loss = self.loss.notified();
        if self.is_on() {
            loss.await;
        }
    }
}

/// When a call may be what the system does last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It is about to be made.
    Before,
    /// It has had its effect, and the answer is not heard.
    After,
}

/// Decides at each call whether the power is lost there.
pub type Fate = Arc<dyn Fn(&'static str, &str, Moment) -> bool + Send + Sync>;

/// The plug between a system and its agent server.
pub struct Plug {
    server: Arc<dyn AgentServer>,
    power: Power,
    fate: Fate,
}

impl Plug {
    /// Calls go to that server as long as there is power; the fate may end it.
    pub fn new(server: Arc<dyn AgentServer>, power: Power, fate: Fate) -> Self {
        Self {
            server,
            power,
            fate,
        }
    }

    async fn pass<T>(
        &self,
        kind: &'static str,
        about: &str,
        call: impl Future<Output = Result<T, ServerError>> + Send,
    ) -> Result<T, ServerError> {
        if !self.power.is_on() {
            return pending().await;
        }
        if (self.fate)(kind, about, Moment::Before) {
            return pending().await;
        }
        let answer = tokio::select! {
            biased;
            () = self.power.lost() => pending().await,
            answer = call => answer,
        };
        if (self.fate)(kind, about, Moment::After) {
            return pending().await;
        }
        answer
    }
}

#[async_trait]
impl AgentServer for Plug {
    async fn session(&self, session: &SessionId) -> Result<SessionRecord, ServerError> {
        self.pass("get", session.as_str(), self.server.session(session))
            .await
    }

    async fn create(&self, session: NewSession) -> Result<SessionId, ServerError> {
        let about = session.title.clone();
        self.pass("create", &about, self.server.create(session))
            .await
    }

    async fn prompt(
        &self,
        session: &SessionId,
        directory: Option<&str>,
        prompt: TaskPrompt,
    ) -> Result<(), ServerError> {
        let call = self.server.prompt(session, directory, prompt);
        self.pass("prompt", session.as_str(), call).await
    }

    async fn notify(&self, parent: &SessionId, notice: Notice) -> Result<(), ServerError> {
        let call = self.server.notify(parent, notice);
        self.pass("notify", parent.as_str(), call).await
    }

    async fn abort(&self, session: &SessionId) -> Result<(), ServerError> {
        self.pass("abort", session.as_str(), self.server.abort(session))
            .await
    }

    async fn statuses(
        &self,
        directory: &str,
    ) -> Result<BTreeMap<SessionId, SessionStatus>, ServerError> {
        self.pass("statuses", directory, self.server.statuses(directory))
            .await
    }

    async fn messages(
        &self,
        session: &SessionId,
        limit: Option<usize>,
    ) -> Result<Vec<Message>, ServerError> {
        let call = self.server.messages(session, limit);
        self.pass("messages", session.as_str(), call).await
    }

    async fn todos(&self, session: &SessionId) -> Result<Vec<Todo>, ServerError> {
        self.pass("todos", session.as_str(), self.server.todos(session))
            .await
    }

    async fn sessions_below(
        &self,
        parent: Option<&SessionId>,
        directory: &str,
    ) -> Result<Vec<SessionRecord>, ServerError> {
        let about = parent.map_or(directory, SessionId::as_str);
        let call = self.server.sessions_below(parent, directory);
        self.pass("below", about, call).await
    }

    async fn answer_ask(
        &self,
        session: &SessionId,
        ask: &str,
        kind: AskKind,
        answer: &AskAnswer,
    ) -> Result<(), ServerError> {
        let call = self.server.answer_ask(session, ask, kind, answer);
        self.pass("answer", session.as_str(), call).await
    }

    async fn reject_ask(
        &self,
        session: &SessionId,
        ask: &str,
        kind: AskKind,
    ) -> Result<(), ServerError> {
        let call = self.server.reject_ask(session, ask, kind);
        self.pass("reject", session.as_str(), call).await
    }

    async fn toast(&self, toast: Toast) -> Result<(), ServerError> {
        self.pass("toast", "", self.server.toast(toast)).await
    }

    async fn models(&self, directory: &str) -> Result<Vec<String>, ServerError> {
        self.pass("models", directory, self.server.models(directory))
            .await
    }

    async fn health(&self) -> Result<(), ServerError> {
        self.pass("health", "", self.server.health()).await
    }
}

/// Whoever makes actors fail, for as long as there is power.
pub struct PluggedSaboteur {
    saboteur: Arc<dyn Saboteur>,
    power: Power,
}

impl PluggedSaboteur {
    /// Strikes where that one does.
    pub fn new(saboteur: Arc<dyn Saboteur>, power: Power) -> Self {
        Self { saboteur, power }
    }
}

impl Saboteur for PluggedSaboteur {
    fn strikes(&self, place: &'static str) -> bool {
        self.power.is_on() && self.saboteur.strikes(place)
    }
}

impl fmt::Debug for Plug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plug")
            .field("power", &self.power)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PluggedSaboteur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluggedSaboteur")
            .field("power", &self.power)
            .finish_non_exhaustive()
    }
}
