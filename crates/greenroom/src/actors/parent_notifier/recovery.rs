//! The recovery of a notifier: from the journal's outbox when it starts, and from the outbox that a restarted registry sends.
//! The outbox has the members of the batch, the pending messages, and the message that may be in flight.

use std::time::Duration;

use actix::{Context, Handler};

use super::sending::{Delivery, PendingMessage};
use super::{ParentNotifier, Reconcile};
use crate::domain::batch::{CompletionReport, Individual};
use crate::domain::ids::TaskId;
use crate::domain::notice::NoticeKind;
use crate::domain::notification::Form;
use crate::domain::outbox::{DeliveryStatus, Member, Outbox, OutboxMessage};
use crate::domain::time::Timestamp;

impl ParentNotifier {
    /// Restores the state of the notifier before this one.
    pub(super) fn restore(&mut self, outbox: Outbox, ctx: &mut Context<Self>) {
        let now = self.env.now();
        self.directory = outbox.directory.clone();
        if outbox.silenced {
            self.session.set_silenced(now);
        }
        for member in outbox.members() {
            self.batch.join(member.task.clone());
        }
        // Reported members settle first, so that no message counts them as open.
        let reported = outbox.members().filter(|member| member.reported);
        let unreported = outbox.members().filter(|member| !member.reported);
        for member in reported.chain(unreported) {
            self.settle_member(member);
        }
        for message in outbox.messages {
            match message.status {
                DeliveryStatus::Pending => {
                    let pending = self.recovered_message(message);
                    self.closed.push_back(pending);
                }
                // At most one message is in flight.
                DeliveryStatus::Sending => {
                    let pending = Box::new(self.recovered_message(message));
                    self.look_up(pending, Duration::ZERO, ctx);
                }
                DeliveryStatus::Delivered if message.turn_is_watched => {
                    self.restore_watch(message, now);
                }
                DeliveryStatus::Delivered | DeliveryStatus::Dropped(_) => {}
            }
        }
    }

    /// Watches the turn of a delivered message again. It may have been cut off meanwhile.
    fn restore_watch(&mut self, message: OutboxMessage, now: Timestamp) {
        // No server may have been reached since the message was stored.
        let is_recent = now.since(message.at) < self.env.config.lifecycle.retention;
        if is_recent && self.watches_turns() {
            let pending = self.recovered_message(message);
            self.watch_turn(pending);
            self.turn_interrupted();
        } else {
            // The parent may be the session of a task by now.
            self.env.append(vec![self.unwatched(message.id)]);
        }
    }

    fn settle_member(&mut self, member: &Member) {
        let now = self.env.now();
        let Some(report) = member.settled.as_deref().cloned() else {
            return;
        };
        if member.reported {
            self.batch.settle_reported(report, now);
        } else {
            let wakes = self.wakes(&report);
            self.batch.settle(report, wakes, true, now);
        }
    }

    fn wakes(&self, report: &CompletionReport) -> bool {
        self.env.config.notifications.wake_on_failure && report.fact.status.is_failure()
    }

    fn recovered_message(&self, message: OutboxMessage) -> PendingMessage {
        let wakes = message.reports.iter().any(|report| self.wakes(report));
        let individual = (message.facts.kind == NoticeKind::Individual).then(|| {
            let reports = message.reports.to_vec();
            Individual::in_flight(reports, message.facts.remaining, wakes, message.since)
        });
        // It is not recorded whether the parent was silent: unless the message never wakes, the parent counts as woken.
        PendingMessage {
            sent_silently: individual.is_some() && !wakes,
            id: message.id,
            facts: message.facts,
            reports: message.reports,
            since: message.since,
            form: Form::Whole,
            individual,
            retry_of: message.retry_of,
            delivery: Delivery::recovered(),
        }
    }
}

impl Handler<Reconcile> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, reconcile: Reconcile, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: Reconcile");
        let now = self.env.now();
        let outbox = reconcile.outbox;
        let missing: Vec<TaskId> = self
            .batch
            .tasks()
            .filter(|task| !outbox.has(task))
            .cloned()
            .collect();
        for task in missing {
            self.batch.leave(&task, now);
        }
        // The batch may have been closed since the registry read the outbox: members of that final are not reported again.
        let current = self.env.journal.outbox(&self.parent).unwrap_or_default();
        let is_member = |member: &&Member| current.has_run(&member.task, member.run);
        for member in outbox.members().filter(is_member) {
            match (self.batch.has_settled(&member.task), &member.settled) {
                (None, _) | (Some(true), None) => self.batch.join(member.task.clone()),
                _ => {}
            }
            self.settle_member(member);
        }
        self.session.set_ended(reconcile.ended);
        self.sequence = reconcile.sequence;
        self.reported_pending = None;
        self.step(ctx);
    }
}
