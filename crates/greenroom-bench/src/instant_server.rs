//! An agent server that answers at once, in memory: whatever time passes is Greenroom's. It counts what it was asked, and
//! tells whoever waits for a count.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use greenroom::domain::ids::SessionId;
use greenroom::domain::session_event::{Happening, SessionEvent};
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::domain::time::Timestamp;
use greenroom::domain::transcript::{Message, Part};
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use tokio::sync::{Notify, mpsc};

use crate::clock::processor_time;

/// What its sessions have to say, for whoever hands it to Greenroom.
pub type Events = mpsc::UnboundedReceiver<SessionEvent>;

/// Answers at once.
#[derive(Debug, Default)]
pub struct InstantServer {
    created: AtomicUsize,
    prompted: AtomicUsize,
    counted: Notify,
    /// Every prompt is answered, and its session idle, at once.
    events: Option<mpsc::UnboundedSender<SessionEvent>>,
    /// What the status call answers.
    busy: Mutex<BTreeMap<SessionId, SessionStatus>>,
    lists_busy: AtomicBool,
    asked: AtomicUsize,
    // The time that went into its own answers.
    own_time: Mutex<Duration>,
    // When the last messages were read, and how long after it the next prompt came.
    freed: Mutex<Option<Duration>>,
    hand_overs: Mutex<Vec<Duration>>,
}

impl InstantServer {
    /// One whose sessions answer every prompt and are idle at once.
    pub fn answering() -> (Self, Events) {
        let (events, told) = mpsc::unbounded_channel();
        let server = Self {
            events: Some(events),
            ..Self::default()
        };
        (server, told)
    }

    /// Waits until so many tasks have their prompt.
    pub async fn until_prompted(&self, count: usize) {
        self.until(|| self.prompted.load(Ordering::Relaxed) >= count)
            .await;
    }

    /// Waits until it was asked for statuses so often.
    pub async fn until_asked(&self, count: usize) {
        self.until(|| self.asked.load(Ordering::Relaxed) >= count)
            .await;
    }

    /// From now on every session that was made is listed as busy.
    pub fn list_busy(&self) {
        self.lists_busy.store(true, Ordering::Relaxed);
    }

    /// How often it was asked for statuses, and the time its answers took itself.
    pub fn asked(&self) -> (usize, Duration) {
        let own = *self.own_time.lock().expect("nobody panics with it");
        (self.asked.load(Ordering::Relaxed), own)
    }

    /// How long it took from each end of a run to the next prompt, if only one runs at a time.
    pub fn hand_overs(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.hand_overs.lock().expect("nobody panics with it"))
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
        let mut busy = self.busy.lock().expect("nobody panics with it");
        busy.insert(session.clone(), SessionStatus::Busy);
        Ok(session)
    }

    async fn prompt(
        &self,
        session: &SessionId,
        _: Option<&str>,
        _: TaskPrompt,
    ) -> Result<(), ServerError> {
        if let Some(freed) = self.freed.lock().expect("nobody panics with it").take() {
            let took = processor_time().saturating_sub(freed);
            let mut hand_overs = self.hand_overs.lock().expect("nobody panics with it");
            hand_overs.push(took);
        }
        self.count(&self.prompted);
        if let Some(events) = &self.events {
            for what in [Happening::Busy, Happening::Idle] {
                let session = session.clone();
                // Nobody listens at the very end.
                let _ = events.send(SessionEvent { session, what });
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
        let statuses = match self.lists_busy.load(Ordering::Relaxed) {
            true => self.busy.lock().expect("nobody panics with it").clone(),
            false => BTreeMap::new(),
        };
        *self.own_time.lock().expect("nobody panics with it") += processor_time() - begin;
        self.count(&self.asked);
        Ok(statuses)
    }

    async fn messages(&self, _: &SessionId, _: Option<usize>) -> Result<Vec<Message>, ServerError> {
        *self.freed.lock().expect("nobody panics with it") = Some(processor_time());
        let text = |text: &str| Part {
            kind: "text".to_owned(),
            text: Some(text.to_owned()),
            ..Part::default()
        };
        let asked = Message {
            role: Some("user".to_owned()),
            parts: vec![text("do it")],
            ..Message::default()
        };
        let answered = Message {
            role: Some("assistant".to_owned()),
            completed: Some(Timestamp::from_millis(1)),
            finish: Some("stop".to_owned()),
            parts: vec![text("done")],
            ..Message::default()
        };
        Ok(vec![asked, answered])
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
