//! Handlers for tasks: launch, list, read, wait, cancel, send, track.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::web::{Data, Path};
use greenroom::domain::ids::SessionId;
use greenroom::domain::output::{Output, OutputOptions};
use greenroom::domain::task::{Launch, Task, TaskStatus, Track, or_default};
use greenroom::{
    CancelError, CancelOptions, CancelScope, ListFilter, TaskDetail, TaskPage, TaskTimeline,
    WaitFor, WaitsFor,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::app::Api;
use super::error::ApiError;
use super::input::{Body, Params, flag, flag_schema};
use super::operation::{Either, Json};

/// Maximum time of a blocking read.
pub(crate) const MAX_WAIT_MS: u64 = 600_000;
/// Default time of a blocking read.
pub(crate) const DEFAULT_WAIT_MS: u64 = 60_000;

/// `POST /v1/tasks`: returns after acceptance. A repeated `Idempotency-Key` returns the existing task with 200.
pub async fn launch(
    api: Data<Api>,
    request: HttpRequest,
    launch: Body<Launch>,
) -> Result<Either<Json<Task, 201>, Json<Task>>, ApiError> {
    let Some(key) = request.headers().get("idempotency-key") else {
        let task = api.greenroom.launch(launch.0).await?;
        return Ok(Either::Primary(Json(task)));
    };
    let key = key
        .to_str()
        .map_err(|_| ApiError::invalid("Idempotency-Key: must be visible ASCII"))?;
    let (task, repeated) = api.greenroom.launch_once(key.to_owned(), launch.0).await?;
    Ok(if repeated {
        Either::Secondary(Json(task))
    } else {
        Either::Primary(Json(task))
    })
}

/// The query of the list of tasks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListQuery {
    /// States, with commas between them.
    #[schemars(regex(
        pattern = "^((pending|running|completed|error|cancelled|interrupt)(,|$))*$"
    ))]
    status: Option<String>,
    /// Only tasks of this parent.
    #[serde(rename = "parentSessionID")]
    parent_session: Option<SessionId>,
    /// Only tasks of this agent.
    agent: Option<String>,
    /// At most so many; 100 without it.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
    /// The nextCursor of the page before.
    #[schemars(regex(pattern = "^[0-9]{1,19}$"))]
    cursor: Option<String>,
}

/// `GET /v1/tasks`: newest first.
pub async fn list(api: Data<Api>, query: Params<ListQuery>) -> Result<Json<TaskPage>, ApiError> {
    let ListQuery {
        status,
        parent_session,
        agent,
        limit,
        cursor,
    } = query.0;
    if limit.is_some_and(|limit| !(1..=1000).contains(&limit)) {
        return Err(ApiError::query("limit: a number from 1 to 1000"));
    }
    let statuses = statuses(status.as_deref().unwrap_or_default()).map_err(ApiError::query)?;
    if cursor
        .as_deref()
        .is_some_and(|cursor| cursor.parse::<u64>().is_err())
    {
        return Err(ApiError::unreadable(
            "invalid_query",
            "cursor: no page begins there",
            "use the nextCursor of the page before",
        ));
    }
    let mut page = api
        .greenroom
        .list(ListFilter {
            statuses,
            parent_session,
            agent,
            limit,
            cursor,
        })
        .await;
    page.tasks.iter_mut().for_each(Task::truncate_texts);
    Ok(Json(page))
}

/// Parses comma-separated states; an empty list for an empty text.
pub(crate) fn statuses(text: &str) -> Result<Vec<TaskStatus>, String> {
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    names
        .map(|name| {
            TaskStatus::ALL
                .into_iter()
                .find(|status| status.as_str() == name)
                .ok_or_else(|| {
                    let known: Vec<&str> = TaskStatus::ALL
                        .iter()
                        .map(|status| status.as_str())
                        .collect();
                    format!(
                        "status: {:?} is none of {}",
                        greenroom::domain::task::cut(name, 60),
                        known.join(", ")
                    )
                })
        })
        .collect()
}

async fn find(api: &Api, name: &str) -> Result<TaskDetail, ApiError> {
    api.greenroom
        .find(name)
        .await
        .ok_or_else(|| ApiError::task_not_found(name))
}

