//! Which way a call takes. A session belongs to the process that named it last; what no bridge holds the URL serves. A
//! session whose bridge is gone is unknown, not gone: calls for it do not get there until its bridge is back, its parent
//! has moved, or another process of its directory is found to know it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use greenroom::Greenroom;
use greenroom::domain::ids::SessionId;
use greenroom::ports::agent_server::{AgentServer, ServerError};
use greenroom_bridge::{BridgeInfo, BridgeKey, Bridges, Line, Request};
use greenroom_opencode::OpencodeServer;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::carrier::BridgeCarrier;
use super::sessions::{Owner, Sessions, same_directory};

/// The agent server at the URL.
#[derive(Clone)]
pub struct Upstream {
    /// Its port.
    pub server: Arc<dyn AgentServer>,
    /// Where it listens, to recognise bridges of that very process.
    pub url: Option<String>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// How long is waited for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// After the start: bridges are still coming back, and what none of them holds may be held by one to come.
    pub settle: Duration,
    /// A bridge that is gone for longer may have its sessions taken over by another process of its directory.
    pub orphaned: Duration,
    /// The same where its process is not there any more.
    pub dead: Duration,
    /// Where there is a URL too: how long a bridge that has just come is waited for to show that it answers requests.
    pub shows: Duration,
    /// How long another process may take to say whether it knows a session.
    pub look: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            settle: Duration::ZERO,
            orphaned: Duration::from_secs(45),
            dead: Duration::from_secs(5),
            shows: Duration::from_secs(1),
            look: Duration::from_secs(3),
        }
    }
}

/// How long a bridge may take to answer whether it answers at all, and when it is asked again.
const PROBE: Duration = Duration::from_secs(10);
const PROBE_AGAIN: Duration = Duration::from_secs(30);

/// Every agent server of the service as one. Clones share it.
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
    pub(super) bridges: Bridges,
    pub(super) upstream: Option<Upstream>,
    pub(super) patience: Patience,
    started: Instant,
    settled: AtomicBool,
    sessions: Mutex<Sessions>,
    /// When those connected came; bounded by them.
    came: Mutex<BTreeMap<BridgeKey, Instant>>,
    /// A bridge has shown that it answers.
    shown: Notify,
}

/// One way.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) server: Arc<dyn AgentServer>,
    pub(super) owner: Owner,
    /// Nobody has named the session: should the URL be away, bridges are asked.
    pub(super) guessed: bool,
}

impl RoutedServer {
    /// Over those bridges, and to that URL if there is one.
    pub fn new(bridges: Bridges, upstream: Option<Upstream>, patience: Patience) -> Self {
        Self(Arc::new(Routes {
            bridges,
            upstream,
            patience,
            started: Instant::now(),
            settled: AtomicBool::new(patience.settle.is_zero()),
            sessions: Mutex::default(),
            came: Mutex::default(),
            shown: Notify::new(),
        }))
    }
}

impl RoutedServer {
    /// Ends the waiting for bridges to come back, if there is nothing they could come back for.
    pub async fn settle(&self, greenroom: &Greenroom) {
        let tally = greenroom.tally().await;
        let open = tally.tasks.keys().any(|(status, _)| !status.is_terminal());
        if !open && tally.parents_owed == 0 {
            self.0.settled();
        }
    }
}

pub(super) fn unreachable<T>(why: impl Into<String>) -> Result<T, ServerError> {
    Err(ServerError::Unreachable(why.into()))
}

impl Routes {
    pub(super) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        // Nothing panics while it is held.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn came(&self) -> MutexGuard<'_, BTreeMap<BridgeKey, Instant>> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A bridge is there. Where there is a URL too, it is asked whether it answers requests: it may only bring events.
    pub(super) fn arrived(self: &Arc<Self>, bridge: &BridgeInfo) {
        let key = bridge.key();
        self.came().insert(key.clone(), Instant::now());
        if self.upstream.is_some() {
            let routes = Arc::clone(self);
            actix_web::rt::spawn(async move { routes.probe(&key).await });
        }
    }

    pub(super) fn left(&self, bridge: &BridgeInfo) {
        self.came().remove(&bridge.key());
    }

