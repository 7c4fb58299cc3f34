//! Handlers for one session: its tasks, history, messages and resume; also events from hosts without a websocket.

use actix_web::web::{Data, Path};
use greenroom::NoticeRecord;
use greenroom::domain::history::{HistoryEntry, markdown};
use greenroom::domain::ids::{MessageId, SessionId};
use greenroom::domain::task::{Resume, Task};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::app::Api;
use super::error::ApiError;
use super::input::{Body, Params, flag, flag_schema};
use super::operation::{self, Either, Json, MediaResponse};

/// The body of a resume.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResumeBody {
    /// The prompt for the agent.
    #[schemars(regex(pattern = r"\S"))]
    prompt: String,
    /// The session to notify of the end; without it the old parent.
    #[serde(rename = "parentSessionID", default)]
    parent_session: Option<SessionId>,
    /// The parent's message that resumes the task.
    #[serde(rename = "parentMessageID", default)]
    parent_message: Option<MessageId>,
    /// The parent's agent.
    #[serde(default)]
    parent_agent: Option<String>,
}

/// `POST /v1/sessions/{sessionID}/resume`: starts a new run of the session's task.
pub async fn resume(
    api: Data<Api>,
    session: Path<String>,
    body: Body<ResumeBody>,
) -> Result<Json<Task, 202>, ApiError> {
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
    Ok(Json(api.greenroom.resume(resume).await?))
}

/// The query of a session's tasks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TasksQuery {
    /// All tasks below them too, depth first.
    #[serde(default, deserialize_with = "flag")]
    #[schemars(schema_with = "flag_schema")]
    descendants: bool,
}

/// Tasks of a session.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Tasks {
    /// In order of acceptance.
    tasks: Vec<Task>,
}

/// `GET /v1/sessions/{sessionID}/tasks`: in order of acceptance; descendants depth first.
pub async fn tasks(
    api: Data<Api>,
    session: Path<String>,
    query: Params<TasksQuery>,
) -> Json<Tasks> {
    let session = SessionId::from(session.into_inner());
    let mut tasks = api.greenroom.tasks_of(&session, query.0.descendants).await;
    tasks.iter_mut().for_each(Task::truncate_texts);
    Json(Tasks { tasks })
}

/// The forms of a history.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum HistoryFormat {
    #[default]
    Json,
    Markdown,
}

/// The query of a history.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    /// `json`, or `markdown`: the compact form that a session's compaction carries along.
    #[serde(default)]
    format: HistoryFormat,
}

/// A parent's history.
#[derive(Debug, Serialize, JsonSchema)]
pub struct History {
    /// Oldest first.
    history: Vec<HistoryEntry>,
}

/// `GET /v1/sessions/{sessionID}/history`: the newest hundred tasks of a parent, oldest first.
pub async fn history(
    api: Data<Api>,
    session: Path<String>,
    query: Params<HistoryQuery>,
) -> Either<Json<History>, MediaResponse<operation::Markdown>> {
    let entries = api
        .greenroom
        .history(&SessionId::from(session.into_inner()))
        .await;
    match query.0.format {
        HistoryFormat::Json => Either::Primary(Json(History { history: entries })),
        HistoryFormat::Markdown => Either::Secondary(MediaResponse::new(markdown(&entries))),
    }
}

/// Messages to a parent.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Notifications {
    /// Newest first.
    notifications: Vec<NoticeRecord>,
}

/// `GET /v1/sessions/{sessionID}/notifications`: the messages to a parent with their status.
pub async fn notifications(api: Data<Api>, session: Path<String>) -> Json<Notifications> {
    let session = SessionId::from(session.into_inner());
    let notifications = api.greenroom.notifications(&session).await;
    Json(Notifications { notifications })
}

/// Events of the agent server, from a host that has no websocket.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsBody {
    /// As the agent server has sent them; unknown ones are ignored.
    events: Vec<Value>,
}

/// How many events were taken.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Accepted {
    /// All of them, unknown ones included.
    accepted: usize,
}

/// `POST /v1/session-events`: returns after the actor system has accepted all events.
pub async fn events(api: Data<Api>, body: Body<EventsBody>) -> Json<Accepted, 202> {
    for event in &body.0.events {
        api.greenroom.ingest_event_json(event).await;
    }
    let accepted = body.0.events.len();
    Json(Accepted { accepted })
}
