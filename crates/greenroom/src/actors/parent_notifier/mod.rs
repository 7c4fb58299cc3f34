//! ParentNotifier: owns one parent's batch and what is owed to that parent. The registry tells it of joins and ends, in
//! its order; it sends one message at a time, keeps each until the server has accepted it, and holds back what would
//! disturb a parent that works.
//!
//! Its rooms: here the batch and the next step, `sending` the messages and their fate, `restoring` how one begins where
//! another stopped.

mod messages;
mod recovery;
mod sending;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, SpawnHandle};
use tokio::sync::{Notify, oneshot};

use self::messages::{DeadlineReached, StatusRead};
pub(crate) use self::messages::{
    Joined, Left, LinkRestored, ParentEnded, ParentEvent, ParentGone, Reconcile, Settled, Stop,
};
use self::sending::{InFlight, PendingMessage};
use super::actor_ref::ActorRef;
use super::env::{Env, spawn_call, within};
use super::registry::{PendingMessages, TaskRegistry};
use crate::domain::batch::{Batch, Due};
use crate::domain::ids::SessionId;
use crate::domain::outbox::Outbox;
use crate::domain::parent_session::{Gate, ParentSession};
use crate::domain::retry_backoff::RetryBackoff;
use crate::domain::time::Timestamp;
use crate::ports::agent_server::SessionStatus;
use crate::ports::journal::JournalEntry;

pub(crate) struct ParentNotifier {
    env: Env,
    registry: ActorRef<TaskRegistry>,
    parent: SessionId,
    directory: Option<Arc<str>>,
    batch: Batch,
    // Finals of closed batches, oldest first, with their texts: bounded by `give_up`.
    closed: VecDeque<PendingMessage>,
    in_flight: InFlight,
    backoff: RetryBackoff,
    /// Wakes the look-up under way if it waits.
    link_restored: Arc<Notify>,
    session: ParentSession,
    held: bool,
    sequence: u64,
    reported_pending: Option<(u64, bool, bool)>,
    stopping: Option<oneshot::Sender<bool>>,
    stopped: bool,
    /// False once nothing may be begun any more: a message that waits for the journal is not sent then.
    open: Arc<AtomicBool>,
    /// The parent is no more: what this one still has to say, it says to nobody.
    gone: bool,
    timer: Option<(Timestamp, SpawnHandle)>,
    sent_count: u64,
    salt: u64,
    /// What the journal knew when this notifier began.
    outbox: Option<Outbox>,
}

impl ParentNotifier {
    pub(crate) fn new(
        env: Env,
        registry: ActorRef<TaskRegistry>,
        parent: SessionId,
        ended: bool,
        salt: u64,
        outbox: Option<Outbox>,
    ) -> Self {
        env.failpoints.hit("notifier: start");
        Self {
            env,
            registry,
            parent,
            directory: None,
            batch: Batch::default(),
            closed: VecDeque::new(),
            in_flight: InFlight::None,
            backoff: RetryBackoff::default(),
            link_restored: Arc::default(),
            session: ParentSession::new(ended),
            held: false,
            sequence: 0,
            reported_pending: None,
            stopping: None,
            stopped: false,
            open: Arc::new(AtomicBool::new(true)),
            gone: false,
            timer: None,
            sent_count: 0,
            salt,
            outbox,
        }
    }

    /// One step: begins the next thing that is due, if nothing is under way.
    pub(super) fn step(&mut self, ctx: &mut Context<Self>) {
        let now = self.env.now();
        self.close_if_overdue(now);
        let mut wait: Option<Timestamp> = self.overdue_at();
        if matches!(self.in_flight, InFlight::None)
            && !self.stopped
            && let Some((at, wakes, since)) = self.next_due()
        {
            if at > now {
                wait = earlier(wait, at);
            } else {
                let (policy, lifecycle) =
                    (&self.env.config.notifications, &self.env.config.lifecycle);
                match self.session.gate(wakes, since, policy, lifecycle, now) {
                    Gate::Send => self.read_context(ctx),
                    Gate::ReadStatus => self.read_status(ctx),
                    Gate::HoldUntil(until) => {
                        self.held = true;
                        wait = earlier(wait, until);
                    }
                }
            }
        }
        if let Some(at) = self.end_silence(now) {
            wait = earlier(wait, at);
        }
        self.arm(wait, ctx);
        self.report_pending();
        self.report_stopped();
    }

