//! The facts of a message to a parent. `notification.rs` renders them as text.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ids::TaskId;
use super::task::TaskStatus;

/// The facts of one message to a parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct NoticeFacts {
    /// `individual` or `final`.
    pub kind: NoticeKind,
    /// The reported tasks, in the order of settling (a final: in the order of joining).
    pub tasks: Vec<SettledFact>,
    /// The number of open tasks of the batch when the message was composed; zero for a final.
    pub remaining: usize,
}

/// The kinds of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum NoticeKind {
    /// Reports some settled tasks of a batch.
    Individual,
    /// Closes the batch.
    Final,
    /// Prompts a parent to continue whose turn after another message was cut off.
    Continue,
}

/// The facts of a settled task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SettledFact {
    /// The task.
    pub task: TaskId,
    /// The final state.
    pub status: TaskStatus,
    /// Its description.
    pub description: Arc<str>,
    /// The duration as text.
    pub duration: Arc<str>,
    /// The reason of a failure or cancel, at most 2,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<str>>,
}
