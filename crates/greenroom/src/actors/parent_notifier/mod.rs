//! ParentNotifier: owns the batch of one parent session and the messages pending for it. The registry sends joins and ends in
//! its own order. The notifier sends one message at a time to the parent, keeps each until the server has accepted it, and
//! holds back messages while the parent is busy.
//!
//! Its modules: this one has the batch and the next step, `sending` the messages and their delivery, `recovery` the start
//! from the journal.

mod messages;
mod recovery;
mod sending;
mod turns;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, SpawnHandle};
use tokio::sync::{Notify, oneshot};

use self::messages::{DeadlineReached, StatusRead};
pub(crate) use self::messages::{
    Joined, Left, LinkRestored, ParentAbortHeld, ParentAbortJudged, ParentEnded, ParentEvent,
    ParentGone, ParentInstanceEnded, Reconcile, Settled, Stop,
};
use self::sending::{InFlight, LeftOut, PendingMessage};
use self::turns::WatchedTurn;
use super::actor_ref::ActorRef;
use super::env::{Env, spawn_call, within};
use super::registry::{ParentAbortRecorded, ParentAborted, PendingMessages, TaskRegistry};
use crate::domain::batch::{Batch, Due};
use crate::domain::ids::SessionId;
use crate::domain::outbox::Outbox;
use crate::domain::parent_session::{Gate, ParentSession};
use crate::domain::retry_backoff::RetryBackoff;
use crate::domain::time::Timestamp;
use crate::ports::agent_server::SessionStatus;
use crate::ports::journal::JournalEntry;

/// The state of the pending messages as reported to the registry.
#[derive(Clone, Copy, PartialEq, Eq)]
struct PendingReport {
    sequence: u64,
    has_pending: bool,
    idle: bool,
}

/// The next message of a notifier.
pub(super) struct NextMessage {
    /// When the message may be sent.
    at: Timestamp,
    wakes: bool,
    /// Since when the message is pending.
    since: Timestamp,
}

pub(crate) struct ParentNotifier {
    env: Env,
    registry: ActorRef<TaskRegistry>,
    parent: SessionId,
    directory: Option<Arc<str>>,
    batch: Batch,
    // The final messages of closed batches, oldest first: bounded by `give_up`.
    closed: VecDeque<PendingMessage>,
    in_flight: InFlight,
    backoff: RetryBackoff,
    /// Wakes a lookup that waits for the agent server.
    link_restored: Arc<Notify>,
    session: ParentSession,
    left_out: LeftOut,
    /// The turn of the newest waking message, until its answer is known.
    turn: Option<Box<WatchedTurn>>,
    /// True if the parent is the session of a task, whose own run is continued.
    of_task: bool,
    /// The end of the last revert or unjudged abort: messages count as pending since then.
    released_at: Option<Timestamp>,
    held: bool,
    sequence: u64,
    reported_pending: Option<PendingReport>,
    stopping: Option<oneshot::Sender<bool>>,
    stopped: bool,
    /// Set to false once the notifier is stopped. Read by a message that waits for the journal: it is not sent then.
    open: Arc<AtomicBool>,
    /// True once the parent was deleted: no further report is sent to the registry.
    gone: bool,
    timer: Option<(Timestamp, SpawnHandle)>,
    sent_count: u64,
    salt: u64,
    /// The outbox from the journal when this notifier was created.
    outbox: Option<Outbox>,
}

