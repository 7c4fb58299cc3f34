//! The steps of a scenario, one function each. A request to the system runs in a task of its own, and its
//! answer is logged when it arrives. A change of the server happens at once.

use std::time::Duration;

use greenroom::domain::ids::{ConcurrencyKey, SessionId, TaskId};
use greenroom::domain::task::{Resume, Task, Track};
use greenroom::{CancelOptions, CancelScope, LimitsChange, ShutdownMode};
use serde_json::{Map, Value};
use tokio::time::sleep;

use super::{Driver, StepExecutor};
use crate::explore::log::{LogEvent, Request};
use crate::explore::model::Model;
use crate::explore::scenario::Action;
use crate::story::CancelOverrides;

/// The number of attempts to set limits, and the interval between them.
const MAX_ATTEMPTS: usize = 12;
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

impl Driver<'_> {
    /// Executes one step. Each request runs in a task of its own; tasks are first polled in the order in
    /// which they are spawned.
    pub(super) fn execute(&mut self, action: &Action) {
        match action {
            Action::SetLimits { limits } => self.set_limits(limits),
            Action::Shutdown => {
                self.closed = true;
                let (greenroom, log) = (self.executor.greenroom(), self.executor.log.clone());
                log.push(LogEvent::Requested(Request::Shutdown));
                actix_rt::spawn(async move {
                    let report = greenroom.shutdown(ShutdownMode::Abort).await;
                    log.push(LogEvent::ShutDown(report));
                });
            }
            action => self.executor.execute(action),
        }
    }

    fn set_limits(&mut self, limits: &Map<String, Value>) {
        let Ok(change) = serde_json::from_value::<LimitsChange>(Value::Object(limits.clone()))
        else {
            return;
        };
        let defaults = self.scenario.config().limits;
        if let Some(default) = change.default {
            self.limits.default = default.unwrap_or(defaults.default);
        }
        if let Some(max) = change.max {
            self.limits.max = max.unwrap_or(defaults.max);
        }
        for (table, changes) in [
            (&mut self.limits.providers, &change.providers),
            (&mut self.limits.models, &change.models),
        ] {
            for (name, limit) in changes {
                match limit {
                    Some(limit) => table.insert(name.clone(), *limit),
                    None => table.remove(name),
                };
            }
        }
        let greenroom = self.executor.greenroom();
        self.executor.send_request(
            Request::SetLimits(Box::new(self.limits.clone())),
            async move {
                // Retries until the limits are set, because later steps depend on them.
                for _ in 0..MAX_ATTEMPTS {
                    match greenroom.set_limits(change.clone()).await {
                        Ok(_) => return Ok(None),
                        Err(_) => sleep(RETRY_INTERVAL).await,
                    }
                }
                Err("the limits could not be set".to_owned())
            },
        );
    }
}

