//! Aborts of sessions whose run has ended, repeated until an abort is known to have worked or is given up. Only a resume of
//! the session and a shutdown wait for an abort; its failure never changes the state of a task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::lineage::{SearchScope, find_created};
use crate::actors::actor_ref::ActorRef;
use crate::actors::env::{Env, connect_backoff, find_message, spawn_call, within};
use crate::actors::registry::{AbortCheckEnded, TaskRegistry};
use crate::actors::runtime_state::AbortTicket;
use crate::domain::ids::{Run, SessionId, TaskId};
use crate::domain::time::Timestamp;
use crate::domain::transcript::Message;
use crate::ports::agent_server::{NewSession, ServerError, SessionStatus};

/// The number of abort calls in a row.
const MAX_ATTEMPTS: u32 = 3;

/// How long an abort waits until the end of the run is durable.
const DURABLE_LIMIT: Duration = Duration::from_secs(2);

/// A session to abort.
#[derive(Debug, Clone)]
pub(crate) struct SessionToAbort {
    pub(crate) session: SessionId,
    pub(crate) directory: Option<Arc<str>>,
    /// The run that has ended: its own late prompts do not count as prompts of others.
    pub(crate) run: (TaskId, Run),
    /// Set once the session is prompted again.
    pub(crate) superseded: Arc<AtomicBool>,
    /// The number of aborts of the run that are not done, with its prompts in flight, each of which another abort may follow.
    pub(crate) open: Arc<AtomicUsize>,
    /// Notified with `AbortCheckEnded` after the last of them.
    pub(crate) registry: ActorRef<TaskRegistry>,
}

impl SessionToAbort {
    /// Ends one abort or prompt of the run. After the last one no further abort follows.
    pub(crate) fn end_one(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            let (task, run) = self.run.clone();
            self.registry.send(AbortCheckEnded { task, run });
        }
    }
}

/// Aborts a session. The ticket is settled when the first abort was accepted or all attempts have failed. The agent server
/// can accept an abort without effect: the status is read a second later, and the abort repeated while the session is busy,
/// unless the session was prompted meanwhile.
pub(crate) fn abort_session(env: &Env, aborted: SessionToAbort, ticket: Option<Arc<AbortTicket>>) {
    let call = abort(env.clone(), aborted, ticket);
    spawn_call(env, "task: abort is answered", call, |_| (), |()| ());
}

async fn abort(env: Env, aborted: SessionToAbort, ticket: Option<Arc<AbortTicket>>) {
    abort_until_done(env, &aborted, ticket).await;
    aborted.end_one();
}

async fn abort_until_done(
    env: Env,
    aborted: &SessionToAbort,
    mut ticket: Option<Arc<AbortTicket>>,
) {
    // The end must be durable first, but a full disk must not keep a session working forever.
    let durable = env.durable();
    let _ = tokio::time::timeout(DURABLE_LIMIT, durable).await;
    let begun = env.now();
    while attempt_abort(&env, aborted, &mut ticket).await == AbortAttempts::Unreachable {
        // Nothing waits for an unreachable server, but the abort is repeated once the server is back.
        settle(ticket.take());
        if !is_busy_after_reconnect(&env, aborted, begun).await {
            return;
        }
    }
    settle(ticket);
}

/// The result of the abort calls in a row.
#[derive(Debug, PartialEq, Eq)]
enum AbortAttempts {
    /// Aborted, nothing to abort, or given up.
    Done,
    /// The last call did not reach the server.
    Unreachable,
}

