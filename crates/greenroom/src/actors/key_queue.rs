//! KeyQueue: owns who waits for one concurrency key, in order of acceptance. The registry enqueues and withdraws; one
//! `Acquire` at a time goes to the slot manager, for the age of the head; a granted slot goes to the head at that moment.

use std::collections::BTreeMap;

use actix::{Actor, AsyncContext, Context, Handler, Message};

use super::actor_ref::ActorRef;
use super::failpoint::Failpoints;
use super::registry::{Granted, TaskRegistry};
use super::slot_manager::{Acquire, CancelRequest, SlotManager, SlotPermit};
use crate::domain::concurrency::QueueSeq;
use crate::domain::ids::{ConcurrencyKey, Run, TaskId};

/// A run waits from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Enqueue {
    pub(crate) queue_seq: QueueSeq,
    pub(crate) task: TaskId,
    pub(crate) run: Run,
}

/// A run waits no more; by identity, never by place.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Withdraw(pub(crate) QueueSeq);

/// A slot for whoever is the head now.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SlotGranted(pub(crate) SlotPermit);

pub(crate) struct KeyQueue {
    key: ConcurrencyKey,
    // Bounded by `limits.max_waiting`, which the registry keeps.
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
            // Everybody has left meanwhile: the slot comes back by being dropped.
            None => drop(granted),
        }
        self.request_for_head(ctx);
    }
}

/// The slot manager was rebuilt and knows of nobody who waits.
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
