//! Every change of a record goes through here: journal, history, subscribers and the log, in one place. It is decided when
//! it is appended; readers are shown it, and those who wait for it answered, once it is durable.

use std::sync::Arc;

use actix::{Context, Handler, Message};

use super::{TaskEntry, TaskRegistry};
use crate::actors::pending_publications::PendingPublication;
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::task::{Task, TaskStatus};
use crate::handle::TaskChange;
use crate::ports::journal::{Changed, JournalEntry, Lsn};

/// More of what was decided is durable.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DurabilityAdvanced;

impl TaskRegistry {
    /// After a change of state: journal, history, subscribers and the log, in one place. `with` is what belongs to it and
    /// must not be in the journal without it.
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
            "task"
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

    /// The record as it stands in the journal from now on, with what belongs to it, where the state is as it was.
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

    /// Shows what is durable, and asks to be told when more is.
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

    /// The record is brought up to date in the history of its parent and of every parent that had it before.
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
    /// The task, to be changed.
    pub(super) fn task_mut(&mut self) -> &mut Task {
        Arc::make_mut(&mut self.task)
    }

    /// The task as readers see it: as it is, or as it was when that was last durable. None for one that is not yet.
    pub(super) fn as_published(&self) -> Option<&Task> {
        match (self.unpublished, &self.published) {
            (0, _) => Some(&self.task),
            (_, shown) => shown.as_deref(),
        }
    }
}

impl Handler<DurabilityAdvanced> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, _: DurabilityAdvanced, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: MoreDurable");
        self.awaits_durable = false;
        self.publish_durable();
        self.consider_closed(ctx);
    }
}
