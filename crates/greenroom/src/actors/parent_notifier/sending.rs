//! Messages on their way to the parent: composed at the last moment, kept until accepted, looked up where their fate is
//! unknown, and sent again with backoff.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler};

use super::ParentNotifier;
use super::messages::{Answered, ContextRead, LookedUp, WayOpened};
use crate::actors::env::{answer, cut_off, find_message, within};
use crate::actors::registry::{BatchClosed, WakeAccepted};
use crate::actors::runtime_state::Call;
use crate::domain::batch::{CompletionReport, Due, Note};
use crate::domain::ids::{NoticeId, TaskId};
use crate::domain::notice::{NoticeFacts, NoticeKind};
use crate::domain::notification::{Form, parent_voice, render};
use crate::domain::outbox::{DeliveryStatus, OutboxMessage};
use crate::domain::patience::Why;
use crate::domain::time::Timestamp;
use crate::domain::transcript::Message as Spoken;
use crate::ports::agent_server::{Notice, ServerError, find_notice};
use crate::ports::journal::Entry;

/// What the sending of a message is called while it is under way.
fn call_name(id: &NoticeId) -> Call {
    Call::Notice(id.clone())
}

fn why(failure: &ServerError) -> Why {
    match failure {
        ServerError::Refused { .. } => Why::Refused,
        _ => Why::Way,
    }
}

/// A message that is owed: its text is fixed, its tasks are settled.
pub(super) struct Owed {
    pub(super) id: NoticeId,
    pub(super) facts: Arc<NoticeFacts>,
    pub(super) reports: Arc<[CompletionReport]>,
    pub(super) since: Timestamp,
    pub(super) form: Form,
    /// Set for a note: it goes back to the batch if it is refused.
    pub(super) note: Option<Note>,
    pub(super) sent_silently: bool,
}

/// What is under way; never more than one thing at a time.
pub(super) enum Flight {
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

impl ParentNotifier {
    pub(super) fn read_context(&mut self, ctx: &mut Context<Self>) {
        self.flight = Flight::Context;
        let (env, me, parent) = (self.env.clone(), ctx.address(), self.parent.clone());
        answer(
            &self.env,
            "notifier: parent is read",
            async move {
                let call = env.server.messages(&parent, Some(50));
                within(env.config.calls.other, call)
                    .await
                    .unwrap_or_default()
            },
            |_| Vec::new(),
            move |messages| me.do_send(ContextRead(messages)),
        );
    }

