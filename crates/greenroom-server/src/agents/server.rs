//! Implements [`AgentServer`] over all agent servers: each call goes to the owner of its session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use greenroom::domain::ids::{ModelRef, SessionId};
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::domain::transcript::Message;
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use greenroom_bridge::BridgeKey;
use greenroom_bridge::protocol::ToBridge;
use tokio::time::timeout;

use super::routes::{NOT_CONNECTED, Route, RoutedServer, Routes, unreachable};
use super::sessions::{Owner, SessionEntry};

type Statuses = BTreeMap<SessionId, SessionStatus>;

/// A status call to one agent server.
struct StatusQuery {
    route: Route,
    /// True if this server runs a session of the service, so that the statuses are unknown without its answer.
    required: bool,
}

impl Routes {
    /// Returns the route for a new session: its parent's owner, else the newest bridge of its directory, else the
    /// default route.
    async fn route_for_create(&self, session: &NewSession) -> Result<Route, ServerError> {
        let parent_is_known = match &session.parent {
            Some(parent) => self.sessions().get(parent).is_some(),
            None => false,
        };
        if let Some(parent) = session.parent.as_ref().filter(|_| parent_is_known) {
            return self.route_for(parent).await;
        }
        if let Some(route) = self.bridge_in(&session.directory).await {
            return Ok(route);
        }
        match &session.parent {
            Some(parent) => self.route_for(parent).await,
            None => self.default_route().await,
        }
    }

    /// Returns the newest bridge of a directory that answers requests.
    async fn bridge_in(&self, directory: &str) -> Option<Route> {
        for line in self.bridges_in(directory) {
            if self.accepts_requests(&line).await {
                return Some(self.via_bridge(line));
            }
        }
        None
    }

    /// Returns the URL, else the newest bridge.
    async fn default_route(&self) -> Result<Route, ServerError> {
        if let Some(route) = self.via_url(true) {
            return Ok(route);
        }
        match self.bridges.channels().pop() {
            Some(line) => Ok(self.via_bridge(line)),
            None => Err(ServerError::Unreachable(NOT_CONNECTED.to_owned())),
        }
    }

    async fn route_for_directory(&self, directory: &str) -> Result<Route, ServerError> {
        match self.bridge_in(directory).await {
            Some(route) => Ok(route),
            None => self.default_route().await,
        }
    }

    /// Returns the statuses of all sessions of a directory.
    ///
    /// # Errors
    /// Fails if a server that owns a working session of the service gives no answer: a missing status means idle.
    /// [`ServerError::ProcessEnded`] if the process of such a session has ended, and no other process serves the directory.
    async fn statuses(&self, directory: &str) -> Result<Statuses, ServerError> {
        let mut required_bridges: BTreeSet<BridgeKey> = BTreeSet::new();
        let mut url_required = false;
        let working = self.sessions().working_in(directory);
        for (session, owner) in working {
            let owner = match owner {
                Owner::Bridge(key) if !required_bridges.contains(&key) => {
                    match self.route_for(&session).await {
                        Ok(route) => route.owner,
                        // The session no longer exists.
                        Err(ServerError::NotFound(_)) => continue,
                        Err(ServerError::Unreachable(why))
                            if self.process_has_ended(&key)
                                && self.nothing_serves(directory).await =>
                        {
                            return Err(ServerError::ProcessEnded(why));
                        }
                        Err(unknown) => return Err(unknown),
                    }
                }
                entry => entry,
            };
            match owner {
                Owner::Bridge(key) => {
                    required_bridges.insert(key);
                }
                Owner::Url => url_required = true,
            }
        }
        let mut queries: Vec<StatusQuery> = Vec::new();
        for line in self.bridges.channels() {
            let required = required_bridges.remove(line.key());
            let in_directory = super::sessions::same_directory(&line.key().directory, directory);
            if (required || in_directory) && self.accepts_requests(&line).await {
                queries.push(StatusQuery {
                    route: self.via_bridge(line),
                    required,
                });
            }
        }
        if let Some(gone) = required_bridges.first() {
            return Err(ServerError::Unreachable(format!(
                "the bridge of process {} is disconnected; the state of its sessions is unknown",
                gone.pid
            )));
        }
        if let Some(route) = self.via_url(false) {
            queries.push(StatusQuery {
                route,
                required: url_required,
            });
        } else if self.is_settling() {
            return Err(ServerError::Unreachable(
                "bridges are still reconnecting after the start".to_owned(),
            ));
        }
        if queries.is_empty() {
            // No process has this directory open.
            queries.push(StatusQuery {
                route: self.default_route().await?,
                required: true,
            });
        }
        let answers = queries.iter().map(|query| async {
            let answer = query.route.server.statuses(directory);
            if query.required {
                return answer.await;
            }
            // A server without a session of the service holds no poll up.
            let limit = self.timeouts.first_answer;
            timeout(limit, answer)
                .await
                .unwrap_or(Err(ServerError::TimedOut(limit)))
        });
        let answers = join_all(answers).await;
        self.merge_answers(queries, answers)
    }