impl StepExecutor {
    /// Executes a step that does not need the driver.
    pub(super) fn execute(&self, action: &Action) {
        match action {
            Action::Launch { r#as: alias, input } => self.launch(alias, input),
            Action::Cancel { task, options } => self.cancel(task, options, false),
            Action::CancelPending { task } => self.cancel(task, &CancelOverrides::default(), true),
            Action::CancelAll { session } => self.cancel_all(session.as_deref()),
            Action::Resume {
                session,
                prompt,
                parent_session,
            } => self.resume(session, prompt, parent_session.as_deref()),
            Action::Send { task, prompt } => self.send(task, prompt),
            Action::Track {
                task,
                session,
                parent_session,
                agent,
                concurrency_key,
            } => {
                self.track(
                    task,
                    session,
                    parent_session,
                    agent.clone(),
                    concurrency_key.as_deref(),
                );
            }
            Action::UserMessage { session } => {
                if let Some(id) = self.session(session) {
                    self.model.open_session(&id, None);
                    self.model.user_message(&id);
                }
            }
            Action::UserAbort { session } => self.with_session(session, Model::user_abort),
            Action::UserAnswer { session } => self.with_session(session, Model::user_answer),
            Action::Delete { session } => self.with_session(session, Model::delete),
            Action::Outage { ms } => self.model.take_offline(*ms, false),
            Action::Restart { ms } => self.model.take_offline(*ms, true),
            Action::BreakLink { ms } => self.model.break_link(*ms),
            Action::Dispose => self.model.dispose(),
            Action::EndSecondProcess => self.model.end_second_process(),
            Action::EndProcess { ms } => self.model.end_process(*ms),
            Action::LoseAgent { agent, permanent } => self.model.lose_agent(agent, *permanent),
            Action::LoseModel { model, permanent } => self.model.lose_model(model, *permanent),
            Action::Revert { session } => self.with_session(session, Model::revert),
            Action::Unrevert { session } => self.with_session(session, Model::unrevert),
            Action::Fork { session } => self.with_session(session, Model::fork),
            // Handled by the driver.
            Action::SetLimits { .. } | Action::Shutdown => {}
        }
    }

    fn with_session(&self, session: &str, act: impl FnOnce(&Model, &SessionId)) {
        if let Some(id) = self.session(session) {
            act(&self.model, &id);
        }
    }

    /// Sends a request and logs its answer.
    fn send_request<F>(&self, request: Request, work: F)
    where
        F: Future<Output = Result<Option<Box<Task>>, String>> + 'static,
    {
        let request_index = self.log.push(LogEvent::Requested(request));
        let (log, crash_switch) = (self.log.clone(), self.crash_switch());
        actix_rt::spawn(async move {
            let answer = work.await;
            if crash_switch.is_some_and(|crash_switch| !crash_switch.is_alive()) {
                // A crashed process returns no answer.
                return;
            }
            log.push(LogEvent::Answered {
                request: request_index,
                answer,
            });
        });
    }

    fn launch(&self, alias: &str, input: &Map<String, Value>) {
        let mut input = input.clone();
        input.insert("description".to_owned(), alias.into());
        input.insert("prompt".to_owned(), "go".into());
        if let Some(parent) = input.get("parentSessionID").and_then(Value::as_str) {
            let Some(parent) = self.session(parent) else {
                return;
            };
            self.open_parent(&parent);
            input.insert("parentSessionID".to_owned(), parent.as_str().into());
        }
        let parent = input
            .get("parentSessionID")
            .and_then(Value::as_str)
            .map(SessionId::from);
        let (greenroom, names, name) = (self.greenroom(), self.names.clone(), alias.to_owned());
        names.launching(&name);
        let launch =
            serde_json::from_value(Value::Object(input)).map_err(|error| error.to_string());
        self.send_request(
            Request::Launch {
                alias: alias.to_owned(),
                parent,
            },
            async move {
                let launched = match launch {
                    Ok(launch) => greenroom
                        .launch(launch)
                        .await
                        .map_err(|error| error.to_string()),
                    Err(error) => Err(error),
                };
                names.launched(&name, launched.as_ref().ok().map(|task| task.id.as_str()));
                Ok(Some(Box::new(launched?)))
            },
        );
    }

    /// Opens a root parent session, except for the parent that does not exist.
    fn open_parent(&self, parent: &SessionId) {
        if !parent.as_str().contains("ghost") {
            self.model.open_session(parent, None);
        }
    }

    fn cancel(&self, alias: &str, options_of: &CancelOverrides, only_pending: bool) {
        let Some(task) = self.task(alias) else { return };
        let defaults = CancelOptions::default();
        let skip = options_of
            .skip_notification
            .unwrap_or(defaults.skip_notification);
        let options = CancelOptions {
            source: options_of.source.clone().unwrap_or(defaults.source),
            reason: if skip {
                Some("notification skipped".to_owned())
            } else {
                options_of.reason.clone()
            },
            abort_session: options_of.abort_session.unwrap_or(defaults.abort_session),
            skip_notification: skip,
            only_pending,
        };
        let request = Request::Cancel {
            task: task.clone(),
            skip,
            abort: options.abort_session,
            only_pending,
        };
        let greenroom = self.greenroom();
        self.send_request(request, async move {
            let task = greenroom
                .cancel(&task, options)
                .await
                .map_err(|error| error.to_string())?;
            Ok(Some(Box::new(task)))
        });
    }

    fn cancel_all(&self, session: Option<&str>) {
        let below = match session {
            Some(session) => match self.session(session) {
                Some(session) => Some(session),
                None => return,
            },
            None => None,
        };
        let scope = below
            .clone()
            .map_or(CancelScope::All, CancelScope::Descendants);
        let greenroom = self.greenroom();
        self.send_request(Request::CancelAll { below }, async move {
            greenroom.cancel_all(scope, CancelOptions::default()).await;
            Ok(None)
        });
    }

    fn resume(&self, session: &str, prompt: &str, parent: Option<&str>) {
        let Some(session) = self.session(session) else {
            return;
        };
        let parent = match parent {
            Some(parent) => match self.session(parent) {
                Some(parent) => Some(parent),
                None => return,
            },
            None => None,
        };
        if let Some(parent) = &parent {
            self.open_parent(parent);
        }
        let resume = Resume {
            session: Some(session.clone()),
            prompt: prompt.to_owned(),
            parent_session: parent.clone(),
            ..Resume::default()
        };
        let greenroom = self.greenroom();
        self.send_request(Request::Resume { session, parent }, async move {
            let task = greenroom
                .resume(resume)
                .await
                .map_err(|error| error.to_string())?;
            Ok(Some(Box::new(task)))
        });
    }

    fn send(&self, alias: &str, prompt: &str) {
        let Some(task) = self.task(alias) else { return };
        let (greenroom, prompt) = (self.greenroom(), prompt.to_owned());
        self.send_request(Request::Send { task: task.clone() }, async move {
            let task = greenroom
                .send(&task, prompt)
                .await
                .map_err(|error| error.to_string())?;
            Ok(Some(Box::new(task)))
        });
    }

    fn track(
        &self,
        alias: &str,
        session: &str,
        parent: &str,
        agent: Option<String>,
        key: Option<&str>,
    ) {
        let (Some(session), Some(parent)) = (self.session(session), self.session(parent)) else {
            return;
        };
        self.open_parent(&parent);
        self.model.open_session(&session, Some(parent.clone()));
        // A known task by its id, a new task by its own name.
        let task = self.task(alias).unwrap_or_else(|| TaskId::new(alias));
        self.names.launched(alias, Some(task.as_str()));
        let track = Track {
            task: task.clone(),
            session: session.clone(),
            parent_session: parent.clone(),
            description: alias.to_owned(),
            agent,
            parent_agent: None,
            concurrency_key: key.map(ConcurrencyKey::new),
        };
        let greenroom = self.greenroom();
        self.send_request(
            Request::Track {
                task,
                session,
                parent,
            },
            async move {
                let task = greenroom
                    .track(track)
                    .await
                    .map_err(|error| error.to_string())?;
                Ok(Some(Box::new(task)))
            },
        );
    }

    /// Returns the id of a task by its alias; `None` if no such task was accepted.
    fn task(&self, alias: &str) -> Option<TaskId> {
        let id = self.names.id(alias);
        (id != alias
            || self
                .log
                .read(|observed| observed.newest(&TaskId::new(alias)).is_some()))
        .then(|| TaskId::new(id))
    }

    /// Returns a session by its id, or by the alias of its task; `None` if that task has no session.
    fn session(&self, name: &str) -> Option<SessionId> {
        let Some(alias) = name.strip_prefix('$') else {
            return Some(SessionId::new(name));
        };
        let task = self.task(alias)?;
        self.log.read(|observed| {
            let mut runs = observed.runs.iter().rev().filter(|run| run.task == task);
            runs.find_map(|run| run.session.clone())
        })
    }
}
