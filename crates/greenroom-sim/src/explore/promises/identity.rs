//! Promise 4, **Identity**: "A late answer, event or timer of an earlier run never touches a later one." As
//! seen from the server: no prompt and no create for an ended run, no effect twice, no call started after a
//! shutdown, and no unwatched session of Greenroom that is busy.

use std::collections::{BTreeMap, BTreeSet};

use greenroom::TaskChange;
use greenroom::domain::ids::{Run, SessionId, TaskId};
use greenroom::domain::task::TaskStatus;

use super::Promise;
use crate::explore::log::{Call, Entry, Fact, LogEvent, Request};
use crate::explore::observed::{LogPosition, ObservedState, Origin};

/// Effects so far, and sessions that may stay busy.
#[derive(Debug, Default)]
pub(super) struct Identity {
    prompted: BTreeSet<(TaskId, Run, u64)>,
    /// The session created for each run.
    created_sessions: BTreeMap<(TaskId, Run), SessionId>,
    /// The last prompt that was not stored, because the server does not know its agent.
    refused: Option<(usize, SessionId)>,
    /// Whether each session is busy.
    busy: BTreeMap<SessionId, bool>,
    /// Sessions with a user prompt, or with a failed or unwanted abort.
    exempt: BTreeSet<SessionId>,
    aborts: BTreeMap<u64, SessionId>,
    unaborted: BTreeSet<TaskId>,
    /// The session created by the call that takes effect now.
    created_now: Option<SessionId>,
    /// Sessions created by calls in flight, by the number of the call.
    in_flight_sessions: BTreeMap<u64, SessionId>,
    /// Sessions created for ended runs that were not aborted yet.
    to_abort: BTreeMap<SessionId, TaskId>,
    /// The last time at which the system may have learned that a session is busy.
    last_busy: BTreeMap<SessionId, LogPosition>,
    /// The last abort of each session.
    last_abort: BTreeMap<SessionId, LogPosition>,
}

impl Identity {
    fn call(
        &mut self,
        index: usize,
        entry: &Entry,
        call: &Call,
        observed: &ObservedState,
    ) -> Option<String> {
        if let Call::Create { task, run, .. } | Call::Prompt { task, run, .. } = call {
            let facts = observed.run(task, *run)?;
            if let Some((ended, status)) = facts.ended
                && ended.index < index
            {
                return Some(format!(
                    "{task} run {run} is {} since {}, but then: {call:?}",
                    status.as_str(),
                    ended.at
                ));
            }
        }
        let begins = matches!(
            call,
            Call::Create { .. } | Call::Prompt { .. } | Call::Notify { .. }
        );
        if begins
            && observed
                .shutdown_requested
                .is_some_and(|shutdown_requested| shutdown_requested.at < entry.at)
        {
            return Some(format!("after the shutdown was requested: {call:?}"));
        }
        // Sessions created by late calls are still aborted after a shutdown.
        let cleanup = matches!(call, Call::Abort(_) | Call::Statuses | Call::Messages(_));
        let grace_ms = 60_000;
        if observed
            .shutdown_completed
            .is_some_and(|closed| closed.at + grace_ms < entry.at && !cleanup)
        {
            return Some(format!(
                "a minute after the shutdown was completed: {call:?}"
            ));
        }
        None
    }

    fn effect(
        &mut self,
        index: usize,
        number: u64,
        call: &Call,
        observed: &ObservedState,
    ) -> Option<String> {
        match call {
            // The prompt of an agent that the server does not know takes effect without being stored.
            Call::Prompt { session, .. }
                if self
                    .refused
                    .as_ref()
                    .is_some_and(|(refused, of)| refused + 1 == index && of == session) =>
            {
                None
            }
            Call::Prompt {
                task, run, prompt, ..
            } if !observed.actor_panicked => {
                let first = self.prompted.insert((task.clone(), *run, *prompt));
                (!first).then(|| {
                    format!("prompt {prompt} of {task} run {run} reached its session twice")
                })
            }
            Call::Create { task, run, .. } => {
                let session = self.in_flight_sessions.get(&number)?.clone();
                let previous = self
                    .created_sessions
                    .insert((task.clone(), *run), session)?;
                // A session that was deleted with its parent before its task received it cannot be found.
                let deleted = observed
                    .session(&previous)
                    .is_some_and(|known| known.deleted.is_some());
                (!deleted).then(|| format!("two sessions were created for {task} run {run}"))
            }
            _ => None,
        }
    }
}

