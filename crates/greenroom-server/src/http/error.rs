//! The format of all errors: `{"error": {"code", "message", "hint"}}` with a status. Maps the errors of the actor
//! system.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use greenroom::domain::foreign_text::one_line;
use greenroom::ports::agent_server::ServerError;
use greenroom::{
    AskError, CancelError, LaunchError, LimitsError, OutputError, ResumeError, SendError,
    TrackError,
};
use serde_json::json;

/// An error response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The code for programs.
    pub code: &'static str,
    /// The error message.
    pub message: String,
    /// What the caller can do.
    pub hint: String,
}

impl ApiError {
    /// Creates an error.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// 400: the request is unreadable.
    pub fn unreadable(
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message, hint)
    }

    /// 400: a query parameter is invalid.
    pub fn query(problem: impl fmt::Display) -> Self {
        Self::unreadable(
            "invalid_query",
            format!("query: {problem}"),
            "correct the parameter, or leave it out",
        )
    }

    /// 422: a value in the request is invalid.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_value",
            message,
            "correct the value and send it again",
        )
    }

    /// 404: no task with this id, prefix or session.
    pub fn task_not_found(name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "task_not_found",
            format!("no task {:?}", greenroom::domain::task::cut(name, 100)),
            "give a task id, a beginning of one that fits no other, or a session id; GET /v1/tasks lists them",
        )
    }

    fn invalid_field(field: &str, problem: &str) -> Self {
        Self::invalid(format!("{field}: {problem}"))
    }

    fn queue_full(waiting: usize) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "queue_full",
            format!("{waiting} tasks wait already"),
            "wait for some to start, cancel some, or raise limits.max_waiting",
        )
    }

    fn queue_too_large(waiting: u64, limit: u64) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "queue_too_large",
            format!(
                "the waiting tasks have {waiting} bytes of text; with this one they would exceed {limit}"
            ),
            "wait for some to start, cancel some, or raise limits.max_waiting_bytes",
        )
    }

    fn shutting_down() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "shutting_down",
            "the service is shutting down",
            "send it again once the service is back",
        )
    }

    fn interrupted(problem: String) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "interrupted",
            problem,
            "GET /v1/tasks shows whether it was accepted; an Idempotency-Key makes a launch safe to repeat",
        )
    }

    fn journal(problem: &str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "journal_unwritable",
            format!("the journal cannot be written: {problem}"),
            "make room or repair permissions where the journal is kept; nothing was accepted",
        )
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header(("WWW-Authenticate", "Bearer"));
        }
        // The message may quote the request.
        let (message, hint) = (one_line(&self.message), one_line(&self.hint));
        response.json(json!({ "error": { "code": self.code, "message": message, "hint": hint } }))
    }
}

impl From<LaunchError> for ApiError {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::Invalid { field, problem } => Self::invalid_field(field, &problem),
            LaunchError::KeyReused { .. } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                error.to_string(),
                "use a new Idempotency-Key for a launch that differs",
            ),
            LaunchError::TooDeep { .. } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "too_deep",
                error.to_string(),
                "launch it from a session nearer to the top, or raise safety.max_depth",
            ),
            LaunchError::QueueFull { waiting } => Self::queue_full(waiting),
            LaunchError::QueueTooLarge { waiting, limit } => Self::queue_too_large(waiting, limit),
            LaunchError::ShuttingDown => Self::shutting_down(),
            LaunchError::Interrupted => Self::interrupted(error.to_string()),
            LaunchError::Journal(problem) => Self::journal(&problem),
        }
    }
}

impl ApiError {
    fn session_reverted(problem: String) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "session_reverted",
            problem,
            "restore the messages in opencode, or write a message there, then repeat the call",
        )
    }
}

