//! Promise 4, **Identity**: "A late answer, event or timer of an earlier run never touches a later one." Seen from the server:
//! nothing is prompted or made for a run that has ended, nothing takes effect twice, nothing is begun after a shutdown, and
//! nothing goes on in a session of ours that nobody watches.

use std::collections::{BTreeMap, BTreeSet};

use greenroom::TaskChange;
use greenroom::domain::ids::{Run, SessionId, TaskId};
use greenroom::domain::task::TaskStatus;

use super::Promise;
use crate::explore::log::{Call, Entry, Fact, Order, What};
use crate::explore::observed::{Ledger, Mark, Origin};

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
    seen_busy: BTreeMap<SessionId, Mark>,
    /// When each session last was aborted by anybody.
    stopped: BTreeMap<SessionId, Mark>,
}

impl Identity {
    fn call(
        &mut self,
        place: usize,
        entry: &Entry,
        call: &Call,
        ledger: &Ledger,
    ) -> Option<String> {
        if let Call::Create { task, run, .. } | Call::Prompt { task, run, .. } = call {
            let facts = ledger.run(task, *run)?;
            if let Some((ended, status)) = facts.ended
                && ended.place < place
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
        if begins && ledger.closing.is_some_and(|closing| closing.at < entry.at) {
            return Some(format!("after the shutdown was asked for: {call:?}"));
        }
        // What a call that was on its way has left is still aborted, however late it is answered.
        let cleans = matches!(call, Call::Abort(_) | Call::Statuses | Call::Messages(_));
        let minute = 60_000;
        if ledger
            .closed
            .is_some_and(|closed| closed.at + minute < entry.at && !cleans)
        {
            return Some(format!("a minute after the shutdown was done: {call:?}"));
        }
        None
    }

    fn effect(&mut self, call: &Call, ledger: &Ledger) -> Option<String> {
        match call {
            Call::Prompt {
                task, run, prompt, ..
            } if !ledger.sabotaged => {
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
    fn late_sessions(&mut self, place: usize, what: &What, ledger: &Ledger) {
        match what {
            What::Truth {
                session,
                fact: Fact::Made,
            } => self.made_now = Some(session.clone()),
            What::Effect(number) => {
                if let (Some(session), Some(Call::Create { .. })) =
                    (self.made_now.take(), ledger.call(*number))
                {
                    self.created.insert(*number, session);
                }
            }
            What::Returned { number, answer } => {
                let made = self.created.remove(number).filter(|_| answer == "ok");
                if let (Some(session), Some(Call::Create { task, run, .. })) =
                    (made, ledger.call(*number))
                    && let Some((ended, _)) = ledger.run(task, *run).and_then(|run| run.ended)
                    && ended.place < place
                {
                    self.unwanted.insert(session, task.clone());
                }
            }
            What::Call {
                call: Call::Abort(session),
                ..
            } => {
                self.unwanted.remove(session);
            }
            _ => {}
        }
    }

    /// What the system may know of who works and who was stopped.
    fn follow(&mut self, mark: Mark, what: &What, ledger: &Ledger) {
        match what {
            What::Event { session, kind, .. }
                if matches!(
                    kind.as_str(),
                    "session.status busy" | "session.status retry"
                ) =>
            {
                self.seen_busy.insert(session.clone(), mark);
            }
            What::Effect(number) if matches!(ledger.call(*number), Some(Call::Statuses)) => {
                let busy = self.working.iter().filter(|(_, working)| **working);
                self.seen_busy
                    .extend(busy.map(|(session, _)| (session.clone(), mark)));
            }
            What::Truth {
                session,
                fact: Fact::Aborted | Fact::Stopped,
            } => {
                self.stopped.insert(session.clone(), mark);
            }
            _ => {}
        }
    }

    /// "Nor does an abort error in a resumed run that has not been seen busy yet: it is the echo of the abort before."
    fn echoed(&self, change: &TaskChange, ledger: &Ledger) -> Option<String> {
        let text = change.task.error()?;
        let run = ledger.run(&change.task.id, change.task.run)?;
        let (session, running) = (run.session.as_ref()?, run.running?);
        let since = |known: &BTreeMap<SessionId, Mark>| {
            known.get(session).is_some_and(|mark| *mark >= running)
        };
        let echo = change.to == TaskStatus::Interrupt
            && text == "the session was aborted from outside"
            && run.origin == Origin::Resume
            && !run.sabotaged
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

    fn see(&mut self, place: usize, entry: &Entry, ledger: &Ledger) -> Option<String> {
        let mark = Mark {
            place,
            at: entry.at,
        };
        self.late_sessions(place, &entry.what, ledger);
        self.follow(mark, &entry.what, ledger);
        match &entry.what {
            What::Changed(change) => self.echoed(change, ledger),
            What::Call { number, call } => {
                // Without its messages nobody knows whose turn it is: then it is left alone.
                if let Call::Abort(session) | Call::Messages(session) = call {
                    self.aborts.insert(*number, session.clone());
                }
                self.call(place, entry, call, ledger)
            }
            What::Returned { number, answer } if answer != "ok" => {
                self.excused.extend(self.aborts.get(number).cloned());
                None
            }
            What::Effect(number) => {
                let call = ledger.call(*number)?;
                // A message that was on its way when its parent ended wakes it all the same.
                if let Call::Notify { parent, notice } = call
                    && !notice.silent
                    && let Some(owner) = ledger
                        .session(parent)
                        .and_then(|known| known.owner.as_ref())
                    && ledger.newest(owner).is_some_and(|run| !run.is_open())
                {
                    self.excused.insert(parent.clone());
                }
                if let Call::Prompt {
                    session, task, run, ..
                } = call
                    && let Some((ended, _)) = ledger.run(task, *run)?.ended
                {
                    // Where nobody looks after an abort, nobody stops what a late prompt begins either; and a resume
                    // waits for a late prompt only a while.
                    let wait = i64::try_from(ledger.config.calls.other.as_millis()).unwrap_or(0);
                    let newest = ledger.newest(task).is_some_and(|newest| newest.run == *run);
                    let late = ended.at + wait <= entry.at && !newest;
                    if late || !ledger.config.lifecycle.look_after_abort {
                        self.excused.insert(session.clone());
                    }
                }
                self.effect(call, ledger)
            }
            What::Asked(Order::Cancel {
                task, abort: false, ..
            }) => {
                self.unaborted.insert(task.clone());
                None
            }
            What::Truth { session, fact } => {
                match fact {
                    Fact::Busy => {
                        self.working.insert(session.clone(), true);
                    }
                    Fact::Idle => {
                        self.working.insert(session.clone(), false);
                    }
                    Fact::Spoken | Fact::Deleted => {
                        self.excused.insert(session.clone());
                    }
                    _ => {}
                }
                None
            }
            _ => None,
        }
    }

    fn at_end(&mut self, ledger: &Ledger) -> Option<String> {
        if let Some((session, task)) = self.unwanted.iter().next()
            && !ledger.sabotaged
            && ledger.crashed.is_none()
        {
            return Some(format!(
                "{session} came back after {task} had ended, and was never aborted"
            ));
        }
        for (session, working) in &self.working {
            let Some(owner) = ledger
                .session(session)
                .and_then(|known| known.owner.as_ref())
            else {
                continue;
            };
            let lost = ledger
                .session(session)
                .is_some_and(|known| known.lost_abort);
            let hopeless = lost && !ledger.config.lifecycle.look_after_abort;
            // One below a deleted session leaves memory at once, and after a crash nobody looks after its abort: the server
            // deletes what is below, but for a session that was made there after it.
            let ghost = ledger.crashed.is_some()
                && ledger
                    .newest(owner)
                    .is_some_and(|run| run.error.as_deref() == Some("Session deleted"));
            let excused = self.excused.contains(session)
                || self.unaborted.contains(owner)
                || ghost
                || hopeless
                || ledger.sabotaged;
            if *working && !excused && ledger.newest(owner).is_some_and(|run| !run.is_open()) {
                return Some(format!("{session} still works, and {owner} has ended"));
            }
        }
        None
    }
}
