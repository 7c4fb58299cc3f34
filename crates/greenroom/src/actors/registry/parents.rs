//! The registry's side of batches and pending messages. The registry creates a parent's notifier when a run joins, sends it
//! joins and ends in its own order, and drops it when no run is open and no message is pending.

use std::sync::Arc;

use actix::{Addr, Context, Handler};
use rand_chacha::rand_core::Rng;

use super::{BatchClosed, PendingMessages, TaskEntry, TaskRegistry, WakeAccepted};
use crate::actors::parent_notifier::{
    Joined, Left, ParentEnded, ParentGone, ParentNotifier, Settled,
};
use crate::actors::supervisor::{Exit, spawn_supervised};
use crate::actors::task::WakeSent;
use crate::domain::batch::CompletionReport;
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::lifecycle::End;
use crate::domain::notice::SettledFact;
use crate::domain::notification::MAX_ERROR;
use crate::domain::outbox::Outbox;
use crate::domain::task::{TaskStatus, cut};
use crate::domain::time::duration_text;
use crate::ports::journal::JournalEntry;

/// A parent with open runs or pending messages.
pub(crate) struct Parent {
    pub(super) notifier: Addr<ParentNotifier>,
    pub(super) generation: u64,
    /// The number of the newest end, leave or possible user stop that was sent to the notifier.
    pub(super) sequence: u64,
    pub(super) open: usize,
    /// Set when a run settles or leaves; cleared when the notifier reports that no message is pending.
    pub(super) has_pending: bool,
    idle: bool,
}

/// The state of a notifier when the registry adds it.
#[derive(Clone, Copy)]
pub(super) struct NotifierState {
    /// The number of the newest message that was sent to the notifier.
    pub(super) sequence: u64,
    /// The open runs of the batch.
    pub(super) open: usize,
    /// True if messages may be pending.
    pub(super) has_pending: bool,
}

/// The effect of an end on the parent's batch.
pub(super) enum Settlement {
    /// The run is not in a batch.
    None,
    /// The run leaves the batch without a message.
    Left(SessionId, TaskId),
    /// The parent gets this report.
    Report {
        parent: SessionId,
        report: Box<CompletionReport>,
        wakes: bool,
    },
}

impl Settlement {
    /// Returns the journal entry of the settlement.
    pub(super) fn entry(&self) -> Option<JournalEntry> {
        match self {
            Settlement::None => None,
            Settlement::Left(parent, task) => {
                Some(JournalEntry::Left(parent.clone(), task.clone()))
            }
            Settlement::Report { parent, report, .. } => Some(JournalEntry::Settled {
                parent: parent.clone(),
                report: report.clone(),
            }),
        }
    }
}

impl TaskRegistry {
    /// Adds the run to its parent's batch, if it has a parent and notifications are enabled.
    pub(super) fn join_batch(&mut self, id: &TaskId) {
        let Some(JournalEntry::Joined {
            parent, directory, ..
        }) = self.joining(id)
        else {
            return;
        };
        self.ensure_notifier(&parent);
        if let Some(known) = self.parents.get_mut(&parent) {
            known.open += 1;
            known.idle = false;
            known.notifier.do_send(Joined {
                task: id.clone(),
                directory,
            });
        }
        if let Some(entry) = self.tasks.get_mut(id) {
            entry.batch = Some(parent.clone());
        }
        self.send_dependents(&parent);
    }

    /// Returns the journal entry of a run that joins its parent's batch; none without a parent or notifications.
    pub(super) fn joining(&self, id: &TaskId) -> Option<JournalEntry> {
        let task = &self.tasks.get(id)?.task;
        if !self.env.config.notifications.enabled {
            return None;
        }
        Some(JournalEntry::Joined {
            parent: task.parent_session.clone()?,
            task: id.clone(),
            run: task.run,
            directory: task.directory.clone(),
        })
    }