    async fn probe(&self, key: &BridgeKey) {
        let query = BTreeMap::from([("directory".to_owned(), key.directory.to_string())]);
        // It may only be on its way to its place.
        tokio::task::yield_now().await;
        loop {
            let line = match self.bridges.line(key) {
                Some(line) if line.is_connected() && !line.has_answered() => line,
                _ => break,
            };
            let request = Request {
                method: "GET",
                path: "/session/status",
                query: &query,
                body: None,
                limit: PROBE,
            };
            if line.request(request).await.is_ok() {
                break;
            }
            sleep(PROBE_AGAIN).await;
        }
        self.shown.notify_waiters();
    }

    /// True if requests can be made over that line.
    pub(super) async fn answers(&self, line: &Line) -> bool {
        if self.upstream.is_none() || line.has_answered() {
            return true;
        }
        let Some(came) = self.came().get(line.key()).copied() else {
            return false;
        };
        let deadline = came + self.patience.shows;
        loop {
            let shown = self.shown.notified();
            if line.has_answered() {
                return true;
            }
            if timeout_at(deadline, shown).await.is_err() {
                return line.has_answered();
            }
        }
    }

    pub(super) fn over(&self, line: Line) -> Route {
        let owner = Owner::Bridge(line.key().clone());
        let directory = Arc::clone(&line.key().directory);
        Route {
            server: Arc::new(OpencodeServer::over(BridgeCarrier::new(line), directory)),
            owner,
            guessed: false,
        }
    }

    pub(super) fn url(&self, guessed: bool) -> Option<Route> {
        self.upstream.as_ref().map(|upstream| Route {
            server: Arc::clone(&upstream.server),
            owner: Owner::Url,
            guessed,
        })
    }

    /// Where calls for that session go.
    pub(super) async fn of(&self, session: &SessionId) -> Result<Route, ServerError> {
        let known = self.sessions().get(session).cloned();
        match known.map(|known| known.owner) {
            Some(Owner::Bridge(key)) => self.to_owner(session, &key).await,
            Some(Owner::Url) => match self.url(false) {
                Some(route) => Ok(route),
                None => self.guess(session).await,
            },
            None => match self.url(true) {
                Some(route) => Ok(route),
                None => self.guess(session).await,
            },
        }
    }

    async fn to_owner(&self, session: &SessionId, key: &BridgeKey) -> Result<Route, ServerError> {
        let line = self.bridges.line(key);
        if let Some(line) = line.clone().filter(Line::is_connected) {
            if self.answers(&line).await {
                return Ok(self.over(line));
            }
            return match self.url(false) {
                Some(route) => Ok(route),
                None => unreachable("the bridge of this session answers no requests"),
            };
        }
        let only_brought_events = line.as_ref().is_some_and(|line| !line.has_answered());
        if let Some(route) = self.url(false)
            && (only_brought_events || self.is_upstream(key))
        {
            return Ok(route);
        }
        self.take_over(session, key, line).await
    }

    /// The lines of a directory, newest first.
    pub(super) fn in_directory(&self, directory: &str) -> Vec<Line> {
        let mut lines = self.bridges.lines();
        lines.retain(|line| same_directory(&line.key().directory, directory));
        lines.reverse();
        lines
    }

    /// Nothing was restored: there is nothing to wait for.
    pub(super) fn settled(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// True while bridges that were there before the start may not be back yet.
    pub(super) fn is_settling(&self) -> bool {
        !self.settled.load(Ordering::Relaxed) && self.started.elapsed() < self.patience.settle
    }

    /// Makes a call for a session wherever it belongs.
    pub(super) async fn at<T, C>(
        &self,
        session: &SessionId,
        call: impl Fn(Arc<dyn AgentServer>) -> C + Send + Sync,
    ) -> Result<T, ServerError>
    where
        T: Send,
        C: Future<Output = Result<T, ServerError>> + Send,
    {
        let route = self.of(session).await?;
        self.sessions().called(session);
        let (route, answer) = match call(Arc::clone(&route.server)).await {
            // It did not get there, so that asking elsewhere doubles nothing.
            Err(ServerError::Unreachable(why)) if route.guessed => {
                match self.guess(session).await {
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
        if route.guessed {
            // Unless a bridge has named it meanwhile.
            let mut sessions = self.sessions();
            if sessions.get(session).is_none() {
                sessions.name(session, &route.owner);
                sessions.called(session);
            }
        }
        Ok(answer)
    }
}

/// Said where there is nobody to ask.
pub(super) const NOBODY: &str = "no opencode is connected: start opencode with Greenroom's plugin, or name one with --opencode URL";
