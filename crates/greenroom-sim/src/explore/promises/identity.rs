//! Promise 4, **Identity**: "A late answer, event or timer of an earlier run never touches a later one." Seen from the server:
//! nothing is prompted or made for a run that has ended, nothing takes effect twice, nothing is begun after a shutdown, and
//! nothing goes on in a session of ours that nobody watches.

use std::collections::{BTreeMap, BTreeSet};

use greenroom::TaskChange;
use greenroom::domain::ids::{Run, SessionId, TaskId};
use greenroom::domain::task::TaskStatus;

use super::Promise;
use crate::explore::log::{Call, Entry, Fact, LogEvent, Request};
use crate::explore::observed::{LogPosition, ObservedState, Origin};

/// What has had its effect, and whose sessions may go on.
#[derive(Debug, Default)]
pub(super) struct Identity {
    prompted: BTreeSet<(TaskId, Run, u64)>,
    made: BTreeSet<(TaskId, Run)>,
    /// Sessions of ours, busy since something of ours.
    working: BTreeMap<SessionId, bool>,
    /// Sessions that others have prompted, whose aborts failed or were not wanted.
    excused: BTreeSet<SessionId>,
    aborts: BTreeMap<u64, SessionId>,
    unaborted: BTreeSet<TaskId>,
    /// The session that the call which has its effect now has made.
    made_now: Option<SessionId>,
    /// Sessions that creates on their way have made, by the call.
    created: BTreeMap<u64, SessionId>,
    /// Sessions that came back for runs that had ended, and were not aborted yet.
    unwanted: BTreeMap<SessionId, TaskId>,
    /// When the system may last have heard of each session that it works.
    seen_busy: BTreeMap<SessionId, LogPosition>,
    /// When each session last was aborted by anybody.
    stopped: BTreeMap<SessionId, LogPosition>,
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
                    "{task} run {run} is {} since {}, and then: {call:?}",
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
            return Some(format!("after the shutdown was asked for: {call:?}"));
        }
        // What a call that was on its way has left is still aborted, however late it is answered.
        let cleans = matches!(call, Call::Abort(_) | Call::Statuses | Call::Messages(_));
        let minute = 60_000;
        if observed
            .shutdown_completed
            .is_some_and(|closed| closed.at + minute < entry.at && !cleans)
        {
            return Some(format!("a minute after the shutdown was done: {call:?}"));
        }
        None
    }

    fn effect(&mut self, call: &Call, observed: &ObservedState) -> Option<String> {
        match call {
            Call::Prompt {
                task, run, prompt, ..
            } if !observed.actor_panicked => {
                let first = self.prompted.insert((task.clone(), *run, *prompt));
                (!first).then(|| {
                    format!("prompt {prompt} of {task} run {run} reached its session twice")
                })
            }
            Call::Create { task, run, .. } => {
                let first = self.made.insert((task.clone(), *run));
                (!first).then(|| format!("two sessions were made for {task} run {run}"))
            }
            _ => None,
        }
    }
}

impl Identity {
    /// What came back for a run that had ended meanwhile must be aborted; what is, is.
    fn late_sessions(&mut self, index: usize, what: &LogEvent, observed: &ObservedState) {
        match what {
            LogEvent::SessionFact {
                session,
                fact: Fact::Created,
            } => self.made_now = Some(session.clone()),
            LogEvent::CallApplied(number) => {
                if let (Some(session), Some(Call::Create { .. })) =
                    (self.made_now.take(), observed.call(*number))
                {
                    self.created.insert(*number, session);
                }
            }
            LogEvent::CallReturned { number, answer } => {
                let made = self.created.remove(number).filter(|_| answer == "ok");
                if let (Some(session), Some(Call::Create { task, run, .. })) =
                    (made, observed.call(*number))
                    && let Some((ended, _)) = observed.run(task, *run).and_then(|run| run.ended)
                    && ended.index < index
                {
                    self.unwanted.insert(session, task.clone());
                }
            }
            LogEvent::CallStarted {
                call: Call::Abort(session),
                ..
            } => {
                self.unwanted.remove(session);
            }
            _ => {}
        }
    }

