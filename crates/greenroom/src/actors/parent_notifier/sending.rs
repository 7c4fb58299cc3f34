//! The delivery of messages to the parent: a message is composed just before it is sent, kept until it is accepted, looked up
//! if its outcome is unknown, and sent again with backoff.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler};

use super::ParentNotifier;
use super::messages::{Answered, ContextRead, LinkRestored, LookedUp, ParentInstanceEnded};
use crate::actors::env::{Env, find_message, panic_error, spawn_call, within};
use crate::actors::registry::{BatchClosed, WakeAccepted};
use crate::actors::runtime_state::CallId;
use crate::domain::batch::{CompletionReport, Due, Individual};
use crate::domain::ids::{MessageId, ModelRef, NoticeId, SessionId, TaskId};
use crate::domain::notice::{NoticeFacts, NoticeKind};
use crate::domain::notification::{
    Form, MAX_ERROR, names_agent, names_model, parent_identity, render,
};
use crate::domain::outbox::{DeliveryStatus, OutboxMessage};
use crate::domain::retry_backoff::RetryCause;
use crate::domain::session_event::SessionEventKind;
use crate::domain::time::Timestamp;
use crate::domain::transcript::Message as TranscriptMessage;
use crate::domain::wake_turn::{is_answered, prompted_since};
use crate::ports::agent_server::{Notice, ServerError, find_notice};
use crate::ports::journal::JournalEntry;

/// Returns the id of the call that sends a message.
fn call_id(id: &NoticeId) -> CallId {
    CallId::Notice(id.clone())
}

fn retry_cause(failure: &ServerError) -> RetryCause {
    match failure {
        ServerError::Refused { .. } => RetryCause::Refused,
        _ => RetryCause::Unreachable,
    }
}

/// A message that is not accepted yet; its text is fixed, its tasks are settled.
pub(super) struct PendingMessage {
    pub(super) id: NoticeId,
    pub(super) facts: Arc<NoticeFacts>,
    pub(super) reports: Arc<[CompletionReport]>,
    pub(super) since: Timestamp,
    pub(super) form: Form,
    /// Set for an individual message: it returns to the batch if it is refused.
    pub(super) individual: Option<Individual>,
    pub(super) sent_silently: bool,
    /// The message that this one repeats, because the turn of that one failed.
    pub(super) retry_of: Option<NoticeId>,
    pub(super) delivery: Delivery,
}

/// How long an accepted message may take to appear in an event before the history is read: a server without events is
/// confirmed by that read.
const FIRST_READ: Duration = Duration::from_secs(1);
/// The maximum age of a session record that shows no revert, when a message is sent.
const RECORD_VALIDITY: Duration = Duration::from_secs(2);

/// The progress of the delivery of one message.
#[derive(Default)]
pub(super) struct Delivery {
    /// True once the message was sent, or may have been sent.
    attempted: bool,
    /// True once an event showed the stored message.
    stored: bool,
    /// The stored message, if an event showed it.
    pub(super) message: Option<MessageId>,
    /// Set once the server accepted the message, if the message must be stored to count as delivered.
    confirmation: Option<Confirmation>,
    /// The errors of the session since the message was sent.
    pub(super) error: Option<String>,
    /// True if an error arrived during a look-up: that look-up may have read the history before the error.
    read_is_outdated: bool,
    /// True if the connection was lost, or the parent was cut off, since the message was sent: its turn may have begun.
    pub(super) is_interrupted: bool,
    pub(super) agent: Option<String>,
    pub(super) model: Option<ModelRef>,
}

impl Delivery {
    /// Returns the delivery of a message of an earlier process or notifier, which may have sent it.
    pub(super) fn recovered() -> Self {
        Self {
            attempted: true,
            ..Self::default()
        }
    }

    fn add_error(&mut self, text: &str) {
        let error = self.error.get_or_insert_default();
        if error.len() < MAX_ERROR {
            error.push_str(text);
            error.push('\n');
        }
    }

    /// Returns true if an error since the message was sent names the agent that the message named.
    fn names_agent(&self) -> bool {
        let sent = self.error.as_ref().zip(self.agent.as_ref());
        sent.is_some_and(|(error, agent)| names_agent(error, agent))
    }

    /// Returns true if an error since the message was sent names the model that the message named.
    fn names_model(&self) -> bool {
        let sent = self.error.as_ref().zip(self.model.as_ref());
        sent.is_some_and(|(error, model)| names_model(error, model))
    }
}

