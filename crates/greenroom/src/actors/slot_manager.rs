//! SlotManager: owns the slots and the limits. Each key queue requests a slot for its head; the manager grants permits, to
//! the oldest head within the limits first. Dropping a permit releases its slot.

use std::collections::BTreeMap;

use actix::{Actor, Addr, Context, Handler, Message, Recipient};
use tokio::sync::oneshot;

use super::actor_ref::ActorRef;
use super::failpoint::Failpoints;
use super::key_queue::KeyQueue;
use super::runtime_state::HeldPermits;
use crate::config::Limits;
use crate::domain::concurrency::{PermitId, QueueSeq, SlotTable};
use crate::domain::ids::ConcurrencyKey;
use crate::handle::{ResourceCounts, counted};

/// A slot that is held. Dropping the permit is the only way to release the slot.
#[derive(Debug)]
pub(crate) struct SlotPermit {
    id: PermitId,
    key: ConcurrencyKey,
    held_permits: HeldPermits,
    own_ref: ActorRef<SlotManager>,
}

impl SlotPermit {
    pub(crate) fn key(&self) -> &ConcurrencyKey {
        &self.key
    }
}

impl Drop for SlotPermit {
    fn drop(&mut self) {
        // Nothing here may panic: a panic in a drop during unwinding aborts the process.
        self.held_permits.remove(self.id);
        self.own_ref.send(Release(self.id));
    }
}

/// Requests a slot for the head of a key's queue. A further request of that key replaces the sequence number.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Acquire {
    pub(crate) key: ConcurrencyKey,
    pub(crate) queue_seq: QueueSeq,
    /// The generation of the queue: requests of a replaced queue are ignored.
    pub(crate) generation: u64,
    pub(crate) queue: Addr<KeyQueue>,
}

/// Cancels the request of a key, if it was made by the queue of that generation.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CancelRequest {
    pub(crate) key: ConcurrencyKey,
    pub(crate) generation: u64,
}

/// Requests a slot that is granted at once, above the limit if necessary.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Adopt {
    pub(crate) key: ConcurrencyKey,
    pub(crate) to: Recipient<Adopted>,
}

/// The answer to [`Adopt`].
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Adopted(pub(crate) SlotPermit);

/// A permit was dropped.
#[derive(Message)]
#[rtype(result = "()")]
struct Release(PermitId);

/// Replaces the limits.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SetLimits(pub(crate) Limits);

/// Opens or closes the manager. While closed, no slot is granted: the agent server is unreachable, or the system shuts
/// down.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SetOpen(pub(crate) bool);

/// Reads the slots and the limits.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReadSlots(pub(crate) oneshot::Sender<SlotsSnapshot>);

/// The answer to [`ReadSlots`].
#[derive(Debug)]
pub(crate) struct SlotsSnapshot {
    pub(crate) limits: Limits,
    pub(crate) held_by_key: BTreeMap<ConcurrencyKey, usize>,
    pub(crate) held: usize,
}

impl SlotsSnapshot {
    /// Returns the slots in use of the limit that a key counts against.
    pub(crate) fn used_against(&self, key: &ConcurrencyKey) -> usize {
        let same = self
            .held_by_key
            .iter()
            .filter(|(held, _)| self.limits.share_limit(held, key));
        same.map(|(_, count)| count).sum()
    }
}

pub(crate) struct SlotManager {
    table: SlotTable,
    // One entry per key with a waiting head: bounded by the keys in use.
    queues: BTreeMap<ConcurrencyKey, (u64, Addr<KeyQueue>)>,
    held_permits: HeldPermits,
    own_ref: ActorRef<SlotManager>,
    failpoints: Failpoints,
}

impl SlotManager {
    /// Creates a manager that counts the slots already held.
    pub(crate) fn new(
        limits: Limits,
        open: bool,
        held_permits: HeldPermits,
        own_ref: ActorRef<SlotManager>,
        failpoints: Failpoints,
    ) -> Self {
        failpoints.hit("slots: start");
        let (permits, last) = held_permits.all();
        let mut table = SlotTable::new(limits);
        table.continue_after(last);
        for (permit, key) in permits {
            table.restore(permit, key);
        }
        table.set_open(open);
        Self {
            table,
            queues: BTreeMap::new(),
            held_permits,
            own_ref,
            failpoints,
        }
    }

