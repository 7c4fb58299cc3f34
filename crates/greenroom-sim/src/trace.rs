//! The rows of what happened: what the scripted server was called with, what the steps came to, what was there to see.
//! Written by the scripted server and the driver, printed by the command, compared by `check`.

use std::collections::BTreeMap;

use greenroom::domain::ids::ModelRef;
use greenroom::domain::notice::{NoticeFacts, NoticeKind};
use greenroom::domain::task::TaskStatus;
use greenroom::ports::agent_server::{NewSession, Notice, TaskPrompt};
use indexmap::IndexMap;
use serde::Serialize;

/// All that is known of how a story went.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// What reached the scripted server, in order.
    pub calls: Vec<CallRow>,
    /// What the steps came to, in the order of the steps.
    pub results: Vec<ResultRow>,
    /// The answers of queries, in order.
    pub queries: Vec<QueryRow>,
    /// What was there to see.
    pub observations: Vec<Observation>,
    /// Panics, as texts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unhandled_errors: Vec<String>,
}

/// One call of the scripted server.
#[derive(Debug, Clone, Serialize)]
pub struct CallRow {
    /// When, in virtual milliseconds.
    pub at: i64,
    /// Which.
    #[serde(flatten)]
    pub call: Call,
}

/// The calls a trace shows; the others only read.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "call", rename_all_fields = "camelCase")]
pub enum Call {
    /// A session is made.
    #[serde(rename = "session.create")]
    Create {
        /// For this task.
        task: String,
        /// By this session.
        #[serde(skip_serializing_if = "Option::is_none")]
        parent: Option<String>,
        /// What the task is called.
        description: String,
        /// Who works in it.
        agent: String,
        /// Where.
        directory: String,
    },
    /// A task is prompted.
    #[serde(rename = "session.prompt")]
    Prompt {
        /// In this session.
        session: String,
        /// Who answers.
        agent: String,
        /// With which model.
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<Pair>,
        /// With which variant of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        variant: Option<String>,
        /// The system text.
        #[serde(skip_serializing_if = "Option::is_none")]
        system: Option<String>,
        /// What is asked.
        text: String,
    },
    /// A session is stopped.
    #[serde(rename = "session.abort")]
    Abort {
        /// This one.
        session: String,
    },
    /// A parent is told.
    #[serde(rename = "notify")]
    Notify {
        /// This one.
        parent: String,
        /// True if it is not woken.
        no_reply: bool,
        /// The agent it goes on as.
        #[serde(skip_serializing_if = "Option::is_none")]
        agent: Option<String>,
        /// The model it goes on with.
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<Pair>,
        /// The variant of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        variant: Option<String>,
        /// Of what.
        #[serde(flatten)]
        notice: NoticeRow,
    },
}

/// What a parent is told.
#[derive(Debug, Clone, Serialize)]
#[serde(
    tag = "kind",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum NoticeRow {
    /// Some of a batch have settled.
    Individual {
        /// How the newest of them ended.
        status_label: &'static str,
        /// The newest of them.
        task: String,
        /// What it is called.
        description: String,
        /// How long it took.
        duration_text: String,
        /// Why it failed or was cancelled.
        #[serde(skip_serializing_if = "Option::is_none")]
        error_text: Option<String>,
        /// How many are open.
        remaining: usize,
        /// All of them, if there are several.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tasks: Vec<String>,
    },
    /// The batch is done.
    AllComplete {
        /// Its tasks.
        completed: Vec<String>,
        /// Why the first of those that failed did.
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
    /// The row of a create. The description is what the title has besides its ending.
    pub fn create(session: &NewSession) -> Self {
        let ending = format!(" (@{} subagent)", session.agent);
        Self::Create {
            task: session.task.to_string(),
            parent: session.parent.as_ref().map(ToString::to_string),
            description: session
                .title
                .strip_suffix(&ending)
                .unwrap_or(&session.title)
                .to_owned(),
            agent: session.agent.to_string(),
            directory: session.directory.to_string(),
        }
    }

    /// The row of a task's prompt.
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

    /// The row of a message to a parent.
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

/// What a step came to.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResultRow {
    /// Its index in the file.
    pub step: usize,
    /// What it did.
    pub r#do: &'static str,
    /// When it was taken.
    pub at: i64,
    /// When it had its answer; null if it never had one.
    pub settled_at: Option<i64>,
    /// The answer.
    #[serde(flatten)]
    pub answer: Option<Answer>,
}

/// What a step was answered.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// With this.
    Value(Value),
    /// With an error.
    Error(String),
}

/// What a step gives.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A task.
    Task {
        /// Its alias.
        task: String,
        /// Where it stands.
        status: TaskStatus,
    },
    /// Whether anything was cancelled.
    Cancelled(bool),
}

/// The answer of a query.
#[derive(Debug, Clone, Serialize)]
pub struct QueryRow {
    /// When.
    pub at: i64,
    /// What was asked for.
    pub what: &'static str,
    /// Of which session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Aliases: a list, for `bySession` one or null.
    pub result: serde_json::Value,
}

/// What was there to see at one time.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// When.
    pub at: i64,
    /// What it is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The tasks in memory, in order of acceptance.
    pub tasks: IndexMap<String, TaskRow>,
    /// Slots in use, by key.
    pub slots: BTreeMap<String, SlotRow>,
    /// Tasks not settled, by parent.
    pub pending_by_parent: IndexMap<String, Vec<String>>,
    /// What each parent's tasks were.
    pub history: IndexMap<String, Vec<HistoryRow>>,
    /// What ticks.
    pub timers: Timers,
}

/// A task as seen.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRow {
    /// Where it stands.
    pub status: TaskStatus,
    /// Why it failed or was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What else there is to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Its session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Its parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// When it was accepted.
    pub queued_at: i64,
    /// When its session was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<i64>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<i64>,
    /// Tool calls seen.
    pub tool_calls: u32,
    /// The newest of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_tool: Option<String>,
}

/// The slots of a key.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotRow {
    /// How many are held.
    pub in_use: usize,
}

/// A task as its parent's history knows it.
#[derive(Debug, Clone, Serialize)]
pub struct HistoryRow {
    /// The task.
    pub task: String,
    /// Who does it.
    pub agent: String,
    /// A label of the caller's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Where it stands.
    pub status: TaskStatus,
    /// Its session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// What ticks.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Timers {
    /// Whether the server is being polled.
    pub polling: bool,
}