/// The wait for an accepted message to be stored.
pub(super) struct Confirmation {
    /// When the history is read next.
    pub(super) read_at: Timestamp,
    /// Until when the message may be missing without an error.
    until: Timestamp,
}

/// What the server does not know of a parent's identity, named by the error of a message that was not stored.
#[derive(Default)]
pub(super) struct LeftOut {
    agent: Option<String>,
    model: Option<ModelRef>,
}

impl LeftOut {
    /// Adds the agent or model that the error of a delivery names.
    fn add_cause(&mut self, delivery: &mut Delivery) {
        if delivery.names_agent() {
            self.agent = delivery.agent.take();
        }
        if delivery.names_model() {
            self.model = delivery.model.take();
        }
    }
}

/// The call in flight; at most one at a time.
pub(super) enum InFlight {
    None,
    /// Reads whether the parent is busy.
    Status,
    /// Reads the parent's agent and model.
    Context,
    /// Sends a message.
    Sending(Box<PendingMessage>),
    /// Looks up a message among the parent's newest messages: its outcome is unknown, or it is not confirmed.
    LookingUp(Box<PendingMessage>),
    /// Waits until an accepted message is stored. No call is in flight.
    Confirming(Box<PendingMessage>),
    /// Reads the answer to a stored message.
    ReadingTurn,
}

impl ParentNotifier {
    pub(super) fn read_context(&mut self, ctx: &mut Context<Self>) {
        self.in_flight = InFlight::Context;
        let (env, addr, parent) = (self.env.clone(), ctx.address(), self.parent.clone());
        let directory = self.directory.clone();
        let repeats = self
            .closed
            .front()
            .is_some_and(|next| next.retry_of.is_some());
        let needs_default = repeats || self.left_out.model.is_some();
        let now = self.env.now();
        spawn_call(
            &self.env,
            "notifier: parent is read",
            async move {
                let limit = env.config.calls.other;
                let messages = within(limit, env.server.messages(&parent, Some(50))).await;
                let default_model = match directory.filter(|_| needs_default) {
                    Some(directory) => within(limit, env.server.default_model(&directory))
                        .await
                        .unwrap_or_default(),
                    None => None,
                };
                // Read last: the record must be as new as possible when the message is sent.
                let reverted = match env.config.notifications.revert_check {
                    Some(_) => Some(read_reverted(&env, &parent).await),
                    None => None,
                };
                ContextRead {
                    messages,
                    reverted,
                    default_model,
                    at: env.now(),
                }
            },
            move |panic| ContextRead {
                messages: Err(panic_error(panic.clone())),
                reverted: Some(Err(panic_error(panic))),
                default_model: None,
                at: now,
            },
            move |read| addr.do_send(read),
        );
    }

