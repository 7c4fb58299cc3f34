//! Where the stories of this folder are told: the real actors in the default profile, the scripted server, virtual time.
//! A story says when something happens and what must have come of it; nothing in it sleeps or waits for luck. After each
//! story the stage looks whether every slot was given back, history and records agree, and no actor has panicked.

use std::cell::RefCell;
use std::future::Future;
use std::sync::{Arc, Once, mpsc};
use std::time::Duration;

use actix_rt::System;
use greenroom::domain::ids::{ModelRef, SessionId, TaskId};
use greenroom::domain::task::{Launch, Resume, Task, TaskStatus, Track};
use greenroom::domain::time::Timestamp;
use greenroom::ports::agent_server::SessionStatus;
use greenroom::ports::journal::MemoryJournal;
use greenroom::{
    CancelError, CancelOptions, CancelScope, Clock, Config, EventLink, Greenroom, LaunchError,
    LimitsReport, ListFilter, ResumeError, ShutdownMode, TaskChange,
};
use greenroom_sim::quiet::Quiet;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, sleep_until};

use crate::server::{On, Server, What};

/// Real time for one story: all take milliseconds, unless actors keep each other busy at one instant.
const LIMIT: Duration = Duration::from_secs(60);

thread_local! {
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Tells a story in the default profile.
pub fn story<F: Future<Output = ()>>(tell: impl FnOnce(Stage) -> F + Send + 'static) {
    story_with(|_| {}, tell);
}

/// Tells a story in the default profile with some knobs set.
pub fn story_with<F: Future<Output = ()>>(
    set: impl FnOnce(&mut Config) + Send + 'static,
    tell: impl FnOnce(Stage) -> F + Send + 'static,
) {
    let panics = run(set, tell);
    assert!(panics.is_empty(), "actors panicked: {panics:?}");
}

/// Tells a story in which something of ours breaks, and answers the panics there were.
pub fn broken_story<F: Future<Output = ()>>(
    set: impl FnOnce(&mut Config) + Send + 'static,
    tell: impl FnOnce(Stage) -> F + Send + 'static,
) -> Vec<String> {
    run(set, tell)
}

fn run<F: Future<Output = ()>>(
    set: impl FnOnce(&mut Config) + Send + 'static,
    tell: impl FnOnce(Stage) -> F + Send + 'static,
) -> Vec<String> {
    let mut config = Config {
        directory: "/base".to_owned(),
        seed: Some(7),
        ..Config::default()
    };
    set(&mut config);
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let quiet = Quiet::default();
        let runtime = quiet.runtime().expect("a runtime can be made");
        collect_panics();
        System::with_tokio_rt(|| runtime).block_on(async move {
            let stage = Stage::new(config, quiet);
            tell(stage.clone()).await;
            stage.close().await;
        });
        // A receiver that has given up wants nothing more.
        drop(sender.send(PANICS.take().unwrap_or_default()));
    });
    match receiver.recv_timeout(LIMIT) {
        Ok(panics) => panics,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the story did not come to its end"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("a story that ends says so"),
        },
    }
}

/// Panics of a story's thread are collected besides being printed: one in an actor would go unnoticed otherwise.
fn collect_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with_borrow_mut(|panics| {
                if let Some(panics) = panics {
                    panics.push(panic.to_string());
                }
            });
            usual(panic);
        }));
    });
    PANICS.set(Some(Vec::new()));
}

/// A launch of parent `P` by the agent `worker`; its name is its description.
pub fn job(name: &str) -> Launch {
    Launch {
        description: name.to_owned(),
        prompt: format!("do {name}"),
        agent: "worker".to_owned(),
        parent_session: Some("P".into()),
        ..Launch::default()
    }
}

/// The same for another parent.
pub fn job_of(parent: impl Into<SessionId>, name: &str) -> Launch {
    Launch {
        parent_session: Some(parent.into()),
        ..job(name)
    }
}