/// A task, and what it waits for.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ShownTask")]
pub struct TaskResponse {
    #[serde(flatten)]
    task: Task,
    /// Why it waits, if it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<WaitsFor>,
}

/// The query of one task.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskQuery {
    /// The whole prompt and skillContent rather than their first 200 characters.
    #[serde(default, deserialize_with = "flag")]
    #[schemars(schema_with = "flag_schema")]
    full: bool,
}

/// `GET /v1/tasks/{id}`: the task, with the reason why it waits.
pub async fn get(
    api: Data<Api>,
    id: Path<String>,
    query: Params<TaskQuery>,
) -> Result<Json<TaskResponse>, ApiError> {
    let TaskDetail {
        mut task,
        waits_for,
        ..
    } = find(&api, &id).await?;
    if !query.0.full {
        task.truncate_texts();
    }
    Ok(Json(TaskResponse { task, waits_for }))
}

/// `GET /v1/tasks/{id}/why`: the timeline of a task, with the reason why it waits.
pub async fn why(api: Data<Api>, id: Path<String>) -> Result<Json<TaskTimeline>, ApiError> {
    let why = api.greenroom.why(&id).await;
    Ok(Json(why.ok_or_else(|| ApiError::task_not_found(&id))?))
}

/// The query of an output.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutputQuery {
    /// Wait for the end of the run.
    #[serde(default, deserialize_with = "flag")]
    #[schemars(schema_with = "flag_schema")]
    block: bool,
    /// How long to wait at most, in milliseconds: 60,000 without it, never more than 600,000.
    timeout_ms: Option<u64>,
    /// The messages of the whole session.
    #[serde(default, deserialize_with = "flag")]
    #[schemars(schema_with = "flag_schema")]
    full_session: bool,
    /// Reasoning too; without fullSession only the answer's reasoning.
    #[serde(default, deserialize_with = "flag")]
    #[schemars(schema_with = "flag_schema")]
    include_thinking: bool,
    /// Outputs of tools too; without fullSession only the answer's tools.
    #[serde(default, deserialize_with = "flag")]
    #[schemars(schema_with = "flag_schema")]
    include_tool_results: bool,
    /// At most so many messages: 100 without it, never more.
    #[schemars(range(min = 1))]
    message_limit: Option<usize>,
    /// The newest messages rather than the oldest.
    #[serde(default, deserialize_with = "flag")]
    #[schemars(schema_with = "flag_schema")]
    from_end: bool,
    /// Only messages after that one.
    #[serde(rename = "sinceMessageID")]
    since_message: Option<String>,
    /// Reasoning is cut to so many characters; 2,000 without it.
    thinking_max_chars: Option<usize>,
    /// Read the result from so many characters on: how to go on in one that was cut.
    result_offset: Option<usize>,
}

/// `GET /v1/tasks/{id}/output`: the result or the messages, after the end of the run with `block`.
pub async fn output(
    api: Data<Api>,
    id: Path<String>,
    query: Params<OutputQuery>,
) -> Result<Json<Output>, ApiError> {
    let query = query.0;
    if query.message_limit == Some(0) {
        return Err(ApiError::query("messageLimit: at least 1"));
    }
    let task = find(&api, &id).await?.task;
    let mut timed_out = None;
    if query.block && !task.status().is_terminal() {
        let limit = query.timeout_ms.unwrap_or(DEFAULT_WAIT_MS).min(MAX_WAIT_MS);
        let end = api.greenroom.wait(&task.id, task.run, WaitFor::Ended);
        timed_out = tokio::time::timeout(Duration::from_millis(limit), end)
            .await
            .is_err()
            .then_some(true);
    }
    let options = OutputOptions {
        full_session: query.full_session,
        include_thinking: query.include_thinking,
        include_tool_results: query.include_tool_results,
        message_limit: query.message_limit,
        from_end: query.from_end,
        since_message: query.since_message,
        thinking_max_chars: query.thinking_max_chars,
        result_offset: query.result_offset.unwrap_or(0),
    };
    // By task id: the session may belong to another task after the wait.
    let mut output = api.greenroom.output(task.id.as_str(), options).await?;
    // The run may have ended after the time limit.
    output.timed_out = timed_out.filter(|_| !output.task.status().is_terminal());
    Ok(Json(output))
}

