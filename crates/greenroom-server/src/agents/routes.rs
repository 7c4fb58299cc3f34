//! Selects the agent server for a call. The process that named a session first owns it while its bridge is connected,
//! unless a tool call is proven to run in another process; the URL serves every session without a bridge. Owners are kept in
//! the journal, so that a restarted service calls the same process. The state of a session is unknown while its bridge is
//! disconnected: calls fail until the bridge reconnects, the parent session moves to another process, or another process of
//! the same directory finds the session.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use greenroom::domain::ids::SessionId;
use greenroom::domain::session_owner::SessionOwner;
use greenroom::domain::task::TaskStatus;
use greenroom::ports::agent_server::{AgentServer, ServerError};
use greenroom::{Greenroom, ListFilter};
use greenroom_bridge::{BridgeChannel, BridgeInfo, BridgeKey, BridgeRegistry, Request};
use greenroom_opencode::OpencodeServer;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::carrier::BridgeCarrier;
use super::sessions::{Owner, SessionTable, same_directory};
use crate::sync::lock;

/// The agent server at the configured URL.
#[derive(Clone)]
pub struct Upstream {
    /// The port to the server.
    pub server: Arc<dyn AgentServer>,
    /// The URL. Identifies bridges of the same process.
    pub url: Option<String>,
    /// True if its events arrive without a bridge. Events of bridges about sessions of the service there are ignored.
    pub has_events: bool,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// Time limits of the routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Time after the start in which bridges reconnect. Sessions without a connected bridge count as unknown until
    /// then.
    pub settle: Duration,
    /// Time after a disconnect from which another process of the same directory may take over the sessions of a bridge.
    pub orphaned_after: Duration,
    /// The same for a bridge whose process no longer exists.
    pub dead_after: Duration,
    /// Time a new bridge gets to answer its first request, if there is also a URL.
    pub first_answer: Duration,
    /// Time another process gets to answer whether it has a session.
    pub lookup: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            settle: Duration::ZERO,
            orphaned_after: Duration::from_secs(45),
            dead_after: Duration::from_secs(5),
            first_answer: Duration::from_secs(1),
            lookup: Duration::from_secs(3),
        }
    }
}

/// Time limit of a probe request, and the pause between two probes.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
const PROBE_INTERVAL: Duration = Duration::from_secs(30);

/// Time after the end of an instance in which its process may be ending too. An ending opencode answers, and may even load
/// the plugin again, for up to 5.8 s.
const ENDING_FOR: Duration = Duration::from_secs(7);

/// All agent servers of the service as one [`AgentServer`]. A cheap clone.
#[derive(Clone)]
pub struct RoutedServer(pub(super) Arc<Routes>);

impl std::fmt::Debug for RoutedServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoutedServer")
            .field("bridges", &self.0.bridges.len())
            .field("url", &self.0.upstream.as_ref().map(|up| &up.url))
            .finish_non_exhaustive()
    }
}

pub(super) struct Routes {
    pub(super) bridges: BridgeRegistry,
    pub(super) upstream: Option<Upstream>,
    pub(super) timeouts: Timeouts,
    started: Instant,
    settled: AtomicBool,
    sessions: Mutex<SessionTable>,
    /// Connection times of the connected bridges. Written by the event sink.
    connected_at: Mutex<BTreeMap<BridgeKey, Instant>>,
    /// The times at which an instance of a bridge ended, for [`ENDING_FOR`].
    ended_at: Mutex<BTreeMap<BridgeKey, Instant>>,
    /// Notified when a bridge has answered its first request.
    answered: Notify,
}

/// The agent server that serves a call.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) server: Arc<dyn AgentServer>,
    pub(super) owner: Owner,
    /// True if the owner of the session is unknown. The bridges are tried if the URL is unreachable.
    pub(super) is_guess: bool,
}

impl RoutedServer {
    /// Creates a router for the bridges and an optional URL.
    pub fn new(bridges: BridgeRegistry, upstream: Option<Upstream>, timeouts: Timeouts) -> Self {
        Self(Arc::new(Routes {
            bridges,
            upstream,
            timeouts,
            started: Instant::now(),
            settled: AtomicBool::new(timeouts.settle.is_zero()),
            sessions: Mutex::default(),
            connected_at: Mutex::default(),
            ended_at: Mutex::default(),
            answered: Notify::new(),
        }))
    }
}