/// The same with a model, as `provider/model` or `provider/model:variant`.
pub fn job_on(model_name: &str, name: &str) -> Launch {
    Launch {
        model: Some(model(model_name)),
        ..job(name)
    }
}

/// `provider/model` or `provider/model:variant`.
pub fn model(text: &str) -> ModelRef {
    let (provider, rest) = text.split_once('/').expect("provider/model");
    let (name, variant) = match rest.split_once(':') {
        Some((name, variant)) => (name, Some(variant.to_owned())),
        None => (rest, None),
    };
    ModelRef {
        provider_id: provider.to_owned(),
        model_id: name.to_owned(),
        variant,
    }
}

/// Who an event is about: a session, or the session of a task.
pub trait Who {
    fn session(&self, server: &Server) -> SessionId;
}

impl Who for &str {
    fn session(&self, _: &Server) -> SessionId {
        SessionId::new(self)
    }
}

impl Who for &SessionId {
    fn session(&self, _: &Server) -> SessionId {
        (*self).clone()
    }
}

impl Who for &TaskId {
    fn session(&self, server: &Server) -> SessionId {
        server
            .session_of(self)
            .expect("a session was made for the task")
    }
}

/// The system, its server and its clock.
#[derive(Clone)]
pub struct Stage {
    pub greenroom: Greenroom,
    pub server: Server,
    quiet: Quiet,
    clock: Clock,
    started: Instant,
}

impl Stage {
    fn new(config: Config, quiet: Quiet) -> Self {
        let clock = Clock::starting_at(Timestamp::from_millis(0));
        let server = Server::new(clock);
        let greenroom = Greenroom::start_with_clock(
            config,
            Arc::new(server.clone()),
            Arc::new(MemoryJournal::default()),
            clock,
        );
        Self {
            greenroom,
            server,
            quiet,
            clock,
            started: Instant::now(),
        }
    }

    /// Everything open is cancelled; then no slot may be held, nobody wait, and history agree with the records.
    async fn close(&self) {
        self.agrees().await;
        self.greenroom
            .cancel_all(CancelScope::All, CancelOptions::default())
            .await;
        self.settle().await;
        let limits = self.greenroom.limits().await;
        assert_eq!(limits.in_use, 0, "slots are kept at the end: {limits:?}");
        let waiting: usize = limits.keys.iter().map(|key| key.waiting).sum();
        assert_eq!(waiting, 0, "somebody waits at the end: {limits:?}");
    }

    /// Status and history never contradict each other.
    async fn agrees(&self) {
        for task in self.tasks().await {
            let Some(parent) = &task.parent_session else {
                continue;
            };
            let history = self.greenroom.history(parent).await;
            if let Some(entry) = history.iter().find(|entry| entry.task == task.id) {
                assert_eq!(
                    entry.status,
                    task.status(),
                    "history of {}",
                    task.description
                );
            }
        }
    }

    /// What time it is, in virtual milliseconds.
    pub fn now(&self) -> i64 {
        self.clock.now().as_millis()
    }

    /// Goes on to that time, in milliseconds from the start; what is due then has had its say.
    pub async fn at(&self, millis: u64) {
        let moment = self.started + Duration::from_millis(millis);
        assert!(
            moment >= Instant::now(),
            "a story does not go back to {millis}"
        );
        sleep_until(moment).await;
        self.settle().await;
    }

    /// Lets so many milliseconds pass.
    pub async fn pass(&self, millis: u64) {
        let now = u64::try_from(self.now()).unwrap_or_default();
        self.at(now + millis).await;
    }

    /// Everything that needs no time is done.
    pub async fn settle(&self) {
        self.quiet.settle().await;
    }

