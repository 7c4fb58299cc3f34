//! Batches and debts as the registry sees them: it makes a parent's notifier when something joins, tells it of joins and
//! ends in its own order, and lets it go when nothing is open or owed.

use actix::{Addr, Context, Handler, Message};

use super::{BatchClosed, Debts, NoticeFate, NoticeReport, TaskRegistry, WakeAccepted};
use crate::actors::parent_notifier::{
    Joined, Left, ParentEnded, ParentGone, ParentNotifier, Settled,
};
use crate::actors::supervisor::{Exit, spawn_supervised};
use crate::actors::task::Woken;
use crate::actors::toaster::Show;
use crate::domain::batch::Told;
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::lifecycle::End;
use crate::domain::notice::SettledFact;
use crate::domain::notification::MAX_ERROR;
use crate::domain::task::{TaskStatus, cut};
use crate::domain::time::duration_text;
use crate::handle::NoticeRecord;
use crate::ports::agent_server::ToastVariant;
use crate::ports::journal::Entry as JournalEntry;
use rand_chacha::rand_core::Rng;

/// What the registry keeps of a parent with something open or owed.
pub(crate) struct Parent {
    pub(super) notifier: Addr<ParentNotifier>,
    generation: u64,
    /// How many joins, ends and leaves it was told.
    debt: u64,
    pub(super) open: usize,
    /// True from the moment something is settled until the notifier has said that nothing is owed.
    pub(super) owes: bool,
    idle: bool,
    /// The newest messages and what became of them; at most a hundred.
    pub(super) notices: std::collections::VecDeque<NoticeRecord>,
}

/// A notifier panicked.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct NotifierDied {
    parent: SessionId,
    generation: u64,
    panic: String,
}

impl TaskRegistry {
    /// The run joins its parent's batch, if it has a parent and anybody is told anything.
    pub(super) fn join_batch(&mut self, id: &TaskId, _ctx: &mut Context<Self>) {
        if !self.env.config.notifications.enabled {
            return;
        }
        let Some(task) = self.tasks.get(id).map(|entry| &entry.task) else {
            return;
        };
        let (Some(parent), directory) = (task.parent_session.clone(), task.directory.clone())
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
        self.tell_dependents(&parent);
    }

    fn ensure_notifier(&mut self, parent: &SessionId) {
        if self.parents.contains_key(parent) {
            return;
        }
        let (generation, salt) = (self.number(), self.rng.next_u64());
        let ended = self
            .by_session
            .get(parent)
            .and_then(|id| self.tasks.get(id))
            .is_some_and(|entry| entry.task.status().is_terminal());
        let (env, registry, name) = (
            self.env.clone(),
            self.desks.registry.clone(),
            parent.clone(),
        );
        let (told, died) = (registry.clone(), parent.clone());
        let notifier = spawn_supervised(
            move |_| ParentNotifier::new(env, registry, name, ended, salt),
            move |exit| {
                if let Exit::Panicked(panic) = exit {
                    told.send(NotifierDied {
                        parent: died,
                        generation,
                        panic,
                    });
                }
            },
        );
        self.parents.insert(
            parent.clone(),
            Parent {
                notifier,
                generation,
                debt: 0,
                open: 0,
                owes: false,
                idle: false,
                notices: Default::default(),
            },
        );
    }

    /// The run has ended: its parent is told, or not.
    pub(super) fn settle_batch(&mut self, id: &TaskId, end: &End, _ctx: &mut Context<Self>) {
        if end.skip_notification || self.closing.is_some() {
            return self.leave_batch(id);
        }
        let wakes_on_failure = self.env.config.notifications.wake_on_failure;
        let now = self.env.now();
        let Some(entry) = self.tasks.get(id) else {
            return;
        };
        let Some(parent) = entry.batch.clone() else {
            return;
        };
        let task = &entry.task;
        let told = Told {
            fact: SettledFact {
                task: id.clone(),
                status: task.status(),
                description: task.description.clone(),
                duration: duration_text(task.duration(now)),
                error: task.error().map(|error| cut(error, MAX_ERROR).to_owned()),
            },
            accepted: entry.accepted,
            parent_agent: task.parent_agent.clone(),
            parent_model: task.parent_model.clone(),
        };
        let wakes = wakes_on_failure && task.status().is_failure();
        if let Some(known) = self.parents.get_mut(&parent) {
            let append = JournalEntry::Settled {
                parent: parent.clone(),
                told: Box::new(told.clone()),
            };
            if let Err(failure) = self.journal.append(append) {
                tracing::error!(task = %id, %failure, "the journal could not be written");
            }
            known.open = known.open.saturating_sub(1);
            known.debt += 1;
            known.owes = true;
            known.notifier.do_send(Settled {
                told,
                wakes,
                debt: known.debt,
            });
        } else if let Some(entry) = self.tasks.get_mut(id) {
            // The parent is no more: nobody is told.
            entry.batch = None;
        }
    }

    /// The task leaves its parent's batch without a word.
    pub(super) fn leave_batch(&mut self, id: &TaskId) {
        let Some(parent) = self.tasks.get_mut(id).and_then(|entry| entry.batch.take()) else {
            return;
        };
        if let Some(known) = self.parents.get_mut(&parent) {
            known.open = known.open.saturating_sub(1);
            known.debt += 1;
            known.owes = true;
            known.notifier.do_send(Left {
                task: id.clone(),
                debt: known.debt,
            });
        }
    }

    /// The parent is no more: what is owed to it is dropped.
    pub(super) fn drop_parent(&mut self, parent: &SessionId) {
        if let Some(known) = self.parents.remove(parent) {
            known.notifier.do_send(ParentGone);
            tracing::info!(parent = %parent, "a parent is no more; what was owed to it is dropped");
        }
    }