    /// Takes the message to send now: the oldest final of a closed batch, else the message that the batch has now.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<PendingMessage> {
        if let Some(pending) = self.closed.pop_front() {
            return Some(pending);
        }
        let debounce = self.env.config.notifications.debounce;
        match self.batch.due(debounce) {
            Due::Final { since } => {
                let pending = self.close_batch(since);
                Some(pending)
            }
            Due::Individual { at, since, .. } if at <= now => {
                let individual = self.batch.take_individual(std::mem::take(&mut self.held))?;
                let facts = Arc::new(NoticeFacts {
                    kind: NoticeKind::Individual,
                    tasks: individual
                        .reports
                        .iter()
                        .map(|report| report.fact.clone())
                        .collect(),
                    remaining: individual.remaining,
                });
                let reports = individual.reports.as_slice().into();
                let id = self.next_id();
                Some(PendingMessage {
                    id,
                    facts,
                    reports,
                    since,
                    form: Form::Whole,
                    individual: Some(individual),
                    sent_silently: false,
                    retry_of: None,
                    delivery: Delivery::default(),
                })
            }
            _ => None,
        }
    }

    /// Closes the batch and returns its final message, whose text is fixed from here on. A task that joins later opens a new
    /// batch.
    pub(super) fn close_batch(&mut self, since: Timestamp) -> PendingMessage {
        let tasks: Vec<TaskId> = self.batch.tasks().cloned().collect();
        let reports = self.batch.close();
        let facts = Arc::new(NoticeFacts {
            kind: NoticeKind::Final,
            tasks: reports.iter().map(|report| report.fact.clone()).collect(),
            remaining: 0,
        });
        let id = self.next_id();
        let pending = PendingMessage {
            id,
            facts,
            reports: reports.into(),
            since,
            form: Form::Whole,
            individual: None,
            sent_silently: false,
            retry_of: None,
            delivery: Delivery::default(),
        };
        self.env.append(vec![JournalEntry::Closed {
            parent: self.parent.clone(),
            message: Box::new(self.message(&pending, DeliveryStatus::Pending)),
            tasks: tasks.clone(),
        }]);
        self.registry.send(BatchClosed {
            parent: self.parent.clone(),
            tasks,
        });
        pending
    }

    pub(super) fn send(
        &mut self,
        mut pending: PendingMessage,
        read: ContextRead,
        ctx: &mut Context<Self>,
    ) {
        let messages = read.messages.as_deref().unwrap_or_default();
        let (mut agent, mut model) = parent_identity(messages, &pending.reports);
        let repeats = pending.retry_of.is_some();
        if repeats || agent == self.left_out.agent {
            agent = None;
        }
        // The session's own model applies to a message without one.
        if repeats || (model.is_some() && model == self.left_out.model) {
            model = read.default_model;
        }
        let wakes = match &pending.individual {
            Some(individual) => individual.wakes,
            None => true,
        };
        let silent = !wakes || self.session.is_silent();
        pending.sent_silently = silent;
        pending.delivery = Delivery {
            attempted: true,
            agent: agent.clone(),
            model: model.clone(),
            ..Delivery::default()
        };
        let notice = Notice {
            id: pending.id.clone(),
            text: render(&pending.facts, pending.form),
            silent,
            agent,
            model,
            retry_of: pending.retry_of.clone(),
            facts: Arc::clone(&pending.facts),
        };
        self.session.message_sent();
        // Recorded before it is sent: after a crash the message may have arrived.
        self.env.append(vec![JournalEntry::Sending {
            parent: self.parent.clone(),
            message: Box::new(self.message(&pending, DeliveryStatus::Sending)),
        }]);
        let call = self.env.calls_in_flight.begin(call_id(&pending.id));
        let (durable, open) = (self.env.durable(), Arc::clone(&self.open));
        let read_at = read.at;
        self.in_flight = InFlight::Sending(Box::new(pending));
        let (env, addr, parent) = (self.env.clone(), ctx.address(), self.parent.clone());
        spawn_call(
            &self.env,
            "notifier: message is answered",
            async move {
                let _call = call;
                durable.await;
                if !open.load(Ordering::Acquire) {
                    return Err(ServerError::Unreachable(
                        "the notifier was stopped".to_owned(),
                    ));
                }
                if env.config.notifications.revert_check.is_some()
                    && env.now().since(read_at) > RECORD_VALIDITY
                    && read_reverted(&env, &parent).await?
                {
                    return Err(ServerError::Unreachable(
                        "the session is reverted".to_owned(),
                    ));
                }
                within(env.config.calls.notify, env.server.notify(&parent, notice)).await
            },
            |panic| Err(panic_error(panic)),
            move |answer| addr.do_send(Answered(answer)),
        );
    }

    pub(super) fn accepted(&mut self, pending: PendingMessage) {
        self.backoff.reset();
        // A repeated message names neither agent nor model, so that its acceptance proves nothing about them.
        if pending.retry_of.is_none() {
            self.left_out = LeftOut::default();
        }
        self.env.health.notice_delivered();
        let watched = !pending.sent_silently && self.watches_turns();
        let delivered = self.delivery(&pending, DeliveryStatus::Delivered, watched);
        let mut entries = Vec::with_capacity(2);
        if !pending.sent_silently {
            self.session.wake_sent();
            self.registry.send(WakeAccepted {
                parent: self.parent.clone(),
            });
            entries.extend(self.take_watch());
        }
        entries.push(delivered);
        self.env.append(entries);
        if watched {
            self.watch_turn(pending);
        }
    }

    pub(super) fn refused(&mut self, mut pending: PendingMessage, failure: &ServerError) {
        tracing::warn!(parent = %self.parent, notice = %pending.id, %failure, "message to a parent was not accepted");
        let now = self.env.now();
        let gone = matches!(failure, ServerError::NotFound(_));
        if gone
            || now.since(self.held_since(pending.since)) >= self.env.config.notifications.give_up
        {
            return self.dropped(&pending, &failure.to_string());
        }
        if let Some(individual) = pending.individual.take() {
            let returned = JournalEntry::Returned(self.parent.clone(), pending.id.clone());
            self.env.append(vec![returned]);
            let wakes = individual.wakes;
            self.batch.individual_refused(individual);
            if wakes {
                self.backoff.failed(retry_cause(failure), now);
            }
            return;
        }
        self.record_delivery(&pending, DeliveryStatus::Pending);
        if let ServerError::Refused {
            status: Some(400 | 413 | 422),
            ..
        } = failure
            && pending.form == Form::Whole
        {
            pending.form = Form::Shortest;
            self.closed.push_front(pending);
            return;
        }
        self.backoff.failed(retry_cause(failure), now);
        self.closed.push_front(pending);
    }

    /// Drops every pending message, with that reason. A later answer has no effect.
    pub(super) fn drop_pending(&mut self, why: &str) {
        let mut pending: Vec<PendingMessage> = self.closed.drain(..).collect();
        if let InFlight::Sending(sent) | InFlight::LookingUp(sent) | InFlight::Confirming(sent) =
            std::mem::replace(&mut self.in_flight, InFlight::None)
        {
            pending.push(*sent);
        }
        if self.batch.has_pending() {
            pending.push(self.close_batch(self.env.now()));
        }
        for pending in pending {
            self.dropped(&pending, why);
        }
    }

    pub(super) fn message(
        &self,
        pending: &PendingMessage,
        status: DeliveryStatus,
    ) -> OutboxMessage {
        OutboxMessage {
            id: pending.id.clone(),
            facts: Arc::clone(&pending.facts),
            reports: Arc::clone(&pending.reports),
            retry_of: pending.retry_of.clone(),
            since: pending.since,
            status,
            turn_error: None,
            turn_is_watched: false,
            at: self.env.now(),
        }
    }

    fn record_delivery(&self, pending: &PendingMessage, status: DeliveryStatus) {
        self.env.append(vec![self.delivery(pending, status, false)]);
    }

    fn delivery(
        &self,
        pending: &PendingMessage,
        status: DeliveryStatus,
        watched: bool,
    ) -> JournalEntry {
        JournalEntry::Delivery {
            parent: self.parent.clone(),
            id: pending.id.clone(),
            status,
            watched,
            at: self.env.now(),
        }
    }

    fn dropped(&self, pending: &PendingMessage, why: &str) {
        tracing::warn!(parent = %self.parent, notice = %pending.id, why, "message to a parent was dropped");
        self.env.health.notice_dropped();
        self.record_delivery(pending, DeliveryStatus::Dropped(why.to_owned()));
    }

    pub(super) fn next_id(&mut self) -> NoticeId {
        self.sent_count += 1;
        NoticeId::new(format!(
            "ntc_{:016x}{:04x}",
            self.salt,
            self.sent_count & 0xffff
        ))
    }

    /// Looks up a message with unknown outcome among the parent's newest messages, after the delay `first`.
    pub(super) fn look_up(
        &mut self,
        mut pending: Box<PendingMessage>,
        first: Duration,
        ctx: &mut Context<Self>,
    ) {
        let (env, addr, parent, id) = (
            self.env.clone(),
            ctx.address(),
            self.parent.clone(),
            pending.id.clone(),
        );
        pending.delivery.read_is_outdated = false;
        let looked_up = id.clone();
        // A new notification: an earlier restoration of the link must not wake this lookup.
        self.link_restored = Arc::default();
        let link_restored = Arc::clone(&self.link_restored);
        self.in_flight = InFlight::LookingUp(pending);
        let notifier = addr.clone();
        spawn_call(
            &self.env,
            "notifier: message is looked for",
            async move {
                if !first.is_zero() {
                    tokio::time::sleep(first).await;
                }
                // The call of an earlier notifier may still be in flight.
                let limit = env.config.calls.notify;
                env.calls_in_flight.finished(&call_id(&id), limit).await;
                let mut wait = Duration::from_secs(1);
                // The message is not sent again before its outcome is known, since it might arrive twice.
                loop {
                    let look = |messages: &[TranscriptMessage]| {
                        find_notice(messages, &id).map(|_| is_answered(messages, &id))
                    };
                    match find_message(&env, &parent, 50, look).await {
                        Ok(found) => return Ok(found),
                        Err(gone @ ServerError::NotFound(_)) => return Err(gone),
                        Err(failure) if !notifier.connected() => return Err(failure),
                        Err(_) => {}
                    }
                    // A link restored during the lookup wakes too: it may have been restored after the call failed.
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = link_restored.notified() => {}
                    }
                    wait = wait.saturating_mul(2).min(Duration::from_secs(60));
                }
            },
            |panic| Err(panic_error(panic)),
            move |found| {
                addr.do_send(LookedUp {
                    id: looked_up,
                    found,
                });
            },
        );
    }
}

