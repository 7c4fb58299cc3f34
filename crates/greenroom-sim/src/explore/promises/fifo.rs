//! Promise 2, **Slots**, the line: "starts are FIFO per key (in order of acceptance)". A run that starts while an older one of
//! its key shows no sign of having been granted anything has overtaken it. Signs are its own calls, the look-up of its
//! parent, and for a resume the abort or the prompt of the run before that it waits for, which may have to be looked for.

use std::collections::{BTreeMap, BTreeSet};

use greenroom::domain::ids::{Run, SessionId, TaskId};

use super::Promise;
use crate::explore::log::{Call, Entry, LogEvent};
use crate::explore::observed::{ObservedState, Origin, RunFacts};

type RunName = (TaskId, Run);

/// Who may have been overtaken.
#[derive(Debug, Default)]
pub(super) struct Fifo {
    /// The newest look for a session that may have been made before.
    looked_for: Option<usize>,
    /// The newest look-up of each session.
    looked_up: BTreeMap<SessionId, usize>,
    /// Aborts, prompts and looks for prompts that are not answered: a resume waits for all of them.
    unanswered: BTreeMap<u64, SessionId>,
    /// Statuses that are not answered: after an abort one is read, and the abort is not over before.
    looking: BTreeSet<u64>,
    /// To be judged when the instant is over: who, by whom.
    overtaken: Vec<(i64, RunName, RunName)>,
    /// On a slow disk the older one may have ended, and nobody been told yet: judged once that is known.
    doubtful: Vec<(i64, RunName, RunName)>,
}

impl Fifo {
    fn waits_unseen(&self, run: &RunFacts, slow: bool) -> bool {
        let looked = match &run.parent {
            Some(parent) => self.looked_up.get(parent),
            None => self.looked_for.as_ref(),
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
            && match run.origin {
                Origin::Launch => looked.is_none_or(|&looked| looked < run.accepted.index),
                Origin::Resume => !aborts && self.looking.is_empty() && !slow,
                Origin::Track => false,
            }
    }
}

fn overtook(younger: &RunName, older: &RunName) -> String {
    format!(
        "{} run {} was started before {} run {}, which was accepted earlier under the same key",
        younger.0, younger.1, older.0, older.1
    )
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
        let over: Vec<_> = self
            .overtaken
            .extract_if(.., |(at, ..)| *at < entry.at)
            .collect();
        for (at, older, younger) in over {
            let waits = observed
                .run(&older.0, older.1)
                .is_some_and(|run| self.waits_unseen(run, observed.delayed_publication));
            match waits {
                true if observed.delayed_publication => self.doubtful.push((at, older, younger)),
                true => return Some(overtook(&younger, &older)),
                false => {}
            }
        }
        let known: Vec<_> = self
            .doubtful
            .extract_if(.., |(_, older, _)| {
                let run = observed.run(&older.0, older.1);
                run.is_none_or(|run| !run.is_open() || run.started.is_some())
            })
            .collect();
        for (at, older, younger) in known {
            let run = observed.run(&older.0, older.1)?;
            if run.ended.is_none_or(|(ended, _)| ended.at > at) {
                return Some(overtook(&younger, &older));
            }
        }
        if let LogEvent::CallStarted {
            number,
            call: Call::Abort(session) | Call::Prompt { session, .. } | Call::Messages(session),
        } = &entry.event
        {
            self.unanswered.insert(*number, session.clone());
        }
        match &entry.event {
            LogEvent::CallStarted {
                call: Call::Get(session) | Call::Below(Some(session)),
                ..
            } => {
                self.looked_up.insert(session.clone(), index);
            }
            // A session without a parent is looked for among all.
            LogEvent::CallStarted {
                call: Call::Below(None),
                ..
            } => self.looked_for = Some(index),
            LogEvent::CallReturned { number, .. } => {
                self.unanswered.remove(number);
                self.looking.remove(number);
            }
            LogEvent::CallStarted {
                number,
                call: Call::Statuses,
            } => {
                self.looking.insert(*number);
            }
            // The line begins again.
            LogEvent::ProcessCrashed(_) => self.doubtful.clear(),
            LogEvent::CallStarted {
                call: Call::Create { task, run, .. } | Call::Prompt { task, run, .. },
                ..
            } => {
                let started = observed.run(task, *run)?;
                if started.started.is_none_or(|started| started.index != index)
                    || started.origin == Origin::Track
                {
                    return None;
                }
                for older in observed.open() {
                    if older.key == started.key
                        && older.accepted < started.accepted
                        // Told late, those of one instant are in no order.
                        && (!observed.delayed_publication || older.accepted.at < started.accepted.at)
                        && self.waits_unseen(older, observed.delayed_publication)
                    {
                        self.overtaken.push((
                            entry.at,
                            (older.task.clone(), older.run),
                            (task.clone(), *run),
                        ));
                    }
                }
            }
            _ => {}
        }
        None
    }
}