    /// A session of ours that may be a parent has ended, or goes on again.
    pub(super) fn parent_session_ended(&mut self, session: &SessionId, ended: bool) {
        if let Some(known) = self.parents.get(session) {
            known.notifier.do_send(ParentEnded(ended));
        }
    }

    pub(super) fn toast_queued(&self, id: &TaskId) {
        if !self.env.config.notifications.toasts {
            return;
        }
        let Some(entry) = self.tasks.get(id) else {
            return;
        };
        let names = |wanted: TaskStatus| {
            // Among the newest few: a long line must not make each launch longer.
            let newest = self.by_age.values().rev().take(200);
            let names: Vec<&str> = newest
                .filter_map(|id| self.tasks.get(id))
                .filter(|entry| entry.task.status() == wanted)
                .map(|entry| cut(&entry.task.description, 40))
                .take(5)
                .collect();
            names.join(", ")
        };
        let mut message = cut(&entry.task.description, 80).to_owned();
        for (label, status) in [
            ("running", TaskStatus::Running),
            ("waiting", TaskStatus::Pending),
        ] {
            let names = names(status);
            if !names.is_empty() {
                message.push_str(&format!("\n{label}: {names}"));
            }
        }
        let title = "Background task queued".to_owned();
        self.desks.toaster.send(Show {
            title,
            message,
            variant: ToastVariant::Info,
        });
    }

    pub(super) fn toast_ended(&self, id: &TaskId) {
        if !self.env.config.notifications.toasts {
            return;
        }
        let Some(entry) = self.tasks.get(id) else {
            return;
        };
        let task = &entry.task;
        let all = task
            .parent_session
            .as_ref()
            .is_some_and(|parent| self.open_below(parent) == 0);
        let title = if all {
            "All background tasks finished"
        } else {
            "Background task finished"
        };
        let variant = if task.status().is_failure() {
            ToastVariant::Error
        } else {
            ToastVariant::Success
        };
        let message = format!("{}: {}", cut(&task.description, 80), task.status().as_str());
        self.desks.toaster.send(Show {
            title: title.to_owned(),
            message,
            variant,
        });
    }
}

impl Handler<BatchClosed> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, closed: BatchClosed, ctx: &mut Context<Self>) {
        self.env.places.pass("registry: BatchClosed");
        for id in closed.tasks {
            let ended = self.tasks.get_mut(&id).filter(|entry| {
                entry.batch.as_ref() == Some(&closed.parent) && entry.task.status().is_terminal()
            });
            if let Some(entry) = ended {
                entry.batch = None;
                self.remove_later(&id, ctx);
            }
        }
    }
}

impl Handler<Debts> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, debts: Debts, _: &mut Context<Self>) {
        self.env.places.pass("registry: Debts");
        let Some(known) = self.parents.get_mut(&debts.parent) else {
            return;
        };
        if known.debt != debts.debt {
            // It has not heard everything yet.
            return;
        }
        known.owes = debts.owes;
        known.idle = debts.idle && !debts.owes;
        if known.idle && known.open == 0 {
            self.parents.remove(&debts.parent);
        }
        self.tell_dependents(&debts.parent);
    }
}

impl Handler<WakeAccepted> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, accepted: WakeAccepted, _: &mut Context<Self>) {
        self.env.places.pass("registry: WakeAccepted");
        let entry = self
            .by_session
            .get(&accepted.parent)
            .and_then(|id| self.tasks.get(id));
        if let Some(actor) = entry.and_then(|entry| entry.actor.as_ref()) {
            actor.do_send(Woken);
        }
    }
}

impl Handler<NoticeReport> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, report: NoticeReport, _: &mut Context<Self>) {
        self.env.places.pass("registry: NoticeReport");
        let append = match &report.fate {
            NoticeFate::Sending => JournalEntry::Sending {
                parent: report.parent.clone(),
                id: report.id.clone(),
                facts: report.facts.clone(),
            },
            NoticeFate::Delivered => JournalEntry::Delivered(report.id.clone()),
            NoticeFate::Dropped(why) => {
                tracing::warn!(parent = %report.parent, notice = %report.id, why, "a message to a parent was dropped");
                JournalEntry::Dropped(report.id.clone(), why.clone())
            }
        };
        if let Err(failure) = self.journal.append(append) {
            tracing::error!(notice = %report.id, %failure, "the journal could not be written");
        }
        if let Some(known) = self.parents.get_mut(&report.parent) {
            known.notices.retain(|record| record.id != report.id);
            known.notices.push_front(NoticeRecord::new(
                report.id,
                report.facts,
                report.fate,
                report.at,
            ));
            known.notices.truncate(100);
        }
    }
}

impl Handler<NotifierDied> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, died: NotifierDied, ctx: &mut Context<Self>) {
        self.env.places.pass("registry: NotifierDied");
        tracing::error!(parent = %died.parent, panic = %died.panic, "a notifier panicked");
        if self
            .parents
            .get(&died.parent)
            .is_none_or(|known| known.generation != died.generation)
        {
            return;
        }
        // Rebuilt from what is known here: who is open, and who has settled and was not in a closed batch.
        self.parents.remove(&died.parent);
        let members: Vec<TaskId> = self
            .children_of(&died.parent)
            .into_iter()
            .filter(|id| {
                self.tasks
                    .get(id)
                    .is_some_and(|entry| entry.batch.as_ref() == Some(&died.parent))
            })
            .collect();
        for id in &members {
            self.join_batch(id, ctx);
        }
        for id in &members {
            if self
                .tasks
                .get(id)
                .is_some_and(|entry| entry.task.status().is_terminal())
            {
                self.settle_batch(id, &End::completed(), ctx);
            }
        }
    }
}
