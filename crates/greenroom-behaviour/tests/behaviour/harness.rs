//! The harness of the behaviour tests: the real actors in the default profile, the scripted server, virtual
//! time. A story schedules events and asserts their results; it never sleeps. After each story the
//! harness checks that every slot was returned, that histories agree with records, and that no actor has
//! panicked.

use std::cell::RefCell;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, mpsc};
use std::time::Duration;

use actix_rt::System;
use greenroom::domain::ids::TaskId;
use greenroom::domain::task::{Launch, Resume, Task, TaskStatus, Track};
use greenroom::domain::time::Timestamp;
use greenroom::failpoint::FaultInjector;
use greenroom::{
    CancelError, CancelOptions, CancelScope, Clock, Config, EventLink, Greenroom, LaunchError,
    LimitsReport, ListFilter, ResumeError, ShutdownMode, TaskChange,
};
use greenroom_sim::crash::{CrashSwitch, CrashableServer};
use greenroom_sim::disk::Disk;
use greenroom_sim::quiescence::Quiescence;
use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, sleep_until};

pub use crate::fixtures::*;
use crate::server::Server;

/// Real time for one story. Most take milliseconds; ten thousand tasks may take long on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

thread_local! {
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Locks a mutex. A panic of another thread while it held the lock is ignored.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a story in the default profile.
pub fn story<F: Future<Output = ()>>(run_story: impl FnOnce(Harness) -> F + Send + 'static) {
    story_with(|_| {}, run_story);
}

/// Runs a story in the default profile with changed settings.
pub fn story_with<F: Future<Output = ()>>(
    set: impl FnOnce(&mut Config) + Send + 'static,
    run_story: impl FnOnce(Harness) -> F + Send + 'static,
) {
    let panics = run(set, None, run_story);
    assert!(panics.is_empty(), "actors panicked: {panics:?}");
}

/// Runs a story in which Greenroom's code panics. Returns the panics.
pub fn story_with_panics<F: Future<Output = ()>>(
    set: impl FnOnce(&mut Config) + Send + 'static,
    run_story: impl FnOnce(Harness) -> F + Send + 'static,
) -> Vec<String> {
    run(set, None, run_story)
}

/// Runs a story with a fault injector. Returns the panics.
pub fn story_with_failpoints<F: Future<Output = ()>>(
    fault_injector: Arc<dyn FaultInjector>,
    run_story: impl FnOnce(Harness) -> F + Send + 'static,
) -> Vec<String> {
    run(|_| {}, Some(fault_injector), run_story)
}

fn run<F: Future<Output = ()>>(
    set: impl FnOnce(&mut Config) + Send + 'static,
    fault_injector: Option<Arc<dyn FaultInjector>>,
    run_story: impl FnOnce(Harness) -> F + Send + 'static,
) -> Vec<String> {
    let mut config = Config {
        directory: "/base".into(),
        seed: Some(7),
        ..Config::default()
    };
    config.lifecycle.abort_grace = Some(Duration::from_secs(2));
    set(&mut config);
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let quiescence = Quiescence::default();
        let runtime = quiescence.runtime().expect("a runtime can be made");
        collect_panics();
        System::with_tokio_rt(|| runtime).block_on(async move {
            let harness = Harness::new(config, quiescence, fault_injector);
            run_story(harness.clone()).await;
            harness.close().await;
        });
        // The receiver is gone if the time limit was reached.
        drop(sender.send(PANICS.take().unwrap_or_default()));
    });
    match receiver.recv_timeout(LIMIT) {
        Ok(panics) => panics,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the story did not end"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("a story that ends sends its panics"),
        },
    }
}

/// Panics of the thread are collected as well as printed, because a panic in an actor does not fail the test.
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
pub struct Harness {
    pub greenroom: Greenroom,
    pub server: Server,
    pub disk: Disk,
    config: Config,
    fault_injector: Option<Arc<dyn FaultInjector>>,
    crash_switch: CrashSwitch,
    quiescence: Quiescence,
    clock: Clock,
    started: Instant,
}

