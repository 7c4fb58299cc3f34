//! The record of a task and the arguments of its launch. Only `lifecycle.rs` writes the state: its fields are private
//! to the domain.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::correlation_tag::CorrelationTag;
use super::ids::{ConcurrencyKey, MessageId, ModelRef, Run, SessionId, TaskId};
use super::time::Timestamp;

/// The state of a task. Four of the six states are terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    /// Accepted; waits for its slot or session.
    Pending,
    /// Has a session.
    Running,
    /// Completed.
    Completed,
    /// The session or the start failed, the session vanished, a timeout passed, or a limit of the system stopped the
    /// run.
    Error,
    /// Cancelled on request, stale, or the session or parent was deleted.
    Cancelled,
    /// The prompt was refused, or the session was aborted from outside.
    Interrupt,
}

impl TaskStatus {
    /// All states, in the order in which a task may pass them.
    pub const ALL: [TaskStatus; 6] = [
        Self::Pending,
        Self::Running,
        Self::Completed,
        Self::Error,
        Self::Cancelled,
        Self::Interrupt,
    ];

    /// Returns true if the run has ended.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }

    /// Returns true for an end that counts as a failure for the parent.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Error | Self::Interrupt)
    }

    /// Returns the name used in JSON, logs and texts.
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

/// The progress of a run.
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
    /// The time of the last activity.
    pub last_update: Timestamp,
    /// The newest text of the assistant, at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message: Option<String>,
    /// The time at which that text was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message_at: Option<Timestamp>,
}

impl Progress {
    /// Returns the progress of a new run.
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

/// The server's backoff for the provider of a run.
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

/// An open request of a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Asking {
    /// The server's id of the request (`per_…`, `que_…`).
    pub id: String,
    /// A permission or a question.
    pub kind: AskKind,
    /// The request in one line.
    pub what: String,
    /// The time since which it is open.
    pub since: Timestamp,
}

/// The kinds of requests that block a session.
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
    /// Returns the name used in JSON and texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permission => "permission",
            Self::Question => "question",
        }
    }
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskAnswer {
    /// Grants a permission once.
    Once,
    /// Grants a permission from now on.
    Always,
    /// Rejects the request.
    Reject,
    /// The chosen labels or free texts, for each question in order.
    Answers(Vec<Vec<String>>),
}

impl AskAnswer {
    /// Returns true if the answer fits a request of this kind.
    pub fn fits(&self, kind: AskKind) -> bool {
        match self {
            Self::Reject => true,
            Self::Once | Self::Always => kind == AskKind::Permission,
            Self::Answers(_) => kind == AskKind::Question,
        }
    }
}

/// One attempt of a run with one model. A run has one attempt today; fallback models, a later feature, add more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Attempt {
    /// The run it belongs to.
    pub run: Run,
    /// The number of the attempt within the run, from 1.
    pub attempt: u32,
    /// The session of the attempt.
    #[serde(rename = "sessionID", default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The requested model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Arc<ModelRef>>,
    /// The start of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// The reason of its failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<str>>,
}

/// A permission rule of a session, in the agent server's terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PermissionRule {
    /// The tool or permission, for instance `edit`; `*` for all.
    pub permission: Cow<'static, str>,
    /// The pattern that it applies to; `*` for everything.
    pub pattern: Cow<'static, str>,
    /// `allow`, `ask` or `deny`.
    pub action: PermissionAction,
}

/// The action of a [`PermissionRule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PermissionAction {
    /// Allowed without a request.
    Allow,
    /// The session waits for an answer.
    Ask,
    /// Refused.
    Deny,
}

/// The arguments of a launch.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Launch {
    /// A short description for people.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"\S")))]
    pub description: String,
    /// The prompt for the agent.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"\S")))]
    pub prompt: String,
    /// The agent.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"\S")))]
    pub agent: String,
    /// The parent session. Without one no message is sent.
    #[serde(
        rename = "parentSessionID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub parent_session: Option<SessionId>,
    /// The message of the parent that requested the task.
    #[serde(
        rename = "parentMessageID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub parent_message: Option<MessageId>,
    /// The parent's agent, used for a wake if the parent's messages do not name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_agent: Option<String>,
    /// The parent's model, used for a wake if the parent's messages do not name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_model: Option<ModelRef>,
    /// The model; the agent's own by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRef>,
    /// Models to try after a failure. Not supported yet: a launch that names any is refused.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<ModelRef>>"))]
    pub fallback_models: Vec<ModelRef>,
    /// A label set by the caller, kept and returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Names of skills, kept and returned.
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
    /// The working directory; by default the parent's directory, else the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The permission rules of the session, before the restrictions of its agent.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<PermissionRule>>"))]
    pub permission: Vec<PermissionRule>,
}

/// The arguments of a resume: a new run in an ended task's session.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resume {
    /// The session to continue.
    pub session: Option<SessionId>,
    /// The prompt for the agent.
    pub prompt: String,
    /// The parent to notify; the old parent by default.
    pub parent_session: Option<SessionId>,
    /// The message of the parent that requested the task.
    pub parent_message: Option<MessageId>,
    /// The parent's agent.
    pub parent_agent: Option<String>,
}

/// The arguments of a track: a session started elsewhere to watch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Track {
    /// The id of the task. A known id updates that task.
    #[serde(rename = "taskID")]
    pub task: TaskId,
    /// The session.
    #[serde(rename = "sessionID")]
    pub session: SessionId,
    /// The parent to notify of the end.
    #[serde(rename = "parentSessionID")]
    pub parent_session: SessionId,
    /// A short description for people.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"\S")))]
    pub description: String,
    /// The agent; `task` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The parent's agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_agent: Option<String>,
    /// The key of the slot that it takes, at once and above the limit if necessary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<ConcurrencyKey>,
}

