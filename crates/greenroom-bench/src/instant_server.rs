//! An agent server in memory that answers at once, so that all measured time is Greenroom's. It counts calls and wakes the
//! callers that wait for a count.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use greenroom::domain::ids::SessionId;
use greenroom::domain::session_event::{SessionEvent, SessionEventKind};
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::domain::time::Timestamp;
use greenroom::domain::transcript::{Message, Part};
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use tokio::sync::{Notify, mpsc};

use crate::clock::processor_time;
use crate::lock;

/// The events of its sessions; a caller forwards them to Greenroom.
pub type Events = mpsc::UnboundedReceiver<SessionEvent>;

/// The agent server.
#[derive(Debug, Default)]
pub struct InstantServer {
    created: AtomicUsize,
    prompted: AtomicUsize,
    counted: Notify,
    /// If set, every prompt is answered at once and its session becomes idle.
    events: Option<mpsc::UnboundedSender<SessionEvent>>,
    /// The sessions that the status call returns.
    busy: Mutex<BTreeMap<SessionId, SessionStatus>>,
    lists_busy: AtomicBool,
    status_calls: AtomicUsize,
    // The time spent in status calls.
    own_time: Mutex<Duration>,
    // The processor time of the last read of messages, and the times from such a read to the next prompt.
    freed: Mutex<Option<Duration>>,
    handovers: Mutex<Vec<Duration>>,
}

impl InstantServer {
    /// Returns a server whose sessions answer every prompt and become idle at once.
    pub fn answering() -> (Self, Events) {
        let (events, receiver) = mpsc::unbounded_channel();
        let server = Self {
            events: Some(events),
            ..Self::default()
        };
        (server, receiver)
    }

    /// Waits until that many tasks have their prompt.
    pub async fn until_prompted(&self, count: usize) {
        self.until(|| self.prompted.load(Ordering::Relaxed) >= count)
            .await;
    }

    /// Waits until that many status calls were made.
    pub async fn until_status_calls(&self, count: usize) {
        self.until(|| self.status_calls.load(Ordering::Relaxed) >= count)
            .await;
    }

    /// Makes the status call return every created session as busy.
    pub fn list_busy(&self) {
        self.lists_busy.store(true, Ordering::Relaxed);
    }

    /// Returns the number of status calls and the processor time spent in them.
    pub fn status_calls(&self) -> (usize, Duration) {
        let own = *lock(&self.own_time);
        (self.status_calls.load(Ordering::Relaxed), own)
    }

    /// Returns the times from each end of a run to the next prompt, if only one task runs at a time.
    pub fn handovers(&self) -> Vec<Duration> {
        std::mem::take(&mut *lock(&self.handovers))
    }

    async fn until(&self, reached: impl Fn() -> bool) {
        loop {
            let counted = self.counted.notified();
            if reached() {
                return;
            }
            counted.await;
        }
    }

    fn count(&self, what: &AtomicUsize) {
        what.fetch_add(1, Ordering::Relaxed);
        self.counted.notify_one();
    }
}

#[async_trait]
impl AgentServer for InstantServer {
    async fn session(&self, session: &SessionId) -> Result<SessionRecord, ServerError> {
        Ok(SessionRecord {
            id: Some(session.clone()),
            ..SessionRecord::default()
        })
    }

    async fn create(&self, _: NewSession) -> Result<SessionId, ServerError> {
        let number = self.created.fetch_add(1, Ordering::Relaxed);
        let session = SessionId::from(format!("ses_{number:010}"));
        let mut busy = lock(&self.busy);
        busy.insert(session.clone(), SessionStatus::Busy);
        Ok(session)
    }

    async fn prompt(
        &self,
        session: &SessionId,
        _: Option<&str>,
        _: TaskPrompt,
    ) -> Result<(), ServerError> {
        if let Some(freed) = lock(&self.freed).take() {
            let took = processor_time().saturating_sub(freed);
            let mut handovers = lock(&self.handovers);
            handovers.push(took);
        }
        self.count(&self.prompted);
        if let Some(events) = &self.events {
            for kind in [SessionEventKind::Busy, SessionEventKind::Idle] {
                let session = session.clone();
                // The receiver may be gone at the end.
                let _ = events.send(SessionEvent { session, kind });
            }
        }
        Ok(())
    }

    async fn notify(&self, _: &SessionId, _: Notice) -> Result<(), ServerError> {
        Ok(())
    }

    async fn abort(&self, _: &SessionId) -> Result<(), ServerError> {
        Ok(())
    }

    async fn statuses(&self, _: &str) -> Result<BTreeMap<SessionId, SessionStatus>, ServerError> {
        let begin = processor_time();
        let statuses = if self.lists_busy.load(Ordering::Relaxed) {
            lock(&self.busy).clone()
        } else {
            BTreeMap::new()
        };
        *lock(&self.own_time) += processor_time() - begin;
        self.count(&self.status_calls);
        Ok(statuses)
    }

    async fn messages(&self, _: &SessionId, _: Option<usize>) -> Result<Vec<Message>, ServerError> {
        *lock(&self.freed) = Some(processor_time());
        let text = |text: &str| Part {
            kind: "text".to_owned(),
            text: Some(text.to_owned()),
            ..Part::default()
        };
        let prompt = Message {
            role: Some("user".to_owned()),
            parts: vec![text("do it")],
            ..Message::default()
        };
        let answer = Message {
            role: Some("assistant".to_owned()),
            completed: Some(Timestamp::from_millis(1)),
            finish: Some("stop".to_owned()),
            parts: vec![text("done")],
            ..Message::default()
        };
        Ok(vec![prompt, answer])
    }

    async fn todos(&self, _: &SessionId) -> Result<Vec<Todo>, ServerError> {
        Ok(Vec::new())
    }

    async fn sessions_below(
        &self,
        _: Option<&SessionId>,
        _: &str,
    ) -> Result<Vec<SessionRecord>, ServerError> {
        Ok(Vec::new())
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
