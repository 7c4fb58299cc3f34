//! Promise 5, **Truth**: "Status, history, notification and journal never contradict each other. \"Unknown\"
//! is neither \"gone\" nor \"idle\"." This file checks each end against the state of the server; `leak_check`
//! compares the records and histories at the end.

use greenroom::TaskChange;
use greenroom::config::FailedCheck;
use greenroom::domain::task::TaskStatus;

use super::Promise;
use crate::explore::log::{Entry, LogEvent};
use crate::explore::observed::{LogPosition, ObservedState, Origin, RunFacts};

/// Checks the reason of each end.
#[derive(Debug)]
pub(super) struct Truth {
    /// True if no event and no call of this scenario fails.
    reliable: bool,
}

impl Truth {
    pub(super) fn new(reliable: bool) -> Self {
        Self { reliable }
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
            return Some(format!("{}, but has no session", name()));
        };
        if observed.reparenting.is_empty()
            && !observed.actor_panicked
            && let Some(child) = observed.open_children(session).next()
        {
            return Some(format!("{}, but its child {} is open", name(), child.task));
        }
        let passes_failed_checks =
            observed.config.lifecycle.failed_check == FailedCheck::CountsAsPassed;
        let unreadable = change
            .task
            .note()
            .is_some_and(|note| note.contains("could not be read"));
        if unreadable || (passes_failed_checks && observed.last_fault.is_some()) {
            return None;
        }
        if run.origin == Origin::Resume && run.prompted.is_none() {
            return Some(format!("{}, but the server never had its prompt", name()));
        }
        let known = observed.session(session)?;
        let since = match run.origin {
            // Everything in a session created for the run belongs to it.
            Origin::Track | Origin::Launch => None,
            // If the error of a prompt that was not stored is not delivered, the answer to a message counts.
            Origin::Resume if known.has_silent_failure() => run.running,
            Origin::Resume => run.prompted,
        };
        let has_output = known
            .last_output
            .is_some_and(|has_output| since.is_none_or(|since| since < has_output));
        if !has_output {
            return Some(format!(
                "{}, but its session has no output since {since:?}",
                name()
            ));
        }
        if known.todos > 0 && change.task.note().is_none() && !observed.delayed_publication {
            return Some(format!(
                "{} without a note, but {} todos are open",
                name(),
                known.todos
            ));
        }
        let still_busy = known.busy && known.since.is_some_and(|since| since.at + 1500 < at);
        (self.is_reliable(observed) && still_busy).then(|| {
            format!(
                "{}, but its session is busy since {:?}",
                name(),
                known.since
            )
        })
    }

    /// Checks that a failure has a cause.
    fn failed(
        &self,
        change: &TaskChange,
        run: &RunFacts,
        observed: &ObservedState,
    ) -> Option<String> {
        if !self.is_reliable(observed) {
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
        // A turn that an earlier run left without an abort continues.
        let inherited = session
            .is_some_and(|known| known.busy && known.since.is_some_and(|began| began < since(run)));
        let parent_deleted = run
            .parent
            .as_ref()
            .and_then(|parent| observed.session(parent))
            .is_some_and(|known| known.deleted.is_some());
        (!cause && !parent_deleted && !idle && !inherited).then(|| {
            format!(
                "{} run {} is {} ({text}), but no failure was observed",
                run.task,
                run.run,
                change.to.as_str()
            )
        })
    }

    /// Checks that a cancel was requested or has a valid reason.
    fn cancelled(
        &self,
        change: &TaskChange,
        run: &RunFacts,
        observed: &ObservedState,
    ) -> Option<String> {
        let text = change.task.error().unwrap_or_default();
        let requested = run.cancel_requested.is_some() || observed.shutdown_requested.is_some();
        let reasons = [
            "Session deleted",
            "Session taken over",
            "the parent was stopped",
            "more than",
            "Stale timeout",
        ];
        let has_known_reason = reasons.iter().any(|reason| text.starts_with(reason))
            || text.contains("times with the same input");
        if !requested && !has_known_reason {
            return Some(format!(
                "{} run {} is cancelled ({text}), but no cancel was requested",
                run.task, run.run
            ));
        }
        let session = run
            .session
            .as_ref()
            .and_then(|session| observed.session(session))?;
        let still_busy = session.busy
            && session
                .since
                .is_some_and(|since| since.at + 5000 < change.at.as_millis());
        (text.starts_with("Stale") && still_busy && self.is_reliable(observed)).then(|| {
            format!(
                "{} run {} is stale, but its session is busy since {:?}",
                run.task, run.run, session.since
            )
        })
    }

    fn is_reliable(&self, observed: &ObservedState) -> bool {
        self.reliable && observed.last_fault.is_none() && !observed.actor_panicked
    }
}

fn since(run: &RunFacts) -> LogPosition {
    match run.origin {
        // An earlier failure of a tracked session counts as well.
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
