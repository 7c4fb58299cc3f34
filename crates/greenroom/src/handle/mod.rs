//! What users hold. A [`Greenroom`] is a cheap clone that may be used from any thread; the actors live on the arbiter
//! that started them. Every call is one message to the registry and has an answer, also after a shutdown.

mod asks;
mod builder;
mod changes;
mod errors;
mod resource_counts;
mod views;

use crate::actors::actor_ref::ActorRef;
use crate::actors::env::{Env, within};
use crate::actors::inbox::Inbox;
use crate::actors::registry::{
    CancelAnswer, CancelTask, CountTasks, Descendants, Find, FindDecided, FoundTask, KeyWait,
    LaunchOnce, LinkChanged, ListTasks, Query, QueryMessage, ReadHistory, ReadReadiness, ReadWaits,
    SendTo, Shutdown, TaskRegistry, TasksOf, WaitForRun,
};
use crate::actors::runtime_state::RuntimeFlags;
use crate::actors::slot_manager::{ReadSlots, SlotManager, SlotsSnapshot};
use crate::actors::task::SendFailure;
use crate::domain::decoded_event::DecodedEvent;
use crate::domain::history::HistoryEntry;
use crate::domain::ids::{ConcurrencyKey, Run, SessionId, TaskId};
use crate::domain::output::{Output, OutputOptions, RunScope};
use crate::domain::session_event::SessionEvent;
use crate::domain::task::{Launch, Resume, Task, TaskStatus, Track};
use crate::domain::validation;
use crate::ports::agent_server::ServerError;
use futures::{StreamExt, stream};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, oneshot};

pub use self::asks::{AskError, OpenAsk};
pub use self::builder::Builder;
pub(crate) use self::changes::Changes;
pub use self::changes::{ChangeFeed, Followed, MAX_CHANGES, NumberedChange, Since};
pub use self::errors::*;
pub use self::resource_counts::ResourceCounts;
pub(crate) use self::resource_counts::{Count, counted};
pub use self::views::*;

/// How long a call waits for an actor that is being rebuilt.
const REBUILD_WAIT: Duration = Duration::from_secs(5);
/// How long a shutdown waits for the journal.
const JOURNAL_WAIT: Duration = Duration::from_secs(5);
/// How many of several tasks are cancelled at a time.
const CONCURRENT_CANCELS: usize = 64;
/// How often a call is made that may be made again.
const MAX_ATTEMPTS: usize = 3;

/// The system, as its users hold it.
#[derive(Clone)]
pub struct Greenroom {
    registry: ActorRef<TaskRegistry>,
    slots: ActorRef<SlotManager>,
    env: Env,
    changes: Changes,
    events: Inbox,
    flags: Arc<RuntimeFlags>,
}

impl Greenroom {
    /// Accepts a task and returns at once; it starts when its slot is free.
    pub async fn launch(&self, launch: Launch) -> Result<Task, LaunchError> {
        let answer = self.query(launch).await;
        answer.unwrap_or_else(|| {
            Err(self.unavailable(LaunchError::ShuttingDown, LaunchError::Interrupted))
        })
    }

    /// The same under a key: repeated within 24 hours it answers with the task of the first time, and true.
    pub async fn launch_once(
        &self,
        key: String,
        launch: Launch,
    ) -> Result<(Task, bool), LaunchError> {
        validation::key(&key)
            .map_err(|(field, problem)| LaunchError::Invalid { field, problem })?;
        // Under its key it may be asked for again.
        let answer = self.query_with_retry(LaunchOnce { key, launch }).await;
        answer.unwrap_or_else(|| {
            Err(self.unavailable(LaunchError::ShuttingDown, LaunchError::Interrupted))
        })
    }

    /// Starts a new run of an ended task in its session; pending when this returns.
    pub async fn resume(&self, resume: Resume) -> Result<Task, ResumeError> {
        let answer = self.query(resume).await;
        answer.unwrap_or_else(|| {
            Err(self.unavailable(ResumeError::ShuttingDown, ResumeError::Interrupted))
        })
    }

    /// Adopts a session started elsewhere, at once.
    pub async fn track(&self, track: Track) -> Result<Task, TrackError> {
        // It sets what is, so that it may be said again.
        let answer = self.query_with_retry(track).await;
        answer.unwrap_or_else(|| {
            Err(self.unavailable(TrackError::ShuttingDown, TrackError::Interrupted))
        })
    }

