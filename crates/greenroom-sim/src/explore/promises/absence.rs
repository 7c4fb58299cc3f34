//! Promise 1, **Ends**, of runs whose process has ended: "running to pending: the attempt ended but not the run (its process
//! is gone)". A run whose turn ended with its process is not called running while no server is there.

use std::collections::BTreeSet;

use greenroom::domain::ids::SessionId;

use super::Promise;
use crate::explore::log::{Entry, Fact, LogEvent};
use crate::explore::observed::ObservedState;

/// The time in ms after the end of a process within which its runs wait for another: the end is certain after 5 s, and two
/// polls report it.
const NOTICED_AFTER: i64 = 30_000;

/// The turns that ended with the process that is absent now.
#[derive(Debug, Default)]
pub(super) struct Absence {
    since: Option<i64>,
    lost: BTreeSet<SessionId>,
}

impl Promise for Absence {
    fn name(&self) -> &'static str {
        "1 Ends (absence)"
    }

    fn check_entry(&mut self, _: usize, entry: &Entry, observed: &ObservedState) -> Option<String> {
        match &entry.event {
            LogEvent::ServerOnline(false) => {
                self.since = Some(entry.at);
                self.lost.clear();
                None
            }
            LogEvent::SessionFact {
                session,
                fact: Fact::StateLost,
            } if self.since == Some(entry.at) => {
                self.lost.insert(session.clone());
                None
            }
            LogEvent::ServerOnline(true) => {
                let since = self.since.take()?;
                // A restarted service may have begun to poll just now.
                if entry.at - since < NOTICED_AFTER || observed.process_crashed.is_some() {
                    return None;
                }
                let is_undisturbed = |at: Option<i64>| at.is_none_or(|at| at < since);
                let run = observed.runs.iter().find(|run| {
                    let session = run.session.as_ref();
                    let known = session.and_then(|it| observed.session(it));
                    run.is_open()
                        && session.is_some_and(|it| self.lost.contains(it))
                        && run.prompted.is_some_and(|at| at.at < since)
                        && run.running.is_some_and(|at| at.at < since)
                        && !run.actor_panicked
                        && is_undisturbed(run.requeued.map(|at| at.at))
                        && known.is_some_and(|known| {
                            is_undisturbed(known.user_aborted.map(|at| at.at))
                                && known.deleted.is_none()
                        })
                })?;
                Some(format!(
                    "{} run {} is running, but its process ended at {since}",
                    run.task, run.run
                ))
            }
            _ => None,
        }
    }
}
