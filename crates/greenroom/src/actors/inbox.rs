//! Events of the agent server on their way to the registry. Whoever has some puts them in, from any thread; the registry
//! takes out all that wait with one message, so that an event costs no message of its own there. They keep their order among
//! themselves; one may come before another message that was sent shortly before it, as if it had happened a moment earlier.
//! Bounded: whoever puts in more than that waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::Message;
use tokio::sync::Notify;

use super::actor_ref::ActorRef;
use super::registry::TaskRegistry;
use crate::domain::session_event::SessionEvent;

/// How many events may wait for the registry at once.
const CAPACITY: usize = 256;

/// Where events are put in. A clone is the same place.
#[derive(Clone)]
pub(crate) struct Inbox {
    queue: Arc<EventQueue>,
    registry: ActorRef<TaskRegistry>,
}

#[derive(Default)]
struct EventQueue {
    // Not empty as long as a message about it is on its way, and only then.
    events: Mutex<Vec<SessionEvent>>,
    space: Notify,
}

/// Events wait. Dropped by a mailbox that closes, it takes them with it, as every message to a registry that dies is lost:
/// the next one looks at everything that runs by itself.
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

    /// Puts one in; waits while too many are there.
    pub(crate) async fn put(&self, event: SessionEvent) {
        let Err(mut event) = self.try_put(event) else {
            return;
        };
        loop {
            // Begun before the next look: room that is made in between is heard of.
            let space = self.queue.space.notified();
            match self.try_put(event) {
                Ok(()) => return,
                Err(rejected) => event = rejected,
            }
            space.await;
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.events().len()
    }

    /// Gives the event back if there is no room.
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
    /// Takes all that wait, in their order; `batch` is empty, and its room is used for those to come.
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
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// An inbox whose registry does not answer: as if its message were still on its way.
    async fn filled(inbox: &Inbox, count: usize) {
        // The first one finds nobody, which would empty it.
        inbox.queue.events().push(event(0));
        for number in 1..count {
            inbox.put(event(number)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_taken_in_their_order_and_whoever_has_more_waits_for_room() {
        let inbox = Inbox::new(ActorRef::default());
        filled(&inbox, CAPACITY).await;
        let more = tokio::spawn({
            let inbox = inbox.clone();
            async move { inbox.put(event(CAPACITY)).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!more.is_finished(), "there is no room");
        let mut batch = Vec::new();
        ready(&inbox).take(&mut batch);
        assert_eq!(batch, (0..CAPACITY).map(event).collect::<Vec<_>>());
        more.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_lost_makes_room_for_what_comes_next() {
        let inbox = Inbox::new(ActorRef::default());
        filled(&inbox, CAPACITY).await;
        drop(ready(&inbox));
        assert!(inbox.queue.events().is_empty());
        // Nobody sits there: the message is lost with what it was about.
        inbox.put(event(1)).await;
        assert!(inbox.queue.events().is_empty());
    }
}