impl RoutedServer {
    /// Restores the owners of sessions that an earlier process recorded.
    pub fn restore_owners(&self, owners: Vec<(SessionId, SessionOwner)>) {
        self.0.sessions().restore(owners);
    }

    /// Marks the sessions of restored running tasks as working, so that a poll without their server is no answer.
    pub async fn restore_working(&self, greenroom: &Greenroom) {
        let mut filter = ListFilter {
            statuses: vec![TaskStatus::Running],
            ..ListFilter::default()
        };
        loop {
            let page = greenroom.list(filter.clone()).await;
            {
                let mut sessions = self.0.sessions();
                for task in &page.tasks {
                    if let Some(session) = &task.session {
                        sessions.restore_working(session, task.directory.as_deref());
                    }
                }
            }
            if page.next_cursor.is_none() {
                return;
            }
            filter.cursor = page.next_cursor;
        }
    }

    /// Records changes of owners in the journal of `greenroom`. Ends with this router.
    pub fn record_owners(&self, greenroom: &Greenroom) -> impl Future<Output = ()> + use<> {
        let mut changes = self.0.sessions().owner_changes();
        let greenroom = greenroom.clone();
        async move {
            while let Some((session, owner)) = changes.recv().await {
                greenroom.record_owner(session, owner);
            }
        }
    }

    /// Ends the settling time early if no restored task or message needs a bridge.
    pub async fn settle(&self, greenroom: &Greenroom) {
        let counts = greenroom.task_counts().await;
        let open = counts.tasks.keys().any(|(status, _)| !status.is_terminal());
        if !open && counts.parents_pending == 0 {
            self.0.finish_settling();
        }
    }
}

pub(super) fn unreachable<T>(why: impl Into<String>) -> Result<T, ServerError> {
    Err(ServerError::Unreachable(why.into()))
}

