//! What users hold. A [`Greenroom`] is a cheap clone that may be used from any thread; the actors live on the arbiter
//! that started them. Every call is one message to the registry and has an answer, also after a shutdown.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Semaphore, broadcast, oneshot};

use crate::actors::desk::Desk;
use crate::actors::env::{Env, within};
use crate::actors::registry::{
    Ask, CancelAnswer, CancelTask, Descendants, Desks, Find, Found, KeyWait, LinkChanged,
    ListTasks, NoticeFate, Query, ReadHistory, ReadReadiness, SendTo, SessionHappened, Shutdown,
    TaskRegistry, TasksOf, WaitForRun, Waits,
};
use crate::actors::slot_manager::{ReadSlots, SlotManager, SlotsSnapshot};
use crate::actors::supervisor::spawn_supervised;
use crate::actors::task::SendFailure;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::history::HistoryEntry;
use crate::domain::ids::{ConcurrencyKey, NoticeId, Run, SessionId, TaskId};
use crate::domain::notice::NoticeFacts;
use crate::domain::output::{Output, OutputOptions};
use crate::domain::session_event::SessionEvent;
use crate::domain::task::{Launch, Resume, Task, TaskStatus, Track};
use crate::domain::time::Timestamp;
use crate::domain::validation;
use crate::ports::agent_server::{AgentServer, ServerError};
use crate::ports::journal::Journal;

/// Why a launch was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// A field is missing, blank or too large.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as JSON names it.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A task of a task of a task …
    #[error("depth {depth} is more than {limit}")]
    TooDeep {
        /// How deep it would be.
        depth: u32,
        /// `safety.max_depth`
        limit: u32,
    },
    /// Too many wait already.
    #[error("{waiting} tasks wait already")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// The system is shutting down.
    #[error("greenroom is shutting down")]
    ShuttingDown,
    /// The change could not be made durable.
    #[error("the journal cannot be written: {0}")]
    Journal(String),
}

/// Why a resume was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ResumeError {
    /// No task has that session.
    #[error("no task has session {0}")]
    UnknownSession(SessionId),
    /// Its task runs or is being resumed.
    #[error("the task of session {0} is already {1}")]
    AlreadyRunning(SessionId, &'static str),
    /// A field is missing, blank or too large.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as JSON names it.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Too many wait already.
    #[error("{waiting} tasks wait already")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// The system is shutting down.
    #[error("greenroom is shutting down")]
    ShuttingDown,
    /// The change could not be made durable.
    #[error("the journal cannot be written: {0}")]
    Journal(String),
}

/// Why a track was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrackError {
    /// A field is missing, blank or too large.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as JSON names it.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The system is shutting down.
    #[error("greenroom is shutting down")]
    ShuttingDown,
    /// The change could not be made durable.
    #[error("the journal cannot be written: {0}")]
    Journal(String),
}

/// Why nothing was cancelled.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CancelError {
    /// No such task.
    #[error("no task {0}")]
    Unknown(TaskId),
    /// It has ended already; nothing changed.
    #[error("task {} is {}", .0.id, .0.status().as_str())]
    NotCancellable(Box<Task>),
}

/// Why a further prompt was not sent.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SendError {
    /// No such task.
    #[error("no task {0}")]
    Unknown(TaskId),
    /// It has no session that works.
    #[error("task {} is {}", .0.id, .0.status().as_str())]
    NotRunning(Box<Task>),
    /// A field is missing, blank or too large.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as JSON names it.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The agent server did not take it.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// Why there is no output to show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// No such task.
    #[error("no task {0}")]
    Unknown(String),
    /// The agent server did not give the messages.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// How a task is cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelOptions {
    /// Who asks, for the log.
    pub source: String,
    /// Why; stored as the task's error and told to the parent.
    pub reason: Option<String>,
    /// Whether its session is aborted.
    pub abort_session: bool,
    /// Whether it is kept out of the parent's messages.
    pub skip_notification: bool,
    /// Only if its slot is not granted yet.
    pub only_pending: bool,
}

impl Default for CancelOptions {
    fn default() -> Self {
        Self {
            source: "api".to_owned(),
            reason: None,
            abort_session: true,
            skip_notification: false,
            only_pending: false,
        }
    }
}

