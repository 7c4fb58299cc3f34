//! What our sessions and prompts carry in their metadata: whose they are. By it one is found again after a call of unknown
//! fate. Pure.

use serde::Serialize;
use serde_json::{Value, json};

use super::ids::{Run, TaskId};

/// Whose a session or a prompt is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CorrelationTag {
    /// The task.
    pub task: TaskId,
    /// Its run.
    pub run: Run,
    /// The try within the run, from 1.
    pub attempt: u32,
    /// The number of the prompt within the run; none on a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<u32>,
}

impl CorrelationTag {
    /// As the agent server keeps it: under a key of ours, since others have metadata too.
    pub fn metadata(&self) -> Value {
        json!({ "greenroom": self })
    }

    /// True if that metadata is this mark.
    pub fn is_in(&self, metadata: &Value) -> bool {
        metadata.get("greenroom") == Some(&json!(self))
    }
}
