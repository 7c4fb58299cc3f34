//! Addresses that stay valid over restarts of an actor. A supervisor sets the address of each new generation; senders hold
//! the reference. A message sent while no actor is running is dropped: every sender has a time limit, or is notified when
//! the next generation starts.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};

use crate::lock::lock;

/// The interval at which [`ActorRef::connected_within`] checks for a running actor.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// A reference to the current generation of an actor.
pub(crate) struct ActorRef<A: Actor>(Arc<AddrSlot<A>>);

// The address is shared, not cloned: a clone of an address is an allocation, and each message would need one.
type AddrSlot<A> = Mutex<Option<Arc<Addr<A>>>>;

/// A reference that does not keep the address alive.
pub(crate) struct WeakActorRef<A: Actor>(Weak<AddrSlot<A>>);

impl<A: Actor> WeakActorRef<A> {
    /// Returns the reference, unless its last holder has dropped it.
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
    /// Returns a reference that does not keep the address alive.
    pub(crate) fn weak(&self) -> WeakActorRef<A> {
        WeakActorRef(Arc::downgrade(&self.0))
    }

    /// Sets the address of the current generation.
    pub(crate) fn set(&self, addr: Addr<A>) {
        *self.lock() = Some(Arc::new(addr));
    }

    /// Waits until the actor is running, at most for `limit`.
    pub(crate) async fn connected_within(&self, limit: Duration) {
        if self.is_connected() {
            return;
        }
        let connected = async {
            // Restarts are rare and short: checking again is cheaper than notifying every possible waiter.
            while !self.is_connected() {
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
        };
        // The next send of the caller shows whether the actor is running.
        let _ = tokio::time::timeout(limit, connected).await;
    }

    /// Returns true if the actor is running and accepts messages.
    pub(crate) fn is_connected(&self) -> bool {
        self.lock().as_ref().is_some_and(|addr| addr.connected())
    }

    /// Drops the address, so that the mailbox drains and the actor ends.
    pub(crate) fn clear(&self) {
        let taken = self.lock().take();
        drop(taken);
    }

    /// Sends without waiting. Returns false if the actor is not running.
    pub(crate) fn send<M>(&self, message: M) -> bool
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        // The address is taken out first, so that the lock is free while the mailbox is used.
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
        lock(&self.0)
    }
}

impl<A: Actor> std::fmt::Debug for ActorRef<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ActorRef")
            .field(&self.lock().is_some())
            .finish()
    }
}