    fn ensure_notifier(&mut self, parent: &SessionId) {
        if !self.parents.contains_key(parent) {
            // A parent that was stopped by its user is still silenced, also if its notifier was dropped meanwhile.
            let outbox = self.env.journal.outbox(parent);
            let silenced = outbox.filter(|outbox| outbox.silenced && outbox.is_settled());
            self.new_notifier(parent, silenced);
        }
    }

    /// Returns true if it is the session of a task that is not running, also of one removed from memory. A task whose resume
    /// is queued counts as ended: a wake would make its session work unwatched before its own prompt.
    pub(super) fn has_ended(&self, session: &SessionId) -> bool {
        if let Some(id) = self.by_session.get(session) {
            let entry = self.tasks.get(id);
            return entry.is_some_and(|entry| entry.task.status() != TaskStatus::Running);
        }
        let left = self.env.journal.find(session.as_str());
        left.is_some_and(|task| {
            task.session.as_ref() == Some(session) && task.status().is_terminal()
        })
    }

    /// Starts a notifier for a parent, from its outbox if one is given.
    pub(super) fn new_notifier(&mut self, parent: &SessionId, outbox: Option<Outbox>) {
        let (generation, salt) = (self.next_number(), self.rng.next_u64());
        let ended = self.has_ended(parent);
        let of_task = ended || self.by_session.contains_key(parent);
        let state = NotifierState {
            sequence: 0,
            open: outbox.as_ref().map_or(0, Outbox::open),
            has_pending: outbox.is_some(),
        };
        let (env, registry, name) = (self.env.clone(), self.refs.registry.clone(), parent.clone());
        let (exit_ref, died) = (registry.clone(), parent.clone());
        let notifier = spawn_supervised(
            move |_| ParentNotifier::new(env, registry, name, ended, of_task, salt, outbox),
            move |exit| {
                if let Exit::Panicked(panic) = exit {
                    exit_ref.send(super::notifiers::NotifierDied {
                        parent: died,
                        generation,
                        panic,
                    });
                }
            },
        );
        self.add_parent(parent, notifier, generation, state);
        self.hold_parent_for_abort(parent);
    }

    /// Adds a parent with its running notifier.
    pub(super) fn add_parent(
        &mut self,
        parent: &SessionId,
        notifier: Addr<ParentNotifier>,
        generation: u64,
        state: NotifierState,
    ) {
        self.refs
            .notifiers
            .put(parent.clone(), generation, notifier.clone());
        let known = Parent {
            notifier,
            generation,
            sequence: state.sequence,
            open: state.open,
            has_pending: state.has_pending,
            idle: false,
        };
        self.parents.insert(parent.clone(), known);
    }

    /// Returns the effect of the end of a run on its parent's batch.
    pub(super) fn settlement(&self, id: &TaskId, end: &End) -> Settlement {
        let Some(entry) = self.tasks.get(id) else {
            return Settlement::None;
        };
        let Some(parent) = entry
            .batch
            .clone()
            .filter(|parent| self.parents.contains_key(parent))
        else {
            return Settlement::None;
        };
        // During a shutdown no message is sent. With a persistent journal the next process sends it.
        let never_sent = self.closing.is_some() && !self.env.journal.is_persistent();
        if end.skip_notification || never_sent {
            return Settlement::Left(parent, id.clone());
        }
        let report = self.completion_report(entry);
        let failed = entry.task.status().is_failure();
        Settlement::Report {
            parent,
            wakes: self.env.config.notifications.wake_on_failure && failed,
            report: Box::new(report),
        }
    }

    /// Returns the report of an ended task for its parent.
    pub(super) fn completion_report(&self, entry: &TaskEntry) -> CompletionReport {
        let task = &entry.task;
        CompletionReport {
            fact: SettledFact {
                task: task.id.clone(),
                status: task.status(),
                description: task.description.clone(),
                duration: duration_text(task.duration(self.env.now())).into(),
                error: task.error().map(|error| Arc::from(cut(error, MAX_ERROR))),
            },
            accepted: entry.accepted,
            parent_agent: task.parent_agent.clone(),
            parent_model: task.parent_model.clone(),
        }
    }

