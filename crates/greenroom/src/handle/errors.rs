//! TaskTimeline a call of a user was refused: one enum per operation, with what a person needs to know.
//! They are exhaustive on purpose: a host that answers each in its own way should be told by the compiler of a new one.

use crate::domain::ids::{SessionId, TaskId};
use crate::domain::task::Task;
use crate::ports::agent_server::ServerError;

/// TaskTimeline a launch was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// A field is missing, blank or too large.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as JSON names it.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The key was used before for another launch.
    #[error("the key {key:?} was used for another launch")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// A task of a task of a task …
    #[error("depth {depth} is more than {limit}")]
    TooDeep {
        /// How deep it would be.
        depth: u32,
        /// `safety.max_depth`
        limit: u32,
    },
    /// Too many wait already.
    #[error("{waiting} tasks wait already")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// The system is shutting down.
    #[error("greenroom is shutting down")]
    ShuttingDown,
    /// The system failed over it and is being put together again: it may have been accepted.
    #[error(
        "greenroom failed over this call and is being put together again; look whether it was accepted, then repeat it"
    )]
    Interrupted,
    /// The change could not be made durable.
    #[error("the journal cannot be written: {0}")]
    Journal(String),
}

/// TaskTimeline a resume was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ResumeError {
    /// No task has that session.
    #[error("no task has session {0}")]
    UnknownSession(SessionId),
    /// Its task runs or is being resumed.
    #[error("the task of session {0} is already {1}")]
    AlreadyRunning(SessionId, &'static str),
    /// A field is missing, blank or too large.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as JSON names it.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Too many wait already.
    #[error("{waiting} tasks wait already")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// The system is shutting down.
    #[error("greenroom is shutting down")]
    ShuttingDown,
    /// The system failed over it and is being put together again: it may have been accepted.
    #[error(
        "greenroom failed over this call and is being put together again; look whether it was accepted, then repeat it"
    )]
    Interrupted,
    /// The change could not be made durable.
    #[error("the journal cannot be written: {0}")]
    Journal(String),
}

/// TaskTimeline limits were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// The system is shutting down.
    #[error("greenroom is shutting down")]
    ShuttingDown,
    /// The system is being put together again.
    #[error(
        "greenroom is being put together again after a failure of its own; the limits are as they were, set them again in a while"
    )]
    Interrupted,
}

/// TaskTimeline a track was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrackError {
    /// A field is missing, blank or too large.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as JSON names it.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The system is shutting down.
    #[error("greenroom is shutting down")]
    ShuttingDown,
    /// The system failed over it and is being put together again: it may have been accepted.
    #[error(
        "greenroom failed over this call and is being put together again; look whether it was accepted, then repeat it"
    )]
    Interrupted,
    /// The change could not be made durable.
    #[error("the journal cannot be written: {0}")]
    Journal(String),
}

/// TaskTimeline nothing was cancelled.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CancelError {
    /// No such task.
    #[error("no task {0}")]
    Unknown(TaskId),
    /// It has ended already; nothing changed.
    #[error("task {} is {}", .0.id, .0.status().as_str())]
    NotCancellable(Box<Task>),
}

/// TaskTimeline a further prompt was not sent.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SendError {
    /// No such task.
    #[error("no task {0}")]
    Unknown(TaskId),
    /// It has no session that works.
    #[error("task {} is {}", .0.id, .0.status().as_str())]
    NotRunning(Box<Task>),
    /// A field is missing, blank or too large.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as JSON names it.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The agent server did not take it.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// TaskTimeline there is no output to show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// The session has no such message.
    #[error("the session has no message {0}")]
    UnknownMessage(String),
    /// No such task.
    #[error("no task {0}")]
    Unknown(String),
    /// The agent server did not give the messages.
    #[error(transparent)]
    Server(#[from] ServerError),
}