impl From<ResumeError> for ApiError {
    fn from(error: ResumeError) -> Self {
        match error {
            ResumeError::UnknownSession(_) => Self::new(
                StatusCode::NOT_FOUND,
                "session_not_found",
                error.to_string(),
                "only the session of a task can be resumed; GET /v1/tasks lists them",
            ),
            ResumeError::AlreadyRunning(..) => Self::new(
                StatusCode::CONFLICT,
                "already_running",
                error.to_string(),
                "wait for its end, or send it a further prompt with POST /v1/tasks/{id}/send",
            ),
            ResumeError::SessionReverted(_) => Self::session_reverted(error.to_string()),
            ResumeError::Invalid { field, problem } => Self::invalid_field(field, &problem),
            ResumeError::QueueFull { waiting } => Self::queue_full(waiting),
            ResumeError::QueueTooLarge { waiting, limit } => Self::queue_too_large(waiting, limit),
            ResumeError::ShuttingDown => Self::shutting_down(),
            ResumeError::Interrupted => Self::interrupted(error.to_string()),
            ResumeError::Journal(problem) => Self::journal(&problem),
        }
    }
}

impl From<TrackError> for ApiError {
    fn from(error: TrackError) -> Self {
        match error {
            TrackError::Invalid { field, problem } => Self::invalid_field(field, &problem),
            TrackError::ShuttingDown => Self::shutting_down(),
            TrackError::Interrupted => Self::interrupted(error.to_string()),
            TrackError::Journal(problem) => Self::journal(&problem),
        }
    }
}

impl From<LimitsError> for ApiError {
    fn from(error: LimitsError) -> Self {
        match error {
            LimitsError::ShuttingDown => Self::shutting_down(),
            LimitsError::Interrupted => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "interrupted",
                error.to_string(),
                "GET /v1/limits shows them as they are",
            ),
        }
    }
}

impl From<CancelError> for ApiError {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::Unknown(task) => Self::task_not_found(task.as_str()),
            CancelError::NotCancellable(_) => Self::new(
                StatusCode::CONFLICT,
                "not_cancellable",
                error.to_string(),
                "it has ended already; nothing changed",
            ),
        }
    }
}

impl From<SendError> for ApiError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Unknown(task) => Self::task_not_found(task.as_str()),
            SendError::NotRunning(_) => Self::new(
                StatusCode::CONFLICT,
                "not_running",
                error.to_string(),
                "only a running task takes a further prompt; an ended one is resumed with POST /v1/sessions/{sessionID}/resume",
            ),
            SendError::SessionReverted(_) => Self::session_reverted(error.to_string()),
            SendError::Invalid { field, problem } => Self::invalid_field(field, &problem),
            SendError::Server(error) => error.into(),
        }
    }
}

impl From<OutputError> for ApiError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Unknown(name) => Self::task_not_found(&name),
            OutputError::UnknownMessage(_) => Self::invalid(format!("sinceMessageID: {error}")),
            OutputError::Server(error) => error.into(),
        }
    }
}

impl From<AskError> for ApiError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Unknown(id) => Self::new(
                StatusCode::NOT_FOUND,
                "ask_not_found",
                format!(
                    "no open request {:?}",
                    greenroom::domain::task::cut(&id, 100)
                ),
                "it may have been answered, rejected or withdrawn; GET /v1/asks lists the open ones",
            ),
            AskError::Unfitting(..) => Self::invalid(format!(
                "answer: {error}; a permission takes once, always or reject, a question answers or reject"
            )),
            AskError::Server(error) => error.into(),
        }
    }
}

impl From<ServerError> for ApiError {
    fn from(error: ServerError) -> Self {
        let (code, hint) = match &error {
            ServerError::NotFound(_) | ServerError::Refused { .. } => (
                "agent_server_refused",
                "the agent server did not do it; its own words are in the message",
            ),
            ServerError::Unreachable(_)
            | ServerError::ProcessEnded(_)
            | ServerError::OutcomeUnknown(_)
            | ServerError::TimedOut(_) => (
                "agent_server_unreachable",
                "check that the agent server runs, then try again",
            ),
        };
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            code,
            error.to_string(),
            hint,
        )
    }
}