impl Routes {
    pub(super) fn sessions(&self) -> MutexGuard<'_, SessionTable> {
        lock(&self.sessions)
    }

    fn connected_at(&self) -> MutexGuard<'_, BTreeMap<BridgeKey, Instant>> {
        lock(&self.connected_at)
    }

    /// Records a new bridge. Probes it if there is also a URL, because some bridges only deliver events.
    pub(super) fn bridge_connected(self: &Arc<Self>, bridge: &BridgeInfo) {
        let key = bridge.key();
        self.connected_at().insert(key.clone(), Instant::now());
        if self.upstream.is_some() {
            let routes = Arc::clone(self);
            actix_web::rt::spawn(async move { routes.probe(&key).await });
        }
    }

    pub(super) fn bridge_disconnected(&self, bridge: &BridgeInfo) {
        self.connected_at().remove(&bridge.key());
    }

    /// Records that an instance of a bridge has ended.
    pub(super) fn instance_ended(&self, bridge: &BridgeInfo) {
        let mut ended_at = lock(&self.ended_at);
        ended_at.retain(|_, at| at.elapsed() < ENDING_FOR);
        ended_at.insert(bridge.key(), Instant::now());
    }

    /// Returns true while the process of a bridge may be ending.
    pub(super) fn is_ending(&self, key: &BridgeKey) -> bool {
        let ended_at = lock(&self.ended_at).get(key).copied();
        ended_at.is_some_and(|at| at.elapsed() < ENDING_FOR)
    }

    async fn probe(&self, key: &BridgeKey) {
        let query = BTreeMap::from([("directory".to_owned(), key.directory.to_string())]);
        // The bridge may not be registered yet.
        tokio::task::yield_now().await;
        loop {
            let line = match self.bridges.channel(key) {
                Some(line) if line.is_connected() && !line.has_responded() => line,
                _ => break,
            };
            let request = Request {
                method: "GET",
                path: "/session/status",
                query: &query,
                body: None,
                limit: PROBE_TIMEOUT,
            };
            if line.request(request).await.is_ok() {
                break;
            }
            sleep(PROBE_INTERVAL).await;
        }
        self.answered.notify_waiters();
    }

    /// Returns true if the bridge answers requests. Waits at most [`Timeouts::first_answer`] for its first answer.
    pub(super) async fn accepts_requests(&self, line: &BridgeChannel) -> bool {
        if self.upstream.is_none() || line.has_responded() {
            return true;
        }
        let Some(connected_at) = self.connected_at().get(line.key()).copied() else {
            return false;
        };
        let deadline = connected_at + self.timeouts.first_answer;
        loop {
            let answered = self.answered.notified();
            if line.has_responded() {
                return true;
            }
            if timeout_at(deadline, answered).await.is_err() {
                return line.has_responded();
            }
        }
    }

    pub(super) fn via_bridge(&self, line: BridgeChannel) -> Route {
        let owner = Owner::Bridge(line.key().clone());
        let directory = Arc::clone(&line.key().directory);
        Route {
            server: Arc::new(OpencodeServer::with_transport(
                BridgeCarrier::new(line),
                directory,
            )),
            owner,
            is_guess: false,
        }
    }

    pub(super) fn via_url(&self, is_guess: bool) -> Option<Route> {
        self.upstream.as_ref().map(|upstream| Route {
            server: Arc::clone(&upstream.server),
            owner: Owner::Url,
            is_guess,
        })
    }

    /// Returns the route for a session.
    pub(super) async fn route_for(&self, session: &SessionId) -> Result<Route, ServerError> {
        let entry = self.sessions().get(session).cloned();
        match entry.map(|entry| entry.owner) {
            Some(Owner::Bridge(key)) => self.route_to_owner(session, &key).await,
            Some(Owner::Url) => match self.via_url(false) {
                Some(route) => Ok(route),
                None => self.discover(session).await,
            },
            None => match self.via_url(true) {
                Some(route) => Ok(route),
                None => self.discover(session).await,
            },
        }
    }

    async fn route_to_owner(
        &self,
        session: &SessionId,
        key: &BridgeKey,
    ) -> Result<Route, ServerError> {
        let line = self.bridges.channel(key);
        if let Some(line) = line.clone().filter(BridgeChannel::is_connected) {
            if self.accepts_requests(&line).await {
                return Ok(self.via_bridge(line));
            }
            return match self.via_url(false) {
                Some(route) => Ok(route),
                None => unreachable("the bridge of this session does not answer requests"),
            };
        }
        let events_only = line.as_ref().is_some_and(|line| !line.has_responded());
        if let Some(route) = self.via_url(false)
            && (events_only || self.is_upstream(key))
        {
            return Ok(route);
        }
        self.take_over(session, key, line).await
    }

    /// Returns the bridges of a directory, newest first; those that have not answered a request yet come last.
    pub(super) fn bridges_in(&self, directory: &str) -> Vec<BridgeChannel> {
        let mut lines = self.bridges.channels();
        lines.retain(|line| same_directory(&line.key().directory, directory));
        lines.reverse();
        lines.sort_by_key(|line| !line.has_responded());
        lines
    }

    /// Returns the time since the start.
    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends the settling time.
    pub(super) fn finish_settling(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// Returns true while bridges from before the start may still reconnect.
    pub(super) fn is_settling(&self) -> bool {
        !self.settled.load(Ordering::Relaxed) && self.started.elapsed() < self.timeouts.settle
    }

    /// Makes a call to the agent server of a session.
    pub(super) async fn call<T, C>(
        &self,
        session: &SessionId,
        call: impl Fn(Arc<dyn AgentServer>) -> C + Send + Sync,
    ) -> Result<T, ServerError>
    where
        T: Send,
        C: Future<Output = Result<T, ServerError>> + Send,
    {
        let route = self.route_for(session).await?;
        self.sessions().mark_called(session);
        let (route, answer) = match call(Arc::clone(&route.server)).await {
            // The request was not sent, so a second server cannot do the work twice.
            Err(ServerError::Unreachable(why)) if route.is_guess => {
                match self.discover(session).await {
                    Ok(other) => {
                        let answer = call(Arc::clone(&other.server)).await;
                        (other, answer)
                    }
                    Err(_) => (route, Err(ServerError::Unreachable(why))),
                }
            }
            answer => (route, answer),
        };
        let answer = answer?;
        if route.is_guess {
            // A bridge may have named the session in the meantime.
            let mut sessions = self.sessions();
            if sessions.get(session).is_none() {
                sessions.set_owner(session, &route.owner);
                sessions.mark_called(session);
            }
        }
        Ok(answer)
    }
}

/// Error text when no agent server is connected.
pub(super) const NOT_CONNECTED: &str = "no opencode is connected: start opencode with Greenroom's plugin, or name one with --opencode URL";