/// Which tasks of a tree are cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelScope {
    /// All tasks descending from a session.
    Descendants(SessionId),
    /// A task and all tasks descending from it.
    Tree(TaskId),
    /// Everything.
    All,
}

/// Which tasks are listed, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only these states; all if empty.
    pub statuses: Vec<TaskStatus>,
    /// Only those of this parent.
    pub parent_session: Option<SessionId>,
    /// Only those of this agent.
    pub agent: Option<String>,
    /// At most so many; 100 without it, at most 1,000.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// One page of tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskPage {
    /// Newest first.
    pub tasks: Vec<Task>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A task and why it waits, if it waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskDetail {
    /// The task.
    pub task: Task,
    /// Why it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
}

/// What a pending task waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitsFor {
    /// Its key.
    pub key: ConcurrencyKey,
    /// Its place in that key's line, from 1.
    pub position: usize,
    /// Slots in use of the limit it counts against.
    pub in_use: usize,
    /// That limit; zero is unlimited.
    pub limit: u32,
    /// In one sentence, for people.
    pub text: String,
}

/// Slots, key by key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsReport {
    /// Every key in use or waited for, and every key with a rule of its own.
    pub keys: Vec<KeyReport>,
    /// The cap of all keys together; zero is unlimited.
    pub max: u32,
    /// Slots in use by all keys together.
    pub in_use: usize,
}

/// Slots of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyReport {
    /// The key.
    pub key: ConcurrencyKey,
    /// The limit it counts against (maybe shared with other keys of its provider); zero is unlimited.
    pub limit: u32,
    /// Slots this key holds.
    pub in_use: usize,
    /// Tasks waiting.
    pub waiting: usize,
    /// How long the oldest has waited, in milliseconds; zero if none waits.
    pub oldest_wait_ms: u64,
}

/// A change of the limits: what is left out stays, `None` inside a map removes that entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsChange {
    /// Of keys without a closer rule.
    #[serde(default)]
    pub default: Option<u32>,
    /// Of all keys together.
    #[serde(default)]
    pub max: Option<u32>,
    /// Of providers.
    #[serde(default)]
    pub providers: std::collections::BTreeMap<String, Option<u32>>,
    /// Of models.
    #[serde(default)]
    pub models: std::collections::BTreeMap<String, Option<u32>>,
}

/// One change of a task's state, as subscribers see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskChange {
    /// When.
    pub at: Timestamp,
    /// The task after it.
    pub task: Task,
    /// The state before; none for a launch or track.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<TaskStatus>,
    /// The state after.
    pub to: TaskStatus,
}

/// What a caller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// The run has a session, or has ended.
    Started,
    /// The run has ended.
    Ended,
}

/// How a shutdown treats what is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownMode {
    /// Running and waiting tasks become cancelled, "Shutdown", and their sessions are aborted.
    Abort,
}

/// What a shutdown left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShutdownReport {
    /// Tasks that were running or waiting.
    pub cancelled: Vec<TaskId>,
    /// Parents that are owed a message they did not get.
    pub untold: Vec<SessionId>,
}

/// What is known of the way to the agent server, from whoever holds its event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventLink {
    /// Events flow (again): everything running is reconciled.
    Connected,
    /// Events were lost.
    Broken,
}

/// Whether the system can do its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Readiness {
    /// True if tasks are started and watched.
    pub ready: bool,
    /// What is in the way, one line each.
    pub problems: Vec<String>,
    /// Tasks in memory.
    pub tasks: usize,
    /// Tasks running.
    pub running: usize,
    /// Tasks waiting.
    pub waiting: usize,
}

/// One message to a parent and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NoticeRecord {
    /// Its id.
    pub id: NoticeId,
    /// What it says.
    pub facts: NoticeFacts,
    /// `sending`, `delivered` or `dropped`.
    pub fate: String,
    /// Why it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When that was.
    pub at: Timestamp,
}

impl NoticeRecord {
    pub(crate) fn new(id: NoticeId, facts: NoticeFacts, fate: NoticeFate, at: Timestamp) -> Self {
        let (fate, reason) = match fate {
            NoticeFate::Sending => ("sending", None),
            NoticeFate::Delivered => ("delivered", None),
            NoticeFate::Dropped(why) => ("dropped", Some(why)),
        };
        Self {
            id,
            facts,
            fate: fate.to_owned(),
            reason,
            at,
        }
    }
}

