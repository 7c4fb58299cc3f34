//! The correlation tag in the metadata of sessions and prompts. It finds a session or prompt after a call with an
//! unknown outcome. Pure.

use serde::Serialize;
use serde_json::{Value, json};

use super::ids::{Run, TaskId};

/// The owner of a session or prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CorrelationTag {
    /// The task.
    pub task: TaskId,
    /// Its run.
    pub run: Run,
    /// The attempt within the run, from 1.
    pub attempt: u32,
    /// The number of the prompt within the run; none on a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<u32>,
}

impl CorrelationTag {
    /// Returns the metadata for the agent server. The key separates it from the metadata of other programs.
    pub fn metadata(&self) -> Value {
        json!({ "greenroom": self })
    }

    /// Returns true if the metadata contains this tag.
    pub fn is_in(&self, metadata: &Value) -> bool {
        metadata.get("greenroom") == Some(&json!(self))
    }
}
