//! The rows of a trace: the calls of the scripted server, the results of the steps, and the observations.
//! Written by the scripted server and the driver, printed by the command, compared by `check`.

use std::collections::BTreeMap;

use greenroom::domain::ids::ModelRef;
use greenroom::domain::notice::{NoticeFacts, NoticeKind};
use greenroom::domain::task::TaskStatus;
use greenroom::ports::agent_server::{NewSession, Notice, TaskPrompt};
use indexmap::IndexMap;
use serde::Serialize;

/// The trace of a story.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// The calls of the scripted server, in order.
    pub calls: Vec<CallRow>,
    /// The results of the steps, in the order of the steps.
    pub results: Vec<ResultRow>,
    /// The answers to queries, in order.
    pub queries: Vec<QueryRow>,
    /// The observations.
    pub observations: Vec<Observation>,
    /// Panics, as texts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unhandled_errors: Vec<String>,
}

/// One call of the scripted server.
#[derive(Debug, Clone, Serialize)]
pub struct CallRow {
    /// The time, in virtual milliseconds.
    pub at: i64,
    /// The call.
    #[serde(flatten)]
    pub call: Call,
}

/// The calls in a trace. Calls that only read are left out.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "call", rename_all_fields = "camelCase")]
pub enum Call {
    /// Creates a session.
    #[serde(rename = "session.create")]
    Create {
        /// The task.
        task: String,
        /// The parent session.
        #[serde(skip_serializing_if = "Option::is_none")]
        parent: Option<String>,
        /// The description of the task.
        description: String,
        /// The agent of the session.
        agent: String,
        /// The directory of the session.
        directory: String,
    },
    /// Prompts a task.
    #[serde(rename = "session.prompt")]
    Prompt {
        /// The session.
        session: String,
        /// The agent.
        agent: String,
        /// The model.
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<Pair>,
        /// The variant of the model.
        #[serde(skip_serializing_if = "Option::is_none")]
        variant: Option<String>,
        /// The system text.
        #[serde(skip_serializing_if = "Option::is_none")]
        system: Option<String>,
        /// The text of the prompt.
        text: String,
    },
    /// Aborts a session.
    #[serde(rename = "session.abort")]
    Abort {
        /// The session.
        session: String,
    },
    /// Notifies a parent.
    #[serde(rename = "notify")]
    Notify {
        /// The parent.
        parent: String,
        /// True if the parent is not woken.
        no_reply: bool,
        /// The agent of the notification.
        #[serde(skip_serializing_if = "Option::is_none")]
        agent: Option<String>,
        /// The model of the notification.
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<Pair>,
        /// The variant of the model.
        #[serde(skip_serializing_if = "Option::is_none")]
        variant: Option<String>,
        /// The content of the notification.
        #[serde(flatten)]
        notice: NoticeRow,
    },
}

/// The content of a notification.
#[derive(Debug, Clone, Serialize)]
#[serde(
    tag = "kind",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum NoticeRow {
    /// Some tasks of a batch have settled.
    Individual {
        /// The status of the newest of them.
        status_label: &'static str,
        /// The newest of them.
        task: String,
        /// Its description.
        description: String,
        /// Its duration.
        duration_text: String,
        /// Its error, if it failed or was cancelled.
        #[serde(skip_serializing_if = "Option::is_none")]
        error_text: Option<String>,
        /// The number of open tasks.
        remaining: usize,
        /// All settled tasks, if there are several.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tasks: Vec<String>,
    },
    /// The batch is complete.
    AllComplete {
        /// The tasks of the batch.
        completed: Vec<String>,
        /// The error of the first failed task.
        #[serde(skip_serializing_if = "Option::is_none")]
        error_text: Option<String>,
    },
}

/// A model without its variant.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    #[serde(rename = "providerID")]
    provider: String,
    #[serde(rename = "modelID")]
    model: String,
}

impl From<&ModelRef> for Pair {
    fn from(model: &ModelRef) -> Self {
        Self {
            provider: model.provider_id.clone(),
            model: model.model_id.clone(),
        }
    }
}

impl Call {
    /// Returns the row of a create. The description is the title without its suffix.
    pub fn create(session: &NewSession) -> Self {
        let outcome = format!(" (@{} subagent)", session.agent);
        Self::Create {
            task: session.task.to_string(),
            parent: session.parent.as_ref().map(ToString::to_string),
            description: session
                .title
                .strip_suffix(&outcome)
                .unwrap_or(&session.title)
                .to_owned(),
            agent: session.agent.to_string(),
            directory: session.directory.to_string(),
        }
    }

