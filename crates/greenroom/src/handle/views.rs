//! Arguments and results of the handle: options, filters, reports, changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::ids::{ConcurrencyKey, NoticeId, SessionId, TaskId};
use crate::domain::notice::{NoticeFacts, NoticeKind};
use crate::domain::outbox::{DeliveryStatus, OutboxMessage};
use crate::domain::task::{Task, TaskStatus, or_default};
use crate::domain::time::Timestamp;

/// Options of a cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelOptions {
    /// The source of the request, for the log.
    pub source: String,
    /// The reason. It is stored as the task's error and included in the message to the parent.
    pub reason: Option<String>,
    /// Whether the task's session is aborted.
    pub abort_session: bool,
    /// Whether the parent's messages leave the task out.
    pub skip_notification: bool,
    /// Whether only a task without a granted slot is cancelled.
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

/// The scope of a cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelScope {
    /// All tasks descending from a session.
    Descendants(SessionId),
    /// A task and all tasks descending from it.
    Tree(TaskId),
    /// All tasks.
    All,
}

/// Filter of listed tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only tasks in these states; all tasks if empty.
    pub statuses: Vec<TaskStatus>,
    /// Only tasks of this parent.
    pub parent_session: Option<SessionId>,
    /// Only tasks of this agent.
    pub agent: Option<String>,
    /// The maximum number of tasks. 100 by default, at most 1,000.
    pub limit: Option<usize>,
    /// The cursor returned with the previous page.
    pub cursor: Option<String>,
}

/// One page of tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TaskPage {
    /// The tasks, newest first.
    pub tasks: Vec<Task>,
    /// The cursor of the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A task, and what it waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TaskDetail {
    /// The task.
    pub task: Task,
    /// What the task waits for, while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
}

impl TaskDetail {
    /// Returns the detail of a task that waits for nothing.
    pub fn new(task: Task) -> Self {
        Self {
            task,
            waits_for: None,
        }
    }
}

/// The wait of a pending task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WaitsFor {
    /// The concurrency key.
    pub key: ConcurrencyKey,
    /// The position in the queue of the key, from 1; zero while a run that was cut off waits for a server.
    pub position: usize,
    /// Slots in use under the limit of the key.
    pub in_use: usize,
    /// The limit of the key; zero is unlimited.
    pub limit: u32,
    /// The wait in one sentence, for people.
    pub text: String,
}

/// The timeline of a task, and what the task waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "Why")
)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TaskTimeline {
    /// The task.
    pub task: TaskId,
    /// What the task waits for, while it is queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
    /// The events, oldest first.
    pub events: Vec<TimelineEvent>,
}

/// One event in the timeline of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "WhyEvent")
)]
#[non_exhaustive]
pub struct TimelineEvent {
    /// The time of the change.
    pub at: Timestamp,
    /// What happened, in a word or two.
    pub what: String,
    /// Details; empty if there are none.
    pub detail: String,
}

/// Limits and slots in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LimitsReport {
    /// Every key with slots in use or waiting tasks, and every key with its own rule.
    pub keys: Vec<KeyReport>,
    /// The limit of keys without a more specific rule.
    #[serde(default)]
    pub default: u32,
    /// Limits by provider, shared by the models without their own rule.
    #[serde(default)]
    pub providers: BTreeMap<String, u32>,
    /// Limits of models and agents.
    #[serde(default)]
    pub models: BTreeMap<String, u32>,
    /// The limit of all keys together; zero is unlimited.
    pub max: u32,
    /// Slots in use by all keys together.
    pub in_use: usize,
}

/// Slots of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct KeyReport {
    /// The key.
    pub key: ConcurrencyKey,
    /// The limit of the key, maybe shared with other keys of its provider; zero is unlimited.
    pub limit: u32,
    /// Slots held by the key.
    pub in_use: usize,
    /// Tasks waiting.
    pub waiting: usize,
    /// The wait of the oldest waiting task, in milliseconds; zero if no task waits.
    pub oldest_wait_ms: u64,
}

/// A change of the limits. An omitted field stays unchanged. `None` (null in JSON) removes an entry of a map, or resets
/// a number to the configured value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsChange {
    /// The limit of keys without a more specific rule.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<u32>"))]
    pub default: Option<Option<u32>>,
    /// The limit of all keys together.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<u32>"))]
    pub max: Option<Option<u32>>,
    /// Limits by provider.
    #[serde(default, deserialize_with = "or_default")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "Option<BTreeMap<String, Option<u32>>>")
    )]
    pub providers: BTreeMap<String, Option<u32>>,
    /// Limits by model.
    #[serde(default, deserialize_with = "or_default")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "Option<BTreeMap<String, Option<u32>>>")
    )]
    pub models: BTreeMap<String, Option<u32>>,
}

