//! The tools as the bridge calls them for agents of opencode: who calls is what the plugin says of the call.

use async_trait::async_trait;
use greenroom::domain::history::markdown;
use greenroom::domain::ids::SessionId;
use greenroom::domain::task::Task;
use greenroom_bridge::{ToolAnswer, ToolCall, ToolDesk};
use serde_json::json;

use super::{Caller, Tools};

#[async_trait]
impl ToolDesk for Tools {
    async fn call(&self, call: ToolCall) -> ToolAnswer {
        let context = call.context;
        // Only the session that somebody has begun ends it, not those of its tasks.
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
        Some(format!("{}{}", markdown(&history), still_open(&open)))
    }
}

/// Tasks that a summary names as open.
const NAMED: usize = 50;

/// What a session must know of its open tasks after it has forgotten how it launched them; nothing if none is open.
fn still_open(open: &[Task]) -> String {
    if open.is_empty() {
        return String::new();
    }
    let names: Vec<String> = open
        .iter()
        .take(NAMED)
        .map(|task| format!("`{}`", task.id))
        .collect();
    let more = match open.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "Still open: {}{more}. You will be told when they end: do not poll, and do not launch them again.\n",
        names.join(", ")
    )
}