    /// Returns the row of a task's prompt.
    pub fn prompt(session: &str, prompt: &TaskPrompt) -> Self {
        Self::Prompt {
            session: session.to_owned(),
            agent: prompt.agent.to_string(),
            model: prompt.model.as_deref().map(Pair::from),
            variant: prompt
                .model
                .as_ref()
                .and_then(|model| model.variant.clone()),
            system: prompt.system.as_deref().map(str::to_owned),
            text: prompt.text.to_string(),
        }
    }

    /// Returns the row of a notification.
    pub fn notify(parent: &str, notice: &Notice) -> Self {
        Self::Notify {
            parent: parent.to_owned(),
            no_reply: notice.silent,
            agent: notice.agent.clone(),
            model: notice.model.as_ref().map(Pair::from),
            variant: notice
                .model
                .as_ref()
                .and_then(|model| model.variant.clone()),
            notice: NoticeRow::of(&notice.facts),
        }
    }
}

impl NoticeRow {
    fn of(facts: &NoticeFacts) -> Self {
        let tasks: Vec<String> = facts
            .tasks
            .iter()
            .map(|fact| fact.task.to_string())
            .collect();
        match (facts.kind, facts.tasks.last()) {
            (NoticeKind::Individual, Some(newest)) => Self::Individual {
                status_label: match newest.status {
                    TaskStatus::Interrupt => "interrupted",
                    status => status.as_str(),
                },
                task: newest.task.to_string(),
                description: newest.description.to_string(),
                duration_text: newest.duration.to_string(),
                error_text: newest.error.as_deref().map(str::to_owned),
                remaining: facts.remaining,
                tasks: if tasks.len() > 1 { tasks } else { Vec::new() },
            },
            _ => Self::AllComplete {
                error_text: facts
                    .tasks
                    .iter()
                    .find(|fact| fact.status.is_failure())
                    .and_then(|fact| fact.error.as_deref().map(str::to_owned)),
                completed: tasks,
            },
        }
    }
}

/// The result of a step.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResultRow {
    /// The index of the step in the file.
    pub step: usize,
    /// The name of the action.
    pub r#do: &'static str,
    /// The time of the step.
    pub at: i64,
    /// The time of the answer; null if there was none.
    pub settled_at: Option<i64>,
    /// The answer.
    #[serde(flatten)]
    pub answer: Option<Answer>,
}

/// The answer to a step.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// A value.
    Value(Value),
    /// An error.
    Error(String),
}

/// The value of an answer.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A task.
    Task {
        /// The alias of the task.
        task: String,
        /// The status of the task.
        status: TaskStatus,
    },
    /// Whether a task was cancelled.
    Cancelled(bool),
}

/// The answer to a query.
#[derive(Debug, Clone, Serialize)]
pub struct QueryRow {
    /// The time.
    pub at: i64,
    /// The kind of the query.
    pub what: &'static str,
    /// The session of the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// A list of aliases; for `bySession` one alias or null.
    pub result: serde_json::Value,
}

/// The state of the system at one time.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// The time.
    pub at: i64,
    /// The label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The tasks in memory, in order of acceptance.
    pub tasks: IndexMap<String, TaskRow>,
    /// Slots in use, by key.
    pub slots: BTreeMap<String, SlotRow>,
    /// Open tasks, by parent.
    pub pending_by_parent: IndexMap<String, Vec<String>>,
    /// The history of each parent.
    pub history: IndexMap<String, Vec<HistoryRow>>,
    /// Active timers.
    pub timers: Timers,
}

/// A task in an observation.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRow {
    /// The status.
    pub status: TaskStatus,
    /// The error of a failed or cancelled task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The note.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The time of acceptance.
    pub queued_at: i64,
    /// The time at which the session existed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<i64>,
    /// The time of the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<i64>,
    /// The number of tool calls.
    pub tool_calls: u32,
    /// The newest tool call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_tool: Option<String>,
}

/// The slots of a key.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotRow {
    /// The number of slots in use.
    pub in_use: usize,
}

/// A task in the history of its parent.
#[derive(Debug, Clone, Serialize)]
pub struct HistoryRow {
    /// The task.
    pub task: String,
    /// The agent.
    pub agent: String,
    /// The category that the caller set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The status.
    pub status: TaskStatus,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// Active timers.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Timers {
    /// Whether the poller is active.
    pub polling: bool,
}
