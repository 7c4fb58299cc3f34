//! Calls that name a session: its tasks, its history, going on in it; and events handed in without a websocket.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use greenroom::domain::history::markdown;
use greenroom::domain::ids::{MessageId, SessionId};
use greenroom::domain::task::Resume;
use serde::Deserialize;
use serde_json::{Value, json};

use super::app::Api;
use super::error::ApiError;
use super::input::{Body, Params, switch};

/// The body of a resume.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResumeBody {
    prompt: String,
    #[serde(rename = "parentSessionID", default)]
    parent_session: Option<SessionId>,
    #[serde(rename = "parentMessageID", default)]
    parent_message: Option<MessageId>,
    #[serde(default)]
    parent_agent: Option<String>,
}

/// `POST /v1/sessions/{session}/resume`: a new run of the task of that session.
pub async fn resume(
    api: Data<Api>,
    session: Path<String>,
    body: Body<ResumeBody>,
) -> Result<HttpResponse, ApiError> {
    let ResumeBody {
        prompt,
        parent_session,
        parent_message,
        parent_agent,
    } = body.0;
    let session = Some(SessionId::from(session.into_inner()));
    let resume = Resume {
        session,
        prompt,
        parent_session,
        parent_message,
        parent_agent,
    };
    Ok(HttpResponse::Accepted().json(api.greenroom.resume(resume).await?))
}

/// The query of a session's tasks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TasksQuery {
    #[serde(default, deserialize_with = "switch")]
    descendants: bool,
}

/// `GET /v1/sessions/{session}/tasks`: in order of acceptance; descendants depth first.
pub async fn tasks(
    api: Data<Api>,
    session: Path<String>,
    query: Params<TasksQuery>,
) -> HttpResponse {
    let session = SessionId::from(session.into_inner());
    let tasks = api.greenroom.tasks_of(&session, query.0.descendants).await;
    HttpResponse::Ok().json(json!({ "tasks": tasks }))
}

/// The forms of a history.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum HistoryFormat {
    #[default]
    Json,
    Markdown,
}

/// The query of a history.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    #[serde(default)]
    format: HistoryFormat,
}

/// `GET /v1/sessions/{session}/history`: the newest hundred tasks of a parent, oldest first.
pub async fn history(
    api: Data<Api>,
    session: Path<String>,
    query: Params<HistoryQuery>,
) -> HttpResponse {
    let entries = api
        .greenroom
        .history(&SessionId::from(session.into_inner()))
        .await;
    match query.0.format {
        HistoryFormat::Json => HttpResponse::Ok().json(json!({ "history": entries })),
        HistoryFormat::Markdown => HttpResponse::Ok()
            .content_type("text/markdown; charset=utf-8")
            .body(markdown(&entries)),
    }
}

/// Events of the agent server, from a host that has no websocket.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsBody {
    events: Vec<Value>,
}

/// `POST /v1/session-events`: answered when the system has taken all of them.
pub async fn events(api: Data<Api>, body: Body<EventsBody>) -> HttpResponse {
    for event in &body.0.events {
        api.greenroom.event(event).await;
    }
    HttpResponse::Accepted().json(json!({ "accepted": body.0.events.len() }))
}
