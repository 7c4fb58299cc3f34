//! Supervision of the registry and of its singleton actors: slot manager, poller, toaster. After a panic an actor is
//! restarted from the state of the registry: at once within the restart budget, then with a delay of half a minute.

use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};

use tokio::sync::oneshot;

use super::{ActorRefs, TaskRegistry};
use crate::actors::actor_ref::ActorRef;
use crate::actors::env::Env;
use crate::actors::health::ActorKind;
use crate::actors::key_queue::RequestAgain;
use crate::actors::poller::Poller;
use crate::actors::slot_manager::SlotManager;
use crate::actors::supervisor::{Exit, spawn_supervised};
use crate::actors::task::SlotManagerRestarted;
use crate::actors::toaster::Toaster;
use crate::domain::ids::TaskId;
use crate::handle::Changes;

/// The singleton actors that the registry restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Singleton {
    Slots,
    Poller,
    Toaster,
}

impl Singleton {
    const ALL: [Singleton; 3] = [Singleton::Slots, Singleton::Poller, Singleton::Toaster];

    fn kind(self) -> ActorKind {
        match self {
            Singleton::Slots => ActorKind::Slots,
            Singleton::Poller => ActorKind::Poller,
            Singleton::Toaster => ActorKind::Toaster,
        }
    }
}

/// A singleton actor panicked.
#[derive(Message)]
#[rtype(result = "()")]
struct SingletonDied {
    singleton: Singleton,
    panic: String,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Rebuild(Singleton);

/// Runs the registry, and restarts it after each panic, until it ends by itself after a shutdown.
pub(crate) fn supervise_registry(env: Env, refs: ActorRefs, changes: Changes) {
    let exit = run_registry(&env, &refs, &changes);
    let weak = refs.registry.weak();
    let mut refs = refs;
    // A strong reference here would keep the registry running after the last handle is dropped.
    refs.registry = ActorRef::default();
    actix_rt::spawn(async move {
        let mut exit = exit;
        while let Ok(Exit::Panicked(panic)) = exit.await {
            tracing::error!(panic, "registry panicked");
            let wait = env.health.died(ActorKind::Registry, env.now());
            // A shutdown ends the delay: a registry is needed to end the running tasks.
            let _ = tokio::time::timeout(wait, refs.flags.wait_for_closing()).await;
            let Some(registry) = weak.upgrade() else {
                return;
            };
            refs.registry = registry;
            exit = run_registry(&env, &refs, &changes);
            refs.registry = ActorRef::default();
        }
    });
}

fn run_registry(env: &Env, refs: &ActorRefs, changes: &Changes) -> oneshot::Receiver<Exit> {
    let (sender, exit) = oneshot::channel();
    let (env, changes, registry_ref) = (env.clone(), changes.clone(), refs.registry.clone());
    let refs = refs.clone();
    let registry = spawn_supervised(
        move |_| TaskRegistry::new(env, refs, changes),
        move |exit| {
            // The supervisor may have been dropped with the arbiter.
            let _ = sender.send(exit);
        },
    );
    registry_ref.set(registry);
    exit
}

impl TaskRegistry {
    /// Starts the singleton actors that are not running.
    pub(super) fn start_singletons(&mut self) {
        for singleton in Singleton::ALL {
            self.build_missing(singleton);
        }
    }

    /// Builds the actor unless one is connected. A new registry may have replaced a dead actor before the message about
    /// its death arrives. A second replacement would leave the first one running, unreachable.
    fn build_missing(&mut self, singleton: Singleton) {
        let connected = match singleton {
            Singleton::Slots => self.refs.slots.is_connected(),
            Singleton::Poller => self.refs.poller.is_connected(),
            Singleton::Toaster => self.refs.toaster.is_connected(),
        };
        if !connected {
            self.build(singleton);
        }
    }

    fn build(&mut self, singleton: Singleton) {
        let registry = self.refs.registry.clone();
        let on_exit = move |exit| {
            if let Exit::Panicked(panic) = exit {
                registry.send(SingletonDied { singleton, panic });
            }
        };
        let env = self.env.clone();
        match singleton {
            Singleton::Slots => {
                let held = self.refs.held_permits.clone();
                let (limits, slots_ref) = (self.limits.clone(), self.refs.slots.clone());
                let open = self.reachable && !self.refs.flags.closing();
                let failpoints = env.failpoints.clone();
                let slots = spawn_supervised(
                    move |_| SlotManager::new(limits, open, held, slots_ref, failpoints),
                    on_exit,
                );
                self.refs.slots.set(slots);
                // Running tasks that need a slot come before waiting ones.
                for id in self.by_acceptance.values() {
                    let entry = self.tasks.get(id);
                    if let Some(actor) = entry.and_then(|entry| entry.actor.as_ref()) {
                        actor.do_send(SlotManagerRestarted);
                    }
                }
                for wait_queue in self.wait_queues.values() {
                    wait_queue.queue.do_send(RequestAgain);
                }
            }
            Singleton::Poller => {
                self.refs
                    .poller
                    .set(spawn_supervised(move |_| Poller::new(env), on_exit));
                let running: Vec<TaskId> = self.by_acceptance.values().cloned().collect();
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
            Singleton::Toaster => self
                .refs
                .toaster
                .set(spawn_supervised(move |_| Toaster::new(env), on_exit)),
        }
    }
}

impl Handler<SingletonDied> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, died: SingletonDied, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: KeptDied");
        tracing::error!(actor = died.singleton.kind().name(), panic = %died.panic, "actor panicked");
        if self.closing.is_some() {
            return;
        }
        match self.env.health.died(died.singleton.kind(), self.env.now()) {
            Duration::ZERO => self.build_missing(died.singleton),
            wait => {
                ctx.notify_later(Rebuild(died.singleton), wait);
            }
        }
    }
}

impl Handler<Rebuild> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, rebuild: Rebuild, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: Rebuild");
        if self.closing.is_none() {
            self.build_missing(rebuild.0);
        }
    }
}