/// How many events may be under way to the registry at once.
const EVENTS_UNDER_WAY: usize = 256;
/// How many changes a slow subscriber may fall behind.
const CHANGES_KEPT: usize = 1024;

/// The system, as its users hold it.
#[derive(Clone)]
pub struct Greenroom {
    registry: Desk<TaskRegistry>,
    slots: Desk<SlotManager>,
    env: Env,
    changes: broadcast::Sender<TaskChange>,
    events: Arc<Semaphore>,
}

impl Greenroom {
    /// Starts the actors on the current arbiter. Must be called inside a running actix system.
    pub fn start(
        config: Config,
        server: Arc<dyn AgentServer>,
        journal: Arc<dyn Journal>,
    ) -> Greenroom {
        Self::start_with_clock(config, server, journal, Clock::system())
    }

    /// The same with a clock of the caller's: tests start one at the epoch.
    pub fn start_with_clock(
        config: Config,
        server: Arc<dyn AgentServer>,
        journal: Arc<dyn Journal>,
        clock: Clock,
    ) -> Greenroom {
        let env = Env {
            config: Arc::new(config),
            server,
            clock,
        };
        let (changes, _) = broadcast::channel(CHANGES_KEPT);
        let desks = Desks {
            registry: Desk::default(),
            slots: Desk::default(),
            poller: Desk::default(),
            toaster: Desk::default(),
        };
        let greenroom = Greenroom {
            registry: desks.registry.clone(),
            slots: desks.slots.clone(),
            env: env.clone(),
            changes: changes.clone(),
            events: Arc::new(Semaphore::new(EVENTS_UNDER_WAY)),
        };
        let desk = desks.registry.clone();
        let registry = spawn_supervised(
            |_| TaskRegistry::new(env, desks, journal, changes),
            |exit| {
                tracing::debug!(?exit, "the registry has ended");
            },
        );
        desk.put(registry);
        greenroom
    }

    /// Accepts a task and returns at once; it starts when its slot is free.
    pub async fn launch(&self, launch: Launch) -> Result<Task, LaunchError> {
        self.ask(launch)
            .await
            .unwrap_or(Err(LaunchError::ShuttingDown))
    }

    /// Starts a new run of an ended task in its session; pending when this returns.
    pub async fn resume(&self, resume: Resume) -> Result<Task, ResumeError> {
        self.ask(resume)
            .await
            .unwrap_or(Err(ResumeError::ShuttingDown))
    }

    /// Adopts a session started elsewhere, at once.
    pub async fn track(&self, track: Track) -> Result<Task, TrackError> {
        self.ask(track)
            .await
            .unwrap_or(Err(TrackError::ShuttingDown))
    }

    /// Cancels one task; answers with the task after it.
    pub async fn cancel(&self, task: &TaskId, options: CancelOptions) -> Result<Task, CancelError> {
        let unknown = || CancelError::Unknown(task.clone());
        match self
            .ask(CancelTask {
                task: task.clone(),
                options,
            })
            .await
            .ok_or_else(unknown)?
        {
            CancelAnswer::Unknown => Err(unknown()),
            CancelAnswer::NotCancellable(task) => Err(CancelError::NotCancellable(task)),
            CancelAnswer::Cancelled(task) => Ok(*task),
            CancelAnswer::Asked(decided) => {
                let cancelled = decided.await.unwrap_or(false);
                let found = self
                    .ask(Find(task.as_str().to_owned()))
                    .await
                    .flatten()
                    .ok_or_else(unknown)?;
                match cancelled {
                    true => Ok(found.task),
                    false => Err(CancelError::NotCancellable(Box::new(found.task))),
                }
            }
        }
    }

    /// Cancels several; answers with those that were cancelled, oldest first.
    pub async fn cancel_all(&self, scope: CancelScope, options: CancelOptions) -> Vec<Task> {
        let tasks = self.ask(scope).await.unwrap_or_default();
        let mut cancelled = Vec::new();
        for task in tasks {
            if let Ok(task) = self.cancel(&task, options.clone()).await {
                cancelled.push(task);
            }
        }
        cancelled
    }

