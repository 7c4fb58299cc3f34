//! ParentNotifier: owns one parent's batch and what is owed to that parent. The registry tells it of joins and ends, in
//! its order; it sends one message at a time, keeps each until the server has accepted it, and holds back what would
//! disturb a parent that works.

use std::collections::VecDeque;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, SpawnHandle};

use super::desk::Desk;
use super::env::{Env, within};
use super::registry::{BatchClosed, Debts, NoticeFate, NoticeReport, TaskRegistry, WakeAccepted};
use crate::domain::batch::{Batch, Due, Note, Told};
use crate::domain::ids::{MessageId, NoticeId, SessionId, TaskId};
use crate::domain::notice::{NoticeFacts, NoticeKind};
use crate::domain::notification::{Form, parent_voice, render};
use crate::domain::session_event::Happening;
use crate::domain::time::Timestamp;
use crate::domain::transcript::Message as Spoken;
use crate::ports::agent_server::{Notice, ServerError, SessionStatus, find_notice};

/// A run belongs to this parent's batch from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Joined {
    pub(crate) task: TaskId,
    pub(crate) directory: Option<String>,
}

/// A run of the batch has ended. `debt` counts what the registry has told this notifier.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Settled {
    pub(crate) told: Told,
    pub(crate) wakes: bool,
    pub(crate) debt: u64,
}

/// A run leaves the batch without a word.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Left {
    pub(crate) task: TaskId,
    pub(crate) debt: u64,
}

/// Something happened in the parent's session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ParentHappened(pub(crate) std::sync::Arc<Happening>);

/// The parent is the session of a task that has ended (or goes on again).
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ParentEnded(pub(crate) bool);

/// Nothing is begun any more; what is in flight may finish.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop {
    pub(crate) done: tokio::sync::oneshot::Sender<bool>,
}

#[derive(Message)]
#[rtype(result = "()")]
struct StatusRead(Option<bool>, Option<String>);

#[derive(Message)]
#[rtype(result = "()")]
struct ContextRead(Vec<Spoken>);

#[derive(Message)]
#[rtype(result = "()")]
struct Answered(Result<(), ServerError>);

#[derive(Message)]
#[rtype(result = "()")]
struct LookedUp(Result<bool, ServerError>);

#[derive(Message)]
#[rtype(result = "()")]
struct TimeUp;

/// A message that is owed: its text is fixed, its tasks are settled.
struct Owed {
    id: NoticeId,
    facts: NoticeFacts,
    told: Vec<Told>,
    since: Timestamp,
    form: Form,
    /// Set for a note: it goes back to the batch if it is refused.
    note: Option<Note>,
    sent_silently: bool,
}

/// What is under way; never more than one thing at a time.
enum Flight {
    None,
    /// Asking whether the parent works.
    Status,
    /// Reading who the parent is.
    Context,
    /// The message is on its way.
    Sending(Box<Owed>),
    /// Its fate is unknown: looking for it among the parent's newest messages.
    LookingUp(Box<Owed>),
}

/// Whether the parent works, and since when that is known.
#[derive(Clone, Copy)]
struct Busy {
    busy: bool,
    at: Timestamp,
}

pub(crate) struct ParentNotifier {
    env: Env,
    registry: Desk<TaskRegistry>,
    parent: SessionId,
    directory: Option<String>,
    batch: Batch,
    // Finals of closed batches, oldest first, with their texts: bounded by `give_up`.
    closed: VecDeque<Owed>,
    flight: Flight,
    failures: u32,
    not_before: Option<Timestamp>,
    busy: Option<Busy>,
    next_look: Option<Timestamp>,
    held: bool,
    ended: bool,
    /// The user stopped the parent: messages are silent until the user speaks again.
    silenced: Option<Timestamp>,
    silenced_sent: bool,
    user_message: Option<MessageId>,
    candidate: Option<MessageId>,
    debt: u64,
    told_debts: Option<(u64, bool)>,
    stopping: Option<tokio::sync::oneshot::Sender<bool>>,
    stopped: bool,
    timer: Option<(Timestamp, SpawnHandle)>,
    notices: u64,
    salt: u64,
}

