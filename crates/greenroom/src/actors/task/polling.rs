//! Polled statuses of the session, and the poll interest of the run, which is sent to the poller.

use actix::{Context, Handler};

use super::{Phase, StatusPolled, TaskActor};
use crate::actors::poller::SetPollInterest;
use crate::domain::time::Timestamp;
use crate::domain::watch::PollInterest;

impl TaskActor {
    /// Sends the poll interest at once if the run needs every polled status again.
    pub(super) fn update_poll_interest(&mut self, now: Timestamp) {
        if let Phase::Watching(watch) = &self.phase
            && let Some((number, interest)) = self.poll_subscription.after_change(watch, now)
        {
            self.send_poll_interest(number, interest);
        }
    }

    fn send_poll_interest(&self, number: u64, interest: PollInterest) {
        self.poller.send(SetPollInterest {
            task: self.task.id.clone(),
            number,
            interest,
        });
    }
}

impl Handler<StatusPolled> for TaskActor {
    type Result = ();

    fn handle(&mut self, observed: StatusPolled, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: Observed");
        let StatusPolled {
            run,
            number,
            status,
            polled_at,
            context,
        } = observed;
        if run != self.run {
            return;
        }
        if let Some(until) = self.poll_subscription.was_busy(number, context, polled_at) {
            self.watch(|watch| watch.was_busy(until));
        }
        self.watched(|watch, now| watch.observed(&status, polled_at, now), ctx);
        let now = self.env.now();
        if let Phase::Watching(watch) = &self.phase
            && let Some(interest) = self
                .poll_subscription
                .after_poll(watch, number, context, now)
        {
            self.send_poll_interest(number, interest);
        }
    }
}