/// The body of a cancel.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CancelBody {
    /// The reason: kept as the task's error and sent to the parent.
    reason: Option<String>,
    /// Keep it out of the parent's messages.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<bool>")]
    skip_notification: bool,
    /// Abort its session; true without it.
    abort_session: Option<bool>,
    /// All tasks below it too.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<bool>")]
    descendants: bool,
}

/// Maximum length of a reason, in characters.
const MAX_REASON_CHARS: usize = 2000;

fn check_reason(reason: Option<String>) -> Result<Option<String>, ApiError> {
    match reason {
        Some(reason) if reason.chars().count() > MAX_REASON_CHARS => Err(ApiError::invalid(
            format!("reason: longer than {MAX_REASON_CHARS} characters"),
        )),
        reason => Ok(reason.filter(|reason| !reason.trim().is_empty())),
    }
}

/// `POST /v1/tasks/{id}/cancel`: the cancelled task, or 409 if it has already ended.
pub async fn cancel(
    api: Data<Api>,
    id: Path<String>,
    body: Body<CancelBody>,
) -> Result<Json<Task>, ApiError> {
    let CancelBody {
        reason,
        skip_notification,
        abort_session,
        descendants,
    } = body.0;
    let reason = check_reason(reason)?;
    let task = find(&api, &id).await?.task;
    let options = CancelOptions {
        reason,
        skip_notification,
        abort_session: abort_session.unwrap_or(true),
        ..CancelOptions::default()
    };
    if !descendants {
        return Ok(Json(api.greenroom.cancel(&task.id, options).await?));
    }
    let cancelled = api
        .greenroom
        .cancel_all(CancelScope::Tree(task.id.clone()), options)
        .await;
    let after = find(&api, task.id.as_str()).await?.task;
    if cancelled.is_empty() {
        return Err(CancelError::NotCancellable(Box::new(after)).into());
    }
    Ok(Json(after))
}

/// The body of a cancel of several: either a session or all.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CancelSeveralBody {
    /// All tasks below that session.
    #[serde(rename = "parentSessionID")]
    parent_session: Option<SessionId>,
    /// All there are.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<bool>")]
    all: bool,
    /// The reason: kept as the tasks' error and sent to their parents.
    reason: Option<String>,
    /// Keep them out of their parents' messages.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<bool>")]
    skip_notification: bool,
}

/// The cancelled tasks.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Cancelled {
    /// Oldest first.
    cancelled: Vec<Task>,
}

/// `POST /v1/tasks/cancel`: cancels all tasks below a session, or all tasks.
pub async fn cancel_several(
    api: Data<Api>,
    body: Body<CancelSeveralBody>,
) -> Result<Json<Cancelled>, ApiError> {
    let CancelSeveralBody {
        parent_session,
        all,
        reason,
        skip_notification,
    } = body.0;
    let scope = match (parent_session, all) {
        (Some(session), false) => CancelScope::Descendants(session),
        (None, true) => CancelScope::All,
        _ => {
            return Err(ApiError::invalid(
                "give either parentSessionID or all: true",
            ));
        }
    };
    let options = CancelOptions {
        reason: check_reason(reason)?,
        skip_notification,
        ..CancelOptions::default()
    };
    let mut cancelled = api.greenroom.cancel_all(scope, options).await;
    cancelled.iter_mut().for_each(Task::truncate_texts);
    Ok(Json(Cancelled { cancelled }))
}

/// The body of a further prompt.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendBody {
    /// The prompt for the agent.
    #[schemars(regex(pattern = r"\S"))]
    prompt: String,
}

/// `POST /v1/tasks/{id}/send`: sends a further prompt to a running task.
pub async fn send(
    api: Data<Api>,
    id: Path<String>,
    body: Body<SendBody>,
) -> Result<Json<Task, 202>, ApiError> {
    let task = find(&api, &id).await?.task;
    Ok(Json(api.greenroom.send(&task.id, body.0.prompt).await?))
}

/// `POST /v1/tasks/track`: adopts a session started elsewhere.
pub async fn track(api: Data<Api>, track: Body<Track>) -> Result<Json<Task>, ApiError> {
    Ok(Json(api.greenroom.track(track.0).await?))
}
