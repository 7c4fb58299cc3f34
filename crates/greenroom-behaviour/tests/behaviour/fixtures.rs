//! Fixtures: launches by name, sessions by name or task, and events in the format of opencode.

use greenroom::domain::ids::{ModelRef, SessionId, TaskId};
use greenroom::domain::task::Launch;
use serde_json::{Value, json};

use crate::server::Server;

/// Returns a launch by parent `P` with agent `worker`. The name is the description.
pub fn job(name: &str) -> Launch {
    Launch {
        description: name.to_owned(),
        prompt: format!("do {name}"),
        agent: "worker".to_owned(),
        parent_session: Some("P".into()),
        ..Launch::default()
    }
}

/// Returns a launch by another parent.
pub fn job_of(parent: impl Into<SessionId>, name: &str) -> Launch {
    Launch {
        parent_session: Some(parent.into()),
        ..job(name)
    }
}

/// Returns a launch with a model, as `provider/model` or `provider/model:variant`.
pub fn job_on(model_name: &str, name: &str) -> Launch {
    Launch {
        model: Some(model(model_name)),
        ..job(name)
    }
}

/// Parses `provider/model` or `provider/model:variant`.
pub fn model(text: &str) -> ModelRef {
    let (provider, rest) = text.split_once('/').expect("provider/model");
    let (name, variant) = match rest.split_once(':') {
        Some((name, variant)) => (name, Some(variant.to_owned())),
        None => (rest, None),
    };
    ModelRef {
        provider_id: provider.to_owned(),
        model_id: name.to_owned(),
        variant,
    }
}

/// Names a session: by its id, or by its task.
pub trait SessionRef {
    fn session(&self, server: &Server) -> SessionId;
}

impl SessionRef for &str {
    fn session(&self, _: &Server) -> SessionId {
        SessionId::new(self)
    }
}

impl SessionRef for &SessionId {
    fn session(&self, _: &Server) -> SessionId {
        (*self).clone()
    }
}

impl SessionRef for &TaskId {
    fn session(&self, server: &Server) -> SessionId {
        server
            .session_of(self)
            .expect("a session was made for the task")
    }
}

pub fn status_event(session: &SessionId, status: Value) -> Value {
    json!({"type": "session.status", "properties": {"sessionID": session, "status": status}})
}

pub fn idle_event(session: &SessionId) -> Value {
    json!({"type": "session.idle", "properties": {"sessionID": session}})
}

pub fn delta_event(session: &SessionId) -> Value {
    json!({"type": "message.part.delta", "properties": {"sessionID": session,
        "messageID": "msg_streamed", "partID": "prt_1", "field": "text", "delta": "x"}})
}

pub fn message_event(session: &SessionId, info: &Value) -> Value {
    json!({"type": "message.updated", "properties": {"sessionID": session, "info": info}})
}

pub fn part_event(session: &SessionId, part: Value) -> Value {
    json!({"type": "message.part.updated", "properties": {"sessionID": session, "part": part}})
}

pub fn error_event(session: &SessionId, error: Value) -> Value {
    json!({"type": "session.error", "properties": {"sessionID": session, "error": error}})
}

pub fn abort_event(session: &SessionId) -> Value {
    error_event(
        session,
        json!({"name": "MessageAbortedError", "data": {"message": "Aborted"}}),
    )
}
