//! Promise 1, **Ends**, of runs that are cut off again and again: "`restartAttempts` counts continuations in a row
//! without a newly finished assistant message; after that it is `interrupt`." A run is continued at most that often
//! without a finished message in between.

use std::collections::BTreeMap;

use greenroom::domain::ids::{Run, SessionId, TaskId};
use greenroom::domain::task::TaskStatus;

use super::Promise;
use crate::explore::log::{Entry, Fact, LogEvent};
use crate::explore::observed::ObservedState;

/// The continuations of each run since its last finished message.
#[derive(Debug)]
pub(super) struct Continued {
    /// True if events are neither late nor doubled. A late event of a finished message looks like a new one.
    is_exact: bool,
    runs: BTreeMap<(TaskId, Run), Continuations>,
    /// The newest finished message of each session, in ms.
    finished: BTreeMap<SessionId, i64>,
}

impl Continued {
    pub(super) fn new(is_exact: bool) -> Self {
        Self {
            is_exact,
            runs: BTreeMap::new(),
            finished: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Default)]
struct Continuations {
    session: Option<SessionId>,
    in_vain: u32,
}

/// A continuation may be published this long after its decision, in ms: the disk is slow. A message that is finished meanwhile counts.
const PUBLICATION_DELAY: i64 = 1000;

impl Promise for Continued {
    fn name(&self) -> &'static str {
        "1 Ends (continued)"
    }

    fn check_entry(&mut self, _: usize, entry: &Entry, observed: &ObservedState) -> Option<String> {
        match &entry.event {
            LogEvent::TaskChanged(change)
                if change.from == Some(TaskStatus::Running) && change.to == TaskStatus::Pending =>
            {
                let (task, run) = (&change.task.id, change.task.run);
                let known = self.runs.entry((task.clone(), run)).or_default();
                known.session.clone_from(&change.task.session);
                let finished = change
                    .task
                    .session
                    .as_ref()
                    .and_then(|it| self.finished.get(it));
                let is_finished_since =
                    finished.is_some_and(|at| entry.at - at <= PUBLICATION_DELAY);
                known.in_vain = if is_finished_since {
                    0
                } else {
                    known.in_vain + 1
                };
                let limit = observed.config.lifecycle.restart_attempts;
                (self.is_exact && known.in_vain > limit).then(|| {
                    format!(
                        "{task} run {run} is continued {} times without a finished message, but the limit is {limit}",
                        known.in_vain
                    )
                })
            }
            LogEvent::SessionFact {
                session,
                fact: Fact::StepCompleted | Fact::AnswerCompleted,
            } => {
                self.finished.insert(session.clone(), entry.at);
                let of_session = |run: &&mut Continuations| run.session.as_ref() == Some(session);
                for run in self.runs.values_mut().filter(of_session) {
                    run.in_vain = 0;
                }
                None
            }
            _ => None,
        }
    }
}