    /// Cancels one task; answers with the task after it.
    pub async fn cancel(&self, task: &TaskId, options: CancelOptions) -> Result<Task, CancelError> {
        let unknown = || CancelError::Unknown(task.clone());
        match self
            .query_with_retry(CancelTask {
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
                let decided = decided.await;
                let read = || self.query_with_retry(FindDecided(task.clone()));
                let mut found = read().await.flatten().ok_or_else(unknown)?;
                if decided.is_err() && !found.status().is_terminal() {
                    // A run whose actor died over it is cancelled by the registry, once it hears of the death.
                    let ended = self.wait(task, found.run, WaitFor::Ended);
                    found = match tokio::time::timeout(REBUILD_WAIT, ended).await {
                        Ok(Some(ended)) => ended,
                        _ => read().await.flatten().ok_or_else(unknown)?,
                    };
                }
                if decided.unwrap_or(found.status() == TaskStatus::Cancelled) {
                    Ok(found)
                } else {
                    Err(CancelError::NotCancellable(Box::new(found)))
                }
            }
        }
    }

    /// Cancels several; answers with those that were cancelled, oldest first.
    pub async fn cancel_all(&self, scope: CancelScope, options: CancelOptions) -> Vec<Task> {
        let tasks = self.query_with_retry(scope).await.unwrap_or_default();
        // Asked for in that order, and not each only when the one before is over.
        stream::iter(tasks)
            .map(|task| {
                let options = options.clone();
                async move { self.cancel(&task, options).await }
            })
            .buffered(CONCURRENT_CANCELS)
            .filter_map(async |cancelled| cancelled.ok())
            .collect()
            .await
    }

    /// Gives a running task a further prompt; the same run.
    pub async fn send(&self, task: &TaskId, prompt: String) -> Result<Task, SendError> {
        validation::prompt(&prompt)
            .map_err(|(field, problem)| SendError::Invalid { field, problem })?;
        let unknown = || SendError::Unknown(task.clone());
        let sent = self
            .query(SendTo {
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
                let found = self
                    .query_with_retry(Find(task.as_str().to_owned()))
                    .await
                    .flatten();
                Ok(found.map_or(*record, |found| found.task))
            }
            Ok(Err(SendFailure::Server(failure))) => Err(SendError::Server(failure)),
            Ok(Err(SendFailure::NotRunning)) | Err(_) => Err(SendError::NotRunning(record)),
        }
    }