    /// Gives a running task a further prompt; the same run.
    pub async fn send(&self, task: &TaskId, prompt: String) -> Result<Task, SendError> {
        validation::prompt(&prompt)
            .map_err(|(field, problem)| SendError::Invalid { field, problem })?;
        let unknown = || SendError::Unknown(task.clone());
        let sent = self
            .ask(SendTo {
                task: task.clone(),
                prompt,
            })
            .await
            .flatten();
        let (record, answer) = sent.ok_or_else(unknown)?;
        let Some(answer) = answer else {
            return Err(SendError::NotRunning(record));
        };
        match answer.await {
            Ok(Ok(())) => {
                let found = self.ask(Find(task.as_str().to_owned())).await.flatten();
                Ok(found.map_or(*record, |found| found.task))
            }
            Ok(Err(SendFailure::Server(failure))) => Err(SendError::Server(failure)),
            Ok(Err(SendFailure::NotRunning)) | Err(_) => Err(SendError::NotRunning(record)),
        }
    }

    /// The task of that id, that unique beginning of an id, or (the newest) of that session.
    pub async fn find(&self, name: &str) -> Option<TaskDetail> {
        let Found {
            task,
            place,
            reachable,
        } = self.ask(Find(name.to_owned())).await??;
        let waits_for = match place {
            Some(position) => {
                let slots = self.read_slots().await?;
                let key = task.concurrency_group.clone();
                let (in_use, limit) = (slots.used_with(&key), slots.limits.of(&key));
                let text = wait_text(position, in_use, limit, &slots, reachable);
                Some(WaitsFor {
                    key,
                    position,
                    in_use,
                    limit,
                    text,
                })
            }
            None => None,
        };
        Some(TaskDetail { task, waits_for })
    }

    /// Tasks, newest first.
    pub async fn list(&self, filter: ListFilter) -> TaskPage {
        self.ask(ListTasks(filter)).await.unwrap_or(TaskPage {
            tasks: Vec::new(),
            next_cursor: None,
        })
    }

    /// Tasks whose parent is that session, in order of acceptance; with `descendants` also theirs, depth first.
    pub async fn tasks_of(&self, parent: &SessionId, descendants: bool) -> Vec<Task> {
        let tasks = match descendants {
            true => self.ask(Descendants(parent.clone())).await,
            false => self.ask(TasksOf(parent.clone())).await,
        };
        tasks.unwrap_or_default()
    }

    /// What that parent's newest hundred tasks were, oldest first.
    pub async fn history(&self, parent: &SessionId) -> Vec<HistoryEntry> {
        self.ask(ReadHistory(parent.clone()))
            .await
            .unwrap_or_default()
            .0
    }

    /// The newest messages to a parent that something is open or owed for, and what became of them, newest first.
    pub async fn notifications(&self, parent: &SessionId) -> Vec<NoticeRecord> {
        self.ask(ReadHistory(parent.clone()))
            .await
            .unwrap_or_default()
            .1
    }

    /// Slots, key by key.
    pub async fn limits(&self) -> LimitsReport {
        let empty = LimitsReport {
            keys: Vec::new(),
            max: 0,
            in_use: 0,
        };
        let Some((waits, now)) = self.ask(Waits).await else {
            return empty;
        };
        let Some(slots) = self.read_slots().await else {
            return empty;
        };
        let mut keys: BTreeSet<ConcurrencyKey> = waits.keys().cloned().collect();
        keys.extend(slots.held_by_key.keys().cloned());
        keys.extend(slots.limits.models.keys().map(ConcurrencyKey::new));
        let keys = keys.into_iter().map(|key| {
            let wait = waits.get(&key).copied().unwrap_or(KeyWait {
                waiting: 0,
                oldest: None,
            });
            KeyReport {
                limit: slots.limits.of(&key),
                in_use: slots.held_by_key.get(&key).copied().unwrap_or(0),
                waiting: wait.waiting,
                oldest_wait_ms: wait.oldest.map_or(0, |oldest| millis(now.since(oldest))),
                key,
            }
        });
        LimitsReport {
            keys: keys.collect(),
            max: slots.limits.max,
            in_use: slots.held,
        }
    }

    /// Changes limits while running: raising one starts what waits, lowering one stops nothing.
    pub async fn set_limits(&self, change: LimitsChange) -> LimitsReport {
        self.ask(change).await;
        self.limits().await
    }

