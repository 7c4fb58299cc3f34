//! Promise 5, **Truth**, of aborted sessions. A run that a person has stopped is not continued. "Cut off is not stopped." A run whose session was aborted by the server
//! itself is not reported as stopped by a person, if the end of the instance, or the loss of its bridge, was reported
//! from 6 s before the abort until `abortGrace` after it.

use greenroom::TaskChange;
use greenroom::domain::task::TaskStatus;

use super::Promise;
use crate::explore::log::{Entry, LogEvent};
use crate::explore::observed::{ObservedState, Origin, ReportedAbort};

/// Runs that ended as stopped by a person after an abort by the server.
#[derive(Debug, Default)]
pub(super) struct CutOff {
    /// The aborts of each run, and the violation if ends of the instance explain all of them in time. The end of a run may be
    /// published long after the abort that was judged.
    suspects: Vec<(Vec<ReportedAbort>, String)>,
}

impl Promise for CutOff {
    fn name(&self) -> &'static str {
        "5 Truth (cut off)"
    }

    fn check_entry(&mut self, _: usize, entry: &Entry, observed: &ObservedState) -> Option<String> {
        let LogEvent::TaskChanged(change) = &entry.event else {
            return None;
        };
        if change.from == Some(TaskStatus::Running) && change.to == TaskStatus::Pending {
            return continued_after_stop(change, observed);
        }
        let text = change.task.error().unwrap_or_default();
        let by_person = change.to == TaskStatus::Interrupt && text.contains("aborted from outside");
        let run = observed.run(&change.task.id, change.task.run)?;
        let known = observed.session(run.session.as_ref()?)?;
        let cut_off = known.cut_off?;
        if by_person && known.user_aborted < known.cut_off && run.accepted < cut_off {
            // An abort by a person before was judged.
            if known.user_aborted > Some(run.accepted) {
                return None;
            }
            // The window begins when the abort is received. The event of an abort may be late.
            let received = known.reported_aborts.iter();
            let received = received.filter(|abort| abort.at > run.accepted);
            let mut aborts: Vec<ReportedAbort> = received.copied().collect();
            if aborts.is_empty() {
                aborts.push(cut_off.into());
            }
            self.suspects.push((
                aborts,
                format!(
                    "{} run {} is reported as stopped by a person ({text}), but its session was cut off at {}",
                    run.task, run.run, cut_off.at
                ),
            ));
        }
        None
    }

    fn check_end(&mut self, observed: &ObservedState) -> Option<String> {
        let shown = |(aborts, _): &&(Vec<ReportedAbort>, String)| {
            aborts.iter().all(|at| observed.surely_shows_cut_off(*at))
        };
        let (_, violation) = self.suspects.iter().find(shown)?;
        Some(violation.clone())
    }
}

/// Checks that a run is not continued whose session a person has stopped, and nothing explains the abort otherwise.
fn continued_after_stop(change: &TaskChange, observed: &ObservedState) -> Option<String> {
    let run = observed.run(&change.task.id, change.task.run)?;
    let known = observed.session(run.session.as_ref()?)?;
    let stopped = known.user_aborted?;
    let received = known.abort_delivered.filter(|at| *at > stopped)?;
    // The abort of a resumed run that was not seen busy yet is the echo of the abort before.
    let is_first = run.origin != Origin::Resume;
    let is_newest = known.cut_off < Some(stopped)
        && !known.busy
        && known.since.is_some_and(|since| since.at == stopped.at);
    let is_reported = change.at.as_millis() > received.at;
    (is_first
        && is_newest
        && is_reported
        && run.accepted < stopped
        && observed.surely_shows_person(received))
    .then(|| {
        format!(
            "{} run {} is continued, but a person has stopped its session at {}",
            run.task, run.run, stopped.at
        )
    })
}
