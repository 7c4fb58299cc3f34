//! The calls of the agent server, and what may become of one that does not simply work.

use greenroom::ports::agent_server::ServerError;

/// The calls there are.
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

/// What becomes of a call that does not simply work.
#[derive(Debug, Clone)]
pub enum CallOutcome {
    /// It fails and has no effect.
    Fails(ServerError),
    /// It has its effect, and fails all the same.
    Cut(ServerError),
    /// It is never answered and has no effect.
    Hangs,
    /// It has its effect and is never answered.
    Lost,
    /// It is answered with success and has no effect.
    Ignored,
    /// It works after so many milliseconds; a read answers what was true when it was asked.
    Late(u64),
    /// It fails after so many milliseconds.
    LateFailure(u64, ServerError),
    /// The code that makes the call panics.
    Panics,
}

/// The connection was refused.
pub fn unreachable() -> ServerError {
    ServerError::Unreachable("connection refused".to_owned())
}

/// The connection was cut before the answer.
pub fn cut_off() -> ServerError {
    ServerError::FateUnknown("connection reset".to_owned())
}

/// The server answered with that status.
pub fn status(status: u16) -> ServerError {
    ServerError::Refused {
        status: Some(status),
        message: format!("refused with {status}"),
    }
}

/// The server knows no such session.
pub fn not_found() -> ServerError {
    ServerError::NotFound("no such session".to_owned())
}