    /// The result or the messages of a task, read from the agent server; reading does not consume.
    pub async fn output(&self, name: &str, options: OutputOptions) -> Result<Output, OutputError> {
        let found = self.ask(Find(name.to_owned())).await.flatten();
        let task = found
            .ok_or_else(|| OutputError::Unknown(name.to_owned()))?
            .task;
        let mut output = Output {
            task,
            result: None,
            messages: None,
            has_more: None,
            timed_out: None,
        };
        let Some(session) = output.task.session.clone() else {
            return Ok(output);
        };
        let ended = output.task.status().is_terminal();
        if !ended && !options.full_session {
            return Ok(output);
        }
        let call = self.env.server.messages(&session, None);
        let messages = within(self.env.config.calls.other, call).await?;
        if options.full_session {
            let (page, more) = crate::domain::output::page(&messages, &options);
            output.messages = Some(page);
            output.has_more = Some(more);
        }
        if ended {
            output.result = Some(crate::domain::output::result_text(&messages));
        }
        Ok(output)
    }

    /// Waits until that run has started or ended (at once if it has). None if the task is not known or the run is over.
    /// Wakes by message, not by polling; the caller limits the time.
    pub async fn wait(&self, task: &TaskId, run: Run, until: WaitFor) -> Option<Task> {
        let (reply, answer) = oneshot::channel();
        if !self.registry.send(WaitForRun {
            task: task.clone(),
            run,
            until,
            reply,
        }) {
            return None;
        }
        answer.await.ok().flatten()
    }

    /// Every change of a task's state from now on. A slow reader loses the oldest and is told so by the channel.
    pub fn subscribe(&self) -> broadcast::Receiver<TaskChange> {
        self.changes.subscribe()
    }

    /// Takes an event of the agent server as it is. Unknown ones are ignored; waits while too many are under way.
    pub async fn event(&self, event: &Value) {
        let Some(event) = SessionEvent::read(event) else {
            return;
        };
        // The semaphore is never closed.
        if let Ok(permit) = Arc::clone(&self.events).acquire_owned().await {
            self.registry.send(SessionHappened {
                event,
                _permit: permit,
            });
        }
    }

    /// Tells whether events flow.
    pub fn event_link(&self, link: EventLink) {
        self.registry.send(LinkChanged(link));
    }

    /// Whether the system can do its work.
    pub async fn readiness(&self) -> Readiness {
        self.ask(ReadReadiness).await.unwrap_or_else(|| Readiness {
            ready: false,
            problems: vec!["greenroom has been shut down".to_owned()],
            tasks: 0,
            running: 0,
            waiting: 0,
        })
    }

    /// Ends everything; memory is empty afterwards. Bounded: messages in flight get 5 s, aborts 10 s.
    pub async fn shutdown(&self, mode: ShutdownMode) -> ShutdownReport {
        let (reply, report) = oneshot::channel();
        if !self.registry.send(Shutdown { mode, reply }) {
            return ShutdownReport::default();
        }
        report.await.unwrap_or_default()
    }

    /// The answer to one question; none once the system is shut down.
    async fn ask<Q: Query>(&self, query: Q) -> Option<Q::Answer> {
        let (reply, answer) = oneshot::channel();
        if !self.registry.send(Ask { query, reply }) {
            return None;
        }
        answer.await.ok()
    }

    async fn read_slots(&self) -> Option<SlotsSnapshot> {
        let (reply, answer) = oneshot::channel();
        if !self.slots.send(ReadSlots(reply)) {
            return None;
        }
        answer.await.ok()
    }
}

fn wait_text(
    position: usize,
    in_use: usize,
    limit: u32,
    slots: &SlotsSnapshot,
    reachable: bool,
) -> String {
    if !reachable {
        return format!(
            "number {position} in line; the agent server cannot be reached, nothing is started meanwhile"
        );
    }
    let full = limit > 0 && in_use >= limit as usize;
    let capped = slots.limits.max > 0 && slots.held >= slots.limits.max as usize;
    match (full, capped) {
        (true, _) => format!("number {position} in line; {in_use} of {limit} slots in use"),
        (false, true) => {
            format!(
                "number {position} in line; {} of {} slots of all keys in use",
                slots.held, slots.limits.max
            )
        }
        (false, false) => format!("number {position} in line; about to start"),
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl std::fmt::Debug for Greenroom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Greenroom")
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}
