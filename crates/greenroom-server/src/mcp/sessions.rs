//! The sessions of MCP clients, bounded: the one unused for longest makes room for a new one. A session holds nothing of
//! ours, so one that is not here any more (it made room, or the service was started again) is simply taken up again when
//! its client calls; only one that its client has ended stays ended.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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

/// Sessions at a time.
pub const MOST: usize = 256;
/// Ends of sessions that are remembered.
const ENDED: usize = 1024;
/// How long an unused session is kept.
const UNUSED: Duration = Duration::from_secs(3600);
/// Bytes of the id of a session that is taken up again.
const LONGEST_ID: usize = 100;

/// Sessions in this process, at most [`MOST`].
#[derive(Debug)]
pub struct Sessions {
    local: LocalSessionManager,
    used: Mutex<Used>,
}

/// Who was used when, by a count of uses.
#[derive(Debug, Default)]
struct Used {
    count: u64,
    last: HashMap<SessionId, u64>,
}

impl Default for Sessions {
    fn default() -> Self {
        let mut config = SessionConfig::default();
        config.keep_alive = Some(UNUSED);
        let mut local = LocalSessionManager::default();
        local.session_config = config;
        Self {
            local,
            used: Mutex::default(),
        }
    }
}

impl Sessions {
    fn used(&self) -> MutexGuard<'_, Used> {
        // Counts are right whoever panicked over them.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self, id: &SessionId) {
        let mut used = self.used();
        used.count += 1;
        let count = used.count;
        used.last.insert(id.clone(), count);
    }

    /// Ends the sessions unused for longest until one more fits.
    async fn make_room(&self) {
        loop {
            let known: Vec<SessionId> = self.local.sessions.read().await.keys().cloned().collect();
            let oldest = {
                let mut used = self.used();
                used.last.retain(|id, _| known.contains(id));
                if known.len() < MOST {
                    return;
                }
                let last = |id: &SessionId| used.last.get(id).copied().unwrap_or(0);
                known.into_iter().min_by_key(last)
            };
            let Some(oldest) = oldest else { return };
            // It is out of the table whatever its worker says.
            let _ = self.local.close_session(&oldest).await;
        }
    }
}

type Failure = <LocalSessionManager as SessionManager>::Error;

impl SessionManager for Sessions {
    type Error = Failure;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Failure> {
        self.make_room().await;
        let made = self.local.create_session().await?;
        self.touch(&made.0);
        Ok(made)
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
        self.make_room().await;
        self.touch(&id);
        self.local.restore_session(id).await
    }
}

/// What is known of sessions that are not here: that they can be taken up again, unless their client has ended them.
#[derive(Debug, Default)]
pub struct Elsewhere {
    ended: Mutex<VecDeque<String>>,
}

impl Elsewhere {
    fn ended(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl SessionStore for Elsewhere {
    async fn load(&self, id: &str) -> Result<Option<SessionState>, SessionStoreError> {
        let ours = id.len() <= LONGEST_ID && id.parse::<uuid::Uuid>().is_ok();
        if !ours || self.ended().iter().any(|ended| ended == id) {
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
        if ended.len() >= ENDED {
            ended.pop_front();
        }
        ended.push_back(id.chars().take(LONGEST_ID).collect());
        Ok(())
    }
}