/// Returns whether the session is reverted. A session that does not exist is not: the server refuses the message.
async fn read_reverted(env: &Env, parent: &SessionId) -> Result<bool, ServerError> {
    match within(env.config.calls.other, env.server.session(parent)).await {
        Ok(record) => Ok(record.reverted),
        Err(ServerError::NotFound(_)) => Ok(false),
        Err(failure) => Err(failure),
    }
}

impl ParentNotifier {
    /// Begins to wait until an accepted message is stored.
    fn confirm(&mut self, mut pending: Box<PendingMessage>, ctx: &mut Context<Self>) {
        let limit = self.env.config.notifications.confirm_stored;
        let Some(limit) = limit.filter(|_| !pending.delivery.stored) else {
            return self.accepted(*pending);
        };
        let now = self.env.now();
        pending.delivery.confirmation = Some(Confirmation {
            read_at: now + FIRST_READ.min(limit),
            until: now + limit,
        });
        if pending.delivery.error.is_some() || self.stopped {
            return self.look_up(pending, Duration::ZERO, ctx);
        }
        self.in_flight = InFlight::Confirming(pending);
    }

    /// Returns the time of the next read for the message that waits to be stored.
    pub(super) fn confirmation_read_at(&self) -> Option<Timestamp> {
        match &self.in_flight {
            InFlight::Confirming(pending) => {
                let confirmation = pending.delivery.confirmation.as_ref();
                confirmation.map(|confirmation| confirmation.read_at)
            }
            _ => None,
        }
    }

