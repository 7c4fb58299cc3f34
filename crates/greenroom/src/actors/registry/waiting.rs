//! The wait queues: a run enters the queue of its key and leaves it, with a slot or without.

use actix::{Addr, Context, Handler};

use super::{AbortCallEnded, AbortCheckEnded, Deadline, Granted, TaskRegistry, WaitQueue};
use crate::actors::key_queue::{Enqueue, KeyQueue, Withdraw};
use crate::actors::supervisor::{Exit, spawn_supervised};
use crate::domain::ids::{ConcurrencyKey, Run, TaskId};
use crate::domain::lifecycle::End;
use crate::domain::time::duration_text;

impl TaskRegistry {
    /// Puts a run into the queue of its key, at the position of its sequence number.
    pub(super) fn enqueue(&mut self, id: &TaskId, ctx: &mut Context<Self>) {
        let Some(entry) = self.tasks.get_mut(id) else {
            return;
        };
        let queue_seq = entry.queue_seq;
        entry.queued = Some(queue_seq);
        let (key, run) = (entry.task.concurrency_group.clone(), entry.task.run);
        let size = entry.task.text_bytes();
        if !self.wait_queues.contains_key(&key) {
            let wait_queue = WaitQueue {
                queue: self.new_queue(&key),
                waiting: Default::default(),
            };
            self.wait_queues.insert(key.clone(), wait_queue);
        }
        if let Some(wait_queue) = self.wait_queues.get_mut(&key) {
            wait_queue.waiting.insert(queue_seq, id.clone());
            self.waiting += 1;
            self.waiting_bytes += size;
            wait_queue.queue.do_send(Enqueue {
                queue_seq,
                task: id.clone(),
                run,
            });
        }
        if let Some(limit) = self.env.config.lifecycle.queue_ttl {
            let at = self.env.now() + limit;
            let key = self.set_deadline(at, Deadline::QueueTtl(id.clone(), run), ctx);
            if let Some(entry) = self.tasks.get_mut(id) {
                entry.expiry = Some(key);
            }
        }
    }

    pub(super) fn new_queue(&mut self, key: &ConcurrencyKey) -> Addr<KeyQueue> {
        let generation = self.next_number();
        let (slots, registry) = (self.refs.slots.clone(), self.refs.registry.clone());
        let (exit_ref, failpoints) = (registry.clone(), self.env.failpoints.clone());
        let (name, key) = (key.clone(), key.clone());
        spawn_supervised(
            move |_| KeyQueue::new(key, generation, slots, registry, failpoints),
            move |exit| {
                if let Exit::Panicked(panic) = exit {
                    exit_ref.send(super::finaliser::QueueDied {
                        key: name,
                        generation,
                        panic,
                    });
                }
            },
        )
    }

    /// Returns the size of the waiting texts and the limit, if a text of `size` bytes would exceed it.
    pub(super) fn exceeded_queue_size(&self, size: u64) -> Option<(u64, u64)> {
        let limit = self.limits.max_waiting_bytes;
        (self.waiting_bytes + size > limit).then_some((self.waiting_bytes, limit))
    }

    /// Starts the next queue of a key whose queue panicked, and enqueues the waiting runs again.
    pub(super) fn rebuild_queue(&mut self, key: &ConcurrencyKey) {
        if !self.wait_queues.contains_key(key) {
            return;
        }
        let queue = self.new_queue(key);
        let Some(wait_queue) = self.wait_queues.get_mut(key) else {
            return;
        };
        wait_queue.queue = queue;
        for (queue_seq, id) in &wait_queue.waiting {
            if let Some(entry) = self.tasks.get(id) {
                wait_queue.queue.do_send(Enqueue {
                    queue_seq: *queue_seq,
                    task: id.clone(),
                    run: entry.task.run,
                });
            }
        }
    }

    /// Removes a run from its queue; `granted` is true if it got its slot. A queue without waiting runs is dropped.
    pub(super) fn withdraw(&mut self, id: &TaskId, granted: bool, ctx: &mut Context<Self>) {
        let Some(entry) = self.tasks.get_mut(id) else {
            return;
        };
        if let Some(key) = entry.expiry.take() {
            self.deadlines.remove(&key);
        }
        if let Some(queue_seq) = entry.queued.take() {
            let key = entry.task.concurrency_group.clone();
            let size = entry.task.text_bytes();
            if let Some(wait_queue) = self.wait_queues.get_mut(&key)
                && wait_queue.waiting.remove(&queue_seq).is_some()
            {
                self.waiting -= 1;
                self.waiting_bytes = self.waiting_bytes.saturating_sub(size);
                if !granted {
                    wait_queue.queue.do_send(Withdraw(queue_seq));
                }
                if wait_queue.waiting.is_empty() {
                    self.wait_queues.remove(&key);
                }
            }
        }
        self.arm(ctx);
    }

    pub(super) fn expire_waiting(&mut self, id: &TaskId, run: Run, ctx: &mut Context<Self>) {
        let waits = self
            .tasks
            .get(id)
            .is_some_and(|entry| entry.task.run == run && entry.queued.is_some());
        if waits {
            let limit = self.env.config.lifecycle.queue_ttl.unwrap_or_default();
            let end = End::error(format!("it waited {} for a slot", duration_text(limit)));
            self.finalise(id, run, &end, None, ctx);
        }
    }
}

impl Handler<Granted> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, granted: Granted, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: Granted");
        let current = self.tasks.get(&granted.task).is_some_and(|entry| {
            entry.queued == Some(granted.queue_seq)
                && entry.task.run == granted.run
                && !entry.task.status().is_terminal()
        });
        if !current || self.closing.is_some() {
            // The run does not wait any more: dropping the permit releases the slot.
            return;
        }
        self.withdraw(&granted.task, true, ctx);
        let aborting = self.refs.aborts.of(&granted.task).is_some();
        match self.tasks.get_mut(&granted.task) {
            // A resume waits only for the abort of the run before.
            Some(entry) if aborting => entry.granted = Some(Box::new(granted.permit)),
            Some(_) => self.start_run(&granted.task, granted.permit),
            None => {}
        }
    }
}

impl Handler<AbortCheckEnded> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, over: AbortCheckEnded, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: AbortOver");
        self.record_aborted(&over.task, over.run);
    }
}

impl Handler<AbortCallEnded> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, done: AbortCallEnded, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: AbortDone");
        if self.abort_again(&done) {
            return;
        }
        if done.needless {
            self.record_aborted(&done.task, done.run);
        }
        if self.refs.aborts.of(&done.task).is_none()
            && let Some(permit) = self
                .tasks
                .get_mut(&done.task)
                .and_then(|entry| entry.granted.take())
                .map(|permit| *permit)
            && self.closing.is_none()
        {
            self.start_run(&done.task, permit);
        }
        self.finish_if_closed();
    }
}
