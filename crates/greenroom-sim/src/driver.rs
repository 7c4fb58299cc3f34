//! Runs the steps of a story in order. Before a step, the clock advances to its time and due timers fire;
//! after it, the system settles, unless the step is marked `together`. The driver never waits for an answer:
//! each request runs in a task of its own, so a system that does not answer does not block the story.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use greenroom::clock::Clock;
use greenroom::domain::ids::{ConcurrencyKey, SessionId, TaskId};
use greenroom::domain::task::{Launch, Resume, Track};
use greenroom::domain::time::Timestamp;
use greenroom::ports::journal::MemoryJournal;
use greenroom::{CancelOptions, Greenroom, ShutdownMode, WaitFor};
use serde_json::{Map, Value as Json};
use tokio::time::{Instant, sleep_until};

use crate::names::Names;
use crate::observe;
use crate::quiescence::Quiescence;
use crate::server::ScriptedServer;
use crate::story::{Action, CancelOverrides, Story};
use crate::trace::{Answer, QueryRow, ResultRow, Trace, Value};

/// The fields of a launch. Other fields of a story's input are ignored.
const LAUNCH_FIELDS: [&str; 13] = [
    "description",
    "prompt",
    "agent",
    "parentSessionID",
    "parentMessageID",
    "parentAgent",
    "parentModel",
    "model",
    "category",
    "skills",
    "skillContent",
    "directory",
    "permission",
];

/// Runs a story against the real actors on the current system. Returns its trace, still with generated ids in
/// texts.
pub async fn run_story(story: &Story, quiescence: &Quiescence, names: &Names) -> Trace {
    let clock = Clock::starting_at(Timestamp::from_millis(0));
    let started = Instant::now();
    let server = ScriptedServer::new(&story.server, clock, names.clone());
    let journal = Arc::new(MemoryJournal::default());
    let greenroom = Greenroom::builder(story.config.profile())
        .server(Arc::new(server.clone()))
        .journal(journal)
        .clock(clock)
        .start();
    let mut driver = Driver {
        greenroom,
        server,
        clock,
        quiescence,
        names: names.clone(),
        rows: Rc::default(),
        parents: Vec::new(),
        trace: Trace::default(),
    };
    quiescence.settle().await;
    let moment = |at: u64| started + Duration::from_millis(at);
    for (index, step) in story.in_order() {
        if moment(step.at) > Instant::now() {
            sleep_until(moment(step.at)).await;
            quiescence.settle().await;
        }
        driver.take(index, &step.action).await;
        if !step.together {
            quiescence.settle().await;
        }
    }
    sleep_until(moment(story.end_at)).await;
    quiescence.settle().await;
    driver.observe(Some("end".to_owned())).await;
    driver.finish()
}

struct Driver<'a> {
    greenroom: Greenroom,
    server: ScriptedServer,
    clock: Clock,
    quiescence: &'a Quiescence,
    names: Names,
    /// One row for each step with an answer. Written by the step and by the task that waits for the answer.
    rows: Rc<RefCell<Vec<ResultRow>>>,
    /// Every parent that a step named, by its id at that time, in order.
    parents: Vec<SessionId>,
    trace: Trace,
}