impl Identity {
    /// Tracks sessions that were created for ended runs, until they are aborted.
    fn track_late_sessions(&mut self, index: usize, what: &LogEvent, observed: &ObservedState) {
        match what {
            LogEvent::SessionFact {
                session,
                fact: Fact::Created,
            } => self.created_now = Some(session.clone()),
            LogEvent::CallApplied(number) => {
                if let (Some(session), Some(Call::Create { .. })) =
                    (self.created_now.take(), observed.call(*number))
                {
                    self.in_flight_sessions.insert(*number, session);
                }
            }
            LogEvent::CallReturned { number, answer } => {
                let created_sessions = self
                    .in_flight_sessions
                    .remove(number)
                    .filter(|_| answer == "ok");
                if let (Some(session), Some(Call::Create { task, run, .. })) =
                    (created_sessions, observed.call(*number))
                    && let Some((ended, _)) = observed.run(task, *run).and_then(|run| run.ended)
                    && ended.index < index
                {
                    self.to_abort.insert(session, task.clone());
                }
            }
            LogEvent::CallStarted {
                call: Call::Abort(session),
                ..
            } => {
                self.to_abort.remove(session);
            }
            _ => {}
        }
    }

    /// Tracks what the system may know about busy and aborted sessions.
    fn track_sessions(&mut self, position: LogPosition, what: &LogEvent, observed: &ObservedState) {
        match what {
            LogEvent::EventDelivered { session, kind, .. }
                if matches!(
                    kind.as_str(),
                    "session.status busy" | "session.status retry"
                ) =>
            {
                self.last_busy.insert(session.clone(), position);
            }
            LogEvent::CallApplied(number)
                if matches!(observed.call(*number), Some(Call::Statuses)) =>
            {
                let busy = self.busy.iter().filter(|(_, busy)| **busy);
                self.last_busy
                    .extend(busy.map(|(session, _)| (session.clone(), position)));
            }
            LogEvent::SessionFact {
                session,
                fact: Fact::Aborted | Fact::UserAborted | Fact::CutOff,
            } => {
                self.last_abort.insert(session.clone(), position);
            }
            _ => {}
        }
    }

    /// "Nor does an abort error in a resumed run that has not been seen busy yet: it is the echo of the abort
    /// before."
    fn echo_violation(&self, change: &TaskChange, observed: &ObservedState) -> Option<String> {
        let text = change.task.error()?;
        let run = observed.run(&change.task.id, change.task.run)?;
        let (session, running) = (run.session.as_ref()?, run.running?);
        let since = |known: &BTreeMap<SessionId, LogPosition>| {
            known
                .get(session)
                .is_some_and(|position| *position >= running)
        };
        let echo = change.to == TaskStatus::Interrupt
            && text == "the session was aborted from outside"
            && run.origin == Origin::Resume
            && !run.actor_panicked
            && !since(&self.last_busy)
            && !since(&self.last_abort);
        echo.then(|| {
            format!(
                "{} run {} was ended by an earlier abort: since it runs, its session was neither seen busy nor aborted",
                run.task, run.run
            )
        })
    }
}