impl ParentNotifier {
    pub(crate) fn new(
        env: Env,
        registry: Desk<TaskRegistry>,
        parent: SessionId,
        ended: bool,
        salt: u64,
    ) -> Self {
        Self {
            env,
            registry,
            parent,
            directory: None,
            batch: Batch::default(),
            closed: VecDeque::new(),
            flight: Flight::None,
            failures: 0,
            not_before: None,
            busy: None,
            next_look: None,
            held: false,
            ended,
            silenced: None,
            silenced_sent: false,
            user_message: None,
            candidate: None,
            debt: 0,
            told_debts: None,
            stopping: None,
            stopped: false,
            timer: None,
            notices: 0,
            salt,
        }
    }

    /// One step: begins the next thing that is due, if nothing is under way.
    fn step(&mut self, ctx: &mut Context<Self>) {
        let now = self.env.now();
        self.close_if_overdue(now);
        let mut wait: Option<Timestamp> = self.overdue_at();
        if matches!(self.flight, Flight::None) && !self.stopped {
            match self.next_due() {
                Some((at, wakes, since)) if at <= now => match self.hold_until(wakes, since, now) {
                    Some(until) => {
                        self.held = true;
                        wait = earlier(wait, until);
                    }
                    None => self.look_or_send(wakes, since, now, ctx),
                },
                Some((at, ..)) => wait = earlier(wait, at),
                None => {}
            }
        }
        self.arm(wait, ctx);
        self.tell_debts();
        self.tell_stopped();
    }

    /// When the next message may be sent, whether it wakes, and since when it is owed.
    fn next_due(&self) -> Option<(Timestamp, bool, Timestamp)> {
        let (at, wakes, since) = match self.closed.front() {
            Some(owed) => (owed.since, true, owed.since),
            None => match self.batch.due(self.env.config.notifications.debounce) {
                Due::Nothing => return None,
                Due::Note { at, wakes, since } => (at, wakes, since),
                Due::Final { since } => (since, true, since),
            },
        };
        Some((
            self.not_before.map_or(at, |not_before| at.max(not_before)),
            wakes,
            since,
        ))
    }

    /// Nothing is put into a live turn needlessly. None if the message may go.
    fn hold_until(&mut self, wakes: bool, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let notifications = &self.env.config.notifications;
        if !notifications.wait_for_busy_parent || !self.busy.is_some_and(|busy| busy.busy) {
            return None;
        }
        let look = *self
            .next_look
            .get_or_insert(now + self.env.config.lifecycle.poll_interval);
        let ceiling = since + notifications.wake_ceiling;
        if wakes && ceiling <= now {
            return None;
        }
        if look <= now {
            // Time to look again: an idle event may have been lost.
            self.busy = None;
            self.next_look = None;
            return None;
        }
        Some(if wakes { look.min(ceiling) } else { look })
    }

    fn look_or_send(
        &mut self,
        wakes: bool,
        since: Timestamp,
        now: Timestamp,
        ctx: &mut Context<Self>,
    ) {
        let notifications = &self.env.config.notifications;
        let over_ceiling = wakes && since + notifications.wake_ceiling <= now;
        let known = self
            .busy
            .is_some_and(|busy| now.since(busy.at) < self.env.config.lifecycle.poll_interval);
        if notifications.wait_for_busy_parent && !known && !over_ceiling {
            self.look(ctx);
        } else {
            self.read_context(ctx);
        }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        self.flight = Flight::Status;
        let (env, me, parent, directory) = (
            self.env.clone(),
            ctx.address(),
            self.parent.clone(),
            self.directory.clone(),
        );
        actix_rt::spawn(async move {
            let limit = env.config.calls.other;
            let directory = match directory {
                Some(directory) => Some(directory),
                None => within(limit, env.server.session(&parent))
                    .await
                    .ok()
                    .and_then(|record| record.directory),
            };
            let busy = match &directory {
                Some(directory) => match within(limit, env.server.statuses(directory)).await {
                    Ok(statuses) => Some(matches!(
                        statuses.get(&parent),
                        Some(SessionStatus::Busy | SessionStatus::Retry { .. })
                    )),
                    Err(_) => None,
                },
                None => None,
            };
            me.do_send(StatusRead(busy, directory));
        });
    }