    /// A stop by the parent's user keeps this notifier, which listens for the user's return, but not for ever. Answers when
    /// it is forgotten, if it is not yet time.
    fn end_silence(&mut self, now: Timestamp) -> Option<Timestamp> {
        let quiet = self.batch.is_empty()
            && self.closed.is_empty()
            && matches!(self.in_flight, InFlight::None)
            && !self.stopped;
        let at = self.session.silence_ends_at(&self.env.config.notifications);
        let at = at.filter(|_| quiet)?;
        if at > now {
            return Some(at);
        }
        self.session.end_silence();
        self.env
            .append(vec![JournalEntry::Silenced(self.parent.clone(), false)]);
        None
    }

    /// When the next message may be sent, whether it wakes, and since when it is owed.
    pub(super) fn next_due(&self) -> Option<(Timestamp, bool, Timestamp)> {
        let (at, wakes, since) = match self.closed.front() {
            Some(pending) => (pending.since, true, pending.since),
            None => match self.batch.due(self.env.config.notifications.debounce) {
                Due::Nothing => return None,
                Due::Individual { at, wakes, since } => (at, wakes, since),
                Due::Final { since } => (since, true, since),
            },
        };
        Some((self.backoff.earliest(at), wakes, since))
    }

    pub(super) fn read_status(&mut self, ctx: &mut Context<Self>) {
        self.in_flight = InFlight::Status;
        let (env, addr, parent, directory) = (
            self.env.clone(),
            ctx.address(),
            self.parent.clone(),
            self.directory.clone(),
        );
        spawn_call(
            &self.env,
            "notifier: status is read",
            async move {
                let limit = env.config.calls.other;
                let directory = match directory {
                    Some(directory) => Some(directory),
                    None => within(limit, env.server.session(&parent))
                        .await
                        .ok()
                        .and_then(|record| record.directory),
                };
                let Some(known) = &directory else {
                    return StatusRead(None, None);
                };
                let statuses = within(limit, env.server.statuses(known)).await;
                let busy = statuses.ok().map(|statuses| {
                    matches!(
                        statuses.get(&parent),
                        Some(SessionStatus::Busy | SessionStatus::Retry { .. })
                    )
                });
                StatusRead(busy, directory)
            },
            |_| StatusRead(None, None),
            move |read| addr.do_send(read),
        );
    }

    /// A final that waits behind another counts as sent a minute after its last task settled.
    pub(super) fn close_if_overdue(&mut self, now: Timestamp) {
        if self.overdue_at().is_some_and(|at| at <= now)
            && let Due::Final { since } = self.batch.due(Duration::ZERO)
        {
            let pending = self.close_batch(since);
            self.closed.push_back(pending);
        }
    }

    pub(super) fn overdue_at(&self) -> Option<Timestamp> {
        match self.batch.due(Duration::ZERO) {
            Due::Final { since } => Some(since + self.env.config.notifications.wake_ceiling),
            _ => None,
        }
    }

    /// The registry must know when nothing is owed any more: a parent's own run does not complete before.
    pub(super) fn report_pending(&mut self) {
        // Its parent may have got another notifier since, whose debts these are not.
        if self.gone {
            return;
        }
        let has_pending = self.batch.has_pending()
            || !self.closed.is_empty()
            || !matches!(self.in_flight, InFlight::None);
        let idle = self.batch.is_empty() && !self.session.is_silenced();
        if self.reported_pending != Some((self.sequence, has_pending, idle)) {
            self.reported_pending = Some((self.sequence, has_pending, idle));
            self.registry.send(PendingMessages {
                parent: self.parent.clone(),
                sequence: self.sequence,
                has_pending,
                idle,
            });
        }
    }

