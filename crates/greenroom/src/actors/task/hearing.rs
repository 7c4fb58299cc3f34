//! What polls see of the session, and how much of it the run needs to be told: it says so to the poller, by message.

use actix::{Context, Handler};

use super::{Observed, Phase, TaskActor};
use crate::actors::poller::Attends;
use crate::domain::time::Timestamp;
use crate::domain::watch::Attention;

impl TaskActor {
    /// The poller is told at once where the run needs to hear of every poll again.
    pub(super) fn hear_everything_if_unsure(&mut self, now: Timestamp) {
        if let Phase::Watching(watch) = &self.phase
            && let Some((number, attention)) = self.said.if_unsure(watch, now)
        {
            self.say_attention(number, attention);
        }
    }

    fn say_attention(&self, number: u64, attention: Attention) {
        self.poller.send(Attends {
            task: self.task.id.clone(),
            number,
            attention,
        });
    }
}

impl Handler<Observed> for TaskActor {
    type Result = ();

    fn handle(&mut self, observed: Observed, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("task: Observed");
        let Observed {
            run,
            number,
            sighting,
            asked_at,
            told,
        } = observed;
        if run != self.run {
            return;
        }
        if let Some(until) = self.said.was_busy(told, asked_at) {
            self.watch(|watch| watch.was_busy(until));
        }
        self.watched(|watch, now| watch.observed(&sighting, asked_at, now), ctx);
        let now = self.env.now();
        if let Phase::Watching(watch) = &self.phase
            && let Some(attention) = self.said.after_poll(watch, number, told, now)
        {
            self.say_attention(number, attention);
        }
    }
}
