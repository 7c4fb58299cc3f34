//! Bounds the sessions of MCP clients and evicts the least recently used one. A session has no state of its own, so an
//! evicted session, or one from before a restart, is restored at its next request, unless its client has ended it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::sync::lock;
use futures::Stream;
use rmcp::model::{
    ClientCapabilities, ClientJsonRpcMessage, Implementation, InitializeRequestParams,
    ServerJsonRpcMessage,
};
use rmcp::transport::common::server_side_http::{ServerSseMessage, SessionId};
use rmcp::transport::streamable_http_server::session::local::{LocalSessionManager, SessionConfig};
use rmcp::transport::streamable_http_server::session::{
    RestoreOutcome, SessionManager, SessionState, SessionStore, SessionStoreError,
};

/// Maximum number of sessions.
pub const MAX_SESSIONS: usize = 256;
/// Number of ended session ids that are remembered.
const MAX_ENDED: usize = 1024;
/// Time after which an unused session is dropped.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Maximum length of a restored session id, in bytes.
const MAX_ID_BYTES: usize = 100;

/// The sessions of this process, at most [`MAX_SESSIONS`].
#[derive(Debug)]
pub struct BoundedSessions {
    local: LocalSessionManager,
    last_use: Mutex<LastUse>,
}

/// The last use of each session, as a counter.
#[derive(Debug, Default)]
struct LastUse {
    count: u64,
    last: HashMap<SessionId, u64>,
}

impl Default for BoundedSessions {
    fn default() -> Self {
        let mut config = SessionConfig::default();
        config.keep_alive = Some(IDLE_TIMEOUT);
        let mut local = LocalSessionManager::default();
        local.session_config = config;
        Self {
            local,
            last_use: Mutex::default(),
        }
    }
}

impl BoundedSessions {
    fn last_use(&self) -> MutexGuard<'_, LastUse> {
        lock(&self.last_use)
    }

    fn touch(&self, id: &SessionId) {
        let mut last_use = self.last_use();
        last_use.count += 1;
        let count = last_use.count;
        last_use.last.insert(id.clone(), count);
    }

    /// Ends the least recently used sessions until one more fits.
    async fn evict_oldest(&self) {
        loop {
            let known: Vec<SessionId> = self.local.sessions.read().await.keys().cloned().collect();
            let oldest = {
                let mut last_use = self.last_use();
                last_use.last.retain(|id, _| known.contains(id));
                if known.len() < MAX_SESSIONS {
                    return;
                }
                let last = |id: &SessionId| last_use.last.get(id).copied().unwrap_or(0);
                known.into_iter().min_by_key(last)
            };
            let Some(oldest) = oldest else { return };
            // The session leaves the table even if its worker fails.
            let _ = self.local.close_session(&oldest).await;
        }
    }
}

type Failure = <LocalSessionManager as SessionManager>::Error;

impl SessionManager for BoundedSessions {
    type Error = Failure;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Failure> {
        self.evict_oldest().await;
        let created = self.local.create_session().await?;
        self.touch(&created.0);
        Ok(created)
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Failure> {
        self.local.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Failure> {
        let known = self.local.has_session(id).await?;
        if known {
            self.touch(id);
        }
        Ok(known)
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Failure> {
        self.local.close_session(id).await
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Failure> {
        self.local.create_stream(id, message).await
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), Failure> {
        self.local.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Failure> {
        self.local.create_standalone_stream(id).await
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Failure> {
        self.local.resume(id, last_event_id).await
    }

    async fn restore_session(
        &self,
        id: SessionId,
    ) -> Result<RestoreOutcome<Self::Transport>, Failure> {
        self.evict_oldest().await;
        self.touch(&id);
        self.local.restore_session(id).await
    }
}

/// Accepts sessions that are not in this process, except those that their clients have ended.
#[derive(Debug, Default)]
pub struct RestorableSessions {
    ended: Mutex<VecDeque<String>>,
}

impl RestorableSessions {
    fn ended(&self) -> MutexGuard<'_, VecDeque<String>> {
        lock(&self.ended)
    }
}

#[async_trait::async_trait]
impl SessionStore for RestorableSessions {
    async fn load(&self, id: &str) -> Result<Option<SessionState>, SessionStoreError> {
        let is_valid = id.len() <= MAX_ID_BYTES && id.parse::<uuid::Uuid>().is_ok();
        if !is_valid || self.ended().iter().any(|ended| ended == id) {
            return Ok(None);
        }
        let client = Implementation::new("taken up again", "0");
        let capabilities = ClientCapabilities::default();
        Ok(Some(SessionState::new(InitializeRequestParams::new(
            capabilities,
            client,
        ))))
    }

    async fn store(&self, _: &str, _: &SessionState) -> Result<(), SessionStoreError> {
        Ok(())
    }

    async fn delete(&self, id: &str) -> Result<(), SessionStoreError> {
        let mut ended = self.ended();
        if ended.len() >= MAX_ENDED {
            ended.pop_front();
        }
        ended.push_back(id.chars().take(MAX_ID_BYTES).collect());
        Ok(())
    }
}
