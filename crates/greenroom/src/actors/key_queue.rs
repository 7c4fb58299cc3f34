//! KeyQueue: owns the waiting runs of one concurrency key, in the order of their sequence numbers. The registry enqueues and
//! withdraws runs. The queue sends one `Acquire` at a time to the slot manager, with the sequence number of the head; a
//! granted slot goes to the head at that moment.

use std::collections::BTreeMap;

use actix::{Actor, AsyncContext, Context, Handler, Message};

use super::actor_ref::ActorRef;
use super::failpoint::Failpoints;
use super::registry::{Granted, TaskRegistry};
use super::slot_manager::{Acquire, CancelRequest, SlotManager, SlotPermit};
use crate::domain::concurrency::QueueSeq;
use crate::domain::ids::{ConcurrencyKey, Run, TaskId};

/// Adds a run to the queue.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Enqueue {
    pub(crate) queue_seq: QueueSeq,
    pub(crate) task: TaskId,
    pub(crate) run: Run,
}

/// Removes a run from the queue, by its sequence number.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Withdraw(pub(crate) QueueSeq);

/// Grants a slot to the current head.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SlotGranted(pub(crate) SlotPermit);

pub(crate) struct KeyQueue {
    key: ConcurrencyKey,
    // Bounded by `limits.max_waiting`, which the registry enforces.
    waiting: BTreeMap<QueueSeq, (TaskId, Run)>,
    requested: Option<QueueSeq>,
    generation: u64,
    slots: ActorRef<SlotManager>,
    registry: ActorRef<TaskRegistry>,
    failpoints: Failpoints,
}

impl KeyQueue {
    /// `generation` grows with every queue that is made.
    pub(crate) fn new(
        key: ConcurrencyKey,
        generation: u64,
        slots: ActorRef<SlotManager>,
        registry: ActorRef<TaskRegistry>,
        failpoints: Failpoints,
    ) -> Self {
        failpoints.hit("queue: start");
        Self {
            key,
            waiting: BTreeMap::new(),
            requested: None,
            generation,
            slots,
            registry,
            failpoints,
        }
    }

    fn request_for_head(&mut self, ctx: &mut Context<Self>) {
        let head = self.waiting.keys().next().copied();
        if head == self.requested {
            return;
        }
        self.requested = head;
        match head {
            Some(queue_seq) => self.slots.send(Acquire {
                key: self.key.clone(),
                queue_seq,
                generation: self.generation,
                queue: ctx.address(),
            }),
            None => self.slots.send(CancelRequest {
                key: self.key.clone(),
                generation: self.generation,
            }),
        };
    }
}

impl Actor for KeyQueue {
    type Context = Context<Self>;
}

impl Handler<Enqueue> for KeyQueue {
    type Result = ();

    fn handle(&mut self, enqueue: Enqueue, ctx: &mut Context<Self>) {
        self.failpoints.hit("queue: Enqueue");
        self.waiting
            .insert(enqueue.queue_seq, (enqueue.task, enqueue.run));
        self.request_for_head(ctx);
    }
}

impl Handler<Withdraw> for KeyQueue {
    type Result = ();

    fn handle(&mut self, withdraw: Withdraw, ctx: &mut Context<Self>) {
        self.failpoints.hit("queue: Withdraw");
        self.waiting.remove(&withdraw.0);
        self.request_for_head(ctx);
    }
}

impl Handler<SlotGranted> for KeyQueue {
    type Result = ();

    fn handle(&mut self, granted: SlotGranted, ctx: &mut Context<Self>) {
        self.failpoints.hit("queue: SlotGranted");
        self.requested = None;
        match self.waiting.pop_first() {
            Some((queue_seq, (task, run))) => {
                self.registry.send(Granted {
                    task,
                    run,
                    queue_seq,
                    permit: granted.0,
                });
            }
            // Every run was withdrawn meanwhile: dropping the permit releases the slot.
            None => drop(granted),
        }
        self.request_for_head(ctx);
    }
}

/// The slot manager was restarted: its requests are lost and must be sent again.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RequestAgain;

impl Handler<RequestAgain> for KeyQueue {
    type Result = ();

    fn handle(&mut self, _: RequestAgain, ctx: &mut Context<Self>) {
        self.failpoints.hit("queue: AskAgain");
        self.requested = None;
        self.request_for_head(ctx);
    }
}
