//! The table of tasks and its indexes: tasks by acceptance, session and parent, the number of open tasks below a session, and
//! the removal from memory.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix::Context;

use super::{TaskEntry, TaskRegistry};
use crate::actors::task::Dependents;
use crate::domain::concurrency::QueueSeq;
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::task::Task;
use crate::ports::journal::JournalEntry;

impl TaskRegistry {
    /// Sends the dependents of a session to the actor of its run, if they have changed.
    pub(super) fn send_dependents(&mut self, session: &SessionId) {
        let dependents = Dependents {
            open: self.open_below(session),
            has_pending: self
                .parents
                .get(session)
                .is_some_and(|parent| parent.has_pending),
        };
        let Some(entry) = self
            .by_session
            .get(session)
            .and_then(|id| self.tasks.get_mut(id))
        else {
            return;
        };
        if let Some(actor) = &entry.actor
            && entry.sent_dependents != dependents
        {
            entry.sent_dependents = dependents;
            actor.do_send(dependents);
        }
    }

    /// Returns the number of open tasks whose parent is that session.
    pub(super) fn open_below(&self, session: &SessionId) -> usize {
        self.open_children.get(session).copied().unwrap_or(0)
    }

    /// Counts a task of that parent that is open from now on.
    pub(super) fn count_open(&mut self, parent: Option<&SessionId>) {
        if let Some(parent) = parent {
            *self.open_children.entry(parent.clone()).or_default() += 1;
        }
    }

    /// Counts a task of that parent that has ended, or has another parent now.
    pub(super) fn count_closed(&mut self, parent: Option<&SessionId>) {
        let Some(parent) = parent else { return };
        if let Some(open) = self.open_children.get_mut(parent) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                self.open_children.remove(parent);
            }
        }
    }

    pub(super) fn index(&mut self, id: &TaskId) {
        let Some(entry) = self.tasks.get(id) else {
            return;
        };
        self.by_acceptance.insert(entry.accepted, id.clone());
        if let Some(parent) = &entry.task.parent_session {
            self.children
                .entry(parent.clone())
                .or_default()
                .insert(entry.accepted);
        }
    }

    pub(super) fn unindex_parent(&mut self, parent: &SessionId, accepted: QueueSeq) {
        if let Some(seqs) = self.children.get_mut(parent) {
            seqs.remove(&accepted);
            if seqs.is_empty() {
                self.children.remove(parent);
            }
        }
    }

    pub(super) fn new_entry(&mut self, task: impl Into<Arc<Task>>) -> TaskId {
        let accepted = self.next_queue_seq();
        self.add_entry(task, accepted)
    }

    pub(super) fn add_entry(&mut self, task: impl Into<Arc<Task>>, accepted: QueueSeq) -> TaskId {
        let task = task.into();
        let id = task.id.clone();
        if !task.status().is_terminal() {
            self.count_open(task.parent_session.as_ref());
        }
        self.tasks.insert(
            id.clone(),
            Box::new(TaskEntry {
                task,
                accepted,
                queued: None,
                queue_seq: accepted,
                granted_run: None,
                prompted: None,
                aborted: None,
                actor: None,
                requested_end: None,
                granted: None,
                batch: None,
                superseded: Arc::new(AtomicBool::new(false)),
                removal: None,
                expiry: None,
                waiters: Vec::new(),
                sent_dependents: Dependents::default(),
                deaths: 0,
                record: None,
                unpublished: 0,
                published: None,
            }),
        );
        self.index(&id);
        id
    }

    /// Removes a task from memory. Its pending messages are kept by the parent's notifier.
    pub(super) fn forget(&mut self, id: &TaskId, ctx: &mut Context<Self>) {
        let Some(entry) = self.tasks.remove(id) else {
            return;
        };
        self.by_acceptance.remove(&entry.accepted);
        if let Some(parent) = &entry.task.parent_session {
            self.unindex_parent(parent, entry.accepted);
        }
        if let Some(session) = &entry.task.session
            && self.by_session.get(session) == Some(id)
        {
            self.by_session.remove(session);
        }
        for key in entry.removal.into_iter().chain(entry.expiry) {
            self.deadlines.remove(&key);
        }
        let forgotten = JournalEntry::Forgotten(id.clone(), self.env.now());
        self.env.append(vec![forgotten]);
        if !entry.waiters.is_empty() {
            let durable = self.env.durable();
            actix_rt::spawn(async move {
                durable.await;
                for waiter in entry.waiters {
                    // The waiter may have been dropped.
                    let _ = waiter.reply.send(Some(Task::clone(&entry.task)));
                }
            });
        }
        self.refs.tasks.remove(id);
        self.arm(ctx);
    }
}
