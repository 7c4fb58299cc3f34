//! Calls about tasks: launch, look, wait, cancel, steer, adopt.

use std::time::Duration;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use greenroom::domain::ids::SessionId;
use greenroom::domain::output::OutputOptions;
use greenroom::domain::task::{Launch, TaskStatus, Track};
use greenroom::{CancelError, CancelOptions, CancelScope, ListFilter, TaskDetail, WaitFor};
use serde::Deserialize;
use serde_json::json;

use super::app::Api;
use super::error::ApiError;
use super::input::{Body, Params, switch};

/// How long a blocking read waits at most.
const LONGEST_WAIT_MS: u64 = 600_000;
/// How long it waits if the caller does not say.
const USUAL_WAIT_MS: u64 = 60_000;

/// `POST /v1/tasks`: accepted, and answered at once. Repeated under its `Idempotency-Key` it is the same task, with 200.
pub async fn launch(
    api: Data<Api>,
    request: HttpRequest,
    launch: Body<Launch>,
) -> Result<HttpResponse, ApiError> {
    let Some(key) = request.headers().get("idempotency-key") else {
        return Ok(HttpResponse::Created().json(api.greenroom.launch(launch.0).await?));
    };
    let key = key
        .to_str()
        .map_err(|_| ApiError::invalid("Idempotency-Key: must be visible ASCII"))?;
    let (task, repeated) = api.greenroom.launch_once(key.to_owned(), launch.0).await?;
    let mut answer = if repeated {
        HttpResponse::Ok()
    } else {
        HttpResponse::Created()
    };
    Ok(answer.json(task))
}

/// The query of the list of tasks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListQuery {
    status: Option<String>,
    #[serde(rename = "parentSessionID")]
    parent_session: Option<SessionId>,
    agent: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// `GET /v1/tasks`: newest first.
pub async fn list(api: Data<Api>, query: Params<ListQuery>) -> Result<HttpResponse, ApiError> {
    let ListQuery {
        status,
        parent_session,
        agent,
        limit,
        cursor,
    } = query.0;
    let bad = |problem: String| {
        ApiError::unreadable(
            "invalid_query",
            format!("query: {problem}"),
            "correct the parameter, or leave it out",
        )
    };
    if limit.is_some_and(|limit| !(1..=1000).contains(&limit)) {
        return Err(bad("limit is a number from 1 to 1000".to_owned()));
    }
    let statuses = statuses(status.as_deref().unwrap_or_default()).map_err(bad)?;
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
    let page = api
        .greenroom
        .list(ListFilter {
            statuses,
            parent_session,
            agent,
            limit,
            cursor,
        })
        .await;
    Ok(HttpResponse::Ok().json(page))
}

/// States with commas between them; none for an empty text.
fn statuses(text: &str) -> Result<Vec<TaskStatus>, String> {
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
                        "status {:?} is none of {}",
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
        .ok_or_else(|| ApiError::no_task(name))
}

/// `GET /v1/tasks/{id}`: the task, with what it waits for if it waits.
pub async fn get(api: Data<Api>, id: Path<String>) -> Result<HttpResponse, ApiError> {
    let TaskDetail { task, waits_for } = find(&api, &id).await?;
    let mut body = serde_json::to_value(task).map_err(unwritable)?;
    if let (Some(waits_for), Some(fields)) = (waits_for, body.as_object_mut()) {
        fields.insert(
            "waitsFor".to_owned(),
            serde_json::to_value(waits_for).map_err(unwritable)?,
        );
    }
    Ok(HttpResponse::Ok().json(body))
}

fn unwritable(error: serde_json::Error) -> ApiError {
    ApiError::new(
        actix_web::http::StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        format!("the task has no JSON form: {error}"),
        "this is a bug; please report it",
    )
}

/// The query of an output.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutputQuery {
    #[serde(default, deserialize_with = "switch")]
    block: bool,
    timeout_ms: Option<u64>,
    #[serde(default, deserialize_with = "switch")]
    full_session: bool,
    #[serde(default, deserialize_with = "switch")]
    include_thinking: bool,
    #[serde(default, deserialize_with = "switch")]
    include_tool_results: bool,
    message_limit: Option<usize>,
    #[serde(default, deserialize_with = "switch")]
    from_end: bool,
    #[serde(rename = "sinceMessageID")]
    since_message: Option<String>,
    thinking_max_chars: Option<usize>,
}