impl Driver<'_> {
    /// Executes one step. Each request is one message, sent at the first poll of its own task. Tasks are
    /// first polled in the order in which they are spawned, so messages keep the order of the steps.
    async fn take(&mut self, index: usize, action: &Action) {
        match action {
            Action::Launch { r#as: alias, input } => self.launch(index, alias, input),
            Action::Event { event } => {
                let event = self.resolved(event);
                let greenroom = self.greenroom.clone();
                actix_rt::spawn(async move { greenroom.ingest_event_json(&event).await });
            }
            Action::Server { session, change } => self.server.change(session, change),
            Action::Cancel { task, options } => {
                let CancelOverrides {
                    source,
                    reason,
                    abort_session,
                    skip_notification,
                } = options.clone();
                let defaults = CancelOptions::default();
                let options = CancelOptions {
                    source: source.unwrap_or(defaults.source),
                    reason,
                    abort_session: abort_session.unwrap_or(defaults.abort_session),
                    skip_notification: skip_notification.unwrap_or(defaults.skip_notification),
                    only_pending: false,
                };
                self.cancel(index, "cancel", task, options);
            }
            Action::CancelPending { task } => {
                let options = CancelOptions {
                    only_pending: true,
                    ..CancelOptions::default()
                };
                self.cancel(index, "cancelPending", task, options);
            }
            Action::Resume {
                session,
                prompt,
                parent_session,
                parent_message,
                parent_agent,
            } => {
                let resume = Resume {
                    session: Some(self.session(session)),
                    prompt: prompt.clone(),
                    parent_session: parent_session.as_deref().map(|parent| self.parent(parent)),
                    parent_message: parent_message.as_deref().map(Into::into),
                    parent_agent: parent_agent.clone(),
                };
                self.resume(index, resume);
            }
            Action::Track {
                task,
                session,
                parent_session,
                description,
                agent,
                parent_agent,
                concurrency_key,
            } => {
                let track = Track {
                    task: TaskId::new(self.names.id(task)),
                    session: self.session(session),
                    parent_session: self.parent(parent_session),
                    description: description.clone(),
                    agent: agent.clone(),
                    parent_agent: parent_agent.clone(),
                    concurrency_key: concurrency_key.as_deref().map(ConcurrencyKey::new),
                };
                self.track(index, track);
            }
            Action::Query { what, session } => {
                let of = session
                    .as_deref()
                    .map_or_else(|| SessionId::new(""), |session| self.session(session));
                let answer = observe::query(self.greenroom.clone(), self.names.clone(), *what, of);
                let result = self
                    .query_settled(answer, "a query")
                    .await
                    .unwrap_or_default();
                let at = self.now();
                self.trace.queries.push(QueryRow {
                    at,
                    what: what.as_str(),
                    session: session.clone(),
                    result,
                });
            }
            Action::Observe { label } => self.observe(label.clone()).await,
            Action::Shutdown => {
                let greenroom = self.greenroom.clone();
                actix_rt::spawn(async move { greenroom.shutdown(ShutdownMode::Abort).await });
            }
            Action::Other => {}
        }
    }

    fn launch(&mut self, index: usize, alias: &str, input: &Map<String, Json>) {
        let launch = self.launch_of(input);
        if let Ok(Launch {
            parent_session: Some(parent),
            ..
        }) = &launch
        {
            self.saw_parent(parent.clone());
        }
        let (greenroom, names, alias) =
            (self.greenroom.clone(), self.names.clone(), alias.to_owned());
        names.launching(&alias);
        self.answered(index, "launch", async move {
            let launched = match launch {
                Ok(launch) => greenroom
                    .launch(launch)
                    .await
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            names.launched(&alias, launched.as_ref().ok().map(|task| task.id.as_str()));
            Ok(Value::Task {
                task: alias,
                status: launched?.status(),
            })
        });
    }

    fn launch_of(&self, input: &Map<String, Json>) -> Result<Launch, serde_json::Error> {
        let known = input
            .iter()
            .filter(|(name, value)| LAUNCH_FIELDS.contains(&name.as_str()) && !value.is_null())
            .map(|(name, value)| (name.clone(), self.resolved(value)));
        serde_json::from_value(Json::Object(known.collect()))
    }

    fn cancel(&mut self, index: usize, name: &'static str, alias: &str, options: CancelOptions) {
        let (greenroom, names, alias) =
            (self.greenroom.clone(), self.names.clone(), alias.to_owned());
        self.answered(index, name, async move {
            // A launch of the same instant may not have been answered yet.
            let task = TaskId::new(names.id_when_launched(&alias).await);
            Ok(Value::Cancelled(
                greenroom.cancel(&task, options).await.is_ok(),
            ))
        });
    }

    fn resume(&mut self, index: usize, resume: Resume) {
        let (greenroom, names) = (self.greenroom.clone(), self.names.clone());
        self.answered(index, "resume", async move {
            let task = greenroom
                .resume(resume)
                .await
                .map_err(|error| error.to_string())?;
            let alias = names.alias(task.id.as_str());
            match greenroom.wait(&task.id, task.run, WaitFor::Started).await {
                // A run that has ended since was running for an instant; its end is reported separately.
                Some(task) if task.started_at().is_some() => Ok(Value::Task {
                    task: alias,
                    status: greenroom::domain::task::TaskStatus::Running,
                }),
                Some(task) => Err(task.error().unwrap_or("it ended before it ran").to_owned()),
                None => Err("it was over before it ran".to_owned()),
            }
        });
    }

    fn track(&mut self, index: usize, track: Track) {
        let (greenroom, names) = (self.greenroom.clone(), self.names.clone());
        self.answered(index, "track", async move {
            let task = greenroom
                .track(track)
                .await
                .map_err(|error| error.to_string())?;
            Ok(Value::Task {
                task: names.alias(task.id.as_str()),
                status: task.status(),
            })
        });
    }

    /// Spawns the request of a step and adds a row for its answer.
    fn answered(
        &mut self,
        step: usize,
        name: &'static str,
        work: impl Future<Output = Result<Value, String>> + 'static,
    ) {
        let (rows, clock) = (Rc::clone(&self.rows), self.clock);
        let row = ResultRow {
            step,
            r#do: name,
            at: self.now(),
            settled_at: None,
            answer: None,
        };
        let place = rows.borrow().len();
        rows.borrow_mut().push(row);
        actix_rt::spawn(async move {
            let answer = match work.await {
                Ok(value) => Answer::Value(value),
                Err(error) => Answer::Error(error),
            };
            let row = &mut rows.borrow_mut()[place];
            row.settled_at = Some(clock.now().as_millis());
            row.answer = Some(answer);
        });
    }

    async fn observe(&mut self, label: Option<String>) {
        let observation = observe::observe(
            self.greenroom.clone(),
            self.names.clone(),
            self.parents.clone(),
        );
        let mut seen = self
            .query_settled(observation, "an observation")
            .await
            .unwrap_or_default();
        seen.at = self.now();
        seen.label = label;
        self.trace.observations.push(seen);
    }

    /// Returns the answer to a query without letting time pass. A missing answer is recorded as an error of
    /// the system.
    async fn query_settled<T: 'static>(
        &mut self,
        question: impl Future<Output = T> + 'static,
        name: &str,
    ) -> Option<T> {
        let query = actix_rt::spawn(question);
        self.quiescence.settle().await;
        if query.is_finished() {
            return query.await.ok();
        }
        query.abort();
        self.trace
            .unhandled_errors
            .push(format!("{name} at {} had no answer", self.now()));
        None
    }

    fn finish(mut self) -> Trace {
        self.trace.calls = self.server.finish();
        self.trace.results = self.rows.take();
        self.trace
    }

    fn now(&self) -> i64 {
        self.clock.now().as_millis()
    }

    fn session(&self, alias: &str) -> SessionId {
        SessionId::new(self.names.id(alias))
    }

    fn parent(&mut self, alias: &str) -> SessionId {
        let parent = self.session(alias);
        self.saw_parent(parent.clone());
        parent
    }

    fn saw_parent(&mut self, parent: SessionId) {
        if !self.parents.contains(&parent) {
            self.parents.push(parent);
        }
    }

    /// Returns a value of the story with session aliases replaced by ids.
    fn resolved(&self, value: &Json) -> Json {
        match value {
            Json::String(text) if text.starts_with('$') => Json::String(self.names.id(text)),
            Json::Array(items) => items.iter().map(|item| self.resolved(item)).collect(),
            Json::Object(fields) => {
                let resolved: BTreeMap<String, Json> = fields
                    .iter()
                    .map(|(name, value)| (name.clone(), self.resolved(value)))
                    .collect();
                resolved.into_iter().collect::<Map<String, Json>>().into()
            }
            other => other.clone(),
        }
    }
}
