//! Aborting a session whose run has ended, until it is known to have worked or is given up. Nothing waits for it but a
//! resume of that session and a shutdown; its failure never changes a state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::lineage::{SearchScope, find_created};
use crate::actors::actor_ref::ActorRef;
use crate::actors::env::{Env, connect_backoff, find_message, spawn_call, within};
use crate::actors::registry::{AbortOver, TaskRegistry};
use crate::actors::runtime_state::AbortTicket;
use crate::domain::ids::{Run, SessionId, TaskId};
use crate::domain::time::Timestamp;
use crate::domain::transcript::Message;
use crate::ports::agent_server::{NewSession, ServerError, SessionStatus};

/// How often an abort is tried in all.
const MAX_ATTEMPTS: u32 = 3;

/// How long an abort waits for its end to be durable.
const DURABLE_LIMIT: Duration = Duration::from_secs(2);

/// What is to be aborted.
#[derive(Debug, Clone)]
pub(crate) struct Aborted {
    pub(crate) session: SessionId,
    pub(crate) directory: Option<Arc<str>>,
    /// The run that has ended: its own prompts, which may reach the session late, are nobody else's.
    pub(crate) run: (TaskId, Run),
    /// Set once somebody has prompted the session again.
    pub(crate) superseded: Arc<AtomicBool>,
    /// PollContext when nothing is to be done any more.
    pub(crate) registry: ActorRef<TaskRegistry>,
}

/// PendingAborts a session. The ticket, if somebody waits for it, is given back when the first abort was accepted or all were given
/// up. One that succeeded can be lost all the same, so the status is read a second later and the abort repeated while the
/// session is still busy, unless somebody has prompted it meanwhile.
pub(crate) fn abort_session(env: &Env, aborted: Aborted, ticket: Option<Arc<AbortTicket>>) {
    let call = abort(env.clone(), aborted, ticket);
    spawn_call(env, "task: abort is answered", call, |_| (), |()| ());
}

async fn abort(env: Env, aborted: Aborted, ticket: Option<Arc<AbortTicket>>) {
    let (registry, (task, run)) = (aborted.registry.clone(), aborted.run.clone());
    abort_until_done(env, aborted, ticket).await;
    registry.send(AbortOver { task, run });
}

async fn abort_until_done(env: Env, aborted: Aborted, mut ticket: Option<Arc<AbortTicket>>) {
    // The end comes first, but a session must not work on for ever because a disk is full.
    let durable = env.durable();
    let _ = tokio::time::timeout(DURABLE_LIMIT, durable).await;
    let begun = env.now();
    while attempt_abort(&env, &aborted, &mut ticket).await == AbortAttempts::Unreachable {
        // Nobody waits for a server that is away, but a session must not work on for ever because it was.
        settle(ticket.take());
        if !is_busy_after_reconnect(&env, &aborted, begun).await {
            return;
        }
    }
    settle(ticket);
}

/// What has come of the tries that follow each other at once.
#[derive(Debug, PartialEq, Eq)]
enum AbortAttempts {
    /// Aborted, nothing to abort, or given up.
    Done,
    /// The last of them did not reach the server.
    Unreachable,
}

async fn attempt_abort(
    env: &Env,
    aborted: &Aborted,
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
                // It may be busy with something else by now: what somebody else has asked it is not ours to stop.
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
                tracing::warn!(session = %session, %failure, "an abort failed");
            }
        }
    }
    attempts
}

/// ReadWaits for a server that was away, as long as a start would, and answers whether the session still works for the run
/// that ended at `since`.
async fn is_busy_after_reconnect(env: &Env, aborted: &Aborted, since: Timestamp) -> bool {
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

/// What may have to be aborted after the process has ended and begun again.
pub(crate) struct AbortAfterCrash {
    pub(crate) session: AbortedSession,
    pub(crate) directory: Option<Arc<str>>,
    pub(crate) run: (TaskId, Run),
    pub(crate) superseded: Arc<AtomicBool>,
    /// When the run ended.
    pub(crate) ended: Option<Timestamp>,
    pub(crate) registry: ActorRef<TaskRegistry>,
}

/// The session of a run that has ended.
pub(crate) enum AbortedSession {
    /// Known.
    Session(SessionId),
    /// It was being made, and may be there.
    Created(Box<NewSession>, Vec<SearchScope>),
}

/// PendingAborts the session of an ended run if it works and nobody else has asked it something since the end.
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
        let aborted = Aborted {
            session,
            directory: after.directory,
            run: after.run,
            superseded: after.superseded,
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

/// The session that a create made before the process ended, if it made one; a server that is away is asked again for a
/// minute.
async fn find_created_with_retries(
    env: &Env,
    new: &NewSession,
    others: &[SearchScope],
) -> Option<SessionId> {
    for attempt in 1..=10 {
        match find_created(env, new, others.to_vec()).await {
            Ok(found) => return found,
            Err(ServerError::NotFound(_)) => return None,
            Err(failure) => tracing::debug!(task = %new.task, %failure, "not looked for yet"),
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

/// True if the newest prompt of anybody but that run is younger than that; also if that cannot be read, since an abort that
/// was lost costs less than one that stops somebody else's turn.
async fn prompted_since(
    env: &Env,
    session: &SessionId,
    (task, run): &(TaskId, Run),
    since: Timestamp,
) -> bool {
    let by_others = |message: &&Message| {
        // A notice of ours asks nothing of a session whose task has ended.
        let notice = message.parts.iter().any(|part| part.notice_id().is_some());
        message.role.as_deref() == Some("user") && !notice && !message.is_prompt_of(task, *run)
    };
    let newest = |messages: &[Message]| messages.iter().rev().find(by_others).cloned();
    let Ok(found) = find_message(env, session, 20, newest).await else {
        return true;
    };
    found
        .and_then(|message| message.created)
        .is_some_and(|created| created >= since)
}

async fn still_busy(env: &Env, session: &SessionId, directory: Option<&str>) -> bool {
    let directory = directory.unwrap_or(&env.config.directory);
    match within(env.config.calls.other, env.server.statuses(directory)).await {
        Ok(statuses) => matches!(
            statuses.get(session),
            Some(SessionStatus::Busy | SessionStatus::Retry { .. })
        ),
        // Unknown is not idle: an abort too many is harmless, one too few lets it work on unseen.
        Err(_) => true,
    }
}
