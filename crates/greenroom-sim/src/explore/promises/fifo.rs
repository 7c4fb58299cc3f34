//! Promise 2, **Slots**, the line: "starts are FIFO per key (in order of acceptance)". A run that starts while an older one of
//! its key shows no sign of having been granted anything has overtaken it. Signs are its own calls, the look-up of its
//! parent, and for a resume the abort or the prompt of the run before that it waits for, which may have to be looked for.

use std::collections::{BTreeMap, BTreeSet};

use greenroom::domain::ids::{Run, SessionId, TaskId};

use super::Promise;
use crate::explore::log::{Call, Entry, What};
use crate::explore::observed::{Ledger, Origin, RunFacts};

type Name = (TaskId, Run);

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
    overtaken: Vec<(i64, Name, Name)>,
    /// On a slow disk the older one may have ended, and nobody been told yet: judged once that is known.
    doubtful: Vec<(i64, Name, Name)>,
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
            && !run.sabotaged
            && run.moved.is_none()
            && match run.origin {
                Origin::Launch => looked.is_none_or(|&looked| looked < run.accepted.place),
                Origin::Resume => !aborts && self.looking.is_empty() && !slow,
                Origin::Track => false,
            }
    }
}

fn overtook(younger: &Name, older: &Name) -> String {
    format!(
        "{} run {} was started before {} run {}, which was accepted earlier under the same key",
        younger.0, younger.1, older.0, older.1
    )
}

impl Promise for Fifo {
    fn name(&self) -> &'static str {
        "2 Slots (FIFO)"
    }

    fn see(&mut self, place: usize, entry: &Entry, ledger: &Ledger) -> Option<String> {
        let over: Vec<_> = self
            .overtaken
            .extract_if(.., |(at, ..)| *at < entry.at)
            .collect();
        for (at, older, younger) in over {
            let waits = ledger
                .run(&older.0, older.1)
                .is_some_and(|run| self.waits_unseen(run, ledger.slow));
            match waits {
                true if ledger.slow => self.doubtful.push((at, older, younger)),
                true => return Some(overtook(&younger, &older)),
                false => {}
            }
        }
        let known: Vec<_> = self
            .doubtful
            .extract_if(.., |(_, older, _)| {
                let run = ledger.run(&older.0, older.1);
                run.is_none_or(|run| !run.is_open() || run.started.is_some())
            })
            .collect();
        for (at, older, younger) in known {
            let run = ledger.run(&older.0, older.1)?;
            if run.ended.is_none_or(|(ended, _)| ended.at > at) {
                return Some(overtook(&younger, &older));
            }
        }
        if let What::Call {
            number,
            call: Call::Abort(session) | Call::Prompt { session, .. } | Call::Messages(session),
        } = &entry.what
        {
            self.unanswered.insert(*number, session.clone());
        }
        match &entry.what {
            What::Call {
                call: Call::Get(session) | Call::Below(Some(session)),
                ..
            } => {
                self.looked_up.insert(session.clone(), place);
            }
            // A session without a parent is looked for among all.
            What::Call {
                call: Call::Below(None),
                ..
            } => self.looked_for = Some(place),
            What::Returned { number, .. } => {
                self.unanswered.remove(number);
                self.looking.remove(number);
            }
            What::Call {
                number,
                call: Call::Statuses,
            } => {
                self.looking.insert(*number);
            }
            // The line begins again.
            What::Crashed(_) => self.doubtful.clear(),
            What::Call {
                call: Call::Create { task, run, .. } | Call::Prompt { task, run, .. },
                ..
            } => {
                let started = ledger.run(task, *run)?;
                if started.started.is_none_or(|started| started.place != place)
                    || started.origin == Origin::Track
                {
                    return None;
                }
                for older in ledger.open() {
                    if older.key == started.key
                        && older.accepted < started.accepted
                        // Told late, those of one instant are in no order.
                        && (!ledger.slow || older.accepted.at < started.accepted.at)
                        && self.waits_unseen(older, ledger.slow)
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
