//! What a message to a parent says, as facts. Its wording is made of them in `notification.rs`.

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
    /// The tasks it tells of, in the order they settled (a final: in the order they joined).
    pub tasks: Vec<SettledFact>,
    /// How many of the batch were still open when it was composed; zero for a final.
    pub remaining: usize,
}

/// The two kinds of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum NoticeKind {
    /// Some of a batch have settled.
    Individual,
    /// It closes the batch.
    Final,
}

/// What was true of a task when it settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SettledFact {
    /// The task.
    pub task: TaskId,
    /// Its end.
    pub status: TaskStatus,
    /// Its description.
    pub description: Arc<str>,
    /// How long it took, as people read it.
    pub duration: Arc<str>,
    /// Why it failed or was cancelled, at most 2,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<str>>,
}
