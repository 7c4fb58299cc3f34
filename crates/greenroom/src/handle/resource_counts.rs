//! Counts of the resources that the system holds, added up by the actors. Tests use them to check that memory is empty
//! when nothing is open or pending; people use them to find leaks.

use actix::{Actor, Context, Handler, Message};
use tokio::sync::oneshot;

use super::Greenroom;
use crate::actors::actor_ref::ActorRef;
use crate::actors::registry::ReadResourceCounts;

/// Counts of the resources that the system holds.
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
    /// Queues alive, one per key with waiting tasks.
    pub key_queues: usize,
    /// Actors of runs alive, including actors that still wait for an abort.
    pub task_actors: usize,
    /// Notifiers alive, one per parent with open tasks or pending messages.
    pub notifiers: usize,
    /// Tasks in memory.
    pub tasks: usize,
    /// Entries in the order of acceptance.
    pub acceptance_order: usize,
    /// Sessions mapped to a task.
    pub sessions: usize,
    /// Parents with tasks in memory.
    pub parents_of_tasks: usize,
    /// Parents with open tasks.
    pub parents_of_open: usize,
    /// Parents with open tasks or pending messages.
    pub parents: usize,
    /// Actors in the directory that a restarted registry reads.
    pub directory_entries: usize,
    /// Calls in flight whose effect cannot be undone.
    pub calls: usize,
    /// Permits of slots.
    pub permits: usize,
    /// Keys with waiting tasks.
    pub waiting_keys: usize,
    /// Tasks that wait for a slot.
    pub waiting: usize,
    /// Callers that wait for a run to start or end.
    pub waiters: usize,
    /// Changes that are decided and not yet published.
    pub pending_publications: usize,
    /// Ended runs with an abort in flight.
    pub aborting: usize,
    /// Deadlines set.
    pub deadlines: usize,
    /// Timers armed by long-lived actors.
    pub timers: usize,
    /// Launch keys: kept for a day, in a bounded number.
    pub launch_keys: usize,
    /// Parents with a history, in a bounded number.
    pub histories: usize,
    /// Slots held.
    pub slots_held: usize,
    /// Keys with a pending slot request.
    pub slots_requested: usize,
    /// Polled runs.
    pub polled: usize,
    /// Status calls in flight.
    pub polls_in_flight: usize,
    /// Toasts queued or in flight.
    pub toasts: usize,
    /// Server events queued for the registry.
    pub events: usize,
}

/// Requests a long-lived actor to add its counts.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Count {
    pub(crate) counts: ResourceCounts,
    pub(crate) reply: oneshot::Sender<ResourceCounts>,
}

/// Implements the handler of [`Count`] for an actor with a method `count`.
macro_rules! counted {
    ($actor:ty) => {
        impl actix::Handler<$crate::handle::Count> for $actor {
            type Result = ();

            fn handle(&mut self, count: $crate::handle::Count, _: &mut actix::Context<Self>) {
                let mut counts = count.counts;
                self.count(&mut counts);
                // The requester may have been dropped.
                let _ = count.reply.send(counts);
            }
        }
    };
}
pub(crate) use counted;

impl Greenroom {
    /// Counts the resources of the system. All counts but the histories are zero after a shutdown.
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

/// Returns `counts` with the counts of `actor` added; unchanged if the actor is not running.
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