impl Promise for Identity {
    fn name(&self) -> &'static str {
        "4 Identity"
    }

    fn check_entry(
        &mut self,
        index: usize,
        entry: &Entry,
        observed: &ObservedState,
    ) -> Option<String> {
        let position = LogPosition {
            index,
            at: entry.at,
        };
        self.track_late_sessions(index, &entry.event, observed);
        self.track_sessions(position, &entry.event, observed);
        match &entry.event {
            LogEvent::SessionFact {
                session,
                fact: Fact::NotConfigured,
            } => {
                self.refused = Some((index, session.clone()));
                None
            }
            LogEvent::TaskChanged(change) => self.echo_violation(change, observed),
            LogEvent::CallStarted { number, call } => {
                // If the messages cannot be read, the owner of the turn is unknown and the session is left
                // alone.
                if let Call::Abort(session) | Call::Messages(session) = call {
                    self.aborts.insert(*number, session.clone());
                }
                self.call(index, entry, call, observed)
            }
            LogEvent::CallReturned { number, answer } if answer != "ok" => {
                self.exempt.extend(self.aborts.get(number).cloned());
                None
            }
            LogEvent::NoticeStored {
                parent,
                wakes: true,
                ..
            } => {
                // A message that was in flight when its parent ended still wakes it.
                let known = observed.session(parent);
                let owner = known.and_then(|known| known.owner.as_ref())?;
                if observed.newest(owner).is_some_and(|run| !run.is_open()) {
                    self.exempt.insert(parent.clone());
                }
                None
            }
            LogEvent::CallApplied(number) => {
                let call = observed.call(*number)?;
                if let Call::Prompt {
                    session, task, run, ..
                } = call
                    && let Some((ended, _)) = observed.run(task, *run)?.ended
                {
                    // Without a check after an abort, the turn of a late prompt is not aborted. A resume
                    // waits for a late prompt for a limited time.
                    let wait = i64::try_from(observed.config.calls.other.as_millis()).unwrap_or(0);
                    let newest = observed
                        .newest(task)
                        .is_some_and(|newest| newest.run == *run);
                    let late = ended.at + wait <= entry.at && !newest;
                    if late || !observed.config.lifecycle.look_after_abort {
                        self.exempt.insert(session.clone());
                    }
                }
                self.effect(index, *number, call, observed)
            }
            LogEvent::Requested(Request::Cancel {
                task, abort: false, ..
            }) => {
                self.unaborted.insert(task.clone());
                None
            }
            LogEvent::SessionFact { session, fact } => {
                match fact {
                    Fact::Busy => {
                        self.busy.insert(session.clone(), true);
                    }
                    Fact::Idle => {
                        self.busy.insert(session.clone(), false);
                    }
                    Fact::UserPrompted | Fact::Deleted => {
                        self.exempt.insert(session.clone());
                    }
                    _ => {}
                }
                None
            }
            _ => None,
        }
    }

    fn check_end(&mut self, observed: &ObservedState) -> Option<String> {
        if let Some((session, task)) = self.to_abort.iter().next()
            && !observed.actor_panicked
            && observed.process_crashed.is_none()
        {
            return Some(format!(
                "{session} was created after {task} had ended, and was never aborted"
            ));
        }
        for (session, busy) in &self.busy {
            let Some(owner) = observed
                .session(session)
                .and_then(|known| known.owner.as_ref())
            else {
                continue;
            };
            let lost = observed
                .session(session)
                .is_some_and(|known| known.abort_lost);
            let abort_unchecked = lost && !observed.config.lifecycle.look_after_abort;
            // A task below a deleted session leaves memory at once, and its abort is not checked after a
            // crash. The server deletes the sessions below, except one created afterwards.
            let below_deleted = observed.process_crashed.is_some()
                && observed
                    .newest(owner)
                    .is_some_and(|run| run.error.as_deref() == Some("Session deleted"));
            // Nor is the abort of a task that leaves memory before its prompt is answered.
            let config = &observed.config;
            let left_early = lost
                && observed.process_crashed.is_some()
                && config.lifecycle.keep_ended < config.calls.prompt;
            let exempt = self.exempt.contains(session)
                || left_early
                || self.unaborted.contains(owner)
                || below_deleted
                || abort_unchecked
                || observed.actor_panicked;
            if *busy && !exempt && observed.newest(owner).is_some_and(|run| !run.is_open()) {
                return Some(format!("{session} is still busy, but {owner} has ended"));
            }
        }
        None
    }
}
