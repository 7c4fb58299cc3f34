//! What polls see of the session, and how much of it the run needs to be told: it says so to the poller, by message.

use actix::{Context, Handler};

use super::{Observed, Phase, TaskActor};
use crate::actors::poller::Attends;
use crate::domain::time::Timestamp;
use crate::domain::watch::{Attention, Told};

impl TaskActor {
    /// The poller is told at once where the run needs to hear of every poll again.
    pub(super) fn hear_everything_if_unsure(&mut self, now: Timestamp) {
        if let Phase::Watching(watch) = &self.phase
            && let attention @ Attention::Everything { .. } = watch.attention(now)
            && let Some(number) = self.hears_changes.take()
        {
            self.say_attention(number, attention);
        }
    }

    /// The poller is told where all it has to say for now is what changes. It forgets that when it dies.
    fn hear_changes_if_sure(&mut self, number: u64, told: Told) {
        let now = self.env.now();
        if let Phase::Watching(watch) = &self.phase
            && let attention @ Attention::Changes { until } = watch.attention(now)
            && until >= now
            && told.hears_changes_until.is_none_or(|until| until < now)
        {
            self.hears_changes = Some(number);
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
        self.env.places.pass("task: Observed");
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
        // A poller that does not know any more that it need not tell everything has forgotten when it was busy last, too.
        let forgotten = self.hears_changes.is_some() && told.hears_changes_until.is_none();
        if let Some(until) = told.busy_until.or(forgotten.then_some(asked_at)) {
            self.watch(|watch| watch.was_busy(until));
        }
        self.watched(|watch, now| watch.observed(&sighting, asked_at, now), ctx);
        self.hear_changes_if_sure(number, told);
    }
}
