//! SlotManager: owns who holds a slot and the limits. Key queues ask it for their heads; it answers with permits, the
//! oldest head that has room first. Permits give their slot back by being dropped.

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

/// A slot that is held. Dropping it gives the slot back; there is no other way and none is needed.
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
        // Nothing here can panic: a panic in a drop while unwinding would end the process.
        self.held_permits.remove(self.id);
        self.own_ref.send(Release(self.id));
    }
}

/// A key's head asks for a slot; asking again replaces its age.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Acquire {
    pub(crate) key: ConcurrencyKey,
    pub(crate) queue_seq: QueueSeq,
    /// Which queue of that key asks: a queue that has been replaced must not speak for its successor.
    pub(crate) generation: u64,
    pub(crate) queue: Addr<KeyQueue>,
}

/// Nobody waits for that key any more, says the queue of that generation.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CancelRequest {
    pub(crate) key: ConcurrencyKey,
    pub(crate) generation: u64,
}

/// A slot at once, above the limit if it must be.
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

/// Limits change while running.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SetLimits(pub(crate) Limits);

/// While closed no slot is granted: the server cannot be reached, or we are shutting down.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SetOpen(pub(crate) bool);

/// What a reader of slots wants to know.
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
    /// Slots in use of the limit that a key counts against.
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
    // One entry per key with a head: bounded by the keys in use.
    queues: BTreeMap<ConcurrencyKey, (u64, Addr<KeyQueue>)>,
    held_permits: HeldPermits,
    own_ref: ActorRef<SlotManager>,
    failpoints: Failpoints,
}

impl SlotManager {
    /// It takes over the slots that are held, if it is not the first.
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

    /// All wishes to start meet here.
    fn grant(&mut self) {
        while let Some((key, id)) = self.table.grant() {
            let permit = self.permit(id, key.clone());
            match self.queues.remove(&key) {
                // A permit that dies in a closed mailbox comes back by being dropped.
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
        // A reader that has gone away needs no answer.
        let _ = read.0.send(snapshot);
    }
}

/// The queues that asked are no more: a registry that has been rebuilt makes new ones.
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
