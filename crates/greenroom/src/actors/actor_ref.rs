//! Where the one actor of a kind can be reached, whichever generation of it lives. A message to nobody is dropped: every
//! sender has a time limit or is told again when the next generation comes up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};

/// How often is looked whether somebody sits at a desk again.
const LOOK: Duration = Duration::from_millis(10);

/// The place of one actor.
pub(crate) struct ActorRef<A: Actor>(Arc<AddrSlot<A>>);

// The address is shared, not cloned: a clone of an address is an allocation, and there is one for every message.
type AddrSlot<A> = Mutex<Option<Arc<Addr<A>>>>;

/// A place that may be gone.
pub(crate) struct WeakActorRef<A: Actor>(Weak<AddrSlot<A>>);

impl<A: Actor> WeakActorRef<A> {
    /// The place, if anybody still needs it.
    pub(crate) fn upgrade(&self) -> Option<ActorRef<A>> {
        self.0.upgrade().map(ActorRef)
    }
}

impl<A: Actor> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Actor> Default for ActorRef<A> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }
}

impl<A: Actor> ActorRef<A> {
    /// The place without a hold on it: it goes with everybody who needs it.
    pub(crate) fn weak(&self) -> WeakActorRef<A> {
        WeakActorRef(Arc::downgrade(&self.0))
    }

    /// The actor sits here from now on.
    pub(crate) fn set(&self, addr: Addr<A>) {
        *self.lock() = Some(Arc::new(addr));
    }

    /// ReadWaits until somebody sits here, at most that long.
    pub(crate) async fn connected_within(&self, limit: Duration) {
        if self.is_connected() {
            return;
        }
        let taken = async {
            // Deaths are rare and short: looking again is cheaper than telling everybody who might wait.
            while !self.is_connected() {
                tokio::time::sleep(LOOK).await;
            }
        };
        // Whoever waited finds out by sending.
        let _ = tokio::time::timeout(limit, taken).await;
    }

    /// True if somebody sits here and takes messages.
    pub(crate) fn is_connected(&self) -> bool {
        self.lock().as_ref().is_some_and(|addr| addr.connected())
    }

    /// Nobody sits here any more; the address is dropped, so that the mailbox drains and the actor ends.
    pub(crate) fn clear(&self) {
        let taken = self.lock().take();
        drop(taken);
    }

    /// Sends without waiting. False if nobody sits here.
    pub(crate) fn send<M>(&self, message: M) -> bool
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        // Taken out, so that no lock is held while the mailbox is touched.
        let addr = self.lock().clone();
        match addr {
            Some(addr) if addr.connected() => {
                addr.do_send(message);
                true
            }
            _ => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Addr<A>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: Actor> std::fmt::Debug for ActorRef<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ActorRef")
            .field(&self.lock().is_some())
            .finish()
    }
}
