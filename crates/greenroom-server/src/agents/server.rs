//! The port of the actor system over every agent server there is: each call goes where its session belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use greenroom::domain::ids::SessionId;
use greenroom::domain::task::{AskAnswer, AskKind};
use greenroom::domain::transcript::Message;
use greenroom::ports::agent_server::{
    AgentServer, NewSession, Notice, ServerError, SessionRecord, SessionStatus, TaskPrompt, Toast,
    Todo,
};
use greenroom_bridge::BridgeKey;
use greenroom_bridge::protocol::ToBridge;

use super::routes::{NOBODY, Route, RoutedServer, Routes};
use super::sessions::{Known, Owner};

type Statuses = BTreeMap<SessionId, SessionStatus>;

impl Routes {
    /// Where a session of that parent, or of nobody, is made.
    async fn for_create(&self, session: &NewSession) -> Result<Route, ServerError> {
        let parent_is_known = match &session.parent {
            Some(parent) => self.sessions().get(parent).is_some(),
            None => false,
        };
        if let Some(parent) = session.parent.as_ref().filter(|_| parent_is_known) {
            return self.of(parent).await;
        }
        if let Some(route) = self.somebody_in(&session.directory).await {
            return Ok(route);
        }
        match &session.parent {
            Some(parent) => self.of(parent).await,
            None => self.anybody().await,
        }
    }

    /// The newest bridge of a directory that answers.
    async fn somebody_in(&self, directory: &str) -> Option<Route> {
        for line in self.in_directory(directory) {
            if self.answers(&line).await {
                return Some(self.over(line));
            }
        }
        None
    }

    /// The URL, else the newest bridge.
    async fn anybody(&self) -> Result<Route, ServerError> {
        if let Some(route) = self.url(true) {
            return Ok(route);
        }
        match self.bridges.lines().pop() {
            Some(line) => Ok(self.over(line)),
            None => Err(ServerError::Unreachable(NOBODY.to_owned())),
        }
    }

    async fn for_directory(&self, directory: &str) -> Result<Route, ServerError> {
        match self.somebody_in(directory).await {
            Some(route) => Ok(route),
            None => self.anybody().await,
        }
    }

    /// What sessions of a directory do, of everybody who may have some. Absence means idle, so that the answer is none if
    /// one who has sessions of ours has given none.
    async fn statuses(&self, directory: &str) -> Result<Statuses, ServerError> {
        let mut must: BTreeSet<BridgeKey> = BTreeSet::new();
        let mut url_must = false;
        let working = self.sessions().working_in(directory);
        for (session, owner) in working {
            let owner = match owner {
                Owner::Bridge(key) if !must.contains(&key) => match self.of(&session).await {
                    Ok(route) => route.owner,
                    // It does nothing any more.
                    Err(ServerError::NotFound(_)) => continue,
                    Err(unknown) => return Err(unknown),
                },
                known => known,
            };
            match owner {
                Owner::Bridge(key) => {
                    must.insert(key);
                }
                Owner::Url => url_must = true,
            }
        }
        let mut asked: Vec<(Route, bool)> = Vec::new();
        for line in self.bridges.lines() {
            let is_needed = must.remove(line.key());
            let is_here = super::sessions::same_directory(&line.key().directory, directory);
            if (is_needed || is_here) && self.answers(&line).await {
                asked.push((self.over(line), is_needed));
            }
        }
        if let Some(gone) = must.first() {
            return Err(ServerError::Unreachable(format!(
                "the bridge of process {} is gone, and what its sessions do is unknown",
                gone.pid
            )));
        }
        if let Some(route) = self.url(false) {
            asked.push((route, url_must));
        } else if self.is_settling() {
            return Err(ServerError::Unreachable(
                "bridges are still coming back after the start".to_owned(),
            ));
        }
        if asked.is_empty() {
            // Sessions of another directory than any process has open are asked of whoever made them.
            asked.push((self.anybody().await?, true));
        }
        let answers = asked
            .iter()
            .map(|(route, _)| route.server.statuses(directory));
        let answers = join_all(answers).await;
        self.merged(asked, answers)
    }