    /// Returns true if certainly no process serves a directory: a living one may run other sessions of it.
    async fn nothing_serves(&self, directory: &str) -> bool {
        if !self.bridges_in(directory).is_empty() {
            return false;
        }
        match self.via_url(false) {
            Some(route) => matches!(
                route.server.statuses(directory).await,
                Err(ServerError::ProcessEnded(_))
            ),
            None => true,
        }
    }

    fn merge_answers(
        &self,
        queries: Vec<StatusQuery>,
        answers: Vec<Result<Statuses, ServerError>>,
    ) -> Result<Statuses, ServerError> {
        let mut merged = Statuses::new();
        let mut any_answer = false;
        let mut failure = None;
        for (query, answer) in queries.into_iter().zip(answers) {
            match answer {
                Ok(statuses) => {
                    any_answer = true;
                    self.merge_statuses(&mut merged, statuses, &query.route.owner);
                }
                // The error of a server without a session of the service changes nothing.
                Err(error) if !query.required => {
                    failure.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match failure {
            Some(failure) if !any_answer => Err(failure),
            _ => Ok(merged),
        }
    }

    /// Adds statuses to the result. A busy status overrides an idle one for the same session.
    fn merge_statuses(&self, merged: &mut Statuses, statuses: Statuses, owner: &Owner) {
        let mut sessions = self.sessions();
        for (session, status) in statuses {
            if status == SessionStatus::Idle {
                merged.entry(session).or_insert(status);
                continue;
            }
            // Only the process that runs a session reports it as busy.
            if matches!(owner, Owner::Bridge(_)) || sessions.get(&session).is_none() {
                sessions.set_owner(&session, owner);
            }
            sessions.set_working(&session, true);
            merged.insert(session, status);
        }
    }

    /// Announces a new child session to the process of its parent, once, after the child has its prompt.
    fn announce_child(&self, session: &SessionId) {
        let (parent, title, owner) = {
            let mut sessions = self.sessions();
            let Some((parent, title)) = sessions.take_announcement(session) else {
                return;
            };
            let owner = sessions.get(&parent).map(|entry| entry.owner.clone());
            (parent, title, owner)
        };
        let Some(Owner::Bridge(key)) = owner else {
            return;
        };
        if let Some(line) = self.bridges.channel(&key) {
            line.send(&ToBridge::SessionCreated {
                session,
                parent: &parent,
                title: &title,
            });
        }
    }
}

#[async_trait]
impl AgentServer for RoutedServer {
    async fn session(&self, session: &SessionId) -> Result<SessionRecord, ServerError> {
        let call = |server: Arc<dyn AgentServer>| async move { server.session(session).await };
        self.0.call(session, call).await
    }

    async fn create(&self, session: NewSession) -> Result<SessionId, ServerError> {
        let mut entry = SessionEntry {
            parent: session.parent.clone(),
            unannounced_title: Some(session.title.clone()),
            directory: Some(session.directory.to_string()),
            called: true,
            ..SessionEntry::owned_by(Owner::Url)
        };
        let route = self.0.route_for_create(&session).await?;
        let (created, owner) = match route.server.create(session.clone()).await {
            // The request was not sent, so a second server cannot create the session twice.
            Err(ServerError::Unreachable(why)) if route.is_guess => {
                let Some(line) = self.0.bridges.channels().pop() else {
                    return Err(ServerError::Unreachable(why));
                };
                let route = self.0.via_bridge(line);
                (route.server.create(session).await?, route.owner)
            }
            created => (created?, route.owner),
        };
        entry.owner = owner;
        if !self.0.sessions().insert_created(created.clone(), entry) {
            return Err(ServerError::Refused {
                status: None,
                message: "opencode answered with the id of another process's session".to_owned(),
            });
        }
        Ok(created)
    }

    async fn prompt(
        &self,
        session: &SessionId,
        directory: Option<&str>,
        prompt: TaskPrompt,
    ) -> Result<(), ServerError> {
        // Set before the call: events of the run may arrive before the answer.
        self.0.sessions().mark_called(session);
        self.0.sessions().set_working(session, true);
        let call = |server: Arc<dyn AgentServer>| {
            let prompt = prompt.clone();
            async move { server.prompt(session, directory, prompt).await }
        };
        self.0.call(session, call).await?;
        self.0.announce_child(session);
        Ok(())
    }

    async fn notify(&self, parent: &SessionId, notice: Notice) -> Result<(), ServerError> {
        let call = |server: Arc<dyn AgentServer>| {
            let notice = notice.clone();
            async move { server.notify(parent, notice).await }
        };
        self.0.call(parent, call).await
    }

    async fn abort(&self, session: &SessionId) -> Result<(), ServerError> {
        let call = |server: Arc<dyn AgentServer>| async move { server.abort(session).await };
        self.0.call(session, call).await
    }

    async fn statuses(&self, directory: &str) -> Result<Statuses, ServerError> {
        self.0.statuses(directory).await
    }

    async fn messages(
        &self,
        session: &SessionId,
        limit: Option<usize>,
    ) -> Result<Vec<Message>, ServerError> {
        let call =
            |server: Arc<dyn AgentServer>| async move { server.messages(session, limit).await };
        self.0.call(session, call).await
    }

    async fn todos(&self, session: &SessionId) -> Result<Vec<Todo>, ServerError> {
        let call = |server: Arc<dyn AgentServer>| async move { server.todos(session).await };
        self.0.call(session, call).await
    }

    async fn sessions_below(
        &self,
        parent: Option<&SessionId>,
        directory: &str,
    ) -> Result<Vec<SessionRecord>, ServerError> {
        let Some(parent) = parent else {
            let route = self.0.route_for_directory(directory).await?;
            return route.server.sessions_below(None, directory).await;
        };
        let call = |server: Arc<dyn AgentServer>| async move {
            server.sessions_below(Some(parent), directory).await
        };
        self.0.call(parent, call).await
    }

    async fn answer_ask(
        &self,
        session: &SessionId,
        ask: &str,
        kind: AskKind,
        answer: &AskAnswer,
    ) -> Result<(), ServerError> {
        let call = |server: Arc<dyn AgentServer>| async move {
            server.answer_ask(session, ask, kind, answer).await
        };
        self.0.call(session, call).await
    }

    async fn toast(&self, toast: Toast) -> Result<(), ServerError> {
        let mut pids = BTreeSet::new();
        // One toast per process: its directories share one screen.
        let lines = self.0.bridges.channels().into_iter();
        let lines = lines.filter(|line| line.has_responded() && pids.insert(line.key().pid));
        let mut routes: Vec<Route> = lines.map(|line| self.0.via_bridge(line)).collect();
        routes.extend(self.0.via_url(false));
        let results = routes.iter().map(|route| route.server.toast(toast.clone()));
        let results = join_all(results).await;
        if results.iter().any(Result::is_ok) {
            return Ok(());
        }
        results.into_iter().next().unwrap_or(Ok(()))
    }

    async fn models(&self, directory: &str) -> Result<Vec<String>, ServerError> {
        self.0
            .route_for_directory(directory)
            .await?
            .server
            .models(directory)
            .await
    }

    async fn default_model(&self, directory: &str) -> Result<Option<ModelRef>, ServerError> {
        self.0
            .route_for_directory(directory)
            .await?
            .server
            .default_model(directory)
            .await
    }

    async fn serves(&self, directory: &str) -> Result<(), ServerError> {
        for line in self.0.bridges_in(directory) {
            if !self.0.is_ending(line.key()) && self.0.accepts_requests(&line).await {
                return Ok(());
            }
        }
        if let Some(route) = self.0.via_url(false)
            && route.server.health().await.is_ok()
        {
            return Ok(());
        }
        unreachable(format!("no opencode is connected in {directory}"))
    }

    fn process_of(&self, session: &SessionId) -> Option<u32> {
        match self.0.sessions().get(session)?.owner {
            Owner::Bridge(ref key) => Some(key.pid),
            Owner::Url => None,
        }
    }

    async fn health(&self) -> Result<(), ServerError> {
        let at_url = match self.0.via_url(false) {
            Some(route) => route.server.health().await,
            None => Err(ServerError::Unreachable(NOT_CONNECTED.to_owned())),
        };
        // A connected bridge answers pings and counts as healthy.
        let by_bridge = self
            .0
            .bridges
            .channels()
            .iter()
            .any(|line| line.has_responded());
        let bridges_only = self.0.upstream.is_none() && !self.0.bridges.is_empty();
        if by_bridge || bridges_only {
            Ok(())
        } else {
            at_url
        }
    }
}