    /// Looks up the message that waits to be stored.
    pub(super) fn read_confirmation(&mut self, ctx: &mut Context<Self>) {
        match std::mem::replace(&mut self.in_flight, InFlight::None) {
            InFlight::Confirming(pending) => self.look_up(pending, Duration::ZERO, ctx),
            other => self.in_flight = other,
        }
    }

    /// Decides on an accepted message that is missing in the parent's history.
    fn missing(&mut self, mut pending: Box<PendingMessage>, ctx: &mut Context<Self>) {
        let now = self.env.now();
        let delivery = &mut pending.delivery;
        if delivery.read_is_outdated {
            return self.look_up(pending, Duration::ZERO, ctx);
        }
        // A message is stored under an unknown model too: an error that names the model may belong to another turn.
        let names_cause = delivery.names_agent();
        // Another error may belong to an earlier turn of the parent.
        if let Some(confirmation) = &mut delivery.confirmation
            && !names_cause
            && now < confirmation.until
            && !self.stopped
        {
            confirmation.read_at = confirmation.until;
            self.in_flight = InFlight::Confirming(pending);
            return;
        }
        self.left_out.add_cause(delivery);
        let reason = match delivery.error.take() {
            Some(error) => format!("the message was not stored: {error}"),
            None => "the message did not arrive".to_owned(),
        };
        self.refused(*pending, &ServerError::OutcomeUnknown(reason));
    }

    /// Processes an event of the parent's session for the message in flight.
    pub(super) fn observe_delivery(&mut self, kind: &SessionEventKind, ctx: &mut Context<Self>) {
        match kind {
            SessionEventKind::Part { message, part } => {
                if let Some(id) = part.notice_id() {
                    self.observe_stored(id, message.as_ref());
                }
            }
            SessionEventKind::Error {
                aborted: false,
                text,
            } => self.observe_error(text, ctx),
            _ => {}
        }
    }

    fn observe_stored(&mut self, id: &str, message: Option<&MessageId>) {
        match std::mem::replace(&mut self.in_flight, InFlight::None) {
            InFlight::Sending(mut pending) if pending.id.as_str() == id => {
                pending.delivery.stored = true;
                pending.delivery.message = message.cloned();
                self.in_flight = InFlight::Sending(pending);
            }
            InFlight::Confirming(mut pending) | InFlight::LookingUp(mut pending)
                if pending.id.as_str() == id =>
            {
                pending.delivery.message = message.cloned();
                self.accepted(*pending);
            }
            other => self.in_flight = other,
        }
        // A message that waits to be sent again was stored late.
        let late =
            |pending: &PendingMessage| pending.delivery.attempted && pending.id.as_str() == id;
        if let Some(position) = self.closed.iter().position(late)
            && let Some(mut pending) = self.closed.remove(position)
        {
            pending.delivery.message = message.cloned();
            self.accepted(pending);
        }
    }