/// Starts a system on this disk, with its own crash switch.
fn start(
    config: &Config,
    server: &Server,
    disk: &Disk,
    clock: Clock,
    fault_injector: Option<Arc<dyn FaultInjector>>,
) -> (Greenroom, CrashSwitch) {
    let journal = disk.journal();
    let crash_switch = CrashSwitch::new(&journal);
    let crashable = CrashableServer::new(
        Arc::new(server.clone()),
        crash_switch.clone(),
        Arc::new(|_, _, _| false),
    );
    let greenroom = Greenroom::builder(config.clone())
        .server(Arc::new(crashable))
        .journal(journal)
        .clock(clock)
        .fault_injector(fault_injector)
        .start();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    server.send_events_to(Some(sender));
    let ingest = greenroom.clone();
    actix_rt::spawn(async move {
        while let Some(event) = receiver.recv().await {
            ingest.ingest_event_json(&event).await;
        }
    });
    (greenroom, crash_switch)
}

impl Harness {
    fn new(
        config: Config,
        quiescence: Quiescence,
        fault_injector: Option<Arc<dyn FaultInjector>>,
    ) -> Self {
        let clock = Clock::starting_at(Timestamp::from_millis(0));
        let server = Server::new(clock);
        // Durable within the instant, but not within the step, so code that must wait for the disk does.
        let disk = Disk::new(config.lifecycle.retention, Arc::new(|_| Duration::ZERO));
        let (greenroom, crash_switch) =
            start(&config, &server, &disk, clock, fault_injector.clone());
        Self {
            greenroom,
            server,
            disk,
            config,
            fault_injector,
            crash_switch,
            quiescence,
            clock,
            started: Instant::now(),
        }
    }

    /// Crashes the process. The next process starts some milliseconds later.
    pub async fn crash(&mut self, down: u64) {
        self.crash_switch.crash();
        let left = self.greenroom.clone();
        actix_rt::spawn(async move { left.shutdown(ShutdownMode::Abort).await });
        self.restart(down).await;
    }

    /// Starts another process with the contents of the disk.
    pub async fn restart(&mut self, after: u64) {
        self.advance(after).await;
        self.config.seed = self.config.seed.map(|seed| seed + 1);
        (self.greenroom, self.crash_switch) = start(
            &self.config,
            &self.server,
            &self.disk,
            self.clock,
            self.fault_injector.clone(),
        );
        self.settle().await;
    }

    /// Cancels all open tasks, then checks slots, queues and histories.
    async fn close(&self) {
        self.assert_history_agrees().await;
        self.greenroom
            .cancel_all(CancelScope::All, CancelOptions::default())
            .await;
        self.settle().await;
        let limits = self.greenroom.limits().await;
        assert_eq!(limits.in_use, 0, "slots are held at the end: {limits:?}");
        let waiting: usize = limits.keys.iter().map(|key| key.waiting).sum();
        assert_eq!(waiting, 0, "a task waits at the end: {limits:?}");
    }

    /// Checks that statuses and histories agree.
    async fn assert_history_agrees(&self) {
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

    /// Returns the virtual time, in milliseconds.
    pub fn now(&self) -> i64 {
        self.clock.now().as_millis()
    }

    /// Advances to a time, in milliseconds from the start, and settles.
    pub async fn advance_to(&self, millis: u64) {
        let moment = self.started + Duration::from_millis(millis);
        assert!(
            moment >= Instant::now(),
            "time does not go back to {millis}"
        );
        sleep_until(moment).await;
        self.settle().await;
    }

    /// Advances by some milliseconds.
    pub async fn advance(&self, millis: u64) {
        let now = u64::try_from(self.now()).unwrap_or_default();
        self.advance_to(now + millis).await;
    }

    /// Runs everything that needs no time.
    pub async fn settle(&self) {
        self.quiescence.settle().await;
    }

    /// Returns the answer to a request, which must arrive without time passing.
    pub async fn resolve<T: 'static>(&self, question: impl Future<Output = T> + 'static) -> T {
        let answer = actix_rt::spawn(question);
        self.settle().await;
        assert!(answer.is_finished(), "no answer at {}", self.now());
        answer.await.expect("the request did not panic")
    }

