//! What every actor is given: the configuration, the agent server, the clock, its health; and calls to the server with
//! their time limits, whose answers come back as messages.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
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

/// The surroundings of an actor. A clone is one reference: every call under way has one.
#[derive(Clone)]
pub(crate) struct Env(Arc<EnvParts>);

/// What the surroundings are made of.
pub(crate) struct EnvParts {
    pub(crate) config: Arc<Config>,
    pub(crate) server: Arc<dyn AgentServer>,
    pub(crate) clock: Clock,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) pending_publications: PendingPublications,
    pub(crate) durability: Durability,
    pub(crate) calls_in_flight: CallsInFlight,
    /// Set once a shutdown is over: what still waits for the agent server to come back is nobody's business any more.
    pub(crate) shut_down: AtomicBool,
    pub(crate) health: Health,
    pub(crate) failpoints: Failpoints,
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
    /// Adds an entry to the timeline of a task; nothing else follows from it.
    pub(crate) fn append_timeline(&self, task: &TaskId, entry: TimelineEntry) {
        self.append(vec![JournalEntry::Noted(task.clone(), entry)]);
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Appends what was decided. Nothing of it may be seen outside before it is durable.
    pub(crate) fn append(&self, entries: Vec<JournalEntry>) -> Lsn {
        self.journal.append(self.now(), entries)
    }

    /// Ready once everything that was decided before this was called is durable, and readers have been shown it: what
    /// reaches the agent server waits for that, so that a crash leaves no effect that nobody remembers the cause of, and
    /// nobody is told what readers do not see yet. A journal that cannot be written at present is waited for.
    pub(crate) fn durable(&self) -> impl Future<Output = ()> + use<> {
        self.durability.published()
    }

    /// Why the journal cannot be written at present.
    pub(crate) fn journal_failing(&self) -> Option<Arc<str>> {
        self.durability.failing()
    }

    /// How long until `at`; zero if it has passed.
    pub(crate) fn time_until(&self, at: Timestamp) -> Duration {
        at.since(self.now())
    }
}

/// Does `work` beside the actor that wants it and hands over what came of it. A panic on the way is something that came of
/// it too, as `lost` says, or whoever waits for the answer would wait for ever.
pub(crate) fn spawn_call<T: 'static>(
    env: &Env,
    failpoint: &'static str,
    work: impl Future<Output = T> + 'static,
    on_panic: impl FnOnce(String) -> T + 'static,
    deliver: impl FnOnce(T) + 'static,
) {
    let (failpoints, health) = (env.failpoints.clone(), env.health.clone());
    // Boxed, since the runtime moves what it is given several times on its way in and out.
    actix_rt::spawn(Box::pin(async move {
        let work = async {
            failpoints.hit(failpoint);
            work.await
        };
        deliver(match AssertUnwindSafe(work).catch_unwind().await {
            Ok(result) => result,
            Err(panic) => {
                let panic = panic_text(&*panic);
                tracing::error!(failpoint, panic, "a call was cut off by a panic");
                health.call_panicked();
                on_panic(panic)
            }
        });
    }));
}

/// What is known of a call that was cut off by a panic of ours: it may have had its effect.
pub(crate) fn panic_error(panic: String) -> ServerError {
    ServerError::OutcomeUnknown(format!("the call was cut off: {panic}"))
}

/// A call that is given up after `limit`. An answer at that very instant counts. A client that panics does not take the
/// answer with it, or whoever waits for it would wait for ever: the call may have had its effect, more is not known.
pub(crate) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, ServerError>>,
) -> Result<T, ServerError> {
    let call = AssertUnwindSafe(call).catch_unwind();
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => {
            let panic = panic_text(&*panic);
            tracing::error!(panic, "a call to the agent server panicked");
            Err(ServerError::OutcomeUnknown(format!(
                "the call panicked: {panic}"
            )))
        }
        Err(_) => Err(ServerError::TimedOut(limit)),
    }
}

/// How far back a message is looked for.
const MAX_MESSAGES: usize = 500;

/// Looks for something among a session's newest messages; where they fill the page and it is not among them, further back:
/// a session that works fast says more in a moment than a page holds, and "not on this page" is not "not there".
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

/// 0.5 s doubling to 10 s: how long to wait before the `attempt`-th try (from 1) to reach a server that cannot be reached.
pub(crate) fn connect_backoff(attempt: u32) -> Duration {
    Duration::from_millis(500)
        .saturating_mul(1 << attempt.saturating_sub(1).min(10))
        .min(Duration::from_secs(10))
}
