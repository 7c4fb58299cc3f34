//! What every actor is given: the configuration, the agent server, the clock; and calls to the server with their time
//! limits.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::Config;
use crate::domain::time::Timestamp;
use crate::ports::agent_server::{AgentServer, ServerError};

/// The surroundings of an actor.
#[derive(Clone)]
pub(crate) struct Env {
    pub(crate) config: Arc<Config>,
    pub(crate) server: Arc<dyn AgentServer>,
    pub(crate) clock: Clock,
}

impl Env {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How long until `at`; zero if it has passed.
    pub(crate) fn until(&self, at: Timestamp) -> Duration {
        at.since(self.now())
    }
}

/// A call that is given up after `limit`. An answer at that very instant counts.
pub(crate) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, ServerError>>,
) -> Result<T, ServerError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => Err(ServerError::TimedOut(limit)),
    }
}

/// 0.5 s doubling to 10 s: how long to wait before the `attempt`-th try (from 1) to reach a server that cannot be reached.
pub(crate) fn reach_backoff(attempt: u32) -> Duration {
    Duration::from_millis(500)
        .saturating_mul(1 << attempt.saturating_sub(1).min(10))
        .min(Duration::from_secs(10))
}
