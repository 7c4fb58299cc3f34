//! Simulates the crash of a process. A [`CrashSwitch`] stands between a system and its ports. After a crash,
//! calls that have not taken effect never do, no call is answered, nothing more becomes durable, and no
//! failpoint fires. The actors of the crashed system still run in the test process; the caller of
//! [`CrashSwitch::crash`] shuts them down.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use greenroom::domain::ids::{ModelRef, SessionId};
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::domain::transcript::Message;
use greenroom::failpoint::FaultInjector;
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use tokio::sync::Notify;

use crate::disk::DiskJournal;

/// Cuts one system off from its ports.
#[derive(Debug, Clone)]
pub struct CrashSwitch {
    alive: Arc<AtomicBool>,
    // `Notify` wakes in the order of waiting, which keeps a scenario reproducible.
    crashed: Arc<Notify>,
    // The journal holds a switch in its callback. A strong reference would keep both forever.
    journal: Weak<DiskJournal>,
}

impl CrashSwitch {
    /// Returns a switch for a system that writes to this journal.
    pub fn new(journal: &Arc<DiskJournal>) -> Self {
        Self {
            alive: Arc::new(AtomicBool::new(true)),
            crashed: Arc::default(),
            journal: Arc::downgrade(journal),
        }
    }

    /// Returns true until the crash.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Crashes the process now.
    pub fn crash(&self) {
        if let Some(journal) = self.journal.upgrade() {
            journal.kill();
        }
        self.alive.store(false, Ordering::Release);
        self.crashed.notify_waiters();
    }

    /// Completes after the crash.
    pub async fn crashed(&self) {
        let crashed = self.crashed.notified();
        if self.is_alive() {
            crashed.await;
        }
    }
}

/// When, relative to a call, the process may crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallPhase {
    /// Before the call is made.
    Before,
    /// After the call took effect, before its answer is delivered.
    After,
}

/// Decides for each call whether the process crashes there.
pub type CrashAtCall = Arc<dyn Fn(&'static str, &str, CallPhase) -> bool + Send + Sync>;

/// An agent server whose calls stop with the crash of its system.
pub struct CrashableServer {
    server: Arc<dyn AgentServer>,
    crash_switch: CrashSwitch,
    crashes_at: CrashAtCall,
}

impl CrashableServer {
    /// Returns a server that forwards calls until the crash. `crashes_at` may cause the crash.
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

    async fn default_model(&self, directory: &str) -> Result<Option<ModelRef>, ServerError> {
        self.call(
            "default model",
            directory,
            self.server.default_model(directory),
        )
        .await
    }

    fn process_of(&self, session: &SessionId) -> Option<u32> {
        self.server.process_of(session)
    }

    async fn health(&self) -> Result<(), ServerError> {
        self.call("health", "", self.server.health()).await
    }
}

/// A fault injector that stops with the crash of its system.
pub struct CrashableFaultInjector {
    fault_injector: Arc<dyn FaultInjector>,
    crash_switch: CrashSwitch,
}

impl CrashableFaultInjector {
    /// Returns an injector that forwards to `fault_injector` until the crash.
    pub fn new(fault_injector: Arc<dyn FaultInjector>, crash_switch: CrashSwitch) -> Self {
        Self {
            fault_injector,
            crash_switch,
        }
    }
}

impl FaultInjector for CrashableFaultInjector {
    fn should_fail(&self, place: &'static str) -> bool {
        self.crash_switch.is_alive() && self.fault_injector.should_fail(place)
    }
}

impl fmt::Debug for CrashableServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrashableServer")
            .field("crash_switch", &self.crash_switch)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CrashableFaultInjector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrashableFaultInjector")
            .field("crash_switch", &self.crash_switch)
            .finish_non_exhaustive()
    }
}
