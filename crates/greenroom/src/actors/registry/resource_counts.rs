//! The counts of the registry's resources.

use actix::Context;

use super::{ActorRefs, Query, TaskRegistry};
use crate::actors::key_queue::KeyQueue;
use crate::actors::parent_notifier::ParentNotifier;
use crate::actors::poller::Poller;
use crate::actors::slot_manager::SlotManager;
use crate::actors::supervisor::live;
use crate::actors::task::TaskActor;
use crate::actors::toaster::Toaster;
use crate::handle::ResourceCounts;

/// Reads the registry's resource counts and the numbers of running actors. The answer has the references to the other actors,
/// which add their own counts.
pub(crate) struct ReadResourceCounts;

impl Query for ReadResourceCounts {
    type Answer = (ResourceCounts, ActorRefs);

    fn answer(self, registry: &mut TaskRegistry, _: &mut Context<TaskRegistry>) -> Self::Answer {
        (registry.resource_counts(), registry.refs.clone())
    }
}

impl TaskRegistry {
    fn resource_counts(&self) -> ResourceCounts {
        let waiters = self.tasks.values().map(|entry| entry.waiters.len());
        ResourceCounts {
            registries: live::<TaskRegistry>(),
            slot_managers: live::<SlotManager>(),
            pollers: live::<Poller>(),
            toasters: live::<Toaster>(),
            key_queues: live::<KeyQueue>(),
            task_actors: live::<TaskActor>(),
            notifiers: live::<ParentNotifier>(),
            tasks: self.tasks.len(),
            acceptance_order: self.by_acceptance.len(),
            sessions: self.by_session.len(),
            parents_of_tasks: self.children.len(),
            parents_of_open: self.open_children.len(),
            parents: self.parents.len(),
            directory_entries: self.refs.tasks.len() + self.refs.notifiers.len(),
            calls: self.env.calls_in_flight.len(),
            permits: self.refs.held_permits.len(),
            waiting_keys: self.wait_queues.len(),
            waiting: self.waiting,
            waiters: waiters.sum(),
            pending_publications: self.env.pending_publications.len(),
            aborting: self.refs.aborts.len(),
            deadlines: self.deadlines.len(),
            timers: usize::from(self.timer.is_some()) + usize::from(self.probing),
            launch_keys: self.launch_keys.len(),
            histories: self.histories.len(),
            ..ResourceCounts::default()
        }
    }
}
