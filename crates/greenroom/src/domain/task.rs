//! A task as it is recorded and shown, and what it was launched with. Its state is written by `lifecycle.rs` alone:
//! the fields that hold it are private to the domain.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::correlation_tag::CorrelationTag;
use super::ids::{ConcurrencyKey, MessageId, ModelRef, Run, SessionId, TaskId};
use super::time::Timestamp;

/// Where a task stands. Four of the six are terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    /// Accepted, waits for its slot or its session.
    Pending,
    /// Holds a session.
    Running,
    /// Did what it was asked for.
    Completed,
    /// The session failed, the start failed, it vanished, it timed out, or a limit of ours stopped it.
    Error,
    /// Asked for, stale, or its session or parent was deleted.
    Cancelled,
    /// The prompt was refused, or someone aborted the session from outside.
    Interrupt,
}

impl TaskStatus {
    /// Every state, in the order a task may pass them.
    pub const ALL: [TaskStatus; 6] = [
        Self::Pending,
        Self::Running,
        Self::Completed,
        Self::Error,
        Self::Cancelled,
        Self::Interrupt,
    ];

    /// True once a run has ended.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }

    /// True for an end that the parent should know as a failure.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Error | Self::Interrupt)
    }

    /// The name used in JSON, logs and texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
            Self::Interrupt => "interrupt",
        }
    }
}

/// What a run has done so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Progress {
    /// Tool calls of all runs, each counted once.
    pub tool_calls: u32,
    /// The tool called last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_tool: Option<String>,
    /// The last sign of life that is work.
    pub last_update: Timestamp,
    /// The newest text of the assistant, at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message: Option<String>,
    /// When that text was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message_at: Option<Timestamp>,
}

impl Progress {
    /// Nothing done yet.
    pub fn none(now: Timestamp) -> Self {
        Self {
            tool_calls: 0,
            last_tool: None,
            last_update: now,
            last_message: None,
            last_message_at: None,
        }
    }
}

/// The server backs off for this run's provider: until when, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Retrying {
    /// The attempt the server has reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The provider's text.
    pub message: String,
    /// When the server tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What a child waits for somebody to answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Asking {
    /// The server's id of the request (`per_…`, `que_…`).
    pub id: String,
    /// A permission or a question.
    pub kind: AskKind,
    /// What is asked, in one line.
    pub what: String,
    /// Since when it waits.
    pub since: Timestamp,
}

/// The two kinds of requests a session can hang on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum AskKind {
    /// `permission.asked`
    Permission,
    /// `question.asked`
    Question,
}

impl AskKind {
    /// As JSON and people name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permission => "permission",
            Self::Question => "question",
        }
    }
}

/// What somebody answers to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskAnswer {
    /// A permission, this time.
    Once,
    /// A permission, from now on.
    Always,
    /// No.
    Reject,
    /// The labels chosen, or texts of one's own, for each of the questions in their order.
    Answers(Vec<Vec<String>>),
}

impl AskAnswer {
    /// True if a request of that kind can be answered so.
    pub fn fits(&self, kind: AskKind) -> bool {
        match self {
            Self::Reject => true,
            Self::Once | Self::Always => kind == AskKind::Permission,
            Self::Answers(_) => kind == AskKind::Question,
        }
    }
}

/// One try of a run with one model. The list grows when fallback models arrive (a later feature): today a run has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Attempt {
    /// The run it belongs to.
    pub run: Run,
    /// Counts from 1 within the run.
    pub attempt: u32,
    /// The session it ran in.
    #[serde(rename = "sessionID", default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The model it was asked to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Arc<ModelRef>>,
    /// When the session was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Why it ended, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<str>>,
}

/// A rule of what a session may do, in the agent server's own terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PermissionRule {
    /// The tool or permission, for instance `edit`; `*` for all.
    pub permission: Cow<'static, str>,
    /// What it applies to; `*` for everything.
    pub pattern: Cow<'static, str>,
    /// `allow`, `ask` or `deny`.
    pub action: PermissionAction,
}

/// What a [`PermissionRule`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PermissionAction {
    /// Done without asking.
    Allow,
    /// The session waits for an answer.
    Ask,
    /// Refused.
    Deny,
}

/// What a caller gives to launch a task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Launch {
    /// A few words for people.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"\S")))]
    pub description: String,
    /// What the agent is told.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"\S")))]
    pub prompt: String,
    /// Who does it.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"\S")))]
    pub agent: String,
    /// The session that asks; without one nobody is notified.
    #[serde(
        rename = "parentSessionID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub parent_session: Option<SessionId>,
    /// The message in which it asked.
    #[serde(
        rename = "parentMessageID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub parent_message: Option<MessageId>,
    /// The parent's agent, for the wake if the parent's messages do not name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_agent: Option<String>,
    /// The parent's model, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_model: Option<ModelRef>,
    /// The model to use; without one the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRef>,
    /// Models to try when that one fails. Not built yet: a launch that names any is refused.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<ModelRef>>"))]
    pub fallback_models: Vec<ModelRef>,
    /// A label of the caller's, kept and shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Names of skills, kept and shown.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<String>>"))]
    pub skills: Vec<String>,
    /// Sent as the system text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill_content: Option<String>,
    /// Where the session works; without it the parent's directory, else the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// What the session may do, before the restrictions of its agent.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<PermissionRule>>"))]
    pub permission: Vec<PermissionRule>,
}

