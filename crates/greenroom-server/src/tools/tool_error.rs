//! The errors of tools: the problem, and the next step for an agent with tools. The messages equal the messages of the HTTP API.

use greenroom::domain::task::{Task, cut};
use greenroom::{LaunchError, OutputError, ResumeError, SendError};

use crate::http::ApiError;

/// Why a tool call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolError {
    /// The error message.
    pub message: String,
    /// What the agent can do; empty if the message contains it.
    pub hint: String,
}

impl ToolError {
    /// Creates an error.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// Invalid arguments.
    pub fn arguments(problems: String) -> Self {
        Self::new(problems, "Correct the arguments and call again.")
    }

    /// No task with this name is in scope.
    pub fn task_not_found(name: &str) -> Self {
        Self::new(
            format!("there is no task {:?} of yours", cut(name, 100)),
            "background_list shows the tasks that you launched.",
        )
    }

    /// No session with this name is in scope.
    pub fn session_not_found(name: &str) -> Self {
        Self::new(
            format!(
                "there is no task of yours with session {:?}",
                cut(name, 100)
            ),
            "background_list shows the sessions that can be resumed; leave session_id out to start a new task.",
        )
    }

    /// The task has already ended.
    pub fn ended(task: &Task) -> Self {
        Self::new(
            format!(
                "task {} is {} already; nothing changed",
                task.id,
                task.status().as_str()
            ),
            format!("Read it with background_output(task_id=\"{}\").", task.id),
        )
    }

    /// The task takes no further prompt now.
    pub fn not_running(task: &Task) -> Self {
        let message = format!("task {} is {}", task.id, task.status().as_str());
        let hint = match &task.session {
            Some(session) if task.status().is_terminal() => {
                format!("Resume it with background_task(session_id=\"{session}\", prompt=…).")
            }
            _ if task.status().is_terminal() => {
                "It never started; launch a new one with background_task.".to_owned()
            }
            _ => "It has not started yet. Cancel it and launch it again with another prompt, or wait until you are notified that it ended.".to_owned(),
        };
        Self::new(message, hint)
    }

    /// Returns the text for the agent.
    pub fn text(&self) -> String {
        match self.hint.as_str() {
            "" => format!("Error: {}", self.message),
            hint => format!("Error: {}\n{hint}", self.message),
        }
    }
}

/// Replaces hints about HTTP with hints about tools.
impl From<ApiError> for ToolError {
    fn from(error: ApiError) -> Self {
        let hint = match error.code {
            "too_deep" => "Do it yourself: tasks of tasks end here.",
            "queue_full" => "Do it yourself, or launch it once some of the others have ended.",
            "interrupted" => "background_list shows whether it was accepted; if not, call again.",
            "shutting_down" => "Do it yourself, or call again later.",
            "invalid_value" => "Correct the arguments and call again.",
            "session_reverted" => {
                "Its user has reverted it: leave it alone, and launch a new task if the work cannot wait."
            }
            "agent_server_unreachable" => "Call again later.",
            _ => &error.hint,
        };
        Self::new(error.message, hint)
    }
}

impl From<LaunchError> for ToolError {
    fn from(error: LaunchError) -> Self {
        ApiError::from(error).into()
    }
}

impl From<ResumeError> for ToolError {
    fn from(error: ResumeError) -> Self {
        if let ResumeError::UnknownSession(session) = &error {
            return Self::session_not_found(session.as_str());
        }
        let running = matches!(error, ResumeError::AlreadyRunning(..));
        let mut refusal = Self::from(ApiError::from(error));
        if running {
            refusal.hint = "Give it a further instruction with background_send.".to_owned();
        }
        refusal
    }
}

impl From<SendError> for ToolError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Unknown(task) => Self::task_not_found(task.as_str()),
            SendError::NotRunning(task) => Self::not_running(&task),
            error => ApiError::from(error).into(),
        }
    }
}

impl From<OutputError> for ToolError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Unknown(name) => Self::task_not_found(&name),
            OutputError::UnknownMessage(_) => Self::new(
                format!("since_message_id: {error}"),
                "Leave it out, or give the id of a message of this task.",
            ),
            error => ApiError::from(error).into(),
        }
    }
}
