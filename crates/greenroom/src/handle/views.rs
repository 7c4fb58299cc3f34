//! What users give and get: options, filters, reports, changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::ids::{ConcurrencyKey, NoticeId, SessionId, TaskId};
use crate::domain::notice::NoticeFacts;
use crate::domain::outbox::{DeliveryStatus, OutboxMessage};
use crate::domain::task::{Task, TaskStatus, or_default};
use crate::domain::time::Timestamp;

/// How a task is cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelOptions {
    /// Who asks, for the log.
    pub source: String,
    /// TaskTimeline; stored as the task's error and told to the parent.
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
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
#[non_exhaustive]
pub struct TaskDetail {
    /// The task.
    pub task: Task,
    /// TaskTimeline it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
}

impl TaskDetail {
    /// A task of which nothing is known that it waits for.
    pub fn new(task: Task) -> Self {
        Self {
            task,
            waits_for: None,
        }
    }
}

/// What a pending task waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
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

/// What happened to a task, and what it waits for.
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
    /// What it waits for, while it waits in line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
    /// What happened, oldest first.
    pub events: Vec<TimelineEvent>,
}

/// One thing that happened to a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "WhyEvent")
)]
#[non_exhaustive]
pub struct TimelineEvent {
    /// When.
    pub at: Timestamp,
    /// What, in a word or two.
    pub what: String,
    /// The particulars; empty if there are none.
    pub detail: String,
}

/// Slots, key by key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LimitsReport {
    /// Every key in use or waited for, and every key with a rule of its own.
    pub keys: Vec<KeyReport>,
    /// The rule for every key without a closer one.
    #[serde(default)]
    pub default: u32,
    /// Rules of providers, shared by all their models that have none of their own.
    #[serde(default)]
    pub providers: BTreeMap<String, u32>,
    /// Rules of models and agents.
    #[serde(default)]
    pub models: BTreeMap<String, u32>,
    /// The cap of all keys together; zero is unlimited.
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
    /// The limit it counts against (maybe shared with other keys of its provider); zero is unlimited.
    pub limit: u32,
    /// Slots this key holds.
    pub in_use: usize,
    /// Tasks waiting.
    pub waiting: usize,
    /// How long the oldest has waited, in milliseconds; zero if none waits.
    pub oldest_wait_ms: u64,
}

/// A change of the limits: what is left out stays, `None` (null in JSON) removes: an entry of a map, or a changed number,
/// which is then what the configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsChange {
    /// Of keys without a closer rule.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<u32>"))]
    pub default: Option<Option<u32>>,
    /// Of all keys together.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<u32>"))]
    pub max: Option<Option<u32>>,
    /// Of providers.
    #[serde(default, deserialize_with = "or_default")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "Option<BTreeMap<String, Option<u32>>>")
    )]
    pub providers: BTreeMap<String, Option<u32>>,
    /// Of models.
    #[serde(default, deserialize_with = "or_default")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "Option<BTreeMap<String, Option<u32>>>")
    )]
    pub models: BTreeMap<String, Option<u32>>,
}

/// One change of a task's state, as subscribers see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct TaskChange {
    /// When.
    pub at: Timestamp,
    /// The task after it.
    #[serde(serialize_with = "serialize_task")]
    pub task: Arc<Task>,
    /// The state before; none for a launch or track.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<TaskStatus>,
    /// The state after.
    pub to: TaskStatus,
}

impl TaskChange {
    /// The change after which the task was that, from a state it had before.
    pub fn new(at: Timestamp, task: Arc<Task>, from: Option<TaskStatus>) -> Self {
        let to = task.status();
        Self { at, task, from, to }
    }
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
#[non_exhaustive]
pub enum ShutdownMode {
    /// Running and waiting tasks become cancelled, "Shutdown", and their sessions are aborted.
    Abort,
    /// Tasks keep their states and sessions go on: the next start picks all up. For a journal that outlives the process;
    /// with any other they would be forgotten.
    Detach,
}

/// What a shutdown left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Tasks that were running or waiting, and are cancelled.
    pub cancelled: Vec<TaskId>,
    /// Tasks that were running or waiting, and that the next start picks up.
    pub detached: Vec<TaskId>,
    /// Parents that are owed a message they did not get.
    pub unnotified: Vec<SessionId>,
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
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

/// What has happened since the start, in numbers that only rise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Counters {
    /// Actors of ours that panicked and were rebuilt, by kind; every kind is named.
    pub actor_deaths: BTreeMap<&'static str, u64>,
    /// Calls beside an actor that panicked.
    pub calls_panicked: u64,
    /// PendingAborts that were refused or not answered in time.
    pub aborts_failed: u64,
    /// Messages to parents that the server has accepted.
    pub notices_delivered: u64,
    /// Messages to parents that were given up.
    pub notices_dropped: u64,
    /// Runs that have ended, by state.
    pub runs_ended: BTreeMap<&'static str, u64>,
}

/// What there is now, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TaskCounts {
    /// Tasks in memory, by state and key.
    pub tasks: BTreeMap<(TaskStatus, ConcurrencyKey), usize>,
    /// Requests of children that wait for an answer.
    pub asks: usize,
    /// Parents that are owed a message.
    pub parents_pending: usize,
}

/// One message to a parent and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NoticeRecord {
    /// Its id.
    pub id: NoticeId,
    /// What it says.
    pub facts: Arc<NoticeFacts>,
    /// `owed`, `sending`, `delivered` or `dropped`.
    pub fate: String,
    /// TaskTimeline it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When that was.
    pub at: Timestamp,
}

impl NoticeRecord {
    pub(crate) fn new(message: OutboxMessage) -> Self {
        let (fate, reason) = match message.status {
            DeliveryStatus::Pending => ("owed", None),
            DeliveryStatus::Sending => ("sending", None),
            DeliveryStatus::Delivered => ("delivered", None),
            DeliveryStatus::Dropped(reason) => ("dropped", Some(reason)),
        };
        Self {
            id: message.id,
            facts: message.facts,
            fate: fate.to_owned(),
            reason,
            at: message.at,
        }
    }
}

/// A task is written the same whoever shares it.
fn serialize_task<S: serde::Serializer>(
    task: &Arc<Task>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    Task::serialize(task, serializer)
}

/// Tells null from what is left out.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Option<u32>>, D::Error> {
    Option::deserialize(value).map(Some)
}