/// What a caller gives to go on with an ended task's session.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resume {
    /// The session to go on in.
    pub session: Option<SessionId>,
    /// What the agent is told.
    pub prompt: String,
    /// Who is told of the end; without it the old parent.
    pub parent_session: Option<SessionId>,
    /// The message in which it asked.
    pub parent_message: Option<MessageId>,
    /// The parent's agent.
    pub parent_agent: Option<String>,
}

/// What a caller gives to have a session watched that was started elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Track {
    /// The id to know it by; a known one updates that task.
    #[serde(rename = "taskID")]
    pub task: TaskId,
    /// The session.
    #[serde(rename = "sessionID")]
    pub session: SessionId,
    /// Who is told of its end.
    #[serde(rename = "parentSessionID")]
    pub parent_session: SessionId,
    /// A few words for people.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"\S")))]
    pub description: String,
    /// Who does it; without it the task is called `task`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The parent's agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_agent: Option<String>,
    /// The slot it counts against, at once and above the limit if it must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<ConcurrencyKey>,
}

/// A task: the record of one prompt for one agent, run in a child session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Task {
    /// `bg_…`
    pub id: TaskId,
    /// The child session, once there is one.
    #[serde(rename = "sessionID", default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Who is told of its end.
    #[serde(
        rename = "parentSessionID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub parent_session: Option<SessionId>,
    /// The message in which it was asked for.
    #[serde(
        rename = "parentMessageID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub parent_message: Option<MessageId>,
    /// The session at the top of its lineage, once known.
    #[serde(
        rename = "rootSessionID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub root_session: Option<SessionId>,
    /// 1 for a task of a session that is nobody's child.
    pub spawn_depth: u32,
    /// A few words for people.
    pub description: Arc<str>,
    /// What the agent was told in this run.
    pub prompt: Arc<str>,
    /// Who does it.
    pub agent: Arc<str>,
    /// Where it stands.
    pub(in crate::domain) status: TaskStatus,
    /// When it was accepted.
    pub queued_at: Timestamp,
    /// When this run's session was there; none while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::domain) started_at: Option<Timestamp>,
    /// When this run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::domain) completed_at: Option<Timestamp>,
    /// Why this run failed or was cancelled, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::domain) error: Option<Arc<str>>,
    /// What else a reader should know of how it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::domain) note: Option<Arc<str>>,
    /// What the run has done so far.
    pub progress: Progress,
    /// The parent's model, as its launch said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_model: Option<Arc<ModelRef>>,
    /// The parent's agent, as its launch, resume or track said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_agent: Option<Arc<str>>,
    /// The model asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Arc<ModelRef>>,
    /// The slot held now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<ConcurrencyKey>,
    /// The key it queues under.
    pub concurrency_group: ConcurrencyKey,
    /// A label of the caller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Arc<str>>,
    /// Names of skills.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<String>,
    /// Sent as the system text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill_content: Option<Arc<str>>,
    /// Where the session works, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<Arc<str>>,
    /// What the caller said the session may do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permission: Vec<PermissionRule>,
    /// Counts launches and resumes from 1.
    pub run: Run,
    /// Each try with one model.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    /// The server backs off for its provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrying: Option<Retrying>,
    /// What it waits for somebody to answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asking: Vec<Asking>,
    /// Parents it had before: their histories keep it, up to date. At most sixteen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_parents: Vec<SessionId>,
    /// True if its session was started elsewhere and adopted by a track.
    #[serde(default)]
    pub tracked: bool,
}

impl Task {
    /// Where it stands.
    pub fn status(&self) -> TaskStatus {
        self.status
    }

    /// When this run's session was there; none while it waits.
    pub fn started_at(&self) -> Option<Timestamp> {
        self.started_at
    }

    /// When this run ended.
    pub fn completed_at(&self) -> Option<Timestamp> {
        self.completed_at
    }

    /// Why this run failed or was cancelled, for people.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// What else a reader should know of how it went.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// How long the run took; zero if it never started.
    pub fn duration(&self, now: Timestamp) -> std::time::Duration {
        match self.started_at {
            Some(started) => self.completed_at.unwrap_or(now).since(started),
            None => std::time::Duration::ZERO,
        }
    }

    /// What the session of that attempt of this run carries.
    pub fn session_tag(&self, attempt: u32) -> CorrelationTag {
        CorrelationTag {
            task: self.id.clone(),
            run: self.run,
            attempt,
            prompt: None,
        }
    }
}

/// Reads null like what is left out, so that callers need not tell the two apart.
///
/// # Errors
/// Whatever reading the value says.
pub fn or_default<'de, D, T>(value: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// Text cut to at most `max` characters, whole characters only.
pub fn cut(text: &str, max: usize) -> &str {
    match text.char_indices().nth(max) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
