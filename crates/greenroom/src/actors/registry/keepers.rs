//! The long-lived actors that the registry answers for: slot manager, poller, toaster. Each is rebuilt from what the
//! registry knows when it has died, at once at first, and every half minute once it has died too often.

use std::collections::VecDeque;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};

use super::TaskRegistry;
use crate::actors::key_queue::AskAgain;
use crate::actors::poller::Poller;
use crate::actors::slot_manager::SlotManager;
use crate::actors::supervisor::{Exit, spawn_supervised};
use crate::actors::toaster::Toaster;
use crate::domain::concurrency::PermitId;
use crate::domain::ids::{ConcurrencyKey, TaskId};
use crate::domain::time::Timestamp;

/// So many deaths of one kind within a minute are answered at once.
const BUDGET: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// After that each is answered with this delay.
const SLOW: Duration = Duration::from_secs(30);

/// The kinds of actors kept alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Slots,
    Poller,
    Toaster,
}

impl Kept {
    const ALL: [Kept; 3] = [Kept::Slots, Kept::Poller, Kept::Toaster];

    fn name(self) -> &'static str {
        match self {
            Kept::Slots => "slot manager",
            Kept::Poller => "poller",
            Kept::Toaster => "toaster",
        }
    }
}

/// Deaths of the kept actors: the newest few times each.
#[derive(Debug, Default)]
pub(crate) struct Deaths([VecDeque<Timestamp>; 3]);

impl Deaths {
    /// Notes a death; true if the budget still allows to answer it at once.
    fn note(&mut self, kept: Kept, now: Timestamp) -> bool {
        let times = &mut self.0[kept as usize];
        times.push_back(now);
        if times.len() > BUDGET + 1 {
            times.pop_front();
        }
        self.within_budget(kept, now)
    }

    fn within_budget(&self, kept: Kept, now: Timestamp) -> bool {
        self.0[kept as usize]
            .iter()
            .filter(|at| now.since(**at) < WINDOW)
            .count()
            <= BUDGET
    }

    /// The kinds that die too often now.
    pub(super) fn exhausted(&self, now: Timestamp) -> Vec<&'static str> {
        Kept::ALL
            .into_iter()
            .filter(|kept| !self.within_budget(*kept, now))
            .map(Kept::name)
            .collect()
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
                let slots =
                    spawn_supervised(|_| SlotManager::restored(limits, desk, held, open), on_exit);
                self.desks.slots.put(slots);
                for line in self.lines.values() {
                    line.queue.do_send(AskAgain);
                }
            }
            Kept::Poller => {
                self.desks
                    .poller
                    .put(spawn_supervised(|_| Poller::new(env), on_exit));
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
                .put(spawn_supervised(|_| Toaster::new(env), on_exit)),
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
        tracing::error!(actor = died.kept.name(), panic = %died.panic, "an actor panicked");
        if self.closing.is_some() {
            return;
        }
        if self.deaths.note(died.kept, self.env.now()) {
            self.build(died.kept);
        } else {
            ctx.notify_later(Rebuild(died.kept), SLOW);
        }
    }
}

impl Handler<Rebuild> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, rebuild: Rebuild, _: &mut Context<Self>) {
        if self.closing.is_none() {
            self.build(rebuild.0);
        }
    }
}