    /// Notifies the parent's notifier of an end that is in the journal.
    pub(super) fn settle(&mut self, id: &TaskId, settlement: Settlement) {
        match settlement {
            Settlement::Left(..) => self.leave_batch(id),
            Settlement::Report {
                parent,
                report,
                wakes,
            } => {
                if let Some(known) = self.parents.get_mut(&parent) {
                    known.open = known.open.saturating_sub(1);
                    known.sequence += 1;
                    known.has_pending = true;
                    known.notifier.do_send(Settled {
                        report: *report,
                        wakes,
                        sequence: known.sequence,
                    });
                }
            }
            Settlement::None => {
                if let Some(entry) = self.tasks.get_mut(id) {
                    entry.batch = None;
                }
            }
        }
    }

    /// Removes the task from its parent's batch without a message.
    pub(super) fn leave_batch(&mut self, id: &TaskId) {
        let Some(parent) = self.tasks.get_mut(id).and_then(|entry| entry.batch.take()) else {
            return;
        };
        if let Some(known) = self.parents.get_mut(&parent) {
            known.open = known.open.saturating_sub(1);
            known.sequence += 1;
            known.has_pending = true;
            known.notifier.do_send(Left {
                task: id.clone(),
                sequence: known.sequence,
            });
        }
    }

    /// Drops a deleted parent with its pending messages.
    pub(super) fn drop_parent(&mut self, parent: &SessionId, ctx: &mut Context<Self>) {
        let Some(known) = self.parents.remove(parent) else {
            return;
        };
        self.refs.notifiers.remove(parent);
        let gone = JournalEntry::ParentGone(parent.clone(), self.env.now());
        self.env.append(vec![gone]);
        known.notifier.do_send(ParentGone);
        tracing::info!(parent = %parent, "parent deleted: its pending messages are dropped");
        // The batch never closes: tasks that ended in it are removed from memory all the same.
        let settled: Vec<TaskId> = self
            .tasks
            .iter_mut()
            .filter(|(_, entry)| {
                entry.batch.as_ref() == Some(parent) && entry.task.status().is_terminal()
            })
            .map(|(id, entry)| {
                entry.batch = None;
                id.clone()
            })
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        for id in settled {
            self.remove_later(&id, ctx);
        }
    }

    /// Notifies the notifier of a task's session that the task has ended, or runs again.
    pub(super) fn parent_session_ended(&mut self, session: &SessionId, ended: bool) {
        if let Some(known) = self.parents.get(session) {
            known.notifier.do_send(ParentEnded(ended));
        }
    }
}

impl Handler<BatchClosed> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, closed: BatchClosed, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: BatchClosed");
        self.leave_closed(&closed.parent, closed.tasks, ctx);
    }
}

impl Handler<PendingMessages> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, pending: PendingMessages, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: Debts");
        let Some(known) = self.parents.get_mut(&pending.parent) else {
            return;
        };
        if known.sequence != pending.sequence {
            // The report is outdated: the notifier has not handled the newest message yet.
            return;
        }
        known.has_pending = pending.has_pending;
        known.idle = pending.idle && !pending.has_pending;
        if known.idle && known.open == 0 {
            self.parents.remove(&pending.parent);
            self.refs.notifiers.remove(&pending.parent);
        }
        self.send_dependents(&pending.parent);
    }
}

impl Handler<WakeAccepted> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, accepted: WakeAccepted, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: WakeAccepted");
        let entry = self
            .by_session
            .get(&accepted.parent)
            .and_then(|id| self.tasks.get(id));
        if let Some(actor) = entry.and_then(|entry| entry.actor.as_ref()) {
            actor.do_send(WakeSent);
        }
    }
}