    pub async fn launch(&self, launch: Launch) -> TaskId {
        self.try_launch(launch).await.expect("it is accepted").id
    }

    pub async fn try_launch(&self, launch: Launch) -> Result<Task, LaunchError> {
        let greenroom = self.greenroom.clone();
        self.resolve(async move { greenroom.launch(launch).await })
            .await
    }

    pub async fn resume(&self, target: impl SessionRef) {
        let resume = self.resume_request(target, "go on");
        self.try_resume(resume).await.expect("it is accepted");
    }

    pub fn resume_request(&self, target: impl SessionRef, prompt: &str) -> Resume {
        Resume {
            session: Some(target.session(&self.server)),
            prompt: prompt.to_owned(),
            ..Resume::default()
        }
    }

    pub async fn try_resume(&self, resume: Resume) -> Result<Task, ResumeError> {
        let greenroom = self.greenroom.clone();
        self.resolve(async move { greenroom.resume(resume).await })
            .await
    }

    /// Tracks a session for parent `P`.
    pub async fn track(&self, id: &str, session: &str, key: Option<&str>) -> Task {
        self.track_with(Track {
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

    pub async fn track_with(&self, track: Track) -> Task {
        let greenroom = self.greenroom.clone();
        self.resolve(async move { greenroom.track(track).await })
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
        self.resolve(async move { greenroom.cancel(&task, options).await })
            .await
    }

    /// Starts a shutdown. The returned handle completes with it.
    pub async fn shutdown(&self) -> tokio::task::JoinHandle<greenroom::ShutdownReport> {
        let greenroom = self.greenroom.clone();
        let report = actix_rt::spawn(async move { greenroom.shutdown(ShutdownMode::Abort).await });
        self.settle().await;
        report
    }

    pub async fn find(&self, name: &str) -> Option<greenroom::TaskDetail> {
        let (greenroom, name) = (self.greenroom.clone(), name.to_owned());
        self.resolve(async move { greenroom.find(&name).await })
            .await
    }

    pub async fn task(&self, task: &TaskId) -> Task {
        let found = self.find(task.as_str()).await;
        found.expect("the task is in memory").task
    }

    /// Returns the status of a task with its error and note: `error: boom (note)`; `gone` if it has left
    /// memory.
    pub async fn state(&self, task: &TaskId) -> String {
        // Uses the list, because a task that has left memory is still found by its id in the journal.
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

    /// Returns all tasks in memory, oldest first.
    pub async fn tasks(&self) -> Vec<Task> {
        let greenroom = self.greenroom.clone();
        let filter = ListFilter {
            limit: Some(1000),
            ..ListFilter::default()
        };
        let mut page = self
            .resolve(async move { greenroom.list(filter).await })
            .await;
        page.tasks.reverse();
        page.tasks
    }

    /// Returns the names of the tasks with a status, oldest first.
    pub async fn names(&self, status: TaskStatus) -> Vec<String> {
        let tasks = self.tasks().await.into_iter();
        tasks
            .filter(|task| task.status() == status)
            .map(|task| task.description.to_string())
            .collect()
    }

    pub async fn limits(&self) -> LimitsReport {
        let greenroom = self.greenroom.clone();
        self.resolve(async move { greenroom.limits().await }).await
    }

    /// Returns slots as `key in use/limit`, with `+waiting` if tasks wait.
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

    /// Returns the number of slots in use.
    pub async fn in_use(&self) -> usize {
        self.limits().await.in_use
    }

    /// Returns the resource counts of the system.
    pub async fn resource_counts(&self) -> greenroom::ResourceCounts {
        let greenroom = self.greenroom.clone();
        self.resolve(async move { greenroom.resource_counts().await })
            .await
    }

    pub fn changes(&self) -> Receiver<Arc<TaskChange>> {
        self.greenroom.subscribe()
    }

    pub async fn link(&self, link: EventLink) {
        self.greenroom.event_link(link);
        self.settle().await;
    }
}