impl ParentNotifier {
    pub(crate) fn new(
        env: Env,
        registry: ActorRef<TaskRegistry>,
        parent: SessionId,
        ended: bool,
        of_task: bool,
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
            left_out: LeftOut::default(),
            turn: None,
            of_task,
            released_at: None,
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

    /// Starts the next action that is due, if none is in flight.
    pub(super) fn step(&mut self, ctx: &mut Context<Self>) {
        let now = self.env.now();
        self.close_if_overdue(now);
        self.end_overdue_judgement(now);
        if self.confirmation_read_at().is_some_and(|at| at <= now) {
            self.read_confirmation(ctx);
        }
        let watch_ends = self.end_overdue_watch(now);
        if self.turn_read_at().is_some_and(|at| at <= now) {
            self.read_turn(ctx);
        }
        let mut wait: Option<Timestamp> = self.overdue_at();
        if let Some(at) = self.session.judgement_due() {
            wait = earlier(wait, at);
        }
        if let Some(at) = watch_ends {
            wait = earlier(wait, at);
        }
        if let Some(at) = self.turn_read_at() {
            wait = earlier(wait, at);
        }
        if let Some(at) = self.confirmation_read_at() {
            wait = earlier(wait, at);
        }
        if matches!(self.in_flight, InFlight::None)
            && !self.stopped
            && let Some(next) = self.next_message()
        {
            if next.at > now {
                wait = earlier(wait, next.at);
            } else {
                let (policy, lifecycle) =
                    (&self.env.config.notifications, &self.env.config.lifecycle);
                let gate = self
                    .session
                    .gate(next.wakes, next.since, policy, lifecycle, now);
                match gate {
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

    /// Returns the time since which a message due since `since` waits for its delivery: the time during which the parent was
    /// held does not count.
    fn held_since(&self, since: Timestamp) -> Timestamp {
        self.released_at
            .map_or(since, |released| released.max(since))
    }

    /// Records whether the parent is reverted.
    fn set_reverted(&mut self, reverted: bool) {
        let now = self.env.now();
        let held = self.session.is_held();
        self.session.revert_read(reverted, now);
        if held && !self.session.is_held() {
            self.released_at = Some(now);
        }
    }

    /// Judges an abort whose judgement did not arrive in time as a person's.
    fn end_overdue_judgement(&mut self, now: Timestamp) {
        if let Some(at) = self.session.overdue_abort(now) {
            self.judge_abort(at, false);
        }
    }

    /// Records how the abort received at `at` is judged, and reports to the registry that the judgement is recorded.
    fn judge_abort(&mut self, at: Timestamp, cut_off: bool) {
        let (held, silenced) = (self.session.is_held(), self.session.is_silenced());
        let is_newest = self.session.unjudged_abort() == Some(at);
        let policy = &self.env.config.notifications;
        self.session.abort_judged(at, cut_off, policy);
        if held && !self.session.is_held() {
            self.released_at = Some(self.env.now());
        }
        self.record_silence(silenced);
        self.report_recorded(at);
        // The turn of a newer abort waits for its own judgement.
        if is_newest && cut_off {
            self.turn_interrupted();
        } else if is_newest {
            self.end_watch();
        }
    }

    /// Reports to the registry that an abort needs no judgement any more.
    fn report_recorded(&self, at: Timestamp) {
        self.registry.send(ParentAbortRecorded {
            parent: self.parent.clone(),
            at,
        });
    }

    /// Reports to the registry an abort received since `before`, or that the parent's user has prompted it since the abort.
    fn report_abort(&self, before: Option<Timestamp>) {
        match (before, self.session.unjudged_abort()) {
            (before, Some(at)) if before != Some(at) => {
                self.registry.send(ParentAborted {
                    parent: self.parent.clone(),
                    at,
                    turn_began: self.session.busy_since(),
                });
            }
            (Some(at), None) => self.report_recorded(at),
            _ => {}
        }
    }

    /// Records in the journal whether the parent is silenced, if that has changed from `before`.
    fn record_silence(&self, before: bool) {
        let silenced = self.session.is_silenced();
        if silenced != before {
            self.env
                .append(vec![JournalEntry::Silenced(self.parent.clone(), silenced)]);
        }
    }

    /// Ends the silence of a parent that was stopped by its user, once its time has passed and the notifier is idle. Returns
    /// the time of that end if it is in the future.
    fn end_silence(&mut self, now: Timestamp) -> Option<Timestamp> {
        let idle = self.batch.is_empty()
            && self.closed.is_empty()
            && matches!(self.in_flight, InFlight::None)
            && self.turn.is_none()
            && !self.stopped;
        let at = self.session.silence_ends_at(&self.env.config.notifications);
        let at = at.filter(|_| idle)?;
        if at > now {
            return Some(at);
        }
        self.session.end_silence();
        self.env
            .append(vec![JournalEntry::Silenced(self.parent.clone(), false)]);
        None
    }

    /// Returns the next message: the oldest final of a closed batch, else the message that the batch has now.
    pub(super) fn next_message(&self) -> Option<NextMessage> {
        let final_since = |since| NextMessage {
            at: since,
            wakes: true,
            since,
        };
        let mut next = match self.closed.front() {
            Some(pending) => final_since(pending.since),
            None => match self.batch.due(self.env.config.notifications.debounce) {
                Due::Nothing => return None,
                Due::Individual { at, wakes, since } => NextMessage { at, wakes, since },
                Due::Final { since } => final_since(since),
            },
        };
        next.since = self.held_since(next.since);
        next.at = self.backoff.earliest(next.at);
        Some(next)
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
            async move { read_busy(&env, &parent, directory).await },
            |_| StatusRead {
                busy: None,
                directory: None,
            },
            move |read| addr.do_send(read),
        );
    }

    /// Closes the batch if its final message has waited behind another message for `wake_ceiling`.
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

    /// Reports to the registry whether messages are pending, if that has changed: a parent's own run does not complete
    /// before all are sent.
    pub(super) fn report_pending(&mut self) {
        // The parent may have another notifier since, with its own pending messages.
        if self.gone {
            return;
        }
        let is_pending = self.batch.has_pending()
            || !self.closed.is_empty()
            || !matches!(self.in_flight, InFlight::None | InFlight::ReadingTurn);
        // Messages held by a revert must not block the parent's own run.
        let has_pending = is_pending && !self.session.is_reverted();
        let idle = self.batch.is_empty()
            && !is_pending
            && self.turn.is_none()
            && self.session.unjudged_abort().is_none()
            && !self.session.is_silenced();
        let report = PendingReport {
            sequence: self.sequence,
            has_pending,
            idle,
        };
        if self.reported_pending != Some(report) {
            self.reported_pending = Some(report);
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
            InFlight::Sending(_) | InFlight::LookingUp(_) | InFlight::Confirming(_)
        )
    }

    pub(super) fn report_stopped(&mut self) {
        if self.stopped && !self.is_in_flight() {
            let has_pending = self.batch.has_pending() || !self.closed.is_empty();
            if let Some(done) = self.stopping.take() {
                // The caller may have been dropped.
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

/// Reads whether a parent is busy. The directory is the directory of its session, if none is known.
async fn read_busy(env: &Env, parent: &SessionId, directory: Option<Arc<str>>) -> StatusRead {
    let limit = env.config.calls.other;
    let directory = match directory {
        Some(directory) => Some(directory),
        None => within(limit, env.server.session(parent))
            .await
            .ok()
            .and_then(|record| record.directory),
    };
    let Some(known) = &directory else {
        return StatusRead {
            busy: None,
            directory: None,
        };
    };
    let statuses = within(limit, env.server.statuses(known)).await;
    let busy = statuses.ok().map(|statuses| {
        matches!(
            statuses.get(parent),
            Some(SessionStatus::Busy | SessionStatus::Retry { .. })
        )
    });
    StatusRead { busy, directory }
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
        // Reports that wait for the debounce or a busy parent are merged; reports behind a message in flight are not.
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
        let now = event.at;
        if let Some(sequence) = event.sequence {
            self.sequence = sequence;
        }
        let silenced = self.session.is_silenced();
        let (held, abort) = (self.session.is_held(), self.session.unjudged_abort());
        let (policy, lifecycle) = (&self.env.config.notifications, &self.env.config.lifecycle);
        self.session.event(&event.kind, policy, lifecycle, now);
        if held && !self.session.is_held() {
            self.released_at = Some(now);
        }
        self.observe_delivery(&event.kind, ctx);
        self.observe_turn(&event.kind, now);
        if self.is_in_flight() {
            // The message in flight still arrives, and must not be taken for a prompt of the user.
            self.session.message_sent();
        }
        self.record_silence(silenced);
        self.report_abort(abort);
        self.step(ctx);
    }
}

impl Handler<ParentAbortHeld> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, held: ParentAbortHeld, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: ParentAbortHeld");
        let now = self.env.now();
        self.session
            .hold_for_abort(held.0, &self.env.config.lifecycle, now);
        self.step(ctx);
    }
}

impl Handler<ParentAbortJudged> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, judged: ParentAbortJudged, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: ParentAbortJudged");
        self.judge_abort(judged.at, judged.cut_off);
        self.step(ctx);
    }
}

impl Handler<ParentEnded> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, ended: ParentEnded, _: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: ParentEnded");
        self.session.set_ended(ended.0);
        self.of_task = true;
        self.end_watch();
    }
}

impl Handler<ParentGone> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, _: ParentGone, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: ParentGone");
        // A timer would keep this actor running after its last address was dropped.
        self.stopped = true;
        self.gone = true;
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
        // An accepted message is confirmed by a read at once.
        self.read_confirmation(ctx);
        self.step(ctx);
    }
}

impl Handler<StatusRead> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, read: StatusRead, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: StatusRead");
        self.in_flight = InFlight::None;
        if self.directory.is_none() {
            self.directory = read.directory;
        }
        self.session.status_read(read.busy, self.env.now());
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
