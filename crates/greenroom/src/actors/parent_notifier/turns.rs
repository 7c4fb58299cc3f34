//! The watch over the turn that a stored waking message begins: its answer is read when events suggest that the turn has
//! ended without one. A turn that was cut off is continued, and a message whose turn failed on its agent or model is repeated.

use std::sync::Arc;

use actix::{AsyncContext, Context, Handler};

use super::messages::TurnRead;
use super::sending::{Delivery, InFlight, PendingMessage};
use super::{ParentNotifier, read_busy};
use crate::actors::env::{panic_error, spawn_call, within};
use crate::domain::ids::NoticeId;
use crate::domain::notice::{NoticeFacts, NoticeKind};
use crate::domain::notification::Form;
use crate::domain::outbox::DeliveryStatus;
use crate::domain::session_event::SessionEventKind;
use crate::domain::time::Timestamp;
use crate::domain::wake_turn::{TurnDecision, Wake, WakeTurn};
use crate::ports::agent_server::ServerError;
use crate::ports::journal::JournalEntry;

/// A turn, and the message that began it. Whether one is watched is also recorded in the journal.
pub(super) struct WatchedTurn {
    turn: WakeTurn,
    message: PendingMessage,
}

impl ParentNotifier {
    /// Returns true if the turns of messages are watched. The run of a task is continued by its own actor.
    pub(super) fn watches_turns(&self) -> bool {
        !self.of_task && self.env.config.notifications.confirm_stored.is_some()
    }

    /// Begins to watch the turn of a message that is stored. The journal has the watch already.
    pub(super) fn watch_turn(&mut self, message: PendingMessage) {
        let wake = Wake {
            notice: message.id.clone(),
            kind: message.facts.kind,
            is_repeated: message.retry_of.is_some(),
            agent: message.delivery.agent.clone(),
            model: message.delivery.model.clone(),
            message: message.delivery.message.clone(),
            error: message.delivery.error.clone(),
        };
        let retention = self.env.config.lifecycle.retention;
        let mut turn = WakeTurn::new(wake, retention, self.env.now());
        if message.delivery.is_interrupted {
            turn.interrupted(self.env.now());
        }
        self.turn = Some(Box::new(WatchedTurn { turn, message }));
    }

    /// Ends the watch, if there is one.
    pub(super) fn end_watch(&mut self) {
        if let Some(entry) = self.take_watch() {
            self.env.append(vec![entry]);
        }
    }

    /// Ends the watch, if there is one. Returns the entry to be recorded.
    pub(super) fn take_watch(&mut self) -> Option<JournalEntry> {
        let watched = self.turn.take()?;
        Some(self.unwatched(watched.message.id))
    }

    pub(super) fn unwatched(&self, id: NoticeId) -> JournalEntry {
        JournalEntry::TurnUnwatched(self.parent.clone(), id)
    }

    /// Processes an event of the parent's session for the turn.
    pub(super) fn observe_turn(&mut self, kind: &SessionEventKind, now: Timestamp) {
        if let Some(watched) = &mut self.turn
            && watched.turn.event(kind, now)
        {
            self.end_watch();
        }
    }

    /// Records that the turn may have been cut off: the answer is read soon.
    pub(super) fn turn_interrupted(&mut self) {
        if let Some(watched) = &mut self.turn {
            watched.turn.interrupted(self.env.now());
        }
        // The turn of a message in flight may have begun.
        if let InFlight::Sending(pending)
        | InFlight::LookingUp(pending)
        | InFlight::Confirming(pending) = &mut self.in_flight
        {
            pending.delivery.is_interrupted = true;
        }
    }

    /// Returns when the answer is read next, if it can be read then.
    pub(super) fn turn_read_at(&self) -> Option<Timestamp> {
        let can_read = matches!(self.in_flight, InFlight::None)
            && !self.stopped
            // The judgement of an abort decides first.
            && self.session.unjudged_abort().is_none();
        let watched = self.turn.as_ref().filter(|_| can_read)?;
        watched.turn.read_at()
    }

    /// Ends the watch over a turn that lasts too long. Returns when it ends if that is in the future.
    pub(super) fn end_overdue_watch(&mut self, now: Timestamp) -> Option<Timestamp> {
        let ends_at = self.turn.as_ref()?.turn.ends_at();
        if ends_at > now {
            return Some(ends_at);
        }
        self.end_watch();
        None
    }

