//! The environment of every actor: configuration, agent server, clock, journal and health. Also the calls to the agent
//! server, with their time limits; an actor receives the answer as a message.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use futures::FutureExt;

use super::durability::Durability;
use super::failpoint::Failpoints;
use super::health::Health;
use super::pending_publications::PendingPublications;
use super::runtime_state::CallsInFlight;
use super::supervisor::panic_text;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::time::Timestamp;
use crate::domain::timeline::TimelineEntry;
use crate::domain::transcript::Message;
use crate::ports::agent_server::{AgentServer, ServerError};
use crate::ports::journal::{Journal, JournalEntry, Lsn};

/// The environment of an actor. A clone is one reference: every call in flight holds one.
#[derive(Clone)]
pub(crate) struct Env(Arc<EnvParts>);

/// The parts of an [`Env`].
pub(crate) struct EnvParts {
    pub(crate) config: Arc<Config>,
    pub(crate) server: Arc<dyn AgentServer>,
    pub(crate) clock: Clock,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) pending_publications: PendingPublications,
    pub(crate) durability: Durability,
    pub(crate) calls_in_flight: CallsInFlight,
    /// Set by the registry once a shutdown is complete. Read by aborts that wait for the agent server: they stop.
    pub(crate) shut_down: AtomicBool,
    pub(crate) health: Health,
    pub(crate) failpoints: Failpoints,
    /// The next watch number of the poller. Kept over its restarts: a run compares the numbers.
    pub(crate) watch_numbers: AtomicU64,
}

impl std::ops::Deref for Env {
    type Target = EnvParts;

    fn deref(&self) -> &EnvParts {
        &self.0
    }
}

impl From<EnvParts> for Env {
    fn from(parts: EnvParts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Env {
    /// Adds an entry to the timeline of a task.
    pub(crate) fn append_timeline(&self, task: &TaskId, entry: TimelineEntry) {
        self.append(vec![JournalEntry::Noted(task.clone(), entry)]);
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Appends entries to the journal. Their effects must not be visible outside before the entries are durable.
    pub(crate) fn append(&self, entries: Vec<JournalEntry>) -> Lsn {
        self.journal.append(self.now(), entries)
    }

    /// Waits until every entry appended before the call is durable and published, also while the journal cannot be
    /// written. Every call with an effect on the agent server waits for this: a crash leaves no effect without a recorded
    /// cause, and no message precedes the state that readers see.
    pub(crate) fn durable(&self) -> impl Future<Output = ()> + use<> {
        self.durability.published()
    }

    /// Returns the reason why the journal cannot be written at present.
    pub(crate) fn journal_failing(&self) -> Option<Arc<str>> {
        self.durability.failing()
    }

    /// Returns the time left until `at`; zero if it has passed.
    pub(crate) fn time_until(&self, at: Timestamp) -> Duration {
        at.since(self.now())
    }
}

/// Runs `work` outside the actor and passes its result to `deliver`. If `work` panics, `on_panic` returns the
/// result, so that every call is answered. `failpoint` is hit before `work` begins.
pub(crate) fn spawn_call<T: 'static>(
    env: &Env,
    failpoint: &'static str,
    work: impl Future<Output = T> + 'static,
    on_panic: impl FnOnce(String) -> T + 'static,
    deliver: impl FnOnce(T) + 'static,
) {
    let (failpoints, health) = (env.failpoints.clone(), env.health.clone());
    let work = async move {
        failpoints.hit(failpoint);
        work.await
    };
    let call = AssertUnwindSafe(work).catch_unwind().map(move |result| {
        deliver(match result {
            Ok(result) => result,
            Err(panic) => {
                let panic = panic_text(&*panic);
                tracing::error!(call = failpoint, panic, "call panicked");
                health.call_panicked();
                on_panic(panic)
            }
        });
    });
    // Boxed, since the runtime moves a spawned future several times.
    actix_rt::spawn(Box::pin(call));
}

/// Returns the error of a call that panicked: the call may have had its effect.
pub(crate) fn panic_error(panic: String) -> ServerError {
    ServerError::OutcomeUnknown(format!("the call panicked: {panic}"))
}

/// Runs a call to the agent server with a time limit. An answer at the very instant of the limit counts.
///
/// # Errors
///
/// The error of the call; `TimedOut` after `limit`; `OutcomeUnknown` if the client panics, since the call may have had its
/// effect.
pub(crate) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, ServerError>>,
) -> Result<T, ServerError> {
    let call = AssertUnwindSafe(call).catch_unwind();
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => {
            let panic = panic_text(&*panic);
            tracing::error!(panic, "call to the agent server panicked");
            Err(panic_error(panic))
        }
        Err(_) => Err(ServerError::TimedOut(limit)),
    }
}

/// The maximum age of a read that permits a prompt in a session which its user may have reverted.
pub(crate) const REVERT_READ_LIMIT: Duration = Duration::from_secs(2);

/// The number of messages that [`find_message`] reads at most.
const MAX_MESSAGES: usize = 500;

/// Applies `find` to the newest `page` messages of a session, then, if they fill the page without a match, to the newest
/// [`MAX_MESSAGES`]: a busy session can write more than one page between two reads.
pub(crate) async fn find_message<T>(
    env: &Env,
    session: &SessionId,
    page: usize,
    find: impl Fn(&[Message]) -> Option<T>,
) -> Result<Option<T>, ServerError> {
    for limit in [page, MAX_MESSAGES] {
        let call = env.server.messages(session, Some(limit));
        let messages = within(env.config.calls.other, call).await?;
        let found = find(&messages);
        if found.is_some() || messages.len() < limit {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Returns the delay before the `attempt`-th attempt (from 1) to reach a server that is unreachable: 0.5 s, doubling up to
/// 10 s.
pub(crate) fn connect_backoff(attempt: u32) -> Duration {
    Duration::from_millis(500)
        .saturating_mul(1 << attempt.saturating_sub(1).min(10))
        .min(Duration::from_secs(10))
}