    /// What is asked is answered without time passing.
    pub async fn answered<T: 'static>(&self, question: impl Future<Output = T> + 'static) -> T {
        let asked = actix_rt::spawn(question);
        self.settle().await;
        assert!(asked.is_finished(), "no answer at {}", self.now());
        asked.await.expect("the question did not panic")
    }

    pub async fn launch(&self, launch: Launch) -> TaskId {
        self.try_launch(launch).await.expect("it is accepted").id
    }

    pub async fn try_launch(&self, launch: Launch) -> Result<Task, LaunchError> {
        let greenroom = self.greenroom.clone();
        self.answered(async move { greenroom.launch(launch).await })
            .await
    }

    pub async fn resume(&self, who: impl Who) {
        let resume = self.resumption(who, "go on");
        self.try_resume(resume).await.expect("it is accepted");
    }

    pub fn resumption(&self, who: impl Who, prompt: &str) -> Resume {
        Resume {
            session: Some(who.session(&self.server)),
            prompt: prompt.to_owned(),
            ..Resume::default()
        }
    }

    pub async fn try_resume(&self, resume: Resume) -> Result<Task, ResumeError> {
        let greenroom = self.greenroom.clone();
        self.answered(async move { greenroom.resume(resume).await })
            .await
    }

    /// Adopts a session for parent `P`.
    pub async fn track(&self, id: &str, session: &str, key: Option<&str>) -> Task {
        self.track_as(Track {
            task: id.into(),
            session: session.into(),
            parent_session: "P".into(),
            description: id.to_owned(),
            agent: None,
            parent_agent: None,
            concurrency_key: key.map(Into::into),
        })
        .await
    }

    pub async fn track_as(&self, track: Track) -> Task {
        let greenroom = self.greenroom.clone();
        self.answered(async move { greenroom.track(track).await })
            .await
            .expect("it is accepted")
    }

    pub async fn cancel(&self, task: &TaskId) -> bool {
        self.try_cancel(task, CancelOptions::default())
            .await
            .is_ok()
    }

    pub async fn try_cancel(
        &self,
        task: &TaskId,
        options: CancelOptions,
    ) -> Result<Task, CancelError> {
        let (greenroom, task) = (self.greenroom.clone(), task.clone());
        self.answered(async move { greenroom.cancel(&task, options).await })
            .await
    }

    /// Begins a shutdown; it has come to its end when the answer is there.
    pub async fn shutdown(&self) -> tokio::task::JoinHandle<greenroom::ShutdownReport> {
        let greenroom = self.greenroom.clone();
        let report = actix_rt::spawn(async move { greenroom.shutdown(ShutdownMode::Abort).await });
        self.settle().await;
        report
    }

    pub async fn find(&self, name: &str) -> Option<greenroom::TaskDetail> {
        let (greenroom, name) = (self.greenroom.clone(), name.to_owned());
        self.answered(async move { greenroom.find(&name).await })
            .await
    }

    pub async fn task(&self, task: &TaskId) -> Task {
        let found = self.find(task.as_str()).await;
        found.expect("the task is in memory").task
    }

    /// Where a task stands, with its error and note: `error: boom (note)`; `gone` if it has left memory.
    pub async fn state(&self, task: &TaskId) -> String {
        // By the list: a task that has left memory is still found by its id, in the journal.
        let tasks = self.tasks().await;
        let Some(task) = tasks.into_iter().find(|known| known.id == *task) else {
            return "gone".to_owned();
        };
        let error = task.error().map(|error| format!(": {error}"));
        let note = task.note().map(|note| format!(" ({note})"));
        format!(
            "{}{}{}",
            task.status().as_str(),
            error.unwrap_or_default(),
            note.unwrap_or_default()
        )
    }

    /// All tasks in memory, oldest first.
    pub async fn tasks(&self) -> Vec<Task> {
        let greenroom = self.greenroom.clone();
        let filter = ListFilter {
            limit: Some(1000),
            ..ListFilter::default()
        };
        let mut page = self
            .answered(async move { greenroom.list(filter).await })
            .await;
        page.tasks.reverse();
        page.tasks
    }

    /// The names of the tasks in that state, oldest first.
    pub async fn names(&self, status: TaskStatus) -> Vec<String> {
        let tasks = self.tasks().await.into_iter();
        tasks
            .filter(|task| task.status() == status)
            .map(|task| task.description)
            .collect()
    }

    pub async fn limits(&self) -> LimitsReport {
        let greenroom = self.greenroom.clone();
        self.answered(async move { greenroom.limits().await }).await
    }

    /// Slots as `key in use/limit`, with `+waiting` where somebody waits.
    pub async fn slots(&self) -> Vec<String> {
        let keys = self.limits().await.keys.into_iter();
        keys.map(|key| {
            let waiting = match key.waiting {
                0 => String::new(),
                waiting => format!(" +{waiting}"),
            };
            format!("{} {}/{}{waiting}", key.key, key.in_use, key.limit)
        })
        .collect()
    }

    /// All slots in use.
    pub async fn in_use(&self) -> usize {
        self.limits().await.in_use
    }

    pub fn changes(&self) -> Receiver<TaskChange> {
        self.greenroom.subscribe()
    }

    pub async fn link(&self, link: EventLink) {
        self.greenroom.event_link(link);
        self.settle().await;
    }

    /// The server tells of something.
    pub async fn event(&self, event: Value) {
        self.together(event);
        self.settle().await;
    }

    /// The server tells of something, and what follows in the story happens at once.
    pub fn together(&self, event: Value) {
        let greenroom = self.greenroom.clone();
        actix_rt::spawn(async move { greenroom.event(&event).await });
    }

    /// The session works.
    pub async fn busy(&self, who: impl Who) {
        let session = who.session(&self.server);
        self.server.set_status(&session, Some(SessionStatus::Busy));
        self.event(status_event(&session, json!({"type": "busy"})))
            .await;
    }

    /// The session has nothing to do, and says so.
    pub async fn idle(&self, who: impl Who) {
        let session = who.session(&self.server);
        self.server.set_status(&session, None);
        self.event(idle_event(&session)).await;
    }

    /// The session has nothing to do, but the event is lost.
    pub fn quietly_idle(&self, who: impl Who) {
        self.server.set_status(&who.session(&self.server), None);
    }

    /// An answer of the assistant is complete.
    pub async fn answer(&self, who: impl Who, text: &str) {
        let session = who.session(&self.server);
        let info = self.quiet_answer(&session, text);
        self.event(message_event(&session, &info)).await;
    }

    /// The same, but the event is lost.
    pub fn quiet_answer(&self, who: impl Who, text: &str) -> Value {
        let session = who.session(&self.server);
        let info = json!({"role": "assistant", "finish": "stop",
            "time": {"completed": self.now()}});
        let parts = json!([{"type": "text", "text": text}]);
        self.server.add_message(&session, info, parts)
    }

    /// A whole turn as opencode tells of it: busy, a finished answer, idle.
    pub async fn finish(&self, who: impl Who) {
        let session = who.session(&self.server);
        self.busy(&session).await;
        self.answer(&session, "done").await;
        self.idle(&session).await;
    }

    /// Text of the assistant is streamed.
    pub async fn work(&self, who: impl Who) {
        let session = who.session(&self.server);
        self.event(delta_event(&session)).await;
    }

    /// The session fails.
    pub async fn fail(&self, who: impl Who, text: &str) {
        let session = who.session(&self.server);
        self.server.set_status(&session, None);
        let error = json!({"name": "APIError", "data": {"message": text}});
        self.event(error_event(&session, error)).await;
    }

    /// Somebody aborts the session.
    pub async fn aborted(&self, who: impl Who) {
        let session = who.session(&self.server);
        self.server.set_status(&session, None);
        self.event(abort_event(&session)).await;
    }

    /// The session is deleted.
    pub async fn delete(&self, who: impl Who) {
        let session = who.session(&self.server);
        self.server.gone(&session);
        self.event(json!({"type": "session.deleted", "properties": {"info": {"id": session}}}))
            .await;
    }

    /// The user says something in a session, maybe to an agent with a model.
    pub async fn user_says(&self, who: impl Who, agent: Option<&str>, model_name: Option<&str>) {
        let session = who.session(&self.server);
        let mut info = json!({"role": "user"});
        if let Some(agent) = agent {
            info["agent"] = json!(agent);
        }
        if let Some(name) = model_name {
            info["model"] = json!(model(name));
        }
        let parts = json!([{"type": "text", "text": "hello"}]);
        let info = self.server.add_message(&session, info, parts);
        self.together(message_event(&session, &info));
        let part = json!({"messageID": info["id"], "sessionID": session, "type": "text",
            "text": "hello"});
        self.event(part_event(&session, part)).await;
    }

    /// What a parent was told, one line each: when, which kind, whether it wakes, of whom, how many are open, as whom.
    pub fn told(&self, parent: &str) -> Vec<String> {
        let calls = self.server.calls(On::Notify).into_iter();
        calls
            .filter(|call| {
                call.session
                    .as_ref()
                    .is_some_and(|to| to.as_str() == parent)
            })
            .filter_map(|call| match call.what {
                What::Notify(notice) => Some(notice_line(call.at, &notice)),
                _ => None,
            })
            .collect()
    }

    /// When each call of that kind arrived, and about what: a session, the task of a create, a directory.
    pub fn calls(&self, on: On) -> Vec<String> {
        let calls = self.server.calls(on).into_iter();
        calls
            .map(|call| {
                let about = match (&call.what, &call.session) {
                    (What::Create(new), _) => new.title.split(" (@").next().map(str::to_owned),
                    (What::Directory(directory), None) => Some(directory.clone()),
                    (_, session) => session.as_ref().map(ToString::to_string),
                };
                format!("{} {}", call.at, about.unwrap_or_default())
                    .trim_end()
                    .to_owned()
            })
            .collect()
    }

    /// When each call of that kind arrived.
    pub fn times(&self, on: On) -> Vec<i64> {
        self.server.calls(on).iter().map(|call| call.at).collect()
    }
}

