//! The smallest agent server: its sessions answer every prompt with the prompt, at once. What a real one does behind each
//! call is in the documentation of the trait.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use greenroom::domain::ids::SessionId;
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::domain::transcript::Message;
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use serde_json::json;

/// Sessions and what was said in them, and what parents were told.
#[derive(Debug, Default)]
pub struct Echo {
    sessions: Mutex<BTreeMap<SessionId, Vec<Message>>>,
    told: Mutex<Vec<String>>,
}

impl Echo {
    fn sessions(&self) -> MutexGuard<'_, BTreeMap<SessionId, Vec<Message>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What parents were told so far.
    pub fn told(&self) -> Vec<String> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.clone()
    }
}

#[async_trait]
impl AgentServer for Echo {
    async fn session(&self, session: &SessionId) -> Result<SessionRecord, ServerError> {
        Err(ServerError::NotFound(format!("no session {session}")))
    }

    async fn create(&self, _: NewSession) -> Result<SessionId, ServerError> {
        let mut sessions = self.sessions();
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
        let mut sessions = self.sessions();
        let said = sessions.entry(session.clone()).or_default();
        said.push(Message::read(&answer));
        Ok(())
    }

    async fn notify(&self, _: &SessionId, notice: Notice) -> Result<(), ServerError> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.push(notice.text);
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
        Ok(self.sessions().get(session).cloned().unwrap_or_default())
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
