//! The bounded queue of agent server events for the registry. Any thread may put events in; the registry takes all queued
//! events with one message, so that an event costs no message of its own. Events keep their order among themselves; an event
//! may overtake a message of another kind that was sent shortly before it. A full queue makes its producers wait.

use std::sync::{Arc, Mutex, MutexGuard};

use actix::Message;
use tokio::sync::Notify;

use super::actor_ref::ActorRef;
use super::registry::TaskRegistry;
use crate::domain::session_event::SessionEvent;
use crate::lock::lock;

/// The number of events that the queue holds at most.
const CAPACITY: usize = 256;

/// The producers' side of the queue. Clones share the queue.
#[derive(Clone)]
pub(crate) struct Inbox {
    queue: Arc<EventQueue>,
    registry: ActorRef<TaskRegistry>,
}

#[derive(Default)]
struct EventQueue {
    // Not empty while an `EventsReady` is in the registry's mailbox, and only then.
    events: Mutex<Vec<SessionEvent>>,
    space: Notify,
}

/// Notifies the registry of queued events. Dropping the message drops the events, as every message to a registry that
/// panics is lost: the next registry reads the state of all running sessions anew.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EventsReady(Option<Arc<EventQueue>>);

impl Inbox {
    pub(crate) fn new(registry: ActorRef<TaskRegistry>) -> Self {
        Self {
            queue: Arc::default(),
            registry,
        }
    }

    /// Puts an event in; waits while the queue is full.
    pub(crate) async fn put(&self, event: SessionEvent) {
        let Err(mut event) = self.try_put(event) else {
            return;
        };
        loop {
            // Registered before the next attempt, so that no notification in between is lost.
            let space = self.queue.space.notified();
            match self.try_put(event) {
                Ok(()) => return,
                Err(rejected) => event = rejected,
            }
            space.await;
        }
    }

    /// Returns the number of queued events.
    pub(crate) fn len(&self) -> usize {
        self.queue.events().len()
    }

    /// Puts an event in. Returns the event as the error if the queue is full.
    fn try_put(&self, event: SessionEvent) -> Result<(), SessionEvent> {
        let first = {
            let mut events = self.queue.events();
            if events.len() >= CAPACITY {
                return Err(event);
            }
            events.push(event);
            events.len() == 1
        };
        if first {
            self.registry
                .send(EventsReady(Some(Arc::clone(&self.queue))));
        }
        Ok(())
    }
}

impl EventsReady {
    /// Takes all queued events, in their order. `batch` must be empty; its allocation is used for the next events.
    pub(crate) fn take(mut self, batch: &mut Vec<SessionEvent>) {
        if let Some(queue) = self.0.take() {
            queue.drain_into(batch);
        }
    }
}

impl Drop for EventsReady {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            queue.drain_into(&mut Vec::new());
        }
    }
}

impl EventQueue {
    fn drain_into(&self, batch: &mut Vec<SessionEvent>) {
        std::mem::swap(&mut *self.events(), batch);
        self.space.notify_waiters();
    }

    fn events(&self) -> MutexGuard<'_, Vec<SessionEvent>> {
        lock(&self.events)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::session_event::SessionEventKind;

    fn event(number: usize) -> SessionEvent {
        SessionEvent {
            session: format!("ses_{number}").into(),
            kind: SessionEventKind::Work,
        }
    }

    fn ready(inbox: &Inbox) -> EventsReady {
        EventsReady(Some(Arc::clone(&inbox.queue)))
    }

    /// Fills an inbox whose registry has not taken the notification yet.
    async fn filled(inbox: &Inbox, count: usize) {
        // No registry is running: a notification would be dropped and empty the queue.
        inbox.queue.events().push(event(0));
        for number in 1..count {
            inbox.put(event(number)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn events_keep_their_order_and_a_full_queue_waits() {
        let inbox = Inbox::new(ActorRef::default());
        filled(&inbox, CAPACITY).await;
        let more = tokio::spawn({
            let inbox = inbox.clone();
            async move { inbox.put(event(CAPACITY)).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!more.is_finished(), "the queue is full");
        let mut batch = Vec::new();
        ready(&inbox).take(&mut batch);
        assert_eq!(batch, (0..CAPACITY).map(event).collect::<Vec<_>>());
        more.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn lost_notification_empties_the_queue() {
        let inbox = Inbox::new(ActorRef::default());
        filled(&inbox, CAPACITY).await;
        drop(ready(&inbox));
        assert!(inbox.queue.events().is_empty());
        // No registry is running: the notification is lost with its event.
        inbox.put(event(1)).await;
        assert!(inbox.queue.events().is_empty());
    }
}
