//! Restarts of notifiers that panicked: the next notifier of the parent starts from the outbox in the journal.

use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};

use super::TaskRegistry;
use crate::actors::health::ActorKind;
use crate::domain::ids::{SessionId, TaskId};

/// A notifier panicked.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct NotifierDied {
    pub(super) parent: SessionId,
    pub(super) generation: u64,
    pub(super) panic: String,
}

impl Handler<NotifierDied> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, died: NotifierDied, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: NotifierDied");
        tracing::error!(parent = %died.parent, panic = %died.panic, "notifier panicked");
        let current = self
            .parents
            .get(&died.parent)
            .is_some_and(|known| known.generation == died.generation);
        if !current || self.closing.is_some() {
            return;
        }
        match self.env.health.died(ActorKind::Notifier, self.env.now()) {
            Duration::ZERO => {
                self.rebuild_notifier(&died.parent, died.generation, ctx);
            }
            wait => {
                let rebuild = RebuildNotifier(died.parent, died.generation);
                ctx.notify_later(rebuild, wait);
            }
        }
    }
}

/// Restarts a notifier after a delay, once its restart budget is used up.
#[derive(Message)]
#[rtype(result = "()")]
struct RebuildNotifier(SessionId, u64);

impl Handler<RebuildNotifier> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, rebuild: RebuildNotifier, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: RebuildNotifier");
        self.rebuild_notifier(&rebuild.0, rebuild.1, ctx);
    }
}

impl TaskRegistry {
    /// Starts the next notifier of a parent from the journal's outbox, which has the joins and ends of the meantime too.
    fn rebuild_notifier(&mut self, parent: &SessionId, generation: u64, ctx: &mut Context<Self>) {
        let current = self
            .parents
            .get(parent)
            .is_some_and(|known| known.generation == generation);
        if current && self.closing.is_none() {
            let outbox = self.env.journal.outbox(parent).unwrap_or_default();
            let closed_tasks = self.children_of(parent).into_iter();
            let closed_tasks = closed_tasks.filter(|id| !outbox.has(id)).collect();
            self.new_notifier(parent, Some(outbox));
            // The notifier may have panicked before its report that the batch was closed.
            self.leave_closed(parent, closed_tasks, ctx);
            self.send_dependents(parent);
        }
    }

    /// Removes ended tasks from a closed batch and schedules their removal from memory.
    pub(super) fn leave_closed(
        &mut self,
        parent: &SessionId,
        tasks: Vec<TaskId>,
        ctx: &mut Context<Self>,
    ) {
        for id in tasks {
            let ended = self.tasks.get_mut(&id).filter(|entry| {
                entry.batch.as_ref() == Some(parent) && entry.task.status().is_terminal()
            });
            if let Some(entry) = ended {
                entry.batch = None;
                self.remove_later(&id, ctx);
            }
        }
    }
}