    fn permit(&self, id: PermitId, key: ConcurrencyKey) -> SlotPermit {
        self.held_permits.insert(id, key.clone());
        SlotPermit {
            id,
            key,
            held_permits: self.held_permits.clone(),
            own_ref: self.own_ref.clone(),
        }
    }

    /// Grants slots while a request fits. The only place where waiting runs get slots.
    fn grant(&mut self) {
        while let Some((key, id)) = self.table.grant() {
            let permit = self.permit(id, key.clone());
            match self.queues.remove(&key) {
                // A permit that is dropped with a closed mailbox releases its slot.
                Some((_, queue)) => queue.do_send(super::key_queue::SlotGranted(permit)),
                None => drop(permit),
            }
        }
    }
}

impl Actor for SlotManager {
    type Context = Context<Self>;
}

impl Handler<Acquire> for SlotManager {
    type Result = ();

    fn handle(&mut self, acquire: Acquire, _: &mut Context<Self>) {
        self.failpoints.hit("slots: Acquire");
        if self
            .queues
            .get(&acquire.key)
            .is_some_and(|(generation, _)| *generation > acquire.generation)
        {
            return;
        }
        self.queues
            .insert(acquire.key.clone(), (acquire.generation, acquire.queue));
        self.table.request(acquire.key, acquire.queue_seq);
        self.grant();
    }
}

impl Handler<CancelRequest> for SlotManager {
    type Result = ();

    fn handle(&mut self, cancel: CancelRequest, _: &mut Context<Self>) {
        self.failpoints.hit("slots: Forget");
        if self
            .queues
            .get(&cancel.key)
            .is_some_and(|(generation, _)| *generation == cancel.generation)
        {
            self.queues.remove(&cancel.key);
            self.table.withdraw(&cancel.key);
        }
    }
}

impl Handler<Adopt> for SlotManager {
    type Result = ();

    fn handle(&mut self, adopt: Adopt, _: &mut Context<Self>) {
        self.failpoints.hit("slots: Adopt");
        let id = self.table.adopt(adopt.key.clone());
        let permit = self.permit(id, adopt.key);
        adopt.to.do_send(Adopted(permit));
    }
}

impl Handler<Release> for SlotManager {
    type Result = ();

    fn handle(&mut self, release: Release, _: &mut Context<Self>) {
        self.failpoints.hit("slots: Release");
        if self.table.release(release.0) {
            self.grant();
        }
    }
}

impl Handler<SetLimits> for SlotManager {
    type Result = ();

    fn handle(&mut self, set: SetLimits, _: &mut Context<Self>) {
        self.failpoints.hit("slots: SetLimits");
        self.table.set_limits(set.0);
        self.grant();
    }
}

impl Handler<SetOpen> for SlotManager {
    type Result = ();

    fn handle(&mut self, set: SetOpen, _: &mut Context<Self>) {
        self.failpoints.hit("slots: SetOpen");
        self.table.set_open(set.0);
        self.grant();
    }
}

impl Handler<ReadSlots> for SlotManager {
    type Result = ();

    fn handle(&mut self, read: ReadSlots, _: &mut Context<Self>) {
        self.failpoints.hit("slots: ReadSlots");
        let snapshot = SlotsSnapshot {
            limits: self.table.limits().clone(),
            held_by_key: self.table.held_by_key(),
            held: self.table.held(),
        };
        // The reader may have been dropped.
        let _ = read.0.send(snapshot);
    }
}

/// Removes all requests: a restarted registry creates new queues.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ClearQueues;

impl Handler<ClearQueues> for SlotManager {
    type Result = ();

    fn handle(&mut self, _: ClearQueues, _: &mut Context<Self>) {
        self.failpoints.hit("slots: ForgetQueues");
        for (key, _) in std::mem::take(&mut self.queues) {
            self.table.withdraw(&key);
        }
    }
}
impl SlotManager {
    fn count(&self, counts: &mut ResourceCounts) {
        counts.slots_held = self.table.held();
        counts.slots_requested = self.table.requested().max(self.queues.len());
    }
}

counted!(SlotManager);
