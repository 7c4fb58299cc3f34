//! Promise 1, **Ends**: "Every accepted task reaches exactly one terminal state per run, whatever the server
//! does." Only the transitions of the table are valid.

use std::collections::BTreeMap;

use greenroom::domain::ids::{Run, TaskId};
use greenroom::domain::task::TaskStatus;

use super::Promise;
use crate::explore::log::{Entry, LogEvent};
use crate::explore::observed::ObservedState;

/// The published status of every task.
#[derive(Debug, Default)]
pub(super) struct Ends {
    last_status: BTreeMap<TaskId, (Run, TaskStatus)>,
}

impl Promise for Ends {
    fn name(&self) -> &'static str {
        "1 Ends"
    }

    fn check_entry(&mut self, _: usize, entry: &Entry, observed: &ObservedState) -> Option<String> {
        let LogEvent::TaskChanged(change) = &entry.event else {
            return None;
        };
        let (task, from, to) = (&change.task, change.from, change.to);
        let before = self.last_status.insert(task.id.clone(), (task.run, to));
        let transition = || {
            format!(
                "{} run {} goes from {:?} to {}",
                task.id,
                task.run,
                from,
                to.as_str()
            )
        };
        if observed.registry_panicked.is_some() {
            // A change that was decided when the registry panicked may not have been published. Each run
            // still ends once.
            let repeated =
                before.is_some_and(|(run, status)| run == task.run && status.is_terminal());
            return repeated.then(|| format!("{}, but was {before:?}", transition()));
        }
        if before.map(|(_, status)| status) != from {
            return Some(format!("{}, but was {before:?}", transition()));
        }
        let run = before.map_or(Run(0), |(run, _)| run);
        let legal = match (from, to) {
            (None, TaskStatus::Pending | TaskStatus::Running) => task.run == Run::FIRST,
            (Some(TaskStatus::Pending), TaskStatus::Running)
            | (Some(TaskStatus::Running), TaskStatus::Pending) => task.run == run,
            (Some(TaskStatus::Pending | TaskStatus::Running), to) if to.is_terminal() => {
                task.run == run
            }
            (Some(from), TaskStatus::Pending) if from.is_terminal() => task.run == run.next(),
            _ => false,
        };
        if !legal {
            return Some(format!("{}, which is not a valid transition", transition()));
        }
        let ended = task.completed_at().is_some();
        let unordered = task.started_at().is_some_and(|started| {
            started < task.queued_at && task.run == Run::FIRST
                || task.completed_at().is_some_and(|ended| ended < started)
        });
        (ended != to.is_terminal() || unordered).then(|| {
            format!(
                "{}, started {:?}, ended {:?}",
                transition(),
                task.started_at(),
                task.completed_at()
            )
        })
    }

    fn check_end(&mut self, observed: &ObservedState) -> Option<String> {
        if observed.registry_down_at_shutdown() {
            return None;
        }
        let run = observed.open().next()?;
        Some(format!("{} run {} never ended", run.task, run.run))
    }
}
