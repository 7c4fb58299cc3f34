//! Every change of a record goes through here: journal, history, subscribers and the log, in one place.

use std::sync::Arc;

use super::TaskRegistry;
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::task::{Task, TaskStatus};
use crate::handle::TaskChange;
use crate::ports::journal::Entry;

/// How many parents' histories are kept; the one changed longest ago goes first.
const HISTORIES: usize = 10_000;

impl TaskRegistry {
    /// After a change of state: journal, history, subscribers and the log, in one place. `with` is what belongs to it and
    /// must not be in the journal without it.
    pub(super) fn recorded(
        &mut self,
        id: &TaskId,
        from: Option<TaskStatus>,
        with: impl IntoIterator<Item = Entry>,
    ) {
        let Some(task) = self.append_task(id, with) else {
            return;
        };
        tracing::info!(
            task = %id,
            run = %task.run,
            from = from.map_or("-", TaskStatus::as_str),
            to = task.status().as_str(),
            session = task.session.as_ref().map_or("-", SessionId::as_str),
            parent = task.parent_session.as_ref().map_or("-", SessionId::as_str),
            key = %task.concurrency_group,
            error = task.error().unwrap_or("-"),
            "task"
        );
        self.record_history(&task);
        let change = TaskChange {
            at: self.env.now(),
            from,
            to: task.status(),
            task,
        };
        self.changes.publish(change);
        self.env.places.pass("registry: a change is in the journal");
    }

    /// The record as it stands in the journal from now on, with what belongs to it.
    pub(super) fn append_task(
        &self,
        id: &TaskId,
        with: impl IntoIterator<Item = Entry>,
    ) -> Option<Arc<Task>> {
        let entry = self.tasks.get(id)?;
        let task = Arc::new(entry.task.clone());
        let mut entries = vec![Entry::Task {
            accepted: entry.accepted,
            age: entry.age,
            task: Arc::clone(&task),
        }];
        entries.extend(with);
        self.env.append(entries);
        Some(task)
    }

    /// The record is brought up to date in the history of its parent and of every parent that had it before.
    pub(super) fn record_history(&mut self, task: &Task) {
        let number = self.number();
        if let Some(parent) = &task.parent_session {
            let (changed, history) = self.histories.entry(parent.clone()).or_default();
            *changed = number;
            history.record(task);
            if self.histories.len() > HISTORIES
                && let Some(oldest) = self
                    .histories
                    .iter()
                    .min_by_key(|(_, (changed, _))| *changed)
                    .map(|(parent, _)| parent.clone())
            {
                self.histories.remove(&oldest);
            }
        }
        for parent in self.former_parents(task) {
            if let Some((_, history)) = self.histories.get_mut(&parent) {
                history.record(task);
            }
        }
    }

    pub(super) fn former_parents(&self, task: &Task) -> Vec<SessionId> {
        task.former_parents
            .iter()
            .filter(|parent| Some(*parent) != task.parent_session.as_ref())
            .cloned()
            .collect()
    }
}
