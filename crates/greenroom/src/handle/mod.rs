//! The handle of the system. A [`Greenroom`] is a cheap clone that works from any thread; the actors run on the arbiter
//! that started them. Every call is one message to the registry and returns an answer, also after a shutdown.

mod asks;
mod builder;
mod changes;
mod errors;
mod resource_counts;
mod views;

use crate::actors::actor_ref::ActorRef;
use crate::actors::env::{Env, REVERT_READ_LIMIT, within};
use crate::actors::inbox::Inbox;
use crate::actors::registry::{
    CancelAnswer, CancelTask, CountTasks, Descendants, Find, FindDecided, FoundTask, InstanceEnded,
    KeyWait, LaunchOnce, LinkChanged, ListTasks, OwnerChanged, Ping, Query, QueryMessage,
    ReadHistory, ReadReadiness, ReadWaits, SendTo, Shutdown, TaskRegistry, TasksOf, WaitForRun,
};
use crate::actors::runtime_state::RuntimeFlags;
use crate::actors::slot_manager::{ReadSlots, SlotManager, SlotsSnapshot};
use crate::actors::task::SendFailure;
use crate::domain::decoded_event::DecodedEvent;
use crate::domain::history::HistoryEntry;
use crate::domain::ids::{ConcurrencyKey, Run, SessionId, TaskId};
use crate::domain::instance::Instance;
use crate::domain::output::{Output, OutputOptions, RunScope};
use crate::domain::session_event::SessionEvent;
use crate::domain::session_owner::SessionOwner;
use crate::domain::task::{Launch, Resume, Task, TaskStatus, Track};
use crate::domain::time::Timestamp;
use crate::domain::transcript::Message;
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

/// The maximum time that a call waits for an actor that restarts.
const REBUILD_WAIT: Duration = Duration::from_secs(5);
/// The maximum time that a shutdown waits for the journal.
const JOURNAL_WAIT: Duration = Duration::from_secs(5);
/// The number of tasks that are cancelled concurrently.
const CONCURRENT_CANCELS: usize = 64;
/// The maximum number of attempts of an idempotent call.
const MAX_ATTEMPTS: usize = 3;

