//! Open requests of children at any depth: listing and answering.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Greenroom;
use crate::actors::env::within;
use crate::actors::registry::{AskGone, FindAsk, FoundAsk, ListAsks};
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::task::{AskAnswer, AskKind, Asking, Task};
use crate::domain::time::Timestamp;
use crate::ports::agent_server::ServerError;

/// An open request of a child, with its task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OpenAsk {
    /// The request.
    #[serde(flatten)]
    pub ask: Asking,
    /// The task that waits for the answer.
    #[serde(rename = "taskID")]
    pub task: TaskId,
    /// The session with the request.
    #[serde(rename = "sessionID")]
    pub session: SessionId,
    /// The parent session of the task.
    #[serde(
        rename = "parentSessionID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub parent_session: Option<SessionId>,
    /// The description of the task.
    pub description: Arc<str>,
    /// The agent of the task.
    pub agent: Arc<str>,
    /// The time at which an unanswered request is rejected.
    pub rejected_at: Timestamp,
}

/// The reason why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No running task waits for this request: it is unknown or already answered.
    #[error("no open request {0}")]
    Unknown(String),
    /// The answer does not fit the kind of the request.
    #[error("{} is a {}", .0, .1.as_str())]
    Unfitting(String, AskKind),
    /// The agent server did not accept the answer.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl Greenroom {
    /// Returns the open requests of all children, oldest first.
    pub async fn asks(&self) -> Vec<OpenAsk> {
        self.query_with_retry(ListAsks).await.unwrap_or_default()
    }

    /// Answers a request and returns the task, which no longer waits for it. Of two concurrent answers the server
    /// accepts one; the other returns [`AskError::Unknown`].
    ///
    /// # Errors
    /// [`AskError`] if the request is not open, the answer does not fit, or the server refused it.
    pub async fn answer_ask(&self, id: &str, answer: &AskAnswer) -> Result<Task, AskError> {
        let unknown = || AskError::Unknown(id.to_owned());
        let found = self
            .query_with_retry(FindAsk(id.to_owned()))
            .await
            .flatten();
        let FoundAsk {
            ask,
            task,
            run,
            session,
        } = found.ok_or_else(unknown)?;
        if !answer.fits(ask.kind) {
            return Err(AskError::Unfitting(ask.id, ask.kind));
        }
        let call = self
            .env
            .server
            .answer_ask(&session, &ask.id, ask.kind, answer);
        let taken = match within(self.env.config.calls.other, call).await {
            Ok(()) => true,
            // The request was answered elsewhere, or withdrawn with its run.
            Err(ServerError::NotFound(_)) => false,
            Err(failure) => return Err(failure.into()),
        };
        let gone = AskGone {
            ask: ask.id,
            task,
            run,
        };
        let record = self.query_with_retry(gone).await.flatten();
        record.filter(|_| taken).ok_or_else(unknown)
    }
}