/// `GET /v1/tasks/{id}/output`: what there is to read, after the end of its run if asked to block.
pub async fn output(
    api: Data<Api>,
    id: Path<String>,
    query: Params<OutputQuery>,
) -> Result<HttpResponse, ApiError> {
    let query = query.0;
    let task = find(&api, &id).await?.task;
    let mut timed_out = None;
    if query.block && !task.status().is_terminal() {
        let limit = query
            .timeout_ms
            .unwrap_or(USUAL_WAIT_MS)
            .min(LONGEST_WAIT_MS);
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
    };
    // By its id: a session may have got another task while this one was waited for.
    let mut output = api.greenroom.output(task.id.as_str(), options).await?;
    // It may have ended between the time limit and the reading.
    output.timed_out = timed_out.filter(|_| !output.task.status().is_terminal());
    Ok(HttpResponse::Ok().json(output))
}

/// The body of a cancel.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CancelBody {
    reason: Option<String>,
    #[serde(default)]
    skip_notification: bool,
    #[serde(default = "yes")]
    abort_session: bool,
    #[serde(default)]
    descendants: bool,
}

fn yes() -> bool {
    true
}

/// Characters of a reason.
const LONGEST_REASON: usize = 2000;

fn checked(reason: Option<String>) -> Result<Option<String>, ApiError> {
    match reason {
        Some(reason) if reason.chars().count() > LONGEST_REASON => Err(ApiError::invalid(format!(
            "reason: longer than {LONGEST_REASON} characters"
        ))),
        reason => Ok(reason.filter(|reason| !reason.trim().is_empty())),
    }
}

/// `POST /v1/tasks/{id}/cancel`: the task after it, or 409 if it has ended.
pub async fn cancel(
    api: Data<Api>,
    id: Path<String>,
    body: Body<CancelBody>,
) -> Result<HttpResponse, ApiError> {
    let CancelBody {
        reason,
        skip_notification,
        abort_session,
        descendants,
    } = body.0;
    let reason = checked(reason)?;
    let task = find(&api, &id).await?.task;
    let options = CancelOptions {
        reason,
        skip_notification,
        abort_session,
        ..CancelOptions::default()
    };
    if !descendants {
        return Ok(HttpResponse::Ok().json(api.greenroom.cancel(&task.id, options).await?));
    }
    let cancelled = api
        .greenroom
        .cancel_all(CancelScope::Tree(task.id.clone()), options)
        .await;
    let after = find(&api, task.id.as_str()).await?.task;
    if cancelled.is_empty() {
        return Err(CancelError::NotCancellable(Box::new(after)).into());
    }
    Ok(HttpResponse::Ok().json(after))
}

/// The body of a cancel of several.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CancelSeveralBody {
    #[serde(rename = "parentSessionID")]
    parent_session: Option<SessionId>,
    #[serde(default)]
    all: bool,
    reason: Option<String>,
    #[serde(default)]
    skip_notification: bool,
}

/// `POST /v1/tasks/cancel`: all tasks descending from a session, or all there are.
pub async fn cancel_several(
    api: Data<Api>,
    body: Body<CancelSeveralBody>,
) -> Result<HttpResponse, ApiError> {
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
        reason: checked(reason)?,
        skip_notification,
        ..CancelOptions::default()
    };
    let cancelled = api.greenroom.cancel_all(scope, options).await;
    Ok(HttpResponse::Ok().json(json!({ "cancelled": cancelled })))
}

/// The body of a further prompt.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendBody {
    prompt: String,
}

/// `POST /v1/tasks/{id}/send`: a further prompt to a running task.
pub async fn send(
    api: Data<Api>,
    id: Path<String>,
    body: Body<SendBody>,
) -> Result<HttpResponse, ApiError> {
    let task = find(&api, &id).await?.task;
    Ok(HttpResponse::Accepted().json(api.greenroom.send(&task.id, body.0.prompt).await?))
}

/// `POST /v1/tasks/track`: adopts a session started elsewhere.
pub async fn track(api: Data<Api>, track: Body<Track>) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(api.greenroom.track(track.0).await?))
}