/// The handle of a running system.
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
    /// Launches a task and returns once it is accepted. The task starts when a slot is granted.
    ///
    /// # Errors
    /// [`LaunchError`] if the launch is invalid or refused.
    pub async fn launch(&self, launch: Launch) -> Result<Task, LaunchError> {
        let answer = self.query(launch).await;
        answer.unwrap_or_else(|| {
            Err(self.unavailable(LaunchError::ShuttingDown, LaunchError::Interrupted))
        })
    }

    /// Launches a task under an idempotency key. Returns the task, and true if the key was used before: within 24 hours
    /// a repeated key returns the task of the first launch.
    ///
    /// # Errors
    /// [`LaunchError`] if the launch is invalid or refused, or the key belongs to another launch.
    pub async fn launch_once(
        &self,
        key: String,
        launch: Launch,
    ) -> Result<(Task, bool), LaunchError> {
        validation::key(&key)
            .map_err(|(field, problem)| LaunchError::Invalid { field, problem })?;
        // The key makes the call idempotent.
        let answer = self.query_with_retry(LaunchOnce { key, launch }).await;
        answer.unwrap_or_else(|| {
            Err(self.unavailable(LaunchError::ShuttingDown, LaunchError::Interrupted))
        })
    }

    /// Starts a new run of an ended task in its session. The task is pending when this returns.
    ///
    /// # Errors
    /// [`ResumeError`] if the resume is invalid or refused.
    pub async fn resume(&self, resume: Resume) -> Result<Task, ResumeError> {
        if let Some(session) = &resume.session
            // A read that fails does not refuse the resume: its prompt is preceded by another read.
            && matches!(self.read_reverted(session).await, Ok(true))
        {
            return Err(ResumeError::SessionReverted(session.clone()));
        }
        let answer = self.query(resume).await;
        answer.unwrap_or_else(|| {
            Err(self.unavailable(ResumeError::ShuttingDown, ResumeError::Interrupted))
        })
    }

    /// Adopts a session that was started elsewhere. The task is running when this returns.
    ///
    /// # Errors
    /// [`TrackError`] if the track is invalid or refused.
    pub async fn track(&self, track: Track) -> Result<Task, TrackError> {
        // A track is idempotent.
        let answer = self.query_with_retry(track).await;
        answer.unwrap_or_else(|| {
            Err(self.unavailable(TrackError::ShuttingDown, TrackError::Interrupted))
        })
    }

    /// Cancels one task and returns its record afterwards.
    ///
    /// # Errors
    /// [`CancelError`] if the task is unknown or cannot be cancelled.
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
            CancelAnswer::Undecided(decided) => {
                let decided = decided.await;
                let read = || self.query_with_retry(FindDecided(task.clone()));
                let mut found = read().await.flatten().ok_or_else(unknown)?;
                if decided.is_err() && !found.status().is_terminal() {
                    // The actor of the run panicked: the registry cancels the run once it is notified of the panic.
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

    /// Cancels the tasks of `scope` and returns the cancelled tasks, oldest first.
    pub async fn cancel_all(&self, scope: CancelScope, options: CancelOptions) -> Vec<Task> {
        let tasks = self.query_with_retry(scope).await.unwrap_or_default();
        // Cancels start in this order and run concurrently.
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

    /// Sends a further prompt to a running task, in the same run.
    ///
    /// # Errors
    /// [`SendError`] if the task is unknown or not running, or the server refused the prompt.
    pub async fn send(&self, task: &TaskId, prompt: String) -> Result<Task, SendError> {
        validation::prompt(&prompt)
            .map_err(|(field, problem)| SendError::Invalid { field, problem })?;
        let unknown = || SendError::Unknown(task.clone());
        if self.env.config.notifications.revert_check.is_some() {
            let found = self.query_with_retry(Find(task.as_str().to_owned())).await;
            let session = found.flatten().and_then(|found| found.task.session);
            if let Some(session) = session {
                // The run sends the prompt without a further read.
                match self.read_reverted(&session).await {
                    Ok(false) | Err(ServerError::NotFound(_)) => {}
                    Ok(true) => return Err(SendError::SessionReverted(session)),
                    Err(failure) => return Err(SendError::Server(failure)),
                }
            }
        }
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

    /// Returns true if the user of the session has reverted messages that a prompt would delete.
    async fn read_reverted(&self, session: &SessionId) -> Result<bool, ServerError> {
        if self.env.config.notifications.revert_check.is_none() {
            return Ok(false);
        }
        let record = within(REVERT_READ_LIMIT, self.env.server.session(session)).await;
        record.map(|record| record.reverted)
    }

    /// Returns the current time of this system. Durations up to it are computed from times of its tasks.
    pub fn now(&self) -> Timestamp {
        self.env.now()
    }

    /// Returns the task with this id, this unique id prefix, or the newest task of this session.
    pub async fn find(&self, name: &str) -> Option<TaskDetail> {
        let FoundTask {
            task,
            place: position,
            awaited_directory,
            reachable,
        } = self.query_with_retry(Find(name.to_owned())).await??;
        let waits_for = match (awaited_directory, position) {
            (Some(directory), _) => {
                let slots = self.read_slots().await?;
                let key = task.concurrency_group.clone();
                Some(WaitsFor {
                    in_use: slots.used_against(&key),
                    limit: slots.limits.of(&key),
                    key,
                    position: 0,
                    text: format!("an opencode in {directory}"),
                })
            }
            (None, Some(position)) => {
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
            (None, None) => None,
        };
        Some(TaskDetail { task, waits_for })
    }

    /// Returns one page of tasks, newest first.
    pub async fn list(&self, filter: ListFilter) -> TaskPage {
        self.query_with_retry(ListTasks(filter))
            .await
            .unwrap_or(TaskPage {
                tasks: Vec::new(),
                next_cursor: None,
            })
    }

    /// Returns the tasks whose parent is `parent`, in the order of acceptance. With `descendants` their descendants
    /// follow them, depth first.
    pub async fn tasks_of(&self, parent: &SessionId, descendants: bool) -> Vec<Task> {
        let tasks = if descendants {
            self.query_with_retry(Descendants(parent.clone())).await
        } else {
            self.query_with_retry(TasksOf(parent.clone())).await
        };
        tasks.unwrap_or_default()
    }

    /// Returns the newest hundred tasks of `parent`, oldest first.
    pub async fn history(&self, parent: &SessionId) -> Vec<HistoryEntry> {
        self.query_with_retry(ReadHistory(parent.clone()))
            .await
            .unwrap_or_default()
            .0
    }

    /// Returns the newest messages to `parent` and their delivery status, newest first.
    pub async fn notifications(&self, parent: &SessionId) -> Vec<NoticeRecord> {
        self.query_with_retry(ReadHistory(parent.clone()))
            .await
            .unwrap_or_default()
            .1
    }

    /// Returns the limits and the slots in use, by key.
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

    /// Changes the limits of the running system. A higher limit starts waiting tasks; a lower limit stops no task.
    ///
    /// # Errors
    /// [`LimitsError`] if the limits were not changed.
    pub async fn set_limits(&self, change: LimitsChange) -> Result<LimitsReport, LimitsError> {
        if self.query_with_retry(change).await.is_none() {
            return Err(self.unavailable(LimitsError::ShuttingDown, LimitsError::Interrupted));
        }
        Ok(self.limits().await)
    }

    /// Returns the newest `limit` messages of any session, oldest first.
    ///
    /// # Errors
    /// The error of the agent server.
    pub async fn session_messages(
        &self,
        session: &SessionId,
        limit: usize,
    ) -> Result<Vec<Message>, ServerError> {
        let call = self.env.server.messages(session, Some(limit));
        within(self.env.config.calls.other, call).await
    }

    /// Returns the result or the messages of a task, read from the agent server. Reading does not consume the output.
    ///
    /// # Errors
    /// [`OutputError`] if the task or message is unknown, or the server returned no messages.
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
        // The last answer is among the newest messages; only a transcript needs all messages.
        let newest = (!options.full_session).then_some(crate::domain::output::MAX_MESSAGES);
        let call = self.env.server.messages(&session, newest);
        let messages = match within(self.env.config.calls.other, call).await {
            Ok(messages) => messages,
            // The session was deleted: only the record is left.
            Err(ServerError::NotFound(_)) => return Ok(output),
            Err(failure) => return Err(failure.into()),
        };
        if options.full_session {
            let Some(page) = crate::domain::output::page(&messages, &options) else {
                let since = options.since_message.unwrap_or_default();
                return Err(OutputError::UnknownMessage(since));
            };
            output.messages = Some(page.messages);
            output.has_more = Some(page.has_more);
        }
        if ended {
            // Limited to this run: a failed resume must not return the answer of an earlier run.
            let scope = RunScope {
                task: output.task.id.clone(),
                run: output.task.run,
                started: output.task.started_at().unwrap_or_else(|| self.env.now()),
                own_session: output.task.run == Run::FIRST,
                attempt: None,
            };
            let own = crate::domain::output::of_run(&messages, &scope);
            output.result = Some(crate::domain::output::result_text(
                own,
                options.result_offset,
            ));
            if !options.full_session && (options.include_tool_results || options.include_thinking) {
                let answer = crate::domain::output::answer(own, &options);
                output.messages = Some(answer.messages);
                output.has_more = Some(answer.has_more);
            }
        }
        Ok(output)
    }

    /// Waits until the run has started or ended, and returns the task. Returns at once if it has already. None if the
    /// task is unknown or a later run exists. Wakes by message, not by polling; the caller sets a timeout.
    pub async fn wait(&self, task: &TaskId, run: Run, until: WaitFor) -> Option<Task> {
        // A registry that panics loses its waiters: the wait is repeated with the next registry.
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

    /// Subscribes to changes of task states from now on. A slow receiver loses the oldest changes and gets a lag error
    /// from the channel.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<TaskChange>> {
        self.changes.subscribe()
    }

    /// Returns a feed of numbered changes of task states. The feed includes earlier changes as far as they are kept
    /// ([`MAX_CHANGES`]). A reader that is too slow gets [`Followed::Missed`]; publishers never wait for a reader.
    pub fn follow(&self, since: Since) -> ChangeFeed {
        self.changes.follow(since)
    }

    /// Ingests an event of the agent server as JSON. Unknown events are ignored. Waits while too many events are
    /// queued.
    pub async fn ingest_event_json(&self, event: &Value) {
        if let Some(event) = SessionEvent::read(event) {
            self.ingest_event(event).await;
        }
    }

    /// Ingests an event from its JSON text, which is the fastest form. Invalid JSON is ignored.
    pub async fn ingest_event_text(&self, event: &[u8]) {
        if let Some(event) = DecodedEvent::read_text(event).and_then(DecodedEvent::event) {
            self.ingest_event(event).await;
        }
    }

    /// Ingests a decoded event. Waits while too many events are queued.
    pub async fn ingest_event(&self, event: SessionEvent) {
        self.events.put(event).await;
    }

    /// Reports that an opencode instance was disposed, or that its process or its bridge has ended. The server aborts the
    /// sessions of an ending instance itself; such an abort is not a person's.
    pub fn instance_ended(&self, instance: Instance) {
        self.registry.send(InstanceEnded(instance));
    }

    /// Records in the journal which process owns a session; none if no process owns it. A restarted service reads it by
    /// [`crate::ports::journal::Journal::owners`].
    pub fn record_owner(&self, session: SessionId, owner: Option<SessionOwner>) {
        self.registry.send(OwnerChanged { session, owner });
    }

    /// Reports the state of the event stream.
    pub fn event_link(&self, link: EventLink) {
        self.registry.send(LinkChanged(link));
    }

    /// Returns current counts. Counts since the start are in [`Greenroom::counters`].
    pub async fn task_counts(&self) -> TaskCounts {
        self.query_with_retry(CountTasks).await.unwrap_or_default()
    }

    /// Returns true if the actors answer within `limit`. False after a shutdown.
    pub async fn ping(&self, limit: Duration) -> bool {
        let answer = tokio::time::timeout(limit, self.query_with_retry(Ping)).await;
        matches!(answer, Ok(Some(())))
    }

    /// Returns whether the system can start and watch tasks.
    pub async fn readiness(&self) -> Readiness {
        self.query_with_retry(ReadReadiness)
            .await
            .unwrap_or_else(|| Readiness {
                ready: false,
                problems: vec![self.unavailable(
                    "greenroom has been shut down".to_owned(),
                    "greenroom is restarting after an internal failure".to_owned(),
                )],
                tasks: 0,
                running: 0,
                waiting: 0,
            })
    }

    /// Returns the timeline of a task, and what the task waits for. The timeline is kept as long as the journal keeps
    /// the task.
    pub async fn why(&self, name: &str) -> Option<TaskTimeline> {
        let TaskDetail { task, waits_for } = self.find(name).await?;
        let events = self.env.journal.timeline(&task.id);
        let events = events.into_iter().map(|(at, entry)| TimelineEvent {
            at,
            what: entry.what.into_owned(),
            detail: entry.detail.into_owned(),
        });
        Some(TaskTimeline {
            task: task.id,
            waits_for,
            events: events.collect(),
        })
    }

    /// Returns true if the journal survives the process, so that [`ShutdownMode::Detach`] loses nothing.
    pub fn is_persistent(&self) -> bool {
        self.env.journal.is_persistent()
    }

    /// Shuts the system down and clears its memory. Bounded: messages in flight get 5 s, aborts 10 s, the journal 5 s.
    pub async fn shutdown(&self, mode: ShutdownMode) -> ShutdownReport {
        let report = self.shut_down(mode).await;
        if tokio::time::timeout(JOURNAL_WAIT, self.env.durable())
            .await
            .is_err()
        {
            tracing::error!("shutdown timed out waiting for the journal");
        }
        self.changes.close();
        report
    }

    async fn shut_down(&self, mode: ShutdownMode) -> ShutdownReport {
        self.flags.set_closing(mode);
        // A registry that panics is replaced, and the next one gets the message again.
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

    /// Returns the counters since the start.
    pub fn counters(&self) -> Counters {
        self.env.health.counters()
    }

    /// Sends one query and returns the answer. None once the system is shut down, or if the registry panicked. Waits up
    /// to [`REBUILD_WAIT`] for a registry that restarts.
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

    /// Sends an idempotent query, again if the registry panicked.
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

    /// Returns the reason for a missing answer: `closing` during a shutdown, else `restarting`.
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