    pub(super) fn read_turn(&mut self, ctx: &mut Context<Self>) {
        let Some(watched) = &self.turn else { return };
        let (notice, failed) = (watched.turn.notice().clone(), watched.turn.notice().clone());
        self.in_flight = InFlight::ReadingTurn;
        let (env, addr, parent) = (self.env.clone(), ctx.address(), self.parent.clone());
        let directory = self.directory.clone();
        spawn_call(
            &self.env,
            "notifier: answer is read",
            async move {
                let limit = env.config.calls.other;
                // The status is read first: a turn that ends meanwhile has its answer in the messages.
                let status = read_busy(&env, &parent, directory).await;
                TurnRead {
                    notice,
                    busy: status.busy,
                    messages: within(limit, env.server.messages(&parent, Some(50))).await,
                }
            },
            move |panic| TurnRead {
                notice: failed,
                busy: None,
                messages: Err(panic_error(panic)),
            },
            move |read| addr.do_send(read),
        );
    }

    fn decide_turn(&mut self, read: TurnRead) {
        let now = self.env.now();
        // Another message may have been stored meanwhile.
        let Some(mut watched) =
            (self.turn).take_if(|watched| *watched.turn.notice() == read.notice)
        else {
            return;
        };
        // The judgement of an abort decides first: it may have been received during the read.
        if self.session.unjudged_abort().is_some() {
            watched.turn.read_failed(now);
            self.turn = Some(watched);
            return;
        }
        let id = watched.turn.notice().clone();
        let decision = match (read.busy, read.messages) {
            (_, Err(ServerError::NotFound(_))) => TurnDecision::Done,
            (Some(busy), Ok(messages)) => watched.turn.decide(&messages, busy),
            _ => {
                watched.turn.read_failed(now);
                self.turn = Some(watched);
                return;
            }
        };
        let mut entries = vec![self.unwatched(id.clone())];
        match decision {
            TurnDecision::Wait => {
                watched.turn.goes_on(now);
                self.turn = Some(watched);
                return;
            }
            TurnDecision::NotTakenUp => {
                entries.push(self.turn_failed(id, "no turn followed the message"));
            }
            TurnDecision::Done => {}
            // Its user has stopped the parent, or its task has ended.
            _ if self.session.is_silent() => {}
            TurnDecision::Continue => entries.extend(self.continue_turn(watched.message, now)),
            TurnDecision::Repeat => entries.push(self.repeat(watched.message, now)),
            TurnDecision::Failed(error) => entries.push(self.turn_failed(id, &error)),
        }
        self.env.append(entries);
    }

    fn turn_failed(&self, id: NoticeId, error: &str) -> JournalEntry {
        tracing::warn!(parent = %self.parent, notice = %id, error, "turn of a parent failed after a message");
        JournalEntry::TurnFailed {
            parent: self.parent.clone(),
            id,
            error: error.to_owned(),
            at: self.env.now(),
        }
    }

    /// Prompts the parent to continue, without the text of the message that began the turn.
    fn continue_turn(&mut self, cut_off: PendingMessage, now: Timestamp) -> Option<JournalEntry> {
        // A pending final wakes the parent anyway.
        if !self.closed.is_empty() {
            return None;
        }
        tracing::info!(parent = %self.parent, notice = %cut_off.id, "turn of a parent was cut off, and is continued");
        let facts = NoticeFacts {
            kind: NoticeKind::Continue,
            ..NoticeFacts::clone(&cut_off.facts)
        };
        let next = PendingMessage {
            facts: Arc::new(facts),
            ..self.follow_up(&cut_off, now)
        };
        Some(self.add_pending(next))
    }

    /// Sends the message once more, with the server's default agent and model.
    fn repeat(&mut self, failed: PendingMessage, now: Timestamp) -> JournalEntry {
        tracing::warn!(parent = %self.parent, notice = %failed.id, "agent or model of a parent failed: the message is sent again with the defaults");
        let next = PendingMessage {
            retry_of: Some(failed.id.clone()),
            ..self.follow_up(&failed, now)
        };
        self.add_pending(next)
    }

    fn follow_up(&mut self, message: &PendingMessage, now: Timestamp) -> PendingMessage {
        PendingMessage {
            id: self.next_id(),
            facts: Arc::clone(&message.facts),
            reports: Arc::clone(&message.reports),
            since: now,
            form: Form::Whole,
            individual: None,
            sent_silently: false,
            retry_of: None,
            delivery: Delivery::default(),
        }
    }

    fn add_pending(&mut self, pending: PendingMessage) -> JournalEntry {
        let entry = JournalEntry::Closed {
            parent: self.parent.clone(),
            message: Box::new(self.message(&pending, DeliveryStatus::Pending)),
            tasks: Vec::new(),
        };
        self.closed.push_front(pending);
        entry
    }
}

impl Handler<TurnRead> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, read: TurnRead, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: TurnRead");
        if matches!(self.in_flight, InFlight::ReadingTurn) {
            self.in_flight = InFlight::None;
            self.decide_turn(read);
        }
        self.step(ctx);
    }
}
