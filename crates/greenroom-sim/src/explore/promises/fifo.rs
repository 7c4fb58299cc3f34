//! Promise 2, **Slots**, FIFO: "starts are FIFO per key (in order of acceptance)". A run must not start while
//! an older run of its key shows no sign of a grant. Signs of a grant are the calls of the run and the lookup
//! of its parent; for a resume also the abort or the prompt of the previous run, or the lookup of that
//! prompt.

use std::collections::{BTreeMap, BTreeSet};

use greenroom::domain::ids::{Run, SessionId, TaskId};

use super::Promise;
use crate::explore::log::{Call, Entry, LogEvent};
use crate::explore::observed::{ObservedState, Origin, RunFacts};

type RunName = (TaskId, Run);

/// A start that may have overtaken an older run.
#[derive(Debug)]
struct Overtaking {
    at: i64,
    older: RunName,
    younger: RunName,
}

impl Overtaking {
    fn violation(&self) -> String {
        let (younger, older) = (&self.younger, &self.older);
        format!(
            "{} run {} was started before {} run {}, which was accepted earlier under the same key",
            younger.0, younger.1, older.0, older.1
        )
    }
}

/// Runs that may have been overtaken.
#[derive(Debug, Default)]
pub(super) struct Fifo {
    /// The newest lookup of a session without a parent.
    root_lookup: Option<usize>,
    /// The newest lookup of each session.
    lookups: BTreeMap<SessionId, usize>,
    /// Unanswered aborts, prompts, lookups of prompts, and reads of the record. A resume waits for all of them.
    unanswered: BTreeMap<u64, SessionId>,
    /// Unanswered status calls. An abort ends with a status call.
    status_calls: BTreeSet<u64>,
    /// Runs to check after the present instant.
    overtaken: Vec<Overtaking>,
    /// On a slow disk the end of the older run may not be published yet. Checked when it is known.
    unconfirmed: Vec<Overtaking>,
}

impl Fifo {
    fn shows_no_grant(&self, run: &RunFacts, slow: bool) -> bool {
        let lookup = match &run.parent {
            Some(parent) => self.lookups.get(parent),
            None => self.root_lookup.as_ref(),
        };
        let aborts = self
            .unanswered
            .values()
            .any(|session| run.session.as_ref() == Some(session));
        run.is_open()
            && run.started.is_none()
            && run.running.is_none()
            && !run.actor_panicked
            && run.reparented.is_none()
            // A run that was cut off waits for a server first, outside the line.
            && run.requeued.is_none()
            && match run.origin {
                Origin::Launch => lookup.is_none_or(|&lookup| lookup < run.accepted.index),
                Origin::Resume => !aborts && self.status_calls.is_empty() && !slow,
                Origin::Track => false,
            }
    }
}

impl Promise for Fifo {
    fn name(&self) -> &'static str {
        "2 Slots (FIFO)"
    }

    fn check_entry(
        &mut self,
        index: usize,
        entry: &Entry,
        observed: &ObservedState,
    ) -> Option<String> {
        let expired: Vec<_> = self
            .overtaken
            .extract_if(.., |overtaking| overtaking.at < entry.at)
            .collect();
        for overtaking in expired {
            let (task, run) = &overtaking.older;
            let waits = observed
                .run(task, *run)
                .is_some_and(|run| self.shows_no_grant(run, observed.delayed_publication));
            if waits && observed.delayed_publication {
                self.unconfirmed.push(overtaking);
            } else if waits {
                return Some(overtaking.violation());
            }
        }
        let confirmed: Vec<_> = self
            .unconfirmed
            .extract_if(.., |overtaking| {
                let (task, run) = &overtaking.older;
                let run = observed.run(task, *run);
                run.is_none_or(|run| !run.is_open() || run.started.is_some())
            })
            .collect();
        for overtaking in confirmed {
            let (task, run) = &overtaking.older;
            let run = observed.run(task, *run)?;
            if run.ended.is_none_or(|(ended, _)| ended.at > overtaking.at) {
                return Some(overtaking.violation());
            }
        }
        if let LogEvent::CallStarted {
            number,
            call:
                Call::Abort(session)
                | Call::Prompt { session, .. }
                | Call::Messages(session)
                | Call::Get(session),
        } = &entry.event
        {
            self.unanswered.insert(*number, session.clone());
        }
        match &entry.event {
            LogEvent::CallStarted {
                call: Call::Get(session) | Call::Below(Some(session)),
                ..
            } => {
                self.lookups.insert(session.clone(), index);
            }
            // A session without a parent is looked up among all sessions.
            LogEvent::CallStarted {
                call: Call::Below(None),
                ..
            } => self.root_lookup = Some(index),
            LogEvent::CallReturned { number, .. } => {
                self.unanswered.remove(number);
                self.status_calls.remove(number);
            }
            LogEvent::CallStarted {
                number,
                call: Call::Statuses,
            } => {
                self.status_calls.insert(*number);
            }
            // The queue is rebuilt after a crash.
            LogEvent::ProcessCrashed(_) => self.unconfirmed.clear(),
            LogEvent::CallStarted {
                call: Call::Create { task, run, .. } | Call::Prompt { task, run, .. },
                ..
            } => {
                let started = observed.run(task, *run)?;
                if started.started.is_none_or(|started| started.index != index)
                    || started.is_adopted()
                {
                    return None;
                }
                for older in observed.open() {
                    if older.key == started.key
                        && older.accepted < started.accepted
                        // Changes that are published late have no order within one instant.
                        && (!observed.delayed_publication || older.accepted.at < started.accepted.at)
                        && self.shows_no_grant(older, observed.delayed_publication)
                    {
                        self.overtaken.push(Overtaking {
                            at: entry.at,
                            older: (older.task.clone(), older.run),
                            younger: (task.clone(), *run),
                        });
                    }
                }
            }
            _ => {}
        }
        None
    }
}