/// One change of a task's state.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct TaskChange {
    /// The time of the change.
    pub at: Timestamp,
    /// The task after the change.
    #[serde(serialize_with = "serialize_task")]
    pub task: Arc<Task>,
    /// The state before the change; none for a launch or track.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<TaskStatus>,
    /// The state after the change.
    pub to: TaskStatus,
}

impl TaskChange {
    /// Returns the change from state `from` to the current state of `task`.
    pub fn new(at: Timestamp, task: Arc<Task>, from: Option<TaskStatus>) -> Self {
        let to = task.status();
        Self { at, task, from, to }
    }
}

/// The condition of [`super::Greenroom::wait`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// The run has a session, or has ended.
    Started,
    /// The run has ended.
    Ended,
}

/// The treatment of open tasks at a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShutdownMode {
    /// Running and waiting tasks become cancelled, "Shutdown", and their sessions are aborted.
    Abort,
    /// Tasks keep their states, sessions continue, and the next start picks all tasks up. Requires a journal that
    /// survives the process; with any other journal the tasks would be lost.
    Detach,
}

/// The result of a shutdown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Running or waiting tasks that were cancelled.
    pub cancelled: Vec<TaskId>,
    /// Running or waiting tasks that the next start picks up.
    pub detached: Vec<TaskId>,
    /// Parents with a message that was not delivered.
    pub unnotified: Vec<SessionId>,
}

/// The state of the event stream from the agent server, reported by its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventLink {
    /// Events flow (again). Every running task is reconciled.
    Connected,
    /// Events were lost.
    Broken,
}

/// Whether the system can start and watch tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Readiness {
    /// True if tasks are started and watched.
    pub ready: bool,
    /// The problems, one line each.
    pub problems: Vec<String>,
    /// Tasks in memory.
    pub tasks: usize,
    /// Tasks running.
    pub running: usize,
    /// Tasks waiting.
    pub waiting: usize,
}

/// Counters since the start. They only rise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Counters {
    /// Actors that panicked and were restarted, by kind. Every kind has an entry.
    pub actor_deaths: BTreeMap<&'static str, u64>,
    /// Spawned calls that panicked.
    pub calls_panicked: u64,
    /// Aborts that failed or timed out.
    pub aborts_failed: u64,
    /// Messages to parents that the server accepted.
    pub notices_delivered: u64,
    /// Messages to parents that were dropped.
    pub notices_dropped: u64,
    /// Ended runs, by state.
    pub runs_ended: BTreeMap<&'static str, u64>,
}

/// Current counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TaskCounts {
    /// Tasks in memory, by state and key.
    pub tasks: BTreeMap<(TaskStatus, ConcurrencyKey), usize>,
    /// Open requests of children.
    pub asks: usize,
    /// Parents with a pending message.
    pub parents_pending: usize,
}

/// One message to a parent and its delivery status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NoticeRecord {
    /// The id of the message.
    pub id: NoticeId,
    /// The kind of the message.
    pub kind: NoticeKind,
    /// The tasks that the message reports.
    pub tasks: Vec<TaskId>,
    /// The message that this one repeats, because the turn of that one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<NoticeId>,
    /// The content of the message.
    pub facts: Arc<NoticeFacts>,
    /// `owed`, `sending`, `delivered` or `dropped`.
    pub fate: String,
    /// The reason of a drop, or the error of the turn that the message began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The time of the last change.
    pub at: Timestamp,
}

impl NoticeRecord {
    pub(crate) fn new(message: OutboxMessage) -> Self {
        let (fate, reason) = match message.status {
            DeliveryStatus::Pending => ("owed", None),
            DeliveryStatus::Sending => ("sending", None),
            DeliveryStatus::Delivered => ("delivered", message.turn_error),
            DeliveryStatus::Dropped(reason) => ("dropped", Some(reason)),
        };
        Self {
            id: message.id,
            kind: message.facts.kind,
            tasks: message
                .facts
                .tasks
                .iter()
                .map(|fact| fact.task.clone())
                .collect(),
            retry_of: message.retry_of,
            facts: message.facts,
            fate: fate.to_owned(),
            reason,
            at: message.at,
        }
    }
}

/// Serializes a shared task like an owned one.
fn serialize_task<S: serde::Serializer>(
    task: &Arc<Task>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    Task::serialize(task, serializer)
}

/// Distinguishes null from an omitted field.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Option<u32>>, D::Error> {
    Option::deserialize(value).map(Some)
}