    /// What the system may know of who works and who was stopped.
    fn follow(&mut self, position: LogPosition, what: &LogEvent, observed: &ObservedState) {
        match what {
            LogEvent::EventDelivered { session, kind, .. }
                if matches!(
                    kind.as_str(),
                    "session.status busy" | "session.status retry"
                ) =>
            {
                self.seen_busy.insert(session.clone(), position);
            }
            LogEvent::CallApplied(number)
                if matches!(observed.call(*number), Some(Call::Statuses)) =>
            {
                let busy = self.working.iter().filter(|(_, working)| **working);
                self.seen_busy
                    .extend(busy.map(|(session, _)| (session.clone(), position)));
            }
            LogEvent::SessionFact {
                session,
                fact: Fact::Aborted | Fact::UserAborted,
            } => {
                self.stopped.insert(session.clone(), position);
            }
            _ => {}
        }
    }

    /// "Nor does an abort error in a resumed run that has not been seen busy yet: it is the echo of the abort before."
    fn echoed(&self, change: &TaskChange, observed: &ObservedState) -> Option<String> {
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
            && !since(&self.seen_busy)
            && !since(&self.stopped);
        echo.then(|| {
            format!(
                "{} run {} is ended by an abort that was before it: since it runs nobody was seen at work or stopped",
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
        self.late_sessions(index, &entry.event, observed);
        self.follow(position, &entry.event, observed);
        match &entry.event {
            LogEvent::TaskChanged(change) => self.echoed(change, observed),
            LogEvent::CallStarted { number, call } => {
                // Without its messages nobody knows whose turn it is: then it is left alone.
                if let Call::Abort(session) | Call::Messages(session) = call {
                    self.aborts.insert(*number, session.clone());
                }
                self.call(index, entry, call, observed)
            }
            LogEvent::CallReturned { number, answer } if answer != "ok" => {
                self.excused.extend(self.aborts.get(number).cloned());
                None
            }
            LogEvent::CallApplied(number) => {
                let call = observed.call(*number)?;
                // A message that was on its way when its parent ended wakes it all the same.
                if let Call::Notify { parent, notice } = call
                    && !notice.silent
                    && let Some(owner) = observed
                        .session(parent)
                        .and_then(|known| known.owner.as_ref())
                    && observed.newest(owner).is_some_and(|run| !run.is_open())
                {
                    self.excused.insert(parent.clone());
                }
                if let Call::Prompt {
                    session, task, run, ..
                } = call
                    && let Some((ended, _)) = observed.run(task, *run)?.ended
                {
                    // Where nobody looks after an abort, nobody stops what a late prompt begins either; and a resume
                    // waits for a late prompt only a while.
                    let wait = i64::try_from(observed.config.calls.other.as_millis()).unwrap_or(0);
                    let newest = observed
                        .newest(task)
                        .is_some_and(|newest| newest.run == *run);
                    let late = ended.at + wait <= entry.at && !newest;
                    if late || !observed.config.lifecycle.look_after_abort {
                        self.excused.insert(session.clone());
                    }
                }
                self.effect(call, observed)
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
                        self.working.insert(session.clone(), true);
                    }
                    Fact::Idle => {
                        self.working.insert(session.clone(), false);
                    }
                    Fact::UserPrompted | Fact::Deleted => {
                        self.excused.insert(session.clone());
                    }
                    _ => {}
                }
                None
            }
            _ => None,
        }
    }

    fn check_end(&mut self, observed: &ObservedState) -> Option<String> {
        if let Some((session, task)) = self.unwanted.iter().next()
            && !observed.actor_panicked
            && observed.process_crashed.is_none()
        {
            return Some(format!(
                "{session} came back after {task} had ended, and was never aborted"
            ));
        }
        for (session, working) in &self.working {
            let Some(owner) = observed
                .session(session)
                .and_then(|known| known.owner.as_ref())
            else {
                continue;
            };
            let lost = observed
                .session(session)
                .is_some_and(|known| known.abort_lost);
            let hopeless = lost && !observed.config.lifecycle.look_after_abort;
            // One below a deleted session leaves memory at once, and after a crash nobody looks after its abort: the server
            // deletes what is below, but for a session that was made there after it.
            let ghost = observed.process_crashed.is_some()
                && observed
                    .newest(owner)
                    .is_some_and(|run| run.error.as_deref() == Some("Session deleted"));
            let excused = self.excused.contains(session)
                || self.unaborted.contains(owner)
                || ghost
                || hopeless
                || observed.actor_panicked;
            if *working && !excused && observed.newest(owner).is_some_and(|run| !run.is_open()) {
                return Some(format!("{session} still works, and {owner} has ended"));
            }
        }
        None
    }
}
