//! Batches and debts as the registry sees them: it makes a parent's notifier when something joins, tells it of joins and
//! ends in its own order, and lets it go when nothing is open or owed.

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

/// What the registry keeps of a parent with something open or owed.
pub(crate) struct Parent {
    pub(super) notifier: Addr<ParentNotifier>,
    pub(super) generation: u64,
    /// How many joins, ends, leaves and stops by its user it was told.
    pub(super) sequence: u64,
    pub(super) open: usize,
    /// True from the moment something is settled until the notifier has said that nothing is owed.
    pub(super) has_pending: bool,
    idle: bool,
}

/// What an end means for the parent's batch.
pub(super) enum Settlement {
    /// Nobody is told anything.
    None,
    /// The run leaves the batch without a word.
    Left(SessionId, TaskId),
    /// The parent is owed this.
    Report {
        parent: SessionId,
        report: Box<CompletionReport>,
        wakes: bool,
    },
}

impl Settlement {
    /// What the journal is told of it.
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
    /// The run joins its parent's batch, if it has a parent and anybody is told anything.
    pub(super) fn join_batch(&mut self, id: &TaskId, _ctx: &mut Context<Self>) {
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

    /// What the journal is told of a run that joins its parent's batch; none if nobody is told anything.
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
            // A parent that was stopped by its user and let go of meanwhile is still that.
            let outbox = self.env.journal.outbox(parent);
            let silenced = outbox.filter(|outbox| outbox.silenced && outbox.is_settled());
            self.new_notifier(parent, silenced);
        }
    }

    /// True if it is the session of a task of ours that has ended, also of one that has left memory. While a resume waits
    /// in line nothing has changed: woken, the session would work unwatched, and its own prompt is still to come.
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

    /// A notifier that begins with what the outbox says, if one is given.
    pub(super) fn new_notifier(&mut self, parent: &SessionId, outbox: Option<Outbox>) {
        let (generation, salt) = (self.next_number(), self.rng.next_u64());
        let ended = self.has_ended(parent);
        let open = outbox.as_ref().map_or(0, Outbox::open);
        let has_pending = outbox.is_some();
        let (env, registry, name) = (self.env.clone(), self.refs.registry.clone(), parent.clone());
        let (exit_ref, died) = (registry.clone(), parent.clone());
        let notifier = spawn_supervised(
            move |_| ParentNotifier::new(env, registry, name, ended, salt, outbox),
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
        self.know_parent(parent, notifier, generation, (0, open, has_pending));
    }

    /// `standing` is how much the notifier has been told, how many are open and whether it may owe anything.
    pub(super) fn know_parent(
        &mut self,
        parent: &SessionId,
        notifier: Addr<ParentNotifier>,
        generation: u64,
        (sequence, open, has_pending): (u64, usize, bool),
    ) {
        self.refs
            .notifiers
            .put(parent.clone(), generation, notifier.clone());
        let known = Parent {
            notifier,
            generation,
            sequence,
            open,
            has_pending,
            idle: false,
        };
        self.parents.insert(parent.clone(), known);
    }

    /// What the end of a run means for its parent's batch.
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
        // After a shutdown nobody is told; with a journal that outlives it the next start does it.
        let never = self.closing.is_some() && !self.env.journal.is_persistent();
        if end.skip_notification || never {
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

    /// What a parent is told of a task that has ended.
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

    /// The parent's notifier is told of an end that is in the journal.
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

    /// The task leaves its parent's batch without a word.
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

    /// The parent is no more: what is owed to it is dropped.
    pub(super) fn drop_parent(&mut self, parent: &SessionId, ctx: &mut Context<Self>) {
        let Some(known) = self.parents.remove(parent) else {
            return;
        };
        self.refs.notifiers.remove(parent);
        let gone = JournalEntry::ParentGone(parent.clone(), self.env.now());
        self.env.append(vec![gone]);
        known.notifier.do_send(ParentGone);
        tracing::info!(parent = %parent, "a parent is no more; what was owed to it is dropped");
        // Its batch never closes: who settled in it and was given another parent since leaves memory all the same.
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

    /// A session of ours that may be a parent has ended, or goes on again.
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
            // It has not heard everything yet.
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