fn notice_line(at: i64, notice: &greenroom::ports::agent_server::Notice) -> String {
    let tasks = notice.facts.tasks.iter();
    let tasks: Vec<String> = tasks
        .map(|fact| format!("{} {}", fact.description, fact.status.as_str()))
        .collect();
    let kind = match notice.facts.kind {
        greenroom::domain::notice::NoticeKind::Individual => "note",
        greenroom::domain::notice::NoticeKind::Final => "final",
    };
    let how = if notice.silent { "silent" } else { "wakes" };
    let mut line = format!("{at} {kind} {how}: {}", tasks.join(", "));
    if notice.facts.remaining > 0 {
        line.push_str(&format!(", {} open", notice.facts.remaining));
    }
    if let Some(agent) = &notice.agent {
        line.push_str(&format!(" as {agent}"));
    }
    if let Some(model) = &notice.model {
        line.push_str(&format!(" on {}", model.key()));
        if let Some(variant) = &model.variant {
            line.push_str(&format!(":{variant}"));
        }
    }
    line
}

pub fn status_event(session: &SessionId, status: Value) -> Value {
    json!({"type": "session.status", "properties": {"sessionID": session, "status": status}})
}

pub fn idle_event(session: &SessionId) -> Value {
    json!({"type": "session.idle", "properties": {"sessionID": session}})
}

pub fn delta_event(session: &SessionId) -> Value {
    json!({"type": "message.part.delta", "properties": {"sessionID": session,
        "messageID": "msg_streamed", "partID": "prt_1", "field": "text", "delta": "x"}})
}

pub fn message_event(session: &SessionId, info: &Value) -> Value {
    json!({"type": "message.updated", "properties": {"sessionID": session, "info": info}})
}

pub fn part_event(session: &SessionId, part: Value) -> Value {
    json!({"type": "message.part.updated", "properties": {"sessionID": session, "part": part}})
}

pub fn error_event(session: &SessionId, error: Value) -> Value {
    json!({"type": "session.error", "properties": {"sessionID": session, "error": error}})
}

pub fn abort_event(session: &SessionId) -> Value {
    error_event(
        session,
        json!({"name": "MessageAbortedError", "data": {"message": "Aborted"}}),
    )
}