    fn merged(
        &self,
        asked: Vec<(Route, bool)>,
        answers: Vec<Result<Statuses, ServerError>>,
    ) -> Result<Statuses, ServerError> {
        let mut merged = Statuses::new();
        let mut somebody_answered = false;
        let mut failure = None;
        for ((route, is_needed), answer) in asked.into_iter().zip(answers) {
            match answer {
                Ok(statuses) => {
                    somebody_answered = true;
                    self.merge(&mut merged, statuses, &route.owner);
                }
                // Who was never reached and has nothing of ours says nothing by that.
                Err(error @ ServerError::Unreachable(_)) if !is_needed => {
                    failure.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match failure {
            Some(failure) if !somebody_answered => Err(failure),
            _ => Ok(merged),
        }
    }

    /// Of two answers about one session, the one that says it works holds.
    fn merge(&self, merged: &mut Statuses, statuses: Statuses, owner: &Owner) {
        let mut sessions = self.sessions();
        for (session, status) in statuses {
            if status == SessionStatus::Idle {
                merged.entry(session).or_insert(status);
                continue;
            }
            // Only the process that runs a session knows that it works.
            if matches!(owner, Owner::Bridge(_)) || sessions.get(&session).is_none() {
                sessions.name(&session, owner);
            }
            sessions.works(&session, true);
            merged.insert(session, status);
        }
    }

    /// Tells the process of a child's parent that there is a child, once it has its prompt.
    fn tell_of(&self, session: &SessionId) {
        let (parent, title, owner) = {
            let mut sessions = self.sessions();
            let Some((parent, title)) = sessions.tell(session) else {
                return;
            };
            let owner = sessions.get(&parent).map(|known| known.owner.clone());
            (parent, title, owner)
        };
        let Some(Owner::Bridge(key)) = owner else {
            return;
        };
        if let Some(line) = self.bridges.line(&key) {
            line.tell(&ToBridge::SessionCreated {
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
        self.0.at(session, call).await
    }

    async fn create(&self, session: NewSession) -> Result<SessionId, ServerError> {
        let mut known = Known {
            owner: Owner::Url,
            parent: session.parent.clone(),
            untold: Some(session.title.clone()),
            directory: Some(session.directory.to_string()),
            ours: true,
        };
        let route = self.0.for_create(&session).await?;
        let (made, owner) = match route.server.create(session.clone()).await {
            // It did not get there, so that making it elsewhere doubles nothing.
            Err(ServerError::Unreachable(why)) if route.guessed => {
                let Some(line) = self.0.bridges.lines().pop() else {
                    return Err(ServerError::Unreachable(why));
                };
                let route = self.0.over(line);
                (route.server.create(session).await?, route.owner)
            }
            made => (made?, route.owner),
        };
        known.owner = owner;
        // An event may have named it already; its process is the same.
        self.0.sessions().made(made.clone(), known);
        Ok(made)
    }

    async fn prompt(
        &self,
        session: &SessionId,
        directory: Option<&str>,
        prompt: TaskPrompt,
    ) -> Result<(), ServerError> {
        // Before it is answered: what it brings about may be heard of first.
        self.0.sessions().called(session);
        self.0.sessions().works(session, true);
        let call = |server: Arc<dyn AgentServer>| {
            let prompt = prompt.clone();
            async move { server.prompt(session, directory, prompt).await }
        };
        self.0.at(session, call).await?;
        self.0.tell_of(session);
        Ok(())
    }

    async fn notify(&self, parent: &SessionId, notice: Notice) -> Result<(), ServerError> {
        let call = |server: Arc<dyn AgentServer>| {
            let notice = notice.clone();
            async move { server.notify(parent, notice).await }
        };
        self.0.at(parent, call).await
    }

    async fn abort(&self, session: &SessionId) -> Result<(), ServerError> {
        let call = |server: Arc<dyn AgentServer>| async move { server.abort(session).await };
        self.0.at(session, call).await
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
        self.0.at(session, call).await
    }

    async fn todos(&self, session: &SessionId) -> Result<Vec<Todo>, ServerError> {
        let call = |server: Arc<dyn AgentServer>| async move { server.todos(session).await };
        self.0.at(session, call).await
    }

    async fn sessions_below(
        &self,
        parent: Option<&SessionId>,
        directory: &str,
    ) -> Result<Vec<SessionRecord>, ServerError> {
        let Some(parent) = parent else {
            let route = self.0.for_directory(directory).await?;
            return route.server.sessions_below(None, directory).await;
        };
        let call = |server: Arc<dyn AgentServer>| async move {
            server.sessions_below(Some(parent), directory).await
        };
        self.0.at(parent, call).await
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
        self.0.at(session, call).await
    }

    async fn toast(&self, toast: Toast) -> Result<(), ServerError> {
        let mut pids = BTreeSet::new();
        // One per process: its directories share its screen.
        let lines = self.0.bridges.lines().into_iter();
        let lines = lines.filter(|line| line.has_answered() && pids.insert(line.key().pid));
        let mut routes: Vec<Route> = lines.map(|line| self.0.over(line)).collect();
        routes.extend(self.0.url(false));
        let shown = routes.iter().map(|route| route.server.toast(toast.clone()));
        let shown = join_all(shown).await;
        match shown.iter().any(Result::is_ok) {
            true => Ok(()),
            false => shown.into_iter().next().unwrap_or(Ok(())),
        }
    }

    async fn models(&self, directory: &str) -> Result<Vec<String>, ServerError> {
        self.0
            .for_directory(directory)
            .await?
            .server
            .models(directory)
            .await
    }

    async fn health(&self) -> Result<(), ServerError> {
        let at_url = match self.0.url(false) {
            Some(route) => route.server.health().await,
            None => Err(ServerError::Unreachable(NOBODY.to_owned())),
        };
        // A bridge that is connected is pinged: it is well.
        let by_bridge = self
            .0
            .bridges
            .lines()
            .iter()
            .any(|line| line.has_answered());
        let alone = self.0.upstream.is_none() && !self.0.bridges.is_empty();
        match by_bridge || alone {
            true => Ok(()),
            false => at_url,
        }
    }
}
