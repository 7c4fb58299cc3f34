//! The events of the matrix: requests of callers, events of the server, and changes of the environment.

use greenroom::domain::ids::{SessionId, TaskId};
use greenroom::domain::task::{Resume, Track};
use greenroom::{
    CancelError, CancelOptions, CancelScope, EventLink, LimitsChange, ResumeError, SendError,
    ShutdownMode,
};
use serde_json::json;

use crate::harness::{Harness, abort_event, error_event, idle_event};

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Nothing,
    Cancel,
    CancelFromAbove,
    CancelPending,
    SessionDeleted,
    ParentDeleted,
    SessionError,
    SessionAborted,
    Idle,
    Resume,
    ResumeTwice,
    Send,
    TrackKnown,
    Reparent,
    TakeOver,
    LimitRaised,
    LimitLowered,
    Unreachable,
    ParentAborted,
    ParentAbortedWithTasks,
    Shutdown,
}

impl Event {
    pub const ALL: [Event; 21] = [
        Event::Nothing,
        Event::Cancel,
        Event::CancelFromAbove,
        Event::CancelPending,
        Event::SessionDeleted,
        Event::ParentDeleted,
        Event::SessionError,
        Event::SessionAborted,
        Event::Idle,
        Event::Resume,
        Event::ResumeTwice,
        Event::Send,
        Event::TrackKnown,
        Event::Reparent,
        Event::TakeOver,
        Event::LimitRaised,
        Event::LimitLowered,
        Event::Unreachable,
        Event::ParentAborted,
        Event::ParentAbortedWithTasks,
        Event::Shutdown,
    ];