    fn is_in_flight(&self) -> bool {
        matches!(
            self.in_flight,
            InFlight::Sending(_) | InFlight::LookingUp(_)
        )
    }

    pub(super) fn report_stopped(&mut self) {
        if self.stopped && !self.is_in_flight() {
            let has_pending = self.batch.has_pending() || !self.closed.is_empty();
            if let Some(done) = self.stopping.take() {
                // Whoever asked may have given up waiting.
                let _ = done.send(has_pending);
            }
        }
    }

    pub(super) fn arm(&mut self, due: Option<Timestamp>, ctx: &mut Context<Self>) {
        if due == self.timer.as_ref().map(|(at, _)| *at) {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            ctx.cancel_future(handle);
        }
        if let Some(at) = due {
            self.timer = Some((
                at,
                ctx.notify_later(DeadlineReached, self.env.time_until(at)),
            ));
        }
    }
}

fn earlier(one: Option<Timestamp>, other: Timestamp) -> Option<Timestamp> {
    Some(one.map_or(other, |one| one.min(other)))
}

impl Actor for ParentNotifier {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if let Some(outbox) = self.outbox.take() {
            self.restore(outbox, ctx);
            self.step(ctx);
        }
    }
}

impl Handler<Joined> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, joined: Joined, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: Joined");
        if self.directory.is_none() {
            self.directory = joined.directory;
        }
        self.batch.join(joined.task);
        self.step(ctx);
    }
}

impl Handler<Settled> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, settled: Settled, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: Settled");
        self.sequence = settled.sequence;
        // Behind a message in flight each keeps its own; what waits for its debounce or a busy parent is merged.
        let merge = matches!(self.in_flight, InFlight::None | InFlight::Status) || self.held;
        self.batch
            .settle(settled.report, settled.wakes, merge, self.env.now());
        self.step(ctx);
    }
}

impl Handler<Left> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, left: Left, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: Left");
        self.sequence = left.sequence;
        self.batch.leave(&left.task, self.env.now());
        self.step(ctx);
    }
}

impl Handler<ParentEvent> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, event: ParentEvent, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: ParentHappened");
        let now = self.env.now();
        if let Some(sequence) = event.1 {
            self.sequence = sequence;
        }
        let silenced = self.session.is_silenced();
        self.session
            .event(&event.0, &self.env.config.notifications, now);
        if self.is_in_flight() {
            // Stopped meanwhile, it is told all the same: what arrives is not its user's.
            self.session.message_sent();
        }
        if self.session.is_silenced() != silenced {
            let silenced = JournalEntry::Silenced(self.parent.clone(), !silenced);
            self.env.append(vec![silenced]);
        }
        self.step(ctx);
    }
}

impl Handler<ParentEnded> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, ended: ParentEnded, _: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: ParentEnded");
        self.session.set_ended(ended.0);
    }
}

impl Handler<ParentGone> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, _: ParentGone, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: ParentGone");
        // Its timers would keep this actor alive, and sending, long after its last address was dropped.
        (self.stopped, self.gone) = (true, true);
        self.open.store(false, Ordering::Release);
        self.drop_pending("the parent was deleted");
        self.arm(None, ctx);
    }
}

impl Handler<Stop> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, stop: Stop, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: Stop");
        self.stopped = true;
        self.open.store(false, Ordering::Release);
        self.stopping = Some(stop.done);
        self.step(ctx);
    }
}

impl Handler<StatusRead> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, read: StatusRead, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: StatusRead");
        self.in_flight = InFlight::None;
        if self.directory.is_none() {
            self.directory = read.1;
        }
        self.session.status_read(read.0, self.env.now());
        self.step(ctx);
    }
}

impl Handler<DeadlineReached> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, _: DeadlineReached, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: TimeUp");
        self.timer = None;
        self.step(ctx);
    }
}
