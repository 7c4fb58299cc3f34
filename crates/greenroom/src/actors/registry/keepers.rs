//! The long-lived actors that the registry answers for: slot manager, poller, toaster. Each is rebuilt from what the
//! registry knows when it has died, at once at first, and every half minute once it has died too often.

use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};

use super::TaskRegistry;
use crate::actors::health::Kind;
use crate::actors::key_queue::AskAgain;
use crate::actors::poller::Poller;
use crate::actors::slot_manager::SlotManager;
use crate::actors::supervisor::{Exit, spawn_supervised};
use crate::actors::toaster::Toaster;
use crate::domain::concurrency::PermitId;
use crate::domain::ids::{ConcurrencyKey, TaskId};

/// The kinds of actors kept alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Slots,
    Poller,
    Toaster,
}

impl Kept {
    const ALL: [Kept; 3] = [Kept::Slots, Kept::Poller, Kept::Toaster];

    fn kind(self) -> Kind {
        match self {
            Kept::Slots => Kind::Slots,
            Kept::Poller => Kind::Poller,
            Kept::Toaster => Kind::Toaster,
        }
    }
}

/// A kept actor panicked.
#[derive(Message)]
#[rtype(result = "()")]
struct KeptDied {
    kept: Kept,
    panic: String,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Rebuild(Kept);

impl TaskRegistry {
    /// Starts what the registry needs around it.
    pub(super) fn start_kept(&mut self) {
        for kept in Kept::ALL {
            self.build(kept);
        }
    }

    fn build(&mut self, kept: Kept) {
        let registry = self.desks.registry.clone();
        let on_exit = move |exit| {
            if let Exit::Panicked(panic) = exit {
                registry.send(KeptDied { kept, panic });
            }
        };
        let env = self.env.clone();
        match kept {
            Kept::Slots => {
                let held = self.held_permits();
                let (limits, desk) = (self.limits.clone(), self.desks.slots.clone());
                let open = self.reachable && self.closing.is_none();
                let places = env.places;
                let slots = spawn_supervised(
                    move |_| SlotManager::restored(limits, desk, held, open, places),
                    on_exit,
                );
                self.desks.slots.put(slots);
                for line in self.lines.values() {
                    line.queue.do_send(AskAgain);
                }
            }
            Kept::Poller => {
                self.desks
                    .poller
                    .put(spawn_supervised(move |_| Poller::new(env), on_exit));
                let running: Vec<TaskId> = self.by_age.values().cloned().collect();
                for id in running {
                    if self
                        .tasks
                        .get(&id)
                        .is_some_and(|entry| entry.actor.is_some())
                    {
                        self.watch_session(&id);
                    }
                }
            }
            Kept::Toaster => self
                .desks
                .toaster
                .put(spawn_supervised(move |_| Toaster::new(env), on_exit)),
        }
    }

    fn held_permits(&self) -> Vec<(PermitId, ConcurrencyKey)> {
        let granted = self
            .tasks
            .values()
            .filter_map(|entry| entry.granted.as_ref());
        let granted = granted.map(|permit| (permit.id(), permit.key().clone()));
        self.tasks
            .values()
            .filter_map(|entry| entry.held.clone())
            .chain(granted)
            .collect()
    }
}

impl Handler<KeptDied> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, died: KeptDied, ctx: &mut Context<Self>) {
        self.env.places.pass("registry: KeptDied");
        tracing::error!(actor = died.kept.kind().name(), panic = %died.panic, "an actor panicked");
        if self.closing.is_some() {
            return;
        }
        match self.env.health.died(died.kept.kind(), self.env.now()) {
            Duration::ZERO => self.build(died.kept),
            wait => {
                ctx.notify_later(Rebuild(died.kept), wait);
            }
        }
    }
}

impl Handler<Rebuild> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, rebuild: Rebuild, _: &mut Context<Self>) {
        self.env.places.pass("registry: Rebuild");
        if self.closing.is_none() {
            self.build(rebuild.0);
        }
    }
}
