//! One inbox for what children ask, at any depth: listed for people, answered by them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Greenroom;
use crate::actors::env::within;
use crate::actors::registry::{AskGone, FindAsk, FoundAsk, ListAsks};
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::task::{AskAnswer, AskKind, Asking, Task};
use crate::domain::time::Timestamp;
use crate::ports::agent_server::ServerError;

/// A request that a child waits for, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OpenAsk {
    /// The request.
    #[serde(flatten)]
    pub ask: Asking,
    /// The task whose run waits.
    #[serde(rename = "taskID")]
    pub task: TaskId,
    /// The session that asks.
    #[serde(rename = "sessionID")]
    pub session: SessionId,
    /// Who is told of the task's end.
    #[serde(
        rename = "parentSessionID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub parent_session: Option<SessionId>,
    /// What the task is about.
    pub description: Arc<str>,
    /// Who asks.
    pub agent: Arc<str>,
    /// When it is rejected if nobody answers.
    pub rejected_at: Timestamp,
}

/// TaskTimeline a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No running task waits for it: it never was, or has been answered.
    #[error("no open request {0}")]
    Unknown(String),
    /// The answer does not fit what was asked.
    #[error("{} is a {}", .0, .1.as_str())]
    Unfitting(String, AskKind),
    /// The agent server did not take the answer.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl Greenroom {
    /// What children wait for somebody to answer, oldest first.
    pub async fn asks(&self) -> Vec<OpenAsk> {
        self.query_with_retry(ListAsks).await.unwrap_or_default()
    }

    /// Answers a request; the task after it, no longer waiting for it. Of two answers at a time the server takes one; the
    /// other is told that the request is not open any more.
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
            // Answered by somebody else, or withdrawn with its run.
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