/// The number of characters of a prompt or skill content in a list.
pub const EXCERPT_CHARS: usize = 200;

/// A task: the record of one prompt for one agent, run in a child session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Task {
    /// `bg_…`
    pub id: TaskId,
    /// The child session, once it exists.
    #[serde(rename = "sessionID", default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The parent to notify of the end.
    #[serde(
        rename = "parentSessionID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub parent_session: Option<SessionId>,
    /// The message of the parent that requested the task.
    #[serde(
        rename = "parentMessageID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub parent_message: Option<MessageId>,
    /// The root session of its lineage, once known.
    #[serde(
        rename = "rootSessionID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub root_session: Option<SessionId>,
    /// The depth in the lineage; 1 for a task of a root session.
    pub spawn_depth: u32,
    /// A short description for people.
    pub description: Arc<str>,
    /// The prompt of this run.
    pub prompt: Arc<str>,
    /// The agent.
    pub agent: Arc<str>,
    /// The state.
    pub(in crate::domain) status: TaskStatus,
    /// The time of acceptance.
    pub queued_at: Timestamp,
    /// The start of this run's session; none while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::domain) started_at: Option<Timestamp>,
    /// The end of this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::domain) completed_at: Option<Timestamp>,
    /// The reason why this run failed or was cancelled, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::domain) error: Option<Arc<str>>,
    /// A note on the run for readers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::domain) note: Option<Arc<str>>,
    /// The progress of the run.
    pub progress: Progress,
    /// The parent's model, from the launch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_model: Option<Arc<ModelRef>>,
    /// The parent's agent, from the launch, resume or track.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_agent: Option<Arc<str>>,
    /// The requested model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Arc<ModelRef>>,
    /// The key of the held slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<ConcurrencyKey>,
    /// The key under which it queues.
    pub concurrency_group: ConcurrencyKey,
    /// A label set by the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Arc<str>>,
    /// Names of skills.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<String>,
    /// Sent as the system text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill_content: Option<Arc<str>>,
    /// The working directory, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<Arc<str>>,
    /// The permission rules of the caller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permission: Vec<PermissionRule>,
    /// The number of the run.
    pub run: Run,
    /// The attempts.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    /// The server's backoff for the provider, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrying: Option<Retrying>,
    /// The open requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asking: Vec<Asking>,
    /// Earlier parents, at most sixteen. Their histories keep the task up to date.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_parents: Vec<SessionId>,
    /// True if the session was started elsewhere and adopted by a track.
    #[serde(default)]
    pub tracked: bool,
    /// How often in a row the run was cut off without a newly finished assistant message.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(in crate::domain) cut_offs: u32,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Task {
    /// Returns the state.
    pub fn status(&self) -> TaskStatus {
        self.status
    }

    /// Returns the start of this run's session; none while it waits.
    pub fn started_at(&self) -> Option<Timestamp> {
        self.started_at
    }

    /// Returns the end of this run.
    pub fn completed_at(&self) -> Option<Timestamp> {
        self.completed_at
    }

    /// Returns how often in a row the run was cut off without a newly finished assistant message.
    pub fn cut_offs(&self) -> u32 {
        self.cut_offs
    }

    /// Returns the size of its prompt and skill content, in bytes.
    pub fn text_bytes(&self) -> u64 {
        let skill_content = self.skill_content.as_deref().map_or(0, str::len);
        (self.prompt.len() + skill_content) as u64
    }

    /// Truncates the prompt and the skill content to their first [`EXCERPT_CHARS`] characters, for lists.
    pub fn truncate_texts(&mut self) {
        let excerpt = |text: &mut Arc<str>| {
            let kept = cut(text, EXCERPT_CHARS);
            if kept.len() < text.len() {
                *text = Arc::from(kept);
            }
        };
        excerpt(&mut self.prompt);
        self.skill_content.as_mut().map(excerpt);
    }

    /// Returns the number of the newest attempt of this run that has started; zero before the first.
    pub fn attempt(&self) -> u32 {
        let last = self.attempts.last().filter(|last| last.run == self.run);
        last.map_or(0, |last| last.attempt)
    }

    /// Returns the session that a pending run continues: the run was cut off. None for any other task.
    pub fn session_to_continue(&self) -> Option<&SessionId> {
        let is_cut_off = self.status == TaskStatus::Pending && self.attempt() > 0;
        self.session.as_ref().filter(|_| is_cut_off)
    }

    /// Returns the reason why this run failed or was cancelled, for people.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Returns the note on the run for readers.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Returns the duration of the run; zero if it never started.
    pub fn duration(&self, now: Timestamp) -> std::time::Duration {
        match self.started_at {
            Some(started) => self.completed_at.unwrap_or(now).since(started),
            None => std::time::Duration::ZERO,
        }
    }

    /// Returns the correlation tag of the session of an attempt of this run.
    pub fn session_tag(&self, attempt: u32) -> CorrelationTag {
        CorrelationTag {
            task: self.id.clone(),
            run: self.run,
            attempt,
            prompt: None,
        }
    }
}

/// Deserializes null like an omitted field.
///
/// # Errors
/// The errors of deserializing the value.
pub fn or_default<'de, D, T>(value: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// Returns the text cut to at most `max` characters.
pub fn cut(text: &str, max: usize) -> &str {
    match text.char_indices().nth(max) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
