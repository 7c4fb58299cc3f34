//! Promise 5, **Truth**: "Status, history, notification and journal never contradict each other. \"Unknown\" is neither
//! \"gone\" nor \"idle\"." Here: an end says what is true at the server. What readers are told at the end is compared in
//! `leftovers`.

use greenroom::TaskChange;
use greenroom::config::FailedCheck;
use greenroom::domain::task::TaskStatus;

use super::Promise;
use crate::explore::log::{Entry, LogEvent};
use crate::explore::observed::{LogPosition, ObservedState, Origin, RunFacts};

/// Whether an end is true.
#[derive(Debug)]
pub(super) struct Truth {
    /// No event and no call of this scenario goes astray.
    calm: bool,
}

impl Truth {
    pub(super) fn new(calm: bool) -> Self {
        Self { calm }
    }

    fn completed(
        &self,
        at: i64,
        change: &TaskChange,
        run: &RunFacts,
        observed: &ObservedState,
    ) -> Option<String> {
        let name = || format!("{} run {} is completed", run.task, run.run);
        let Some(session) = &run.session else {
            return Some(format!("{}, and has no session", name()));
        };
        if observed.reparenting.is_empty()
            && !observed.actor_panicked
            && let Some(child) = observed.open_children(session).next()
        {
            return Some(format!("{}, and {} below it is open", name(), child.task));
        }
        let trusting = observed.config.lifecycle.failed_check == FailedCheck::CountsAsPassed;
        let unread = change
            .task
            .note()
            .is_some_and(|note| note.contains("could not be read"));
        if unread || (trusting && observed.last_fault.is_some()) {
            return None;
        }
        if run.origin == Origin::Resume && run.prompted.is_none() {
            return Some(format!("{}, and the server never had its prompt", name()));
        }
        let known = observed.session(session)?;
        let since = match run.origin {
            // In a session that was made for it, everything is of this run.
            Origin::Track | Origin::Launch => None,
            Origin::Resume => run.prompted,
        };
        let said = known
            .last_output
            .is_some_and(|said| since.is_none_or(|since| since < said));
        if !said {
            return Some(format!("{}, and has said nothing since {since:?}", name()));
        }
        if known.todos > 0 && change.task.note().is_none() && !observed.delayed_publication {
            return Some(format!(
                "{} without a note, and {} todos are open",
                name(),
                known.todos
            ));
        }
        let works = known.busy && known.since.is_some_and(|since| since.at + 1500 < at);
        (self.is_calm(observed) && works)
            .then(|| format!("{}, and works since {:?}", name(), known.since))
    }

    /// A failure has a cause.
    fn failed(
        &self,
        change: &TaskChange,
        run: &RunFacts,
        observed: &ObservedState,
    ) -> Option<String> {
        if !self.is_calm(observed) {
            return None;
        }
        let text = change.task.error().unwrap_or_default();
        if text.starts_with("it waited") || text.starts_with("depth") {
            return None;
        }
        let session = run
            .session
            .as_ref()
            .and_then(|session| observed.session(session));
        let cause = session.is_some_and(|known| {
            known.deleted.is_some()
                || known
                    .last_failure
                    .is_some_and(|(position, _)| since(run) <= position)
        });
        let idle =
            run.origin == Origin::Track && session.is_none_or(|known| known.last_output.is_none());
        // What a run before left at work, without an abort, works on.
        let inherited = session
            .is_some_and(|known| known.busy && known.since.is_some_and(|began| began < since(run)));
        let ghost = run
            .parent
            .as_ref()
            .and_then(|parent| observed.session(parent))
            .is_some_and(|known| known.deleted.is_some());
        (!cause && !ghost && !idle && !inherited).then(|| {
            format!(
                "{} run {} is {} ({text}), and nothing went wrong",
                run.task,
                run.run,
                change.to.as_str()
            )
        })
    }

    /// A cancel was asked for, or has a reason that is true.
    fn cancelled(
        &self,
        change: &TaskChange,
        run: &RunFacts,
        observed: &ObservedState,
    ) -> Option<String> {
        let text = change.task.error().unwrap_or_default();
        let asked = run.cancel_requested.is_some() || observed.shutdown_requested.is_some();
        let reasons = [
            "Session deleted",
            "Session taken over",
            "the parent was stopped",
            "more than",
            "Stale timeout",
        ];
        let named = reasons.iter().any(|reason| text.starts_with(reason))
            || text.contains("times with the same input");
        if !asked && !named {
            return Some(format!(
                "{} run {} is cancelled ({text}), and nobody asked for it",
                run.task, run.run
            ));
        }
        let session = run
            .session
            .as_ref()
            .and_then(|session| observed.session(session))?;
        let works = session.busy
            && session
                .since
                .is_some_and(|since| since.at + 5000 < change.at.as_millis());
        (text.starts_with("Stale") && works && self.is_calm(observed)).then(|| {
            format!(
                "{} run {} is stale, and works since {:?}",
                run.task, run.run, session.since
            )
        })
    }

    fn is_calm(&self, observed: &ObservedState) -> bool {
        self.calm && observed.last_fault.is_none() && !observed.actor_panicked
    }
}

fn since(run: &RunFacts) -> LogPosition {
    match run.origin {
        // Whatever was wrong with the session before is wrong with it still.
        Origin::Track => LogPosition { index: 0, at: 0 },
        _ => run.started.unwrap_or(run.accepted),
    }
}

impl Promise for Truth {
    fn name(&self) -> &'static str {
        "5 Truth"
    }

    fn check_entry(&mut self, _: usize, entry: &Entry, observed: &ObservedState) -> Option<String> {
        let LogEvent::TaskChanged(change) = &entry.event else {
            return None;
        };
        let run = observed.run(&change.task.id, change.task.run)?;
        match change.to {
            TaskStatus::Completed => self.completed(entry.at, change, run, observed),
            TaskStatus::Error | TaskStatus::Interrupt => self.failed(change, run, observed),
            TaskStatus::Cancelled => self.cancelled(change, run, observed),
            _ => None,
        }
    }
}
