//! Implements the tool interface of the bridge. The plugin's call context identifies the caller.

use async_trait::async_trait;
use greenroom::domain::history::markdown;
use greenroom::domain::ids::SessionId;
use greenroom::domain::task::Task;
use greenroom_bridge::{ToolAnswer, ToolCall, ToolDispatcher};
use serde_json::json;

use super::{Caller, Tools};

#[async_trait]
impl ToolDispatcher for Tools {
    async fn call(&self, call: ToolCall) -> ToolAnswer {
        let context = call.context;
        // Only the process of a top-level session ends with its turn.
        let ends_with_turn = context.ends_with_turn
            && self
                .greenroom()
                .find(context.session_id.as_str())
                .await
                .is_none();
        let caller = Caller {
            ends_with_turn,
            session: Some(context.session_id),
            message: context.message_id,
            agent: context.agent,
            call: context.call_id,
            directory: context.directory,
        };
        let reply = Tools::call(self, &call.tool, call.args, &caller).await;
        let refused = reply.is_error.then(|| json!({ "error": true }));
        ToolAnswer {
            output: reply.output,
            title: reply.title,
            metadata: reply.metadata.or(refused),
        }
    }

    async fn compaction(&self, session: &SessionId) -> Option<String> {
        let history = self.greenroom().history(session).await;
        if history.is_empty() {
            return None;
        }
        let mut open = self.greenroom().tasks_of(session, false).await;
        open.retain(|task| !task.status().is_terminal());
        Some(format!("{}{}", markdown(&history), open_tasks_note(&open)))
    }
}

/// Maximum number of tasks named in a compaction summary.
const MAX_NAMED: usize = 50;

/// Returns a note about open tasks for a compaction summary; empty if no task is open.
fn open_tasks_note(open: &[Task]) -> String {
    if open.is_empty() {
        return String::new();
    }
    let names: Vec<String> = open
        .iter()
        .take(MAX_NAMED)
        .map(|task| format!("`{}`", task.id))
        .collect();
    let more = match open.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "Still open: {}{more}. You will be notified when they end: do not poll, and do not launch them again.\n",
        names.join(", ")
    )
}