async fn attempt_abort(
    env: &Env,
    aborted: &SessionToAbort,
    ticket: &mut Option<Arc<AbortTicket>>,
) -> AbortAttempts {
    let (session, superseded) = (&aborted.session, &aborted.superseded);
    let mut aborted_at = None;
    let mut attempts = AbortAttempts::Done;
    for _ in 0..MAX_ATTEMPTS {
        attempts = AbortAttempts::Done;
        match within(env.config.calls.other, env.server.abort(session)).await {
            Ok(()) => {
                settle(ticket.take());
                let since = *aborted_at.get_or_insert_with(|| env.now());
                if !env.config.lifecycle.look_after_abort {
                    return AbortAttempts::Done;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                if superseded.load(Ordering::Acquire)
                    || !still_busy(env, session, aborted.directory.as_deref()).await
                {
                    return AbortAttempts::Done;
                }
                // The session may be busy with a prompt of another client, which must not be aborted.
                if superseded.load(Ordering::Acquire)
                    || prompted_since(env, session, &aborted.run, since).await
                {
                    return AbortAttempts::Done;
                }
            }
            Err(ServerError::NotFound(_)) => return AbortAttempts::Done,
            Err(failure) => {
                if matches!(failure, ServerError::Unreachable(_)) {
                    attempts = AbortAttempts::Unreachable;
                }
                env.health.abort_failed();
                tracing::warn!(session = %session, %failure, "abort failed");
            }
        }
    }
    attempts
}

/// Waits until the server is reachable, at most as long as a start would. Returns true if the session still works for the
/// run that ended at `since`.
async fn is_busy_after_reconnect(env: &Env, aborted: &SessionToAbort, since: Timestamp) -> bool {
    let directory = aborted.directory.as_deref();
    let directory = directory.unwrap_or(&env.config.directory);
    let begun = env.now();
    let mut attempt = 0;
    loop {
        attempt += 1;
        tokio::time::sleep(connect_backoff(attempt)).await;
        let late = env.now().since(begun) > env.config.lifecycle.server_down;
        let over = env.shut_down.load(Ordering::Acquire);
        if late || over || aborted.superseded.load(Ordering::Acquire) {
            return false;
        }
        let statuses = within(env.config.calls.other, env.server.statuses(directory)).await;
        let Ok(statuses) = statuses else { continue };
        let works = matches!(
            statuses.get(&aborted.session),
            Some(SessionStatus::Busy | SessionStatus::Retry { .. })
        );
        return works
            && !prompted_since(env, &aborted.session, &aborted.run, since).await
            && !aborted.superseded.load(Ordering::Acquire);
    }
}

/// A session that may need an abort after a crash of the process.
pub(crate) struct AbortAfterCrash {
    pub(crate) session: AbortedSession,
    pub(crate) directory: Option<Arc<str>>,
    pub(crate) run: (TaskId, Run),
    /// Set by the registry once the session is prompted again; read before each abort.
    pub(crate) superseded: Arc<AtomicBool>,
    /// When the run ended.
    pub(crate) ended: Option<Timestamp>,
    pub(crate) registry: ActorRef<TaskRegistry>,
}

/// The session of a run that has ended.
pub(crate) enum AbortedSession {
    /// A known session.
    Session(SessionId),
    /// A session that was being created, and may exist.
    Created(Box<NewSession>, Vec<SearchScope>),
}

/// Aborts the session of an ended run if the session is busy and no other client has prompted it since the end.
pub(crate) fn abort_if_busy(env: &Env, after: AbortAfterCrash, ticket: AbortTicket) {
    let (env, ticket) = (env.clone(), Arc::new(ticket));
    let within_env = env.clone();
    let call = async move {
        let env = within_env;
        let found = match &after.session {
            AbortedSession::Session(session) => Some(session.clone()),
            AbortedSession::Created(new, others) => {
                find_created_with_retries(&env, new, others).await
            }
        };
        let target = match &found {
            None => None,
            Some(session) if still_busy(&env, session, after.directory.as_deref()).await => {
                let since = after.ended.unwrap_or_default();
                (!prompted_since(&env, session, &after.run, since).await).then(|| session.clone())
            }
            Some(_) => None,
        };
        let Some(session) = target.filter(|_| !after.superseded.load(Ordering::Acquire)) else {
            ticket.not_needed();
            return;
        };
        let aborted = SessionToAbort {
            session,
            directory: after.directory,
            run: after.run,
            superseded: after.superseded,
            open: Arc::new(AtomicUsize::new(1)),
            registry: after.registry,
        };
        abort(env, aborted, Some(ticket)).await;
    };
    spawn_call(
        &env,
        "task: abort after a crash is answered",
        call,
        |_| (),
        |()| (),
    );
}

/// Looks up the session of a create call made before the process ended. An unreachable server is tried again for a minute.
async fn find_created_with_retries(
    env: &Env,
    new: &NewSession,
    others: &[SearchScope],
) -> Option<SessionId> {
    for attempt in 1..=10 {
        match find_created(env, new, others.to_vec()).await {
            Ok(found) => return found,
            Err(ServerError::NotFound(_)) => return None,
            Err(failure) => {
                tracing::debug!(task = %new.task, %failure, "lookup of a created session failed")
            }
        }
        tokio::time::sleep(connect_backoff(attempt)).await;
    }
    None
}

fn settle(ticket: Option<Arc<AbortTicket>>) {
    if let Some(ticket) = ticket {
        ticket.settle();
    }
}

/// Returns true if the newest prompt that is not of that run was made at or after `since`. Also returns true if the messages
/// cannot be read: a lost abort costs less than the abort of another client's turn.
async fn prompted_since(
    env: &Env,
    session: &SessionId,
    (task, run): &(TaskId, Run),
    since: Timestamp,
) -> bool {
    let by_others = |message: &&Message| {
        // A notice from Greenroom does not prompt a session whose task has ended.
        let notice = message.parts.iter().any(|part| part.notice_id().is_some());
        message.role.as_deref() == Some("user") && !notice && !message.is_prompt_of(task, *run)
    };
    let newest = |messages: &[Message]| messages.iter().rev().find(by_others).cloned();
    let Ok(found) = find_message(env, session, 20, newest).await else {
        return true;
    };
    found
        .and_then(|message| message.created)
        .is_some_and(|created| !created.is_wall_before(since))
}

async fn still_busy(env: &Env, session: &SessionId, directory: Option<&str>) -> bool {
    let directory = directory.unwrap_or(&env.config.directory);
    match within(env.config.calls.other, env.server.statuses(directory)).await {
        Ok(statuses) => matches!(
            statuses.get(session),
            Some(SessionStatus::Busy | SessionStatus::Retry { .. })
        ),
        // An unknown status counts as busy: a needless abort is harmless, a missing one leaves the session working.
        Err(_) => true,
    }
}
