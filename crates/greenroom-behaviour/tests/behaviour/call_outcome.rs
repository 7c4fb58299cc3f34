//! The calls of the agent server, and the outcomes that a test can give them.

use greenroom::ports::agent_server::ServerError;

/// The kind of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    Session,
    Create,
    Prompt,
    Notify,
    Abort,
    Statuses,
    Messages,
    Todos,
    Below,
    RejectAsk,
    Toast,
    Health,
    Models,
}

/// The outcome of a call that does not simply succeed.
#[derive(Debug, Clone)]
pub enum CallOutcome {
    /// The call fails and has no effect.
    Fails(ServerError),
    /// The call has its effect and fails.
    Cut(ServerError),
    /// The call is never answered and has no effect.
    Hangs,
    /// The call has its effect and is never answered.
    Lost,
    /// The call succeeds without effect.
    Ignored,
    /// The call succeeds after some milliseconds. A read returns the state at its arrival.
    Late(u64),
    /// The call fails after some milliseconds.
    LateFailure(u64, ServerError),
    /// The caller panics.
    Panics,
}

/// The connection was refused.
pub fn unreachable() -> ServerError {
    ServerError::Unreachable("connection refused".to_owned())
}

/// The connection was cut before the answer.
pub fn cut_off() -> ServerError {
    ServerError::OutcomeUnknown("connection reset".to_owned())
}

/// The server answered with this status.
pub fn status(status: u16) -> ServerError {
    ServerError::Refused {
        status: Some(status),
        message: format!("refused with {status}"),
    }
}

/// The server does not know the session.
pub fn not_found() -> ServerError {
    ServerError::NotFound("no such session".to_owned())
}
