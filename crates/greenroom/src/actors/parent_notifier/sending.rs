//! The delivery of messages to the parent: a message is composed just before it is sent, kept until it is accepted, looked up
//! if its outcome is unknown, and sent again with backoff.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler};

use super::ParentNotifier;
use super::messages::{Answered, ContextRead, LinkRestored, LookedUp};
use crate::actors::env::{find_message, panic_error, spawn_call, within};
use crate::actors::registry::{BatchClosed, WakeAccepted};
use crate::actors::runtime_state::CallId;
use crate::domain::batch::{CompletionReport, Due, Individual};
use crate::domain::ids::{NoticeId, TaskId};
use crate::domain::notice::{NoticeFacts, NoticeKind};
use crate::domain::notification::{Form, parent_identity, render};
use crate::domain::outbox::{DeliveryStatus, OutboxMessage};
use crate::domain::retry_backoff::RetryCause;
use crate::domain::time::Timestamp;
use crate::domain::transcript::Message as TranscriptMessage;
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
    /// Looks up a message with unknown outcome among the parent's newest messages.
    LookingUp(Box<PendingMessage>),
}

impl ParentNotifier {
    pub(super) fn read_context(&mut self, ctx: &mut Context<Self>) {
        self.in_flight = InFlight::Context;
        let (env, addr, parent) = (self.env.clone(), ctx.address(), self.parent.clone());
        spawn_call(
            &self.env,
            "notifier: parent is read",
            async move {
                let call = env.server.messages(&parent, Some(50));
                within(env.config.calls.other, call)
                    .await
                    .unwrap_or_default()
            },
            |_| Vec::new(),
            move |messages| addr.do_send(ContextRead(messages)),
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
        messages: &[TranscriptMessage],
        ctx: &mut Context<Self>,
    ) {
        let (agent, model) = parent_identity(messages, &pending.reports);
        let wakes = match &pending.individual {
            Some(individual) => individual.wakes,
            None => true,
        };
        let silent = !wakes || self.session.is_silent();
        pending.sent_silently = silent;
        let notice = Notice {
            id: pending.id.clone(),
            text: render(&pending.facts, pending.form),
            silent,
            agent,
            model,
            retry_of: None,
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
                within(env.config.calls.notify, env.server.notify(&parent, notice)).await
            },
            |panic| Err(panic_error(panic)),
            move |answer| addr.do_send(Answered(answer)),
        );
    }

    pub(super) fn accepted(&mut self, pending: &PendingMessage) {
        self.backoff.reset();
        self.env.health.notice_delivered();
        self.record_delivery(pending, DeliveryStatus::Delivered);
        if !pending.sent_silently {
            self.session.wake_sent();
            self.registry.send(WakeAccepted {
                parent: self.parent.clone(),
            });
        }
    }

    pub(super) fn refused(&mut self, mut pending: PendingMessage, failure: &ServerError) {
        tracing::warn!(parent = %self.parent, notice = %pending.id, %failure, "message to a parent was not accepted");
        let now = self.env.now();
        let gone = matches!(failure, ServerError::NotFound(_));
        if gone || now.since(pending.since) >= self.env.config.notifications.give_up {
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
        if let InFlight::Sending(sent) | InFlight::LookingUp(sent) =
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

    fn message(&self, pending: &PendingMessage, status: DeliveryStatus) -> OutboxMessage {
        OutboxMessage {
            id: pending.id.clone(),
            facts: Arc::clone(&pending.facts),
            reports: Arc::clone(&pending.reports),
            since: pending.since,
            status,
            at: self.env.now(),
        }
    }

    fn record_delivery(&self, pending: &PendingMessage, status: DeliveryStatus) {
        self.env.append(vec![JournalEntry::Delivery {
            parent: self.parent.clone(),
            id: pending.id.clone(),
            status,
            at: self.env.now(),
        }]);
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
        pending: Box<PendingMessage>,
        first: Duration,
        ctx: &mut Context<Self>,
    ) {
        let (env, addr, parent, id) = (
            self.env.clone(),
            ctx.address(),
            self.parent.clone(),
            pending.id.clone(),
        );
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
                    let look =
                        |messages: &[TranscriptMessage]| find_notice(messages, &id).map(|_| ());
                    match find_message(&env, &parent, 50, look).await {
                        Ok(found) => return Ok(found.is_some()),
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
            move |found| addr.do_send(LookedUp(found)),
        );
    }
}

impl Handler<ContextRead> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, read: ContextRead, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: ContextRead");
        self.in_flight = InFlight::None;
        let now = self.env.now();
        if !self.stopped
            && let Some(pending) = self.take(now)
        {
            self.send(pending, &read.0, ctx);
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
            Ok(()) => self.accepted(&pending),
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
        let InFlight::LookingUp(pending) = std::mem::replace(&mut self.in_flight, InFlight::None)
        else {
            return;
        };
        match looked.0 {
            Ok(true) => self.accepted(&pending),
            Ok(false) => self.refused(
                *pending,
                &ServerError::OutcomeUnknown("the message did not arrive".to_owned()),
            ),
            Err(failure) if failure.outcome_is_unknown() => {
                self.look_up(pending, Duration::from_secs(1), ctx);
            }
            Err(failure) => self.refused(*pending, &failure),
        }
        self.step(ctx);
    }
}

impl Handler<LinkRestored> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, _: LinkRestored, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: WayOpened");
        self.link_restored.notify_one();
        if self.backoff.link_restored() {
            self.step(ctx);
        }
    }
}
