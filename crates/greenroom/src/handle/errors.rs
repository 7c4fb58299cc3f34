//! Errors of the handle's calls: one enum per operation. The enums are exhaustive on purpose: a host that handles each
//! variant gets a compiler error for a new one.

use crate::domain::ids::{SessionId, TaskId};
use crate::domain::task::Task;
use crate::ports::agent_server::ServerError;

/// The reason why a launch was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// A field is missing, blank or too large.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as JSON names it.
        field: &'static str,
        /// The problem with the value.
        problem: String,
    },
    /// The key was used before for another launch.
    #[error("the key {key:?} was used for another launch")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// The task would exceed the maximum depth of descendants.
    #[error("depth {depth} is more than {limit}")]
    TooDeep {
        /// The depth of the task.
        depth: u32,
        /// The limit, `safety.max_depth`.
        limit: u32,
    },
    /// The queue is full.
    #[error("{waiting} tasks wait already")]
    QueueFull {
        /// The number of waiting tasks.
        waiting: usize,
    },
    /// The texts of the waiting tasks are too large.
    #[error(
        "the waiting tasks have {waiting} bytes of text; with this one they would exceed {limit}"
    )]
    QueueTooLarge {
        /// The size of the prompts and skill contents of the waiting tasks, in bytes.
        waiting: u64,
        /// The limit, `limits.max_waiting_bytes`.
        limit: u64,
    },
    /// The system is shutting down.
    #[error("greenroom is shutting down")]
    ShuttingDown,
    /// The system failed during the call and restarts. The call may have been accepted.
    #[error(
        "greenroom failed during this call and is restarting; check whether the call was accepted, then repeat it"
    )]
    Interrupted,
    /// The change could not be made durable.
    #[error("the journal cannot be written: {0}")]
    Journal(String),
}

/// The reason why a resume was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ResumeError {
    /// No task has that session.
    #[error("no task has session {0}")]
    UnknownSession(SessionId),
    /// The task of the session is running or pending.
    #[error("the task of session {0} is already {1}")]
    AlreadyRunning(SessionId, &'static str),
    /// The user has reverted messages of the session and can still restore them. A prompt would delete them.
    #[error("session {0} is reverted: a prompt would delete what its user can still restore")]
    SessionReverted(SessionId),
    /// A field is missing, blank or too large.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as JSON names it.
        field: &'static str,
        /// The problem with the value.
        problem: String,
    },
    /// The queue is full.
    #[error("{waiting} tasks wait already")]
    QueueFull {
        /// The number of waiting tasks.
        waiting: usize,
    },
    /// The texts of the waiting tasks are too large.
    #[error(
        "the waiting tasks have {waiting} bytes of text; with this one they would exceed {limit}"
    )]
    QueueTooLarge {
        /// The size of the prompts and skill contents of the waiting tasks, in bytes.
        waiting: u64,
        /// The limit, `limits.max_waiting_bytes`.
        limit: u64,
    },
    /// The system is shutting down.
    #[error("greenroom is shutting down")]
    ShuttingDown,
    /// The system failed during the call and restarts. The call may have been accepted.
    #[error(
        "greenroom failed during this call and is restarting; check whether the call was accepted, then repeat it"
    )]
    Interrupted,
    /// The change could not be made durable.
    #[error("the journal cannot be written: {0}")]
    Journal(String),
}

/// The reason why limits were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// The system is shutting down.
    #[error("greenroom is shutting down")]
    ShuttingDown,
    /// The system restarts after an internal failure.
    #[error(
        "greenroom is restarting after an internal failure; the limits are unchanged, set them again later"
    )]
    Interrupted,
}

/// The reason why a track was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrackError {
    /// A field is missing, blank or too large.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as JSON names it.
        field: &'static str,
        /// The problem with the value.
        problem: String,
    },
    /// The system is shutting down.
    #[error("greenroom is shutting down")]
    ShuttingDown,
    /// The system failed during the call and restarts. The call may have been accepted.
    #[error(
        "greenroom failed during this call and is restarting; check whether the call was accepted, then repeat it"
    )]
    Interrupted,
    /// The change could not be made durable.
    #[error("the journal cannot be written: {0}")]
    Journal(String),
}

/// The reason why a task was not cancelled.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CancelError {
    /// The task is unknown.
    #[error("no task {0}")]
    Unknown(TaskId),
    /// The task has already ended. Nothing changed.
    #[error("task {} is {}", .0.id, .0.status().as_str())]
    NotCancellable(Box<Task>),
}

/// The reason why a further prompt was not sent.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SendError {
    /// The task is unknown.
    #[error("no task {0}")]
    Unknown(TaskId),
    /// The task is not running.
    #[error("task {} is {}", .0.id, .0.status().as_str())]
    NotRunning(Box<Task>),
    /// The user has reverted messages of the session and can still restore them. A prompt would delete them.
    #[error("session {0} is reverted: a prompt would delete what its user can still restore")]
    SessionReverted(SessionId),
    /// A field is missing, blank or too large.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as JSON names it.
        field: &'static str,
        /// The problem with the value.
        problem: String,
    },
    /// The agent server did not accept the prompt.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// The reason why no output was returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// The session has no such message.
    #[error("the session has no message {0}")]
    UnknownMessage(String),
    /// The task is unknown.
    #[error("no task {0}")]
    Unknown(String),
    /// The agent server did not return the messages.
    #[error(transparent)]
    Server(#[from] ServerError),
}
