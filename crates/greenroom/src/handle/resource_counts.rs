//! A census: how much the system keeps at this moment, counted by each actor that keeps it. Read by tests that hold it to
//! its promise that memory is empty when nothing is open, owed or to be remembered, and by anybody who looks for a leak.

use actix::{Actor, Context, Handler, Message};
use tokio::sync::oneshot;

use super::Greenroom;
use crate::actors::actor_ref::ActorRef;
use crate::actors::registry::ReadResourceCounts;

/// What the system keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceCounts {
    /// Registries alive; one until the system is dropped.
    pub registries: usize,
    /// Slot managers alive; one until shutdown.
    pub slot_managers: usize,
    /// Pollers alive; one until shutdown.
    pub pollers: usize,
    /// Toasters alive; one until shutdown.
    pub toasters: usize,
    /// Queues alive, one a key that somebody waits for.
    pub key_queues: usize,
    /// Actors of runs alive, those included that still look after an abort.
    pub task_actors: usize,
    /// Notifiers alive, one a parent with something open or owed.
    pub notifiers: usize,
    /// Tasks in memory.
    pub tasks: usize,
    /// Their places in the order of acceptance.
    pub acceptance_order: usize,
    /// Sessions that lead to a task.
    pub sessions: usize,
    /// Parents with tasks in memory.
    pub parents_of_tasks: usize,
    /// Parents with open tasks.
    pub parents_of_open: usize,
    /// Parents with something open or owed.
    pub parents: usize,
    /// Actors that a registry would find if it had to be rebuilt.
    pub directory_entries: usize,
    /// Calls under way whose effect cannot be taken back.
    pub calls: usize,
    /// Permits for slots that exist.
    pub permits: usize,
    /// Keys that somebody waits for.
    pub waiting_keys: usize,
    /// Tasks that wait for a slot.
    pub waiting: usize,
    /// Callers that wait for a run to start or end.
    pub waiters: usize,
    /// Changes that are decided and not yet shown.
    pub pending_publications: usize,
    /// Ended runs whose abort is not answered.
    pub aborting: usize,
    /// Deadlines set.
    pub deadlines: usize,
    /// Timers armed by long-lived actors.
    pub timers: usize,
    /// Launch keys remembered: for a day, and a bounded number.
    pub launch_keys: usize,
    /// Parents whose history is kept: a bounded number, for good.
    pub histories: usize,
    /// Slots held.
    pub slots_held: usize,
    /// Keys whose first in line has asked for a slot.
    pub slots_requested: usize,
    /// Runs that are polled.
    pub polled: usize,
    /// Status calls under way.
    pub polls_in_flight: usize,
    /// Toasts that wait or are under way.
    pub toasts: usize,
    /// Events of the server that are under way to the registry.
    pub events: usize,
}

/// Asks a long-lived actor to add what it keeps.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Count {
    pub(crate) counts: ResourceCounts,
    pub(crate) reply: oneshot::Sender<ResourceCounts>,
}

/// An actor that adds what it keeps when it is asked to.
macro_rules! counted {
    ($actor:ty) => {
        impl actix::Handler<$crate::handle::Count> for $actor {
            type Result = ();

            fn handle(&mut self, count: $crate::handle::Count, _: &mut actix::Context<Self>) {
                let mut counts = count.counts;
                self.count(&mut counts);
                // Whoever asked may have gone away.
                let _ = count.reply.send(counts);
            }
        }
    };
}
pub(crate) use counted;

impl Greenroom {
    /// Counts what the system keeps at this moment. All zero but the histories after a shutdown.
    pub async fn resource_counts(&self) -> ResourceCounts {
        let Some((mut counts, refs)) = self.query(ReadResourceCounts).await else {
            return ResourceCounts::default();
        };
        counts.events = self.events.len();
        counts = count_in(&refs.slots, counts).await;
        counts = count_in(&refs.poller, counts).await;
        count_in(&refs.toaster, counts).await
    }
}

/// The census with what that actor adds; without, if there is none.
async fn count_in<A>(actor: &ActorRef<A>, counts: ResourceCounts) -> ResourceCounts
where
    A: Actor<Context = Context<A>> + Handler<Count>,
{
    let (reply, answer) = oneshot::channel();
    let before = counts.clone();
    if actor.send(Count { counts, reply }) {
        answer.await.unwrap_or(before)
    } else {
        before
    }
}
