//! Where the stories of this folder are told: the real actors in the default profile, the scripted server, virtual time.
//! A story says when something happens and what must have come of it; nothing in it sleeps or waits for luck. After each
//! story the stage looks whether every slot was given back, history and records agree, and no actor has panicked.

use std::cell::RefCell;
use std::future::Future;
use std::sync::{Arc, Once, mpsc};
use std::time::Duration;

use actix_rt::System;
use greenroom::domain::ids::TaskId;
use greenroom::domain::task::{Launch, Resume, Task, TaskStatus, Track};
use greenroom::domain::time::Timestamp;
use greenroom::sabotage::Saboteur;
use greenroom::{
    CancelError, CancelOptions, CancelScope, Clock, Config, EventLink, Greenroom, LaunchError,
    LimitsReport, ListFilter, ResumeError, ShutdownMode, Surroundings, TaskChange,
};
use greenroom_sim::crash::{Plug, Power};
use greenroom_sim::disk::Disk;
use greenroom_sim::quiescence::Quiet;
use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, sleep_until};

pub use crate::fixtures::*;
use crate::server::Server;

/// Real time for one story: nearly all take milliseconds; a busy machine may take long over ten thousand tasks.
const LIMIT: Duration = Duration::from_secs(300);

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
    let panics = run(set, None, tell);
    assert!(panics.is_empty(), "actors panicked: {panics:?}");
}

/// Tells a story in which something of ours breaks, and answers the panics there were.
pub fn broken_story<F: Future<Output = ()>>(
    set: impl FnOnce(&mut Config) + Send + 'static,
    tell: impl FnOnce(Stage) -> F + Send + 'static,
) -> Vec<String> {
    run(set, None, tell)
}

/// Tells a story in which actors of ours are made to fail, and answers the panics there were.
pub fn sabotaged_story<F: Future<Output = ()>>(
    saboteur: Arc<dyn Saboteur>,
    tell: impl FnOnce(Stage) -> F + Send + 'static,
) -> Vec<String> {
    run(|_| {}, Some(saboteur), tell)
}

fn run<F: Future<Output = ()>>(
    set: impl FnOnce(&mut Config) + Send + 'static,
    saboteur: Option<Arc<dyn Saboteur>>,
    tell: impl FnOnce(Stage) -> F + Send + 'static,
) -> Vec<String> {
    let mut config = Config {
        directory: "/base".into(),
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
            let stage = Stage::new(config, quiet, saboteur);
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

/// The system, its server and its clock.
#[derive(Clone)]
pub struct Stage {
    pub greenroom: Greenroom,
    pub server: Server,
    pub disk: Disk,
    config: Config,
    saboteur: Option<Arc<dyn Saboteur>>,
    power: Power,
    quiet: Quiet,
    clock: Clock,
    started: Instant,
}

/// A system on this disk, with power of its own.
fn start(
    config: &Config,
    server: &Server,
    disk: &Disk,
    surroundings: Surroundings,
) -> (Greenroom, Power) {
    let journal = disk.journal();
    let power = Power::new(Arc::clone(&journal));
    let plug = Plug::new(
        Arc::new(server.clone()),
        power.clone(),
        Arc::new(|_, _, _| false),
    );
    let greenroom = Greenroom::start_within(config.clone(), Arc::new(plug), journal, surroundings);
    (greenroom, power)
}

impl Stage {
    fn new(config: Config, quiet: Quiet, saboteur: Option<Arc<dyn Saboteur>>) -> Self {
        let clock = Clock::starting_at(Timestamp::from_millis(0));
        let server = Server::new(clock);
        // Durable within the instant, but not within the step: what must wait for it does.
        let disk = Disk::new(config.lifecycle.retention, Arc::new(|_| Duration::ZERO));
        let surroundings = Surroundings {
            clock,
            saboteur: saboteur.clone(),
        };
        let (greenroom, power) = start(&config, &server, &disk, surroundings);
        Self {
            greenroom,
            server,
            disk,
            config,
            saboteur,
            power,
            quiet,
            clock,
            started: Instant::now(),
        }
    }

    /// The process ends at this instant, and the next one begins so many milliseconds later.
    pub async fn crash(&mut self, down: u64) {
        self.power.lose();
        let left = self.greenroom.clone();
        actix_rt::spawn(async move { left.shutdown(ShutdownMode::Abort).await });
        self.begin_again(down).await;
    }

    /// Another process goes on with what is on the disk.
    pub async fn begin_again(&mut self, after: u64) {
        self.pass(after).await;
        self.config.seed = self.config.seed.map(|seed| seed + 1);
        let surroundings = Surroundings {
            clock: self.clock,
            saboteur: self.saboteur.clone(),
        };
        (self.greenroom, self.power) = start(&self.config, &self.server, &self.disk, surroundings);
        self.settle().await;
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
            .map(|task| task.description.to_string())
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

    /// What the system keeps at this moment.
    pub async fn census(&self) -> greenroom::Census {
        let greenroom = self.greenroom.clone();
        self.answered(async move { greenroom.census().await }).await
    }

    pub fn changes(&self) -> Receiver<Arc<TaskChange>> {
        self.greenroom.subscribe()
    }

    pub async fn link(&self, link: EventLink) {
        self.greenroom.event_link(link);
        self.settle().await;
    }
}
