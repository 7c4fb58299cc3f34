//! How a notifier begins where another stopped, or hears from a registry that has been rebuilt: the journal says who is in
//! the batch, what they are owed, and which message may be on its way.

use std::time::Duration;

use actix::{Context, Handler};

use super::sending::Owed;
use super::{ParentNotifier, Reconcile};
use crate::domain::batch::{Note, Told};
use crate::domain::ids::TaskId;
use crate::domain::ledger::{Account, Fate, Member, Posted};
use crate::domain::notice::NoticeKind;
use crate::domain::notification::Form;

impl ParentNotifier {
    /// Takes over what a notifier before this one has left.
    pub(super) fn restore(&mut self, account: Account, ctx: &mut Context<Self>) {
        let now = self.env.now();
        self.directory = account.directory.clone();
        if account.silenced {
            self.session.set_silenced(now);
        }
        for member in account.members() {
            self.batch.join(member.task.clone());
        }
        // Who was told of first, so that no message counts them among those still open.
        for noted in [true, false] {
            for member in account.members().filter(|member| member.noted == noted) {
                self.settle_member(member);
            }
        }
        for posted in account.posted {
            match posted.fate {
                Fate::Owed => {
                    let owed = self.owed_again(posted);
                    self.closed.push_back(owed);
                }
                // Never more than one is under way.
                Fate::Sending => {
                    let owed = Box::new(self.owed_again(posted));
                    self.look_up(owed, Duration::ZERO, ctx);
                }
                Fate::Delivered | Fate::Dropped(_) => {}
            }
        }
    }

    fn settle_member(&mut self, member: &Member) {
        let now = self.env.now();
        let Some(told) = member.settled.as_deref().cloned() else {
            return;
        };
        if member.noted {
            self.batch.settle_noted(told, now);
        } else {
            let wakes = self.wakes(&told);
            self.batch.settle(told, wakes, true, now);
        }
    }

    fn wakes(&self, told: &Told) -> bool {
        self.env.config.notifications.wake_on_failure && told.fact.status.is_failure()
    }

    fn owed_again(&self, posted: Posted) -> Owed {
        let wakes = posted.told.iter().any(|told| self.wakes(told));
        let note = (posted.facts.kind == NoticeKind::Individual).then(|| {
            let told = posted.told.to_vec();
            Note::under_way(told, posted.facts.remaining, wakes, posted.since)
        });
        // What was sent to a silent session woke nobody; if that is not known any more, the parent counts as woken.
        Owed {
            sent_silently: note.is_some() && !wakes,
            id: posted.id,
            facts: posted.facts,
            told: posted.told,
            since: posted.since,
            form: Form::Whole,
            note,
        }
    }
}

impl Handler<Reconcile> for ParentNotifier {
    type Result = ();

    fn handle(&mut self, reconcile: Reconcile, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("notifier: Reconcile");
        let now = self.env.now();
        let account = reconcile.account;
        let strangers: Vec<TaskId> = self
            .batch
            .tasks()
            .filter(|task| !account.has(task))
            .cloned()
            .collect();
        for task in strangers {
            self.batch.leave(&task, now);
        }
        // Between the registry's look and this one the batch may have been closed: who is in that final is not told again.
        let current = self.env.journal.account(&self.parent).unwrap_or_default();
        let still = |member: &&Member| current.has_run(&member.task, member.run);
        for member in account.members().filter(still) {
            match (self.batch.has_settled(&member.task), &member.settled) {
                (None, _) | (Some(true), None) => self.batch.join(member.task.clone()),
                _ => {}
            }
            self.settle_member(member);
        }
        self.session.set_ended(reconcile.ended);
        self.debt = reconcile.debt;
        self.told_debts = None;
        self.step(ctx);
    }
}