    /// The task of that id, that unique beginning of an id, or (the newest) of that session.
    pub async fn find(&self, name: &str) -> Option<TaskDetail> {
        let FoundTask {
            task,
            place: position,
            reachable,
        } = self.query_with_retry(Find(name.to_owned())).await??;
        let waits_for = match position {
            Some(position) => {
                let slots = self.read_slots().await?;
                let key = task.concurrency_group.clone();
                let (in_use, limit) = (slots.used_against(&key), slots.limits.of(&key));
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
        self.query_with_retry(ListTasks(filter))
            .await
            .unwrap_or(TaskPage {
                tasks: Vec::new(),
                next_cursor: None,
            })
    }

    /// Tasks whose parent is that session, in order of acceptance; with `descendants` also theirs, depth first.
    pub async fn tasks_of(&self, parent: &SessionId, descendants: bool) -> Vec<Task> {
        let tasks = if descendants {
            self.query_with_retry(Descendants(parent.clone())).await
        } else {
            self.query_with_retry(TasksOf(parent.clone())).await
        };
        tasks.unwrap_or_default()
    }

    /// What that parent's newest hundred tasks were, oldest first.
    pub async fn history(&self, parent: &SessionId) -> Vec<HistoryEntry> {
        self.query_with_retry(ReadHistory(parent.clone()))
            .await
            .unwrap_or_default()
            .0
    }

    /// The newest messages to a parent that something is open or owed for, and what became of them, newest first.
    pub async fn notifications(&self, parent: &SessionId) -> Vec<NoticeRecord> {
        self.query_with_retry(ReadHistory(parent.clone()))
            .await
            .unwrap_or_default()
            .1
    }

    /// Slots, key by key.
    pub async fn limits(&self) -> LimitsReport {
        let Some((waits, now)) = self.query_with_retry(ReadWaits).await else {
            return LimitsReport::default();
        };
        let Some(slots) = self.read_slots().await else {
            return LimitsReport::default();
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
            default: slots.limits.default,
            max: slots.limits.max,
            in_use: slots.held,
            providers: slots.limits.providers.into_iter().collect(),
            models: slots.limits.models.into_iter().collect(),
        }
    }

    /// Changes limits while running: raising one starts what waits, lowering one stops nothing. An error says that nothing
    /// was changed.
    pub async fn set_limits(&self, change: LimitsChange) -> Result<LimitsReport, LimitsError> {
        if self.query_with_retry(change).await.is_none() {
            return Err(self.unavailable(LimitsError::ShuttingDown, LimitsError::Interrupted));
        }
        Ok(self.limits().await)
    }

    /// The result or the messages of a task, read from the agent server; reading does not consume.
    pub async fn output(&self, name: &str, options: OutputOptions) -> Result<Output, OutputError> {
        let found = self.query_with_retry(Find(name.to_owned())).await.flatten();
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
        // The last answer is among the newest messages; only a transcript needs all.
        let newest = (!options.full_session).then_some(crate::domain::output::MAX_MESSAGES);
        let call = self.env.server.messages(&session, newest);
        let messages = match within(self.env.config.calls.other, call).await {
            Ok(messages) => messages,
            // The session was deleted: the record is all there is to read.
            Err(ServerError::NotFound(_)) => return Ok(output),
            Err(failure) => return Err(failure.into()),
        };
        if options.full_session {
            let Some((page, more)) = crate::domain::output::page(&messages, &options) else {
                let since = options.since_message.unwrap_or_default();
                return Err(OutputError::UnknownMessage(since));
            };
            output.messages = Some(page);
            output.has_more = Some(more);
        }
        if ended {
            // Of this run: a resume that failed must not show the answer of the run before.
            let scope = RunScope {
                task: output.task.id.clone(),
                run: output.task.run,
                started: output.task.started_at().unwrap_or_else(|| self.env.now()),
                own_session: output.task.run == Run::FIRST,
            };
            let own = crate::domain::output::of_run(&messages, &scope);
            output.result = Some(crate::domain::output::result_text(
                own,
                options.result_offset,
            ));
            if !options.full_session && (options.include_tool_results || options.include_thinking) {
                let (answer, more) = crate::domain::output::answer(own, &options);
                output.messages = Some(answer);
                output.has_more = Some(more);
            }
        }
        Ok(output)
    }

    /// ReadWaits until that run has started or ended (at once if it has). None if the task is not known or the run is over.
    /// Wakes by message, not by polling; the caller limits the time.
    pub async fn wait(&self, task: &TaskId, run: Run, until: WaitFor) -> Option<Task> {
        // A registry that dies meanwhile takes the waiting with it: the next one is asked, as often as it takes.
        loop {
            if !self.flags.closing() {
                self.registry.connected_within(REBUILD_WAIT).await;
            }
            let (reply, answer) = oneshot::channel();
            if !self.registry.send(WaitForRun {
                task: task.clone(),
                run,
                until,
                reply,
            }) {
                return None;
            }
            if let Ok(answer) = answer.await {
                return answer;
            }
            if self.flags.closing() {
                return None;
            }
        }
    }

    /// Every change of a task's state from now on. A slow reader loses the oldest and is told so by the channel.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<TaskChange>> {
        self.changes.subscribe()
    }

    /// Every change of a task's state with its number, also what was before now as far as it is kept
    /// ([`MAX_CHANGES`]). A reader too slow for that is told what it missed; nobody waits for it.
    pub fn follow(&self, since: Since) -> ChangeFeed {
        self.changes.follow(since)
    }

    /// Takes an event of the agent server as it is. Unknown ones are ignored; waits while too many are under way.
    pub async fn ingest_event_json(&self, event: &Value) {
        if let Some(event) = SessionEvent::read(event) {
            self.ingest_event(event).await;
        }
    }

    /// The same from its text, which is the quickest way; what is no JSON is ignored.
    pub async fn ingest_event_text(&self, event: &[u8]) {
        if let Some(event) = DecodedEvent::read_text(event).and_then(DecodedEvent::event) {
            self.ingest_event(event).await;
        }
    }

    /// The same for one that has been read already.
    pub async fn ingest_event(&self, event: SessionEvent) {
        self.events.put(event).await;
    }

    /// Tells whether events flow.
    pub fn event_link(&self, link: EventLink) {
        self.registry.send(LinkChanged(link));
    }

    /// What there is now, counted; what has happened since the start is in [`Greenroom::counters`].
    pub async fn task_counts(&self) -> TaskCounts {
        self.query_with_retry(CountTasks).await.unwrap_or_default()
    }

    /// Whether the system can do its work.
    pub async fn readiness(&self) -> Readiness {
        self.query_with_retry(ReadReadiness)
            .await
            .unwrap_or_else(|| Readiness {
                ready: false,
                problems: vec![self.unavailable(
                    "greenroom has been shut down".to_owned(),
                    "greenroom is being put together again after a failure of its own".to_owned(),
                )],
                tasks: 0,
                running: 0,
                waiting: 0,
            })
    }

    /// What happened to a task, and what it waits for if it waits in line. Kept as long as the journal keeps the task.
    pub async fn why(&self, name: &str) -> Option<TaskTimeline> {
        let TaskDetail { task, waits_for } = self.find(name).await?;
        let events = self.env.journal.timeline(&task.id);
        let events = events.into_iter().map(|(at, entry)| TimelineEvent {
            at,
            what: entry.what.into_owned(),
            detail: entry.detail,
        });
        Some(TaskTimeline {
            task: task.id,
            waits_for,
            events: events.collect(),
        })
    }

    /// True if the journal outlives the process, so that [`ShutdownMode::Detach`] loses nothing.
    pub fn is_persistent(&self) -> bool {
        self.env.journal.is_persistent()
    }

    /// Ends everything; memory is empty afterwards. Bounded: messages in flight get 5 s, aborts 10 s, the journal 5 s.
    pub async fn shutdown(&self, mode: ShutdownMode) -> ShutdownReport {
        let report = self.shut_down(mode).await;
        if tokio::time::timeout(JOURNAL_WAIT, self.env.durable())
            .await
            .is_err()
        {
            tracing::error!("the journal could not be written before the end");
        }
        self.changes.close();
        report
    }

    async fn shut_down(&self, mode: ShutdownMode) -> ShutdownReport {
        self.flags.set_closing(mode);
        // A registry that dies meanwhile is followed by one that is told again.
        for _ in 0..MAX_ATTEMPTS {
            self.registry.connected_within(REBUILD_WAIT).await;
            let (reply, report) = oneshot::channel();
            if self.registry.send(Shutdown { reply })
                && let Ok(report) = report.await
            {
                return report;
            }
        }
        ShutdownReport::default()
    }

    /// What was counted since the start.
    pub fn counters(&self) -> Counters {
        self.env.health.counters()
    }

    /// The answer to one question; none once the system is shut down, or if the registry died over it. One that is being
    /// rebuilt is waited for, a while.
    async fn query<Q: Query>(&self, query: Q) -> Option<Q::Answer> {
        if !self.flags.closing() {
            self.registry.connected_within(REBUILD_WAIT).await;
        }
        let (reply, answer) = oneshot::channel();
        if !self.registry.send(QueryMessage { query, reply }) {
            return None;
        }
        answer.await.ok()
    }

    /// The same for a question that may be asked twice: a registry that dies over it is asked again once it is back.
    async fn query_with_retry<Q: Query + Clone>(&self, query: Q) -> Option<Q::Answer> {
        for _ in 0..MAX_ATTEMPTS {
            if let Some(answer) = self.query(query.clone()).await {
                return Some(answer);
            }
            if self.flags.closing() {
                break;
            }
        }
        None
    }

    /// TaskTimeline a call has no answer.
    fn unavailable<E>(&self, closing: E, restarting: E) -> E {
        if self.flags.closing() {
            closing
        } else {
            restarting
        }
    }

    async fn read_slots(&self) -> Option<SlotsSnapshot> {
        for _ in 0..MAX_ATTEMPTS {
            if !self.flags.closing() {
                self.slots.connected_within(REBUILD_WAIT).await;
            }
            let (reply, answer) = oneshot::channel();
            if self.slots.send(ReadSlots(reply))
                && let Ok(slots) = answer.await
            {
                return Some(slots);
            }
        }
        None
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
    if full {
        format!("number {position} in line; {in_use} of {limit} slots in use")
    } else if capped {
        format!(
            "number {position} in line; {} of {} slots of all keys in use",
            slots.held, slots.limits.max
        )
    } else {
        format!("number {position} in line; about to start")
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
