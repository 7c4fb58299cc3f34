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
pub struct CrashSwitch {
    alive: Arc<AtomicBool>,
    // Wakes in the order of waiting, so that a scenario can be told again.
    crashed: Arc<Notify>,
    journal: Arc<DiskJournal>,
}

impl CrashSwitch {
    /// The power of a system that writes to this journal.
    pub fn new(journal: Arc<DiskJournal>) -> Self {
        Self {
            alive: Arc::new(AtomicBool::new(true)),
            crashed: Arc::default(),
            journal,
        }
    }

    /// True until it is lost.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// It is lost, now.
    pub fn crash(&self) {
        self.journal.kill();
        self.alive.store(false, Ordering::Release);
        self.crashed.notify_waiters();
    }

    /// Ready once it is lost.
    pub async fn crashed(&self) {
        let crashed = self.crashed.notified();
        if self.is_alive() {
            crashed.await;
        }
    }
}

/// When a call may be what the system does last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallPhase {
    /// It is about to be made.
    Before,
    /// It has had its effect, and the answer is not heard.
    After,
}

/// Decides at each call whether the power is lost there.
pub type CrashAtCall = Arc<dyn Fn(&'static str, &str, CallPhase) -> bool + Send + Sync>;

/// The plug between a system and its agent server.
pub struct CrashableServer {
    server: Arc<dyn AgentServer>,
    crash_switch: CrashSwitch,
    crashes_at: CrashAtCall,
}

impl CrashableServer {
    /// Calls go to that server as long as there is power; the fate may end it.
    pub fn new(
        server: Arc<dyn AgentServer>,
        crash_switch: CrashSwitch,
        crashes_at: CrashAtCall,
    ) -> Self {
        Self {
            server,
            crash_switch,
            crashes_at,
        }
    }

    async fn call<T>(
        &self,
        kind: &'static str,
        about: &str,
        call: impl Future<Output = Result<T, ServerError>> + Send,
    ) -> Result<T, ServerError> {
        if !self.crash_switch.is_alive() {
            return pending().await;
        }
        if (self.crashes_at)(kind, about, CallPhase::Before) {
            return pending().await;
        }
        let answer = tokio::select! {
            biased;
            () = self.crash_switch.crashed() => pending().await,
            answer = call => answer,
        };
        if (self.crashes_at)(kind, about, CallPhase::After) {
            return pending().await;
        }
        answer
    }
}

#[async_trait]
impl AgentServer for CrashableServer {
    async fn session(&self, session: &SessionId) -> Result<SessionRecord, ServerError> {
        self.call("get", session.as_str(), self.server.session(session))
            .await
    }

    async fn create(&self, session: NewSession) -> Result<SessionId, ServerError> {
        let about = session.title.clone();
        self.call("create", &about, self.server.create(session))
            .await
    }

    async fn prompt(
        &self,
        session: &SessionId,
        directory: Option<&str>,
        prompt: TaskPrompt,
    ) -> Result<(), ServerError> {
        let call = self.server.prompt(session, directory, prompt);
        self.call("prompt", session.as_str(), call).await
    }

    async fn notify(&self, parent: &SessionId, notice: Notice) -> Result<(), ServerError> {
        let call = self.server.notify(parent, notice);
        self.call("notify", parent.as_str(), call).await
    }

    async fn abort(&self, session: &SessionId) -> Result<(), ServerError> {
        self.call("abort", session.as_str(), self.server.abort(session))
            .await
    }

    async fn statuses(
        &self,
        directory: &str,
    ) -> Result<BTreeMap<SessionId, SessionStatus>, ServerError> {
        self.call("statuses", directory, self.server.statuses(directory))
            .await
    }

    async fn messages(
        &self,
        session: &SessionId,
        limit: Option<usize>,
    ) -> Result<Vec<Message>, ServerError> {
        let call = self.server.messages(session, limit);
        self.call("messages", session.as_str(), call).await
    }

    async fn todos(&self, session: &SessionId) -> Result<Vec<Todo>, ServerError> {
        self.call("todos", session.as_str(), self.server.todos(session))
            .await
    }

    async fn sessions_below(
        &self,
        parent: Option<&SessionId>,
        directory: &str,
    ) -> Result<Vec<SessionRecord>, ServerError> {
        let about = parent.map_or(directory, SessionId::as_str);
        let call = self.server.sessions_below(parent, directory);
        self.call("below", about, call).await
    }

    async fn answer_ask(
        &self,
        session: &SessionId,
        ask: &str,
        kind: AskKind,
        answer: &AskAnswer,
    ) -> Result<(), ServerError> {
        let call = self.server.answer_ask(session, ask, kind, answer);
        self.call("answer", session.as_str(), call).await
    }

    async fn reject_ask(
        &self,
        session: &SessionId,
        ask: &str,
        kind: AskKind,
    ) -> Result<(), ServerError> {
        let call = self.server.reject_ask(session, ask, kind);
        self.call("reject", session.as_str(), call).await
    }

    async fn toast(&self, toast: Toast) -> Result<(), ServerError> {
        self.call("toast", "", self.server.toast(toast)).await
    }

    async fn models(&self, directory: &str) -> Result<Vec<String>, ServerError> {
        self.call("models", directory, self.server.models(directory))
            .await
    }

    async fn health(&self) -> Result<(), ServerError> {
        self.call("health", "", self.server.health()).await
    }
}

/// Whoever makes actors fail, for as long as there is power.
pub struct CrashableFaultInjector {
    saboteur: Arc<dyn Saboteur>,
    crash_switch: CrashSwitch,
}

impl CrashableFaultInjector {
    /// Strikes where that one does.
    pub fn new(saboteur: Arc<dyn Saboteur>, crash_switch: CrashSwitch) -> Self {
        Self {
            saboteur,
            crash_switch,
        }
    }
}

impl Saboteur for CrashableFaultInjector {
    fn strikes(&self, place: &'static str) -> bool {
        self.crash_switch.is_alive() && self.saboteur.strikes(place)
    }
}

impl fmt::Debug for CrashableServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plug")
            .field("crash_switch", &self.crash_switch)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CrashableFaultInjector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluggedSaboteur")
            .field("crash_switch", &self.crash_switch)
            .finish_non_exhaustive()
    }
}