    fn read_context(&mut self, ctx: &mut Context<Self>) {
        self.flight = Flight::Context;
        let (env, me, parent) = (self.env.clone(), ctx.address(), self.parent.clone());
        actix_rt::spawn(async move {
            let call = env.server.messages(&parent, Some(50));
            let messages = within(env.config.calls.other, call)
                .await
                .unwrap_or_default();
            me.do_send(ContextRead(messages));
        });
    }

    /// Takes what is to be said now: an owed final, else what the batch says at this moment.
    fn take(&mut self, now: Timestamp) -> Option<Owed> {
        if let Some(owed) = self.closed.pop_front() {
            return Some(owed);
        }
        let debounce = self.env.config.notifications.debounce;
        match self.batch.due(debounce) {
            Due::Final { since } => {
                let owed = self.close_batch(since);
                Some(owed)
            }
            Due::Note { at, since, .. } if at <= now => {
                let note = self.batch.take_note(std::mem::take(&mut self.held))?;
                let facts = NoticeFacts {
                    kind: NoticeKind::Individual,
                    tasks: note.told.iter().map(|told| told.fact.clone()).collect(),
                    remaining: note.remaining,
                };
                let told = note.told.clone();
                let id = self.next_id();
                Some(Owed {
                    id,
                    facts,
                    told,
                    since,
                    form: Form::Whole,
                    note: Some(note),
                    sent_silently: false,
                })
            }
            _ => None,
        }
    }

    /// From its first sending on the debt keeps its text, not the tasks; a task that joins opens a new batch.
    fn close_batch(&mut self, since: Timestamp) -> Owed {
        let tasks: Vec<TaskId> = self.batch.tasks().cloned().collect();
        let told = self.batch.close();
        self.registry.send(BatchClosed {
            parent: self.parent.clone(),
            tasks,
        });
        let facts = NoticeFacts {
            kind: NoticeKind::Final,
            tasks: told.iter().map(|told| told.fact.clone()).collect(),
            remaining: 0,
        };
        let id = self.next_id();
        Owed {
            id,
            facts,
            told,
            since,
            form: Form::Whole,
            note: None,
            sent_silently: false,
        }
    }

    /// A final that waits behind another counts as sent a minute after its last task settled.
    fn close_if_overdue(&mut self, now: Timestamp) {
        if self.overdue_at().is_some_and(|at| at <= now)
            && let Due::Final { since } = self.batch.due(Duration::ZERO)
        {
            let owed = self.close_batch(since);
            self.closed.push_back(owed);
        }
    }

    fn overdue_at(&self) -> Option<Timestamp> {
        match self.batch.due(Duration::ZERO) {
            Due::Final { since } => Some(since + self.env.config.notifications.wake_ceiling),
            _ => None,
        }
    }

    fn send(&mut self, mut owed: Owed, messages: &[Spoken], ctx: &mut Context<Self>) {
        let (agent, model) = parent_voice(messages, &owed.told);
        let wakes = match &owed.note {
            Some(note) => note.wakes,
            None => true,
        };
        let silent = !wakes || self.ended || self.silenced.is_some();
        owed.sent_silently = silent;
        let notice = Notice {
            id: owed.id.clone(),
            text: render(&owed.facts, owed.form),
            silent,
            agent,
            model,
            facts: owed.facts.clone(),
        };
        self.silenced_sent |= self.silenced.is_some();
        self.report(&owed, NoticeFate::Sending);
        self.flight = Flight::Sending(Box::new(owed));
        let (env, me, parent) = (self.env.clone(), ctx.address(), self.parent.clone());
        actix_rt::spawn(async move {
            let answer = within(env.config.calls.notify, env.server.notify(&parent, notice)).await;
            me.do_send(Answered(answer));
        });
    }

    fn accepted(&mut self, owed: &Owed) {
        self.failures = 0;
        self.not_before = None;
        self.report(owed, NoticeFate::Delivered);
        if !owed.sent_silently {
            // What was known of the parent is over: it has something to do now.
            self.busy = None;
            self.registry.send(WakeAccepted {
                parent: self.parent.clone(),
            });
        }
    }

