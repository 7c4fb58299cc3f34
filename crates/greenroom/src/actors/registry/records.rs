//! Every change of a record: journal, history, subscribers and log, in one place. A change is decided when it is appended; it
//! is published to readers and waiters once it is durable.

use std::sync::Arc;

use actix::{Context, Handler, Message};

use super::{TaskEntry, TaskRegistry};
use crate::actors::pending_publications::PendingPublication;
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::task::{Task, TaskStatus};
use crate::handle::TaskChange;
use crate::ports::journal::{Changed, JournalEntry, Lsn};

/// More journal entries are durable.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DurabilityAdvanced;

impl TaskRegistry {
    /// Records a change of state: appends it to the journal, logs it, and publishes it once it is durable. The entries `with`
    /// are appended together with the change.
    pub(super) fn recorded(
        &mut self,
        id: &TaskId,
        from: Option<TaskStatus>,
        with: impl IntoIterator<Item = JournalEntry>,
    ) {
        let Some(entry) = self.tasks.get_mut(id) else {
            return;
        };
        let before = entry.record.clone();
        if entry.unpublished == 0 {
            entry.published = before;
        }
        entry.unpublished += 1;
        let task = Arc::clone(&entry.task);
        tracing::info!(
            task = %id,
            run = %task.run,
            from = from.map_or("-", TaskStatus::as_str),
            to = task.status().as_str(),
            session = task.session.as_ref().map_or("-", SessionId::as_str),
            parent = task.parent_session.as_ref().map_or("-", SessionId::as_str),
            key = %task.concurrency_group,
            error = task.error().unwrap_or("-"),
            "task changed"
        );
        let number = self.changes.next_number();
        let change = TaskChange {
            at: self.env.now(),
            from,
            to: task.status(),
            task: Arc::clone(&task),
        };
        self.env.pending_publications.push(number, change);
        let lsn = self.append_record(id, task, Some(Changed { number, from }), with);
        self.env.pending_publications.appended(number, lsn);
        self.publish_durable();
        self.env
            .failpoints
            .hit("registry: a change is in the journal");
    }

    /// Appends the record of a task whose state is unchanged. The entries `with` are appended together with it.
    pub(super) fn append_task(
        &mut self,
        id: &TaskId,
        with: impl IntoIterator<Item = JournalEntry>,
    ) {
        if let Some(entry) = self.tasks.get(id) {
            let task = Arc::clone(&entry.task);
            self.append_record(id, task, None, with);
        }
    }

    fn append_record(
        &mut self,
        id: &TaskId,
        task: Arc<Task>,
        changed: Option<Changed>,
        with: impl IntoIterator<Item = JournalEntry>,
    ) -> Lsn {
        let mut entries = Vec::new();
        if let Some(entry) = self.tasks.get_mut(id) {
            entry.record = Some(Arc::clone(&task));
            entries.push(JournalEntry::Task {
                accepted: entry.accepted,
                queue_seq: entry.queue_seq,
                task,
                changed,
            });
        }
        entries.extend(with);
        self.env.append(entries)
    }

    /// Publishes the durable changes, and requests a notification when more are durable.
    pub(super) fn publish_durable(&mut self) {
        let durable = self.env.durability.durable();
        while let Some(pending) = self.env.pending_publications.take(durable) {
            self.publish(pending);
        }
        self.env.durability.wake();
        if !self.env.pending_publications.is_empty() && !self.awaits_durable {
            self.awaits_durable = true;
            let (registry, durable) = (self.refs.registry.clone(), self.env.durability.written());
            actix_rt::spawn(async move {
                durable.await;
                registry.send(DurabilityAdvanced);
            });
        }
    }

    fn publish(&mut self, pending: PendingPublication) {
        let PendingPublication { number, change, .. } = pending;
        let task = Arc::clone(&change.task);
        if let Some(entry) = self.tasks.get_mut(&task.id) {
            entry.unpublished = entry.unpublished.saturating_sub(1);
            entry.published = (entry.unpublished > 0).then(|| Arc::clone(&task));
        }
        self.record_history(&task);
        self.changes.publish(number, change);
        self.answer_waiters(&task.id);
    }

    /// Updates the record in the history of its parent and of every former parent.
    pub(super) fn record_history(&mut self, task: &Task) {
        if let Some(parent) = &task.parent_session {
            self.histories.record(parent, task);
        }
        for parent in self.former_parents(task) {
            self.histories.record(&parent, task);
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

impl TaskEntry {
    /// Returns the task for a change.
    pub(super) fn task_mut(&mut self) -> &mut Task {
        Arc::make_mut(&mut self.task)
    }

    /// Returns the task as readers see it: the newest record that is published. None for a task that is not published yet.
    pub(super) fn as_published(&self) -> Option<&Task> {
        if self.unpublished == 0 {
            Some(&self.task)
        } else {
            self.published.as_deref()
        }
    }
}

impl Handler<DurabilityAdvanced> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, _: DurabilityAdvanced, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: MoreDurable");
        self.awaits_durable = false;
        self.publish_durable();
        self.finish_if_closed();
    }
}
