//! The notifiers of parents when they die: the next one begins with what the journal says.

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
        tracing::error!(parent = %died.parent, panic = %died.panic, "a notifier panicked");
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

/// A notifier that died too often is built again after a while.
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
    /// The next notifier of a parent begins with what the journal says; whatever joined or settled meanwhile is there too.
    fn rebuild_notifier(&mut self, parent: &SessionId, generation: u64, ctx: &mut Context<Self>) {
        let still = self
            .parents
            .get(parent)
            .is_some_and(|known| known.generation == generation);
        if still && self.closing.is_none() {
            let outbox = self.env.journal.outbox(parent).unwrap_or_default();
            let closed_tasks = self.children_of(parent).into_iter();
            let closed_tasks = closed_tasks.filter(|id| !outbox.has(id)).collect();
            self.new_notifier(parent, Some(outbox));
            // It may have died before it said that the batch was closed.
            self.leave_closed(parent, closed_tasks, ctx);
            self.send_dependents(parent);
        }
    }

    /// These ended tasks are in a closed batch: they may leave memory in a while.
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