    /// Returns the name for the page, and the description.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Event::Nothing => ("nothing", "No event happens."),
            Event::Cancel => ("cancel", "The task is cancelled through the API."),
            Event::CancelFromAbove => (
                "cancel from above",
                "All tasks below its parent are cancelled; the answer names them.",
            ),
            Event::CancelPending => (
                "cancel if pending",
                "The task is cancelled if its slot is not granted yet.",
            ),
            Event::SessionDeleted => (
                "session.deleted",
                "Its session is deleted on the server. Before the session is known the event is ignored and the prompt \
                 is refused.",
            ),
            Event::ParentDeleted => (
                "session.deleted of the parent",
                "The parent's session is deleted on the server.",
            ),
            Event::SessionError => (
                "session.error",
                "The server sends an error of its session, `boom`.",
            ),
            Event::SessionAborted => (
                "its session is aborted",
                "Its session is aborted from outside; the server sends the abort.",
            ),
            Event::Idle => ("session.idle", "The server sends that its session is idle."),
            Event::Resume => ("resume", "The task is resumed by its session."),
            Event::ResumeTwice => (
                "resume twice at once",
                "Two callers resume it in the same instant.",
            ),
            Event::Send => ("send", "The task is sent a further prompt."),
            Event::TrackKnown => (
                "track, known",
                "The task is tracked again with the same parent and another parent agent, `lead`.",
            ),
            Event::Reparent => (
                "track, another parent",
                "The task is tracked again with another parent, `R`.",
            ),
            Event::TakeOver => (
                "track, taken over",
                "Its session is tracked as another task, `t`, of another parent.",
            ),
            Event::LimitRaised => ("limit raised", "The limit goes from 2 to 4."),
            Event::LimitLowered => ("limit lowered", "The limit goes from 2 to 1."),
            Event::Unreachable => (
                "server unreachable",
                "For a minute the server is unreachable and the event stream is broken. Calls in flight are \
                 answered.",
            ),
            Event::ParentAborted => (
                "the user aborts the parent",
                "The parent's user aborts it; `on_parent_abort` is `keep`.",
            ),
            Event::ParentAbortedWithTasks => (
                "the user aborts the parent (`cancel`)",
                "The parent's user aborts it; `on_parent_abort` is `cancel`.",
            ),
            Event::Shutdown => ("shutdown", "The service is shut down in mode `abort`."),
        }
    }

    /// Applies the event to a task and returns the answer to the caller, `–` if there is no caller. Does not
    /// settle, because the event may happen in the middle of an instant.
    pub async fn apply(self, s: Harness, a: TaskId) -> String {
        let session = s.server.session_of(&a);
        let own = session.clone().unwrap_or_else(|| "none".into());
        match self {
            Event::Nothing => {}
            Event::Cancel | Event::CancelPending => {
                let options = CancelOptions {
                    only_pending: self == Event::CancelPending,
                    ..CancelOptions::default()
                };
                return match s.greenroom.cancel(&a, options).await {
                    Ok(_) => "cancelled".to_owned(),
                    Err(CancelError::NotCancellable(_)) => "not cancellable".to_owned(),
                    Err(CancelError::Unknown(_)) => "unknown".to_owned(),
                };
            }
            Event::CancelFromAbove => {
                let scope = CancelScope::Descendants("P".into());
                let tasks = s.greenroom.cancel_all(scope, CancelOptions::default());
                let names = tasks
                    .await
                    .into_iter()
                    .map(|task| task.description.to_string());
                let names: Vec<String> = names.collect();
                return if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                };
            }
            Event::SessionDeleted => deleted(&s, &own).await,
            Event::ParentDeleted => deleted(&s, &"P".into()).await,
            Event::SessionError => {
                s.server.set_status(&own, None);
                let error = json!({"name": "APIError", "data": {"message": "boom"}});
                s.greenroom
                    .ingest_event_json(&error_event(&own, error))
                    .await;
            }
            Event::SessionAborted => {
                s.server.set_status(&own, None);
                s.greenroom.ingest_event_json(&abort_event(&own)).await;
            }
            Event::Idle => {
                s.server.set_status(&own, None);
                s.greenroom.ingest_event_json(&idle_event(&own)).await;
            }
            Event::Resume => return resumed(&s, &own).await,
            Event::ResumeTwice => {
                let (one, other) = futures::join!(resumed(&s, &own), resumed(&s, &own));
                return format!("{one}; {other}");
            }
            Event::Send => {
                return match s.greenroom.send(&a, "more".to_owned()).await {
                    Ok(_) => "accepted".to_owned(),
                    Err(SendError::NotRunning(_)) => "not running".to_owned(),
                    Err(other) => other.to_string(),
                };
            }
            Event::TrackKnown => return tracked(&s, a, own, "P", Some("lead")).await,
            Event::Reparent => return tracked(&s, a, own, "R", None).await,
            Event::TakeOver => return tracked(&s, "t".into(), own, "Q", None).await,
            Event::LimitRaised => limit(&s, 4).await,
            Event::LimitLowered => limit(&s, 1).await,
            Event::Unreachable => {
                s.server.go_offline();
                s.greenroom.event_link(EventLink::Broken);
            }
            Event::ParentAborted | Event::ParentAbortedWithTasks => {
                s.greenroom
                    .ingest_event_json(&abort_event(&"P".into()))
                    .await;
            }
            Event::Shutdown => {
                let shutdown = async move { s.greenroom.shutdown(ShutdownMode::Abort).await };
                let mut shutdown = Box::pin(shutdown);
                // The shutdown has started when this returns; its end is not awaited.
                if futures::poll!(&mut shutdown).is_pending() {
                    actix_rt::spawn(shutdown);
                }
            }
        }
        "–".to_owned()
    }
}

async fn deleted(s: &Harness, session: &SessionId) {
    s.server.remove_session(session);
    let event = json!({"type": "session.deleted", "properties": {"info": {"id": session}}});
    s.greenroom.ingest_event_json(&event).await;
}

async fn resumed(s: &Harness, session: &SessionId) -> String {
    let resume = Resume {
        session: Some(session.clone()),
        prompt: "go on".to_owned(),
        ..Resume::default()
    };
    match s.greenroom.resume(resume).await {
        Ok(_) => "accepted".to_owned(),
        Err(ResumeError::UnknownSession(_)) => "unknown session".to_owned(),
        Err(ResumeError::AlreadyRunning(_, why)) => format!("already {why}"),
        Err(other) => other.to_string(),
    }
}

async fn tracked(
    s: &Harness,
    task: TaskId,
    session: SessionId,
    parent: &str,
    parent_agent: Option<&str>,
) -> String {
    let track = Track {
        description: task.to_string(),
        task,
        session,
        parent_session: parent.into(),
        agent: None,
        parent_agent: parent_agent.map(str::to_owned),
        concurrency_key: None,
    };
    match s.greenroom.track(track).await {
        Ok(task) => format!("{} of {}", task.status().as_str(), parent),
        Err(other) => other.to_string(),
    }
}

async fn limit(s: &Harness, limit: u32) {
    let change = LimitsChange {
        default: Some(Some(limit)),
        ..LimitsChange::default()
    };
    s.greenroom.set_limits(change).await.expect("they are set");
}