    /// Takes what is to be said now: an owed final, else what the batch says at this moment.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<Owed> {
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
                let facts = Arc::new(NoticeFacts {
                    kind: NoticeKind::Individual,
                    tasks: note
                        .reports
                        .iter()
                        .map(|report| report.fact.clone())
                        .collect(),
                    remaining: note.remaining,
                });
                let reports = note.reports.as_slice().into();
                let id = self.next_id();
                Some(Owed {
                    id,
                    facts,
                    reports,
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
    pub(super) fn close_batch(&mut self, since: Timestamp) -> Owed {
        let tasks: Vec<TaskId> = self.batch.tasks().cloned().collect();
        let reports = self.batch.close();
        let facts = Arc::new(NoticeFacts {
            kind: NoticeKind::Final,
            tasks: reports.iter().map(|report| report.fact.clone()).collect(),
            remaining: 0,
        });
        let id = self.next_id();
        let owed = Owed {
            id,
            facts,
            reports: reports.into(),
            since,
            form: Form::Whole,
            note: None,
            sent_silently: false,
        };
        self.env.append(vec![Entry::Closed {
            parent: self.parent.clone(),
            message: Box::new(self.message(&owed, DeliveryStatus::Pending)),
            tasks: tasks.clone(),
        }]);
        self.registry.send(BatchClosed {
            parent: self.parent.clone(),
            tasks,
        });
        owed
    }

    pub(super) fn send(&mut self, mut owed: Owed, messages: &[Spoken], ctx: &mut Context<Self>) {
        let (agent, model) = parent_voice(messages, &owed.reports);
        let wakes = match &owed.note {
            Some(note) => note.wakes,
            None => true,
        };
        let silent = !wakes || self.session.is_silent();
        owed.sent_silently = silent;
        let notice = Notice {
            id: owed.id.clone(),
            text: render(&owed.facts, owed.form),
            silent,
            agent,
            model,
            facts: Arc::clone(&owed.facts),
        };
        self.session.told();
        // Said before it is sent: whoever takes over must know that it may have arrived.
        self.env.append(vec![Entry::Sending {
            parent: self.parent.clone(),
            message: Box::new(self.message(&owed, DeliveryStatus::Sending)),
        }]);
        let under_way = self.env.under_way.begin(call_name(&owed.id));
        let (durable, open) = (self.env.durable(), Arc::clone(&self.open));
        self.flight = Flight::Sending(Box::new(owed));
        let (env, me, parent) = (self.env.clone(), ctx.address(), self.parent.clone());
        answer(
            &self.env,
            "notifier: message is answered",
            async move {
                let _under_way = under_way;
                durable.await;
                if !open.load(Ordering::Acquire) {
                    return Err(ServerError::Unreachable(
                        "nothing is begun any more".to_owned(),
                    ));
                }
                within(env.config.calls.notify, env.server.notify(&parent, notice)).await
            },
            |panic| Err(cut_off(panic)),
            move |answer| me.do_send(Answered(answer)),
        );
    }

    pub(super) fn accepted(&mut self, owed: &Owed) {
        self.patience.over();
        self.env.health.notice_delivered();
        self.record_delivery(owed, DeliveryStatus::Delivered);
        if !owed.sent_silently {
            self.session.woken();
            self.registry.send(WakeAccepted {
                parent: self.parent.clone(),
            });
        }
    }

    pub(super) fn refused(&mut self, mut owed: Owed, failure: &ServerError) {
        tracing::warn!(parent = %self.parent, notice = %owed.id, %failure, "a message to a parent was not accepted");
        let now = self.env.now();
        let gone = matches!(failure, ServerError::NotFound(_));
        if gone || now.since(owed.since) >= self.env.config.notifications.give_up {
            return self.dropped(&owed, &failure.to_string());
        }
        if let Some(note) = owed.note.take() {
            let returned = Entry::Returned(self.parent.clone(), owed.id.clone());
            self.env.append(vec![returned]);
            let wakes = note.wakes;
            self.batch.note_refused(note);
            if wakes {
                self.patience.failed(why(failure), now);
            }
            return;
        }
        self.record_delivery(&owed, DeliveryStatus::Pending);
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
        self.patience.failed(why(failure), now);
        self.closed.push_front(owed);
    }

    /// Everything owed is given up, each message with that reason; an answer still to come changes nothing.
    pub(super) fn drop_debts(&mut self, why: &str) {
        let mut owed: Vec<Owed> = self.closed.drain(..).collect();
        if let Flight::Sending(sent) | Flight::LookingUp(sent) =
            std::mem::replace(&mut self.flight, Flight::None)
        {
            owed.push(*sent);
        }
        if self.batch.owes() {
            owed.push(self.close_batch(self.env.now()));
        }
        for owed in owed {
            self.dropped(&owed, why);
        }
    }

    fn message(&self, owed: &Owed, status: DeliveryStatus) -> OutboxMessage {
        OutboxMessage {
            id: owed.id.clone(),
            facts: Arc::clone(&owed.facts),
            reports: Arc::clone(&owed.reports),
            since: owed.since,
            status,
            at: self.env.now(),
        }
    }

    fn record_delivery(&self, owed: &Owed, status: DeliveryStatus) {
        self.env.append(vec![Entry::Delivery {
            parent: self.parent.clone(),
            id: owed.id.clone(),
            status,
            at: self.env.now(),
        }]);
    }

    fn dropped(&self, owed: &Owed, why: &str) {
        tracing::warn!(parent = %self.parent, notice = %owed.id, why, "a message to a parent was dropped");
        self.env.health.notice_dropped();
        self.record_delivery(owed, DeliveryStatus::Dropped(why.to_owned()));
    }

    pub(super) fn next_id(&mut self) -> NoticeId {
        self.notices += 1;
        NoticeId::new(format!(
            "ntc_{:016x}{:04x}",
            self.salt,
            self.notices & 0xffff
        ))
    }

    /// Looks for a message of unknown fate among the parent's newest, in a while.
    pub(super) fn look_up(&mut self, owed: Box<Owed>, first: Duration, ctx: &mut Context<Self>) {
        let (env, me, parent, id) = (
            self.env.clone(),
            ctx.address(),
            self.parent.clone(),
            owed.id.clone(),
        );
        // Its own: what opened before is no news to it.
        self.way_opened = Arc::default();
        let way_opened = Arc::clone(&self.way_opened);
        self.flight = Flight::LookingUp(owed);
        let still = me.clone();
        answer(
            &self.env,
            "notifier: message is looked for",
            async move {
                if !first.is_zero() {
                    tokio::time::sleep(first).await;
                }
                // Sent by a notifier that has died since, it may still be on its way.
                let limit = env.config.calls.notify;
                env.under_way.over(&call_name(&id), limit).await;
                let mut wait = Duration::from_secs(1);
                // Until the server says, nobody knows whether it arrived: sending it again might double it.
                loop {
                    let look = |messages: &[Spoken]| find_notice(messages, &id).map(|_| ());
                    match find_message(&env, &parent, 50, look).await {
                        Ok(found) => return Ok(found.is_some()),
                        Err(gone @ ServerError::NotFound(_)) => return Err(gone),
                        Err(failure) if !still.connected() => return Err(failure),
                        Err(_) => {}
                    }
                    // Also one that opened while it was asked: nobody knows which was first.
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = way_opened.notified() => {}
                    }
                    wait = wait.saturating_mul(2).min(Duration::from_secs(60));
                }
            },
            |panic| Err(cut_off(panic)),
            move |found| me.do_send(LookedUp(found)),
        );
    }
}

impl Handler<ContextRead> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, read: ContextRead, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: ContextRead");
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
        self.env.failpoints.hit("notifier: Answered");
        let Flight::Sending(owed) = std::mem::replace(&mut self.flight, Flight::None) else {
            return;
        };
        match answered.0 {
            Ok(()) => self.accepted(&owed),
            Err(failure) if failure.fate_is_unknown() => self.look_up(owed, Duration::ZERO, ctx),
            Err(failure) => self.refused(*owed, &failure),
        }
        self.step(ctx);
    }
}

impl Handler<LookedUp> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, looked: LookedUp, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: LookedUp");
        let Flight::LookingUp(owed) = std::mem::replace(&mut self.flight, Flight::None) else {
            return;
        };
        match looked.0 {
            Ok(true) => self.accepted(&owed),
            Ok(false) => self.refused(
                *owed,
                &ServerError::FateUnknown("it was sent and did not arrive".to_owned()),
            ),
            Err(failure) if failure.fate_is_unknown() => {
                self.look_up(owed, Duration::from_secs(1), ctx);
            }
            Err(failure) => self.refused(*owed, &failure),
        }
        self.step(ctx);
    }
}

impl Handler<WayOpened> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, _: WayOpened, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: WayOpened");
        self.way_opened.notify_one();
        if self.patience.way_opened() {
            self.step(ctx);
        }
    }
}