    fn refused(&mut self, mut owed: Owed, failure: &ServerError) {
        tracing::warn!(parent = %self.parent, notice = %owed.id, %failure, "a message to a parent was not accepted");
        let now = self.env.now();
        let gone = matches!(failure, ServerError::NotFound(_));
        if gone || now.since(owed.since) >= self.env.config.notifications.give_up {
            return self.report(&owed, NoticeFate::Dropped(failure.to_string()));
        }
        if let Some(note) = owed.note.take() {
            let wakes = note.wakes;
            self.batch.note_refused(note);
            if wakes {
                self.back_off(now);
            }
            return;
        }
        if let ServerError::Refused {
            status: Some(400 | 413 | 422),
            ..
        } = failure
            && owed.form == Form::Whole
        {
            owed.form = Form::Shortest;
            self.closed.push_front(owed);
            return;
        }
        self.back_off(now);
        self.closed.push_front(owed);
    }

    /// 1 s doubling to 60 s.
    fn back_off(&mut self, now: Timestamp) {
        let wait = Duration::from_secs(1 << self.failures.min(6)).min(Duration::from_secs(60));
        self.failures += 1;
        self.not_before = Some(now + wait);
    }

    fn report(&self, owed: &Owed, fate: NoticeFate) {
        self.registry.send(NoticeReport {
            parent: self.parent.clone(),
            id: owed.id.clone(),
            facts: owed.facts.clone(),
            fate,
            at: self.env.now(),
        });
    }

    /// The registry must know when nothing is owed any more: a parent's own run does not complete before.
    fn tell_debts(&mut self) {
        let owes =
            self.batch.owes() || !self.closed.is_empty() || !matches!(self.flight, Flight::None);
        if self.told_debts != Some((self.debt, owes)) {
            self.told_debts = Some((self.debt, owes));
            self.registry.send(Debts {
                parent: self.parent.clone(),
                debt: self.debt,
                owes,
                idle: self.batch.is_empty() && self.silenced.is_none(),
            });
        }
    }

    fn tell_stopped(&mut self) {
        let in_flight = matches!(self.flight, Flight::Sending(_) | Flight::LookingUp(_));
        if self.stopped && !in_flight {
            let owes = self.batch.owes() || !self.closed.is_empty();
            if let Some(done) = self.stopping.take() {
                // Whoever asked may have given up waiting.
                let _ = done.send(owes);
            }
        }
    }

    fn next_id(&mut self) -> NoticeId {
        self.notices += 1;
        NoticeId::new(format!(
            "ntc_{:016x}{:04x}",
            self.salt,
            self.notices & 0xffff
        ))
    }

    fn arm(&mut self, due: Option<Timestamp>, ctx: &mut Context<Self>) {
        if due == self.timer.as_ref().map(|(at, _)| *at) {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            ctx.cancel_future(handle);
        }
        if let Some(at) = due {
            self.timer = Some((at, ctx.notify_later(TimeUp, self.env.until(at))));
        }
    }

    /// What the parent's own events say: whether it works, and whether its user has stopped it or speaks again.
    fn hear(&mut self, what: &Happening, now: Timestamp) {
        match what {
            Happening::Busy | Happening::Retry { .. } => {
                self.busy = Some(Busy {
                    busy: true,
                    at: now,
                })
            }
            Happening::Idle => {
                self.busy = Some(Busy {
                    busy: false,
                    at: now,
                });
                self.next_look = None;
            }
            Happening::Error { aborted: true, .. }
                if self.env.config.notifications.silence_after_parent_abort =>
            {
                self.silenced = Some(now);
                self.silenced_sent = false;
                self.candidate = None;
            }
            Happening::Message(message) if message.role.as_deref() == Some("user") => {
                let news = message.id.is_none() || message.id > self.user_message;
                self.user_message = message.id.clone().max(self.user_message.take());
                if let Some(since) = self.silenced
                    && news
                    && message.created.is_none_or(|created| created >= since)
                {
                    if self.silenced_sent {
                        // It may be our own silent message: its part will tell.
                        self.candidate.clone_from(&message.id);
                    } else {
                        self.silenced = None;
                    }
                }
            }
            Happening::Part { message, part }
                if message.is_some() && *message == self.candidate =>
            {
                let ours = part.notice_id().is_some() || part.synthetic;
                self.candidate = None;
                if !ours {
                    self.silenced = None;
                }
            }
            _ => {}
        }
    }
}

fn earlier(one: Option<Timestamp>, other: Timestamp) -> Option<Timestamp> {
    Some(one.map_or(other, |one| one.min(other)))
}

