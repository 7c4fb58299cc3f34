//! Converts tools, callers and tasks to MCP types. Pure.

use std::sync::Arc;

use greenroom::TaskDetail;
use greenroom::domain::ids::SessionId;
use greenroom::domain::task::TaskStatus;
use greenroom::domain::time::Timestamp;
use rmcp::model::{
    CallToolResult, ContentBlock, DetailedTask, JsonObject, MetaObject, Task, TaskPayload, Tool,
    ToolAnnotations,
};
use serde_json::{Value, json};

use crate::cli::client::TaskView;
use crate::cli::show;
use crate::tools::catalogue::Effect;
use crate::tools::{Caller, ToolInfo, ToolReply, catalogue};

/// Name of the argument with the caller's session.
const PARENT_SESSION_ARG: &str = "parent_session_id";
/// Name of the argument in which a hook of the host sets the session.
const HOOK_SESSION_ARG: &str = "__sessionID";
/// Recommended poll interval of an MCP task, in milliseconds.
const POLL_INTERVAL_MS: u64 = 2000;
/// JSON-RPC error code of a failed task.
const TASK_FAILED_CODE: i32 = -32000;

/// Returns the tools of `tools/list`.
pub fn tools() -> Vec<Tool> {
    catalogue().into_iter().map(tool).collect()
}

fn tool(info: ToolInfo) -> Tool {
    let mut schema = info.schema;
    schema["properties"][PARENT_SESSION_ARG] = json!({
        "type": "string",
        "description": "Your own session of the agent server, if you have one: it is notified when tasks end, and only its tasks \
            are within reach. Without it no session is notified, and all tasks are.",
    });
    let schema: JsonObject = schema.as_object().cloned().unwrap_or_default();
    let effect = info.effect;
    let annotations = ToolAnnotations::from_raw(
        Some(info.title.to_owned()),
        Some(effect == Effect::Reads),
        Some(effect == Effect::Ends),
        Some(effect != Effect::Adds),
        // Only a launched task can reach beyond the service.
        Some(effect == Effect::Adds),
    );
    Tool::new(info.name, info.description, Arc::new(schema))
        .with_title(info.title)
        .with_annotations(annotations)
}

/// Removes the session arguments and returns the caller. The value of the hook has precedence over the value of the model.
///
/// # Errors
/// Fails if a session argument is not a string.
pub fn caller(arguments: &mut JsonObject) -> Result<Caller, String> {
    let session = session(arguments, PARENT_SESSION_ARG)?;
    let from_hook = self::session(arguments, HOOK_SESSION_ARG)?;
    Ok(Caller {
        session: from_hook.or(session),
        ..Caller::default()
    })
}

fn session(arguments: &mut JsonObject, name: &str) -> Result<Option<SessionId>, String> {
    match arguments.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            let text = text.trim();
            let is_named = !text.is_empty() && !text.eq_ignore_ascii_case("null");
            Ok(is_named.then(|| SessionId::from(text)))
        }
        Some(_) => Err(format!("{name}: must be a text")),
    }
}

/// Converts a tool's reply.
pub fn result(reply: ToolReply) -> CallToolResult {
    let content = vec![ContentBlock::text(reply.output)];
    let mut result = if reply.is_error {
        CallToolResult::error(content)
    } else {
        CallToolResult::success(content)
    };
    if let Some(metadata) = reply.metadata {
        let mut meta = MetaObject::new();
        meta.0.insert("greenroom".to_owned(), metadata);
        result.meta = Some(meta);
    }
    result
}

/// Returns the state of a task in one line.
pub fn progress(detail: &TaskDetail, now: Timestamp) -> String {
    let view = TaskView {
        task: detail.task.clone(),
        waits_for: detail.waits_for.clone(),
    };
    let since = match detail.task.started_at() {
        Some(_) => detail.task.duration(now),
        None => now.since(detail.task.queued_at),
    };
    show::progress(&view, since)
}

/// Converts a launched task to an MCP task. Both have the same id, which stays valid over reconnects and restarts.
pub fn task(detail: &TaskDetail, now: Timestamp) -> Task {
    let task = &detail.task;
    let updated = task
        .completed_at()
        .unwrap_or_else(|| task.progress.last_update.max(task.queued_at));
    let status = match task.status() {
        TaskStatus::Pending | TaskStatus::Running => rmcp::model::TaskStatus::Working,
        TaskStatus::Completed => rmcp::model::TaskStatus::Completed,
        TaskStatus::Error | TaskStatus::Interrupt => rmcp::model::TaskStatus::Failed,
        TaskStatus::Cancelled => rmcp::model::TaskStatus::Cancelled,
    };
    Task::new(
        task.id.as_str(),
        status,
        task.queued_at.to_string(),
        updated.to_string(),
    )
    .with_poll_interval_ms(POLL_INTERVAL_MS)
    .with_status_message(match task.error() {
        Some(error) => error.to_owned(),
        None => progress(detail, now),
    })
}

/// Converts a task with its result; `result` is the tool result of a completed task.
pub fn detailed(
    detail: &TaskDetail,
    result: Option<CallToolResult>,
    now: Timestamp,
) -> DetailedTask {
    let payload = match detail.task.status() {
        TaskStatus::Pending | TaskStatus::Running => TaskPayload::Working,
        TaskStatus::Cancelled => TaskPayload::Cancelled,
        TaskStatus::Completed => TaskPayload::Completed {
            result: object(json!(result)),
        },
        TaskStatus::Error | TaskStatus::Interrupt => {
            let message = detail.task.error().unwrap_or("the task failed");
            TaskPayload::Failed {
                error: object(json!({ "code": TASK_FAILED_CODE, "message": message })),
            }
        }
    };
    DetailedTask::new(task(detail, now), payload)
}

fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(fields) => fields,
        _ => JsonObject::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_annotations_match_effects() {
        let lines: Vec<String> = tools()
            .into_iter()
            .map(|tool| {
                assert!(tool.input_schema["properties"][PARENT_SESSION_ARG].is_object());
                let hints = tool.annotations.unwrap();
                let label = |hint: Option<bool>, name: &str| match hint {
                    Some(true) => format!(" {name}"),
                    _ => String::new(),
                };
                format!(
                    "{}:{}{}{}{}",
                    tool.name,
                    label(hints.read_only_hint, "reads"),
                    label(hints.destructive_hint, "ends"),
                    label(hints.idempotent_hint, "repeatable"),
                    label(hints.open_world_hint, "open"),
                )
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        background_task: open
        background_output: reads repeatable
        background_cancel: ends repeatable
        background_send: open
        background_list: reads repeatable
        ");
    }

    #[test]
    fn hook_session_overrides_model_session() {
        let caller_of = |given: Value| {
            let mut arguments = object(given);
            let caller = caller(&mut arguments)?.session;
            assert!(
                !arguments.contains_key(PARENT_SESSION_ARG)
                    && !arguments.contains_key(HOOK_SESSION_ARG)
            );
            Ok::<_, String>(caller.map(|session| session.as_str().to_owned()))
        };
        let both = json!({"parent_session_id": "ses_forged", "__sessionID": "ses_1"});
        assert_eq!(caller_of(both), Ok(Some("ses_1".to_owned())));
        let named = json!({"parent_session_id": " ses_2 "});
        assert_eq!(caller_of(named), Ok(Some("ses_2".to_owned())));
        assert_eq!(caller_of(json!({"parent_session_id": "null"})), Ok(None));
        assert!(caller_of(json!({"parent_session_id": 5})).is_err());
    }
}