    fn observe_error(&mut self, text: &str, ctx: &mut Context<Self>) {
        let (InFlight::Sending(pending)
        | InFlight::LookingUp(pending)
        | InFlight::Confirming(pending)) = &mut self.in_flight
        else {
            return self.observe_late_error(text);
        };
        pending.delivery.add_error(text);
        pending.delivery.read_is_outdated = true;
        self.read_confirmation(ctx);
    }

    /// Processes an error while a message waits to be sent again: its cause is left out then.
    fn observe_late_error(&mut self, text: &str) {
        let attempted = |pending: &&mut PendingMessage| pending.delivery.attempted;
        let Some(pending) = self.closed.iter_mut().find(attempted) else {
            return;
        };
        pending.delivery.add_error(text);
        self.left_out.add_cause(&mut pending.delivery);
    }
}

impl Handler<ContextRead> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, read: ContextRead, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: ContextRead");
        self.in_flight = InFlight::None;
        let now = self.env.now();
        match &read.reverted {
            Some(Ok(reverted)) => self.set_reverted(*reverted),
            // No message is sent before the record shows that the parent is not reverted.
            Some(Err(failure)) => {
                tracing::warn!(parent = %self.parent, %failure, "record of a parent could not be read");
                self.backoff.failed(RetryCause::Unreachable, now);
            }
            None => {}
        }
        let may_send = !self.session.is_held() && !matches!(read.reverted, Some(Err(_)));
        // A message that was sent before may have been stored late. It is not read again if the record could not be read.
        let messages = read.messages.as_deref().unwrap_or_default();
        let is_stored = |next: &mut PendingMessage| {
            next.delivery.attempted && find_notice(messages, &next.id).is_some()
        };
        if let Some(stored) = self.closed.pop_front_if(is_stored) {
            self.accepted(stored);
        } else if !self.stopped
            && may_send
            && let Some(pending) = self.take(now)
        {
            let continues = pending.facts.kind == NoticeKind::Continue;
            match &read.messages {
                _ if continues && self.session.is_silent() => {
                    self.dropped(
                        &pending,
                        "its user has stopped the parent, or its task has ended",
                    );
                }
                Ok(messages) if continues && prompted_since(messages) => {
                    self.dropped(&pending, "the user has prompted the parent");
                }
                // Only the history shows whether the user has prompted the parent.
                Err(failure) if continues => self.refused(pending, failure),
                _ => self.send(pending, read, ctx),
            }
        }
        self.step(ctx);
    }
}

impl Handler<Answered> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, answered: Answered, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: Answered");
        let InFlight::Sending(pending) = std::mem::replace(&mut self.in_flight, InFlight::None)
        else {
            return;
        };
        match answered.0 {
            Ok(()) => self.confirm(pending, ctx),
            Err(failure) if failure.outcome_is_unknown() => {
                self.look_up(pending, Duration::ZERO, ctx)
            }
            Err(failure) => self.refused(*pending, &failure),
        }
        self.step(ctx);
    }
}

impl Handler<LookedUp> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, looked: LookedUp, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: LookedUp");
        let pending = match std::mem::replace(&mut self.in_flight, InFlight::None) {
            InFlight::LookingUp(pending) if pending.id == looked.id => pending,
            // An event has proven meanwhile that the message is stored.
            other => {
                self.in_flight = other;
                return;
            }
        };
        match looked.found {
            Ok(Some(answered)) => {
                self.accepted(*pending);
                if answered {
                    self.end_watch();
                }
            }
            Ok(None) => self.missing(pending, ctx),
            Err(failure) if failure.outcome_is_unknown() => {
                self.look_up(pending, Duration::from_secs(1), ctx);
            }
            Err(failure) => self.refused(*pending, &failure),
        }
        self.step(ctx);
    }
}

impl Handler<ParentInstanceEnded> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, ended: ParentInstanceEnded, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: InstanceEnded");
        let is_other = |directory: &Arc<str>| {
            let own = self.directory.as_ref();
            own.is_some_and(|own| own != directory)
        };
        if ended.0.as_ref().is_some_and(is_other) {
            return;
        }
        self.turn_interrupted();
        if self.turn.is_some() {
            self.step(ctx);
        }
    }
}

impl Handler<LinkRestored> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, _: LinkRestored, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: WayOpened");
        self.link_restored.notify_one();
        self.turn_interrupted();
        if self.backoff.link_restored() || self.turn.is_some() {
            self.step(ctx);
        }
    }
}