impl Actor for ParentNotifier {
    type Context = Context<Self>;
}

impl Handler<Joined> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, joined: Joined, ctx: &mut Context<Self>) {
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
        self.debt = settled.debt;
        // Behind a message in flight each keeps its own; what waits for its debounce or a busy parent is merged.
        let merge = matches!(self.flight, Flight::None | Flight::Status) || self.held;
        self.batch
            .settle(settled.told, settled.wakes, merge, self.env.now());
        self.step(ctx);
    }
}

impl Handler<Left> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, left: Left, ctx: &mut Context<Self>) {
        self.debt = left.debt;
        self.batch.leave(&left.task, self.env.now());
        self.step(ctx);
    }
}

impl Handler<ParentHappened> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, happened: ParentHappened, ctx: &mut Context<Self>) {
        let now = self.env.now();
        self.hear(&happened.0, now);
        self.step(ctx);
    }
}

impl Handler<ParentEnded> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, ended: ParentEnded, _: &mut Context<Self>) {
        self.ended = ended.0;
    }
}

impl Handler<Stop> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, stop: Stop, ctx: &mut Context<Self>) {
        self.stopped = true;
        self.stopping = Some(stop.done);
        self.step(ctx);
    }
}

impl Handler<StatusRead> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, read: StatusRead, ctx: &mut Context<Self>) {
        self.flight = Flight::None;
        if self.directory.is_none() {
            self.directory = read.1;
        }
        // A status that cannot be had counts as idle; one that an event has overtaken says nothing.
        if self.busy.is_none() || read.0.is_some() {
            self.busy = Some(Busy {
                busy: read.0.unwrap_or(false),
                at: self.env.now(),
            });
            self.next_look = None;
        }
        self.step(ctx);
    }
}

impl Handler<ContextRead> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, read: ContextRead, ctx: &mut Context<Self>) {
        self.flight = Flight::None;
        let now = self.env.now();
        if !self.stopped
            && let Some(owed) = self.take(now)
        {
            self.send(owed, &read.0, ctx);
        }
        self.step(ctx);
    }
}

impl Handler<Answered> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, answered: Answered, ctx: &mut Context<Self>) {
        let Flight::Sending(owed) = std::mem::replace(&mut self.flight, Flight::None) else {
            return;
        };
        match answered.0 {
            Ok(()) => self.accepted(&owed),
            Err(failure) if failure.fate_is_unknown() => self.look_up(owed, ctx),
            Err(failure) => self.refused(*owed, &failure),
        }
        self.step(ctx);
    }
}

impl ParentNotifier {
    fn look_up(&mut self, owed: Box<Owed>, ctx: &mut Context<Self>) {
        let (env, me, parent, id) = (
            self.env.clone(),
            ctx.address(),
            self.parent.clone(),
            owed.id.clone(),
        );
        self.flight = Flight::LookingUp(owed);
        actix_rt::spawn(async move {
            let mut wait = Duration::from_secs(1);
            // Until the server says, nobody knows whether it arrived: sending it again might double it.
            loop {
                let call = env.server.messages(&parent, Some(50));
                let found = match within(env.config.calls.other, call).await {
                    Ok(messages) => Ok(find_notice(&messages, &id).is_some()),
                    Err(gone @ ServerError::NotFound(_)) => Err(gone),
                    Err(_) => {
                        tokio::time::sleep(wait).await;
                        wait = wait.saturating_mul(2).min(Duration::from_secs(60));
                        if !me.connected() {
                            return;
                        }
                        continue;
                    }
                };
                me.do_send(LookedUp(found));
                return;
            }
        });
    }
}

impl Handler<LookedUp> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, looked: LookedUp, ctx: &mut Context<Self>) {
        let Flight::LookingUp(owed) = std::mem::replace(&mut self.flight, Flight::None) else {
            return;
        };
        match looked.0 {
            Ok(true) => self.accepted(&owed),
            Ok(false) => self.refused(
                *owed,
                &ServerError::FateUnknown("it was sent and did not arrive".to_owned()),
            ),
            Err(failure) => self.refused(*owed, &failure),
        }
        self.step(ctx);
    }
}

impl Handler<TimeUp> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, _: TimeUp, ctx: &mut Context<Self>) {
        self.timer = None;
        self.step(ctx);
    }
}
