//! The smallest agent server: its sessions answer every prompt with the prompt, at once. The documentation of the trait
//! describes what a real implementation does in each call.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use greenroom::domain::ids::SessionId;
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::domain::transcript::{Message, Part};
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use serde_json::json;

/// Holds the messages of each session, and the notices sent to parents.
#[derive(Debug, Default)]
pub struct Echo {
    sessions: Mutex<BTreeMap<SessionId, Vec<Message>>>,
    notices: Mutex<Vec<String>>,
}

impl Echo {
    /// Returns the texts sent to parents so far.
    pub fn notices(&self) -> Vec<String> {
        lock(&self.notices).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl AgentServer for Echo {
    async fn session(&self, session: &SessionId) -> Result<SessionRecord, ServerError> {
        Err(ServerError::NotFound(format!("no session {session}")))
    }

    async fn create(&self, _: NewSession) -> Result<SessionId, ServerError> {
        let mut sessions = lock(&self.sessions);
        let id = SessionId::new(format!("ses_{}", sessions.len() + 1));
        sessions.insert(id.clone(), Vec::new());
        Ok(id)
    }

    async fn prompt(
        &self,
        session: &SessionId,
        _: Option<&str>,
        prompt: TaskPrompt,
    ) -> Result<(), ServerError> {
        let answer = json!({
            "info": {"id": "msg_1", "role": "assistant", "finish": "stop"},
            "parts": [{"type": "text", "text": prompt.text}],
        });
        let mut sessions = lock(&self.sessions);
        let messages = sessions.entry(session.clone()).or_default();
        messages.push(Message::read(&answer));
        Ok(())
    }

    async fn notify(&self, parent: &SessionId, notice: Notice) -> Result<(), ServerError> {
        // Stored with its id: a message counts as delivered once the history contains it.
        let part = Part {
            kind: "text".to_owned(),
            metadata: Some(json!({"greenroom": {"id": notice.id}})),
            ..Part::default()
        };
        let message = Message {
            role: Some("user".to_owned()),
            parts: vec![part],
            ..Message::default()
        };
        lock(&self.sessions)
            .entry(parent.clone())
            .or_default()
            .push(message);
        lock(&self.notices).push(notice.text);
        Ok(())
    }

    async fn abort(&self, _: &SessionId) -> Result<(), ServerError> {
        Ok(())
    }

    async fn statuses(&self, _: &str) -> Result<BTreeMap<SessionId, SessionStatus>, ServerError> {
        Ok(BTreeMap::new())
    }

    async fn messages(
        &self,
        session: &SessionId,
        _: Option<usize>,
    ) -> Result<Vec<Message>, ServerError> {
        Ok(lock(&self.sessions)
            .get(session)
            .cloned()
            .unwrap_or_default())
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
