//! How a notifier begins where another stopped, or hears from a registry that has been rebuilt: the journal says who is in
//! the batch, what they are owed, and which message may be on its way.

use std::time::Duration;

use actix::{Context, Handler};

use super::sending::PendingMessage;
use super::{ParentNotifier, Reconcile};
use crate::domain::batch::{CompletionReport, Individual};
use crate::domain::ids::TaskId;
use crate::domain::notice::NoticeKind;
use crate::domain::notification::Form;
use crate::domain::outbox::{DeliveryStatus, Member, Outbox, OutboxMessage};

impl ParentNotifier {
    /// Takes over what a notifier before this one has left.
    pub(super) fn restore(&mut self, outbox: Outbox, ctx: &mut Context<Self>) {
        let now = self.env.now();
        self.directory = outbox.directory.clone();
        if outbox.silenced {
            self.session.set_silenced(now);
        }
        for member in outbox.members() {
            self.batch.join(member.task.clone());
        }
        // Who was told of first, so that no message counts them among those still open.
        for reported in [true, false] {
            for member in outbox
                .members()
                .filter(|member| member.reported == reported)
            {
                self.settle_member(member);
            }
        }
        for message in outbox.messages {
            match message.status {
                DeliveryStatus::Pending => {
                    let pending = self.recovered_message(message);
                    self.closed.push_back(pending);
                }
                // Never more than one is under way.
                DeliveryStatus::Sending => {
                    let pending = Box::new(self.recovered_message(message));
                    self.look_up(pending, Duration::ZERO, ctx);
                }
                DeliveryStatus::Delivered | DeliveryStatus::Dropped(_) => {}
            }
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
        // What was sent to a silent session woke nobody; if that is not known any more, the parent counts as woken.
        PendingMessage {
            sent_silently: individual.is_some() && !wakes,
            id: message.id,
            facts: message.facts,
            reports: message.reports,
            since: message.since,
            form: Form::Whole,
            individual,
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
        // Between the registry's look and this one the batch may have been closed: who is in that final is not told again.
        let current = self.env.journal.outbox(&self.parent).unwrap_or_default();
        let still = |member: &&Member| current.has_run(&member.task, member.run);
        for member in outbox.members().filter(still) {
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
