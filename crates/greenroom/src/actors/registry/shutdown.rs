//! Shutdown: nothing new is accepted or started, what runs is ended and its aborts awaited, messages in flight may finish
//! and none is begun. Memory is empty afterwards.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};
use tokio::sync::oneshot;

use super::TaskRegistry;
use crate::actors::parent_notifier::Stop;
use crate::actors::slot_manager::SetOpen;
use crate::actors::task::Detach;
use crate::domain::ids::{SessionId, TaskId};
use crate::domain::lifecycle::End;
use crate::handle::{ShutdownMode, ShutdownReport};

/// How long aborts are awaited.
const ABORTS: Duration = Duration::from_secs(10);
/// How long messages in flight are awaited.
const MESSAGES: Duration = Duration::from_secs(5);

/// Ends everything, in the mode that was set before; the answer comes when it is done.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Shutdown {
    pub(crate) reply: oneshot::Sender<ShutdownReport>,
}

/// A shutdown under way, or done.
#[derive(Default)]
pub(crate) struct Closing {
    replies: Vec<oneshot::Sender<ShutdownReport>>,
    report: ShutdownReport,
    messages: usize,
    /// Tasks keep their states.
    detach: bool,
    done: bool,
}

#[derive(Message)]
#[rtype(result = "()")]
struct MessageDone {
    parent: SessionId,
    has_pending: bool,
}

#[derive(Message)]
#[rtype(result = "()")]
struct MessagesGivenUp;

#[derive(Message)]
#[rtype(result = "()")]
struct AbortsGivenUp;

impl TaskRegistry {
    /// True from the moment a shutdown is asked for, also if the registry that was asked has died since.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some() || self.refs.flags.closing()
    }

    pub(super) fn begin_closing(
        &mut self,
        reply: Option<oneshot::Sender<ShutdownReport>>,
        ctx: &mut Context<Self>,
    ) {
        self.closing = Some(Closing {
            replies: reply.into_iter().collect(),
            detach: self.refs.flags.closing_mode() == Some(ShutdownMode::Detach),
            ..Closing::default()
        });
        self.close(ctx);
    }

    fn close(&mut self, ctx: &mut Context<Self>) {
        self.refs.slots.send(SetOpen(false));
        let registry = self.refs.registry.clone();
        let mut messages = 0;
        for (parent, known) in &self.parents {
            let (done, stopped) = oneshot::channel();
            known.notifier.do_send(Stop { done });
            let (registry, parent) = (registry.clone(), parent.clone());
            messages += 1;
            actix_rt::spawn(async move {
                let has_pending = stopped.await.unwrap_or(true);
                registry.send(MessageDone {
                    parent,
                    has_pending,
                });
            });
        }
        if let Some(closing) = &mut self.closing {
            closing.messages = messages;
        }
        let open: Vec<TaskId> = self
            .by_acceptance
            .values()
            .filter(|id| {
                self.tasks
                    .get(id)
                    .is_some_and(|entry| !entry.task.status().is_terminal())
            })
            .cloned()
            .collect();
        for id in open {
            if self.closing.as_ref().is_some_and(|closing| closing.detach) {
                self.detached(&id, ctx);
                continue;
            }
            // A parent that still waited for this task was not told of its end.
            let untold = self.tasks.get(&id).and_then(|entry| entry.batch.clone());
            if let Some(closing) = &mut self.closing {
                closing.report.cancelled.push(id.clone());
                if let Some(parent) = untold
                    && !closing.report.unnotified.contains(&parent)
                {
                    closing.report.unnotified.push(parent);
                }
            }
            self.request_end(&id, End::cancelled(Some("Shutdown".to_owned())), ctx);
        }
        ctx.notify_later(MessagesGivenUp, MESSAGES);
        ctx.notify_later(AbortsGivenUp, ABORTS);
        // Ends of running tasks come as messages behind this one; only then is it known what is still awaited.
        ctx.notify(AbortsCheck);
    }

    /// The task stays as it is recorded; nothing is begun for it any more, and its session goes on.
    fn detached(&mut self, id: &TaskId, ctx: &mut Context<Self>) {
        self.withdraw(id, false, ctx);
        if let Some(entry) = self.tasks.get_mut(id) {
            entry.granted = None;
            if let Some(actor) = entry.actor.take() {
                actor.do_send(Detach);
            }
        }
        if let Some(closing) = &mut self.closing {
            closing.report.detached.push(id.clone());
        }
    }

    /// Done once every run has ended, every abort is answered and no message is in flight.
    pub(super) fn consider_closed(&mut self, _ctx: &mut Context<Self>) {
        let open = self
            .tasks
            .values()
            .any(|entry| !entry.task.status().is_terminal());
        let Some(closing) = &mut self.closing else {
            return;
        };
        let open = open && !closing.detach;
        if closing.done || open || closing.messages > 0 || !self.refs.aborts.is_empty() {
            return;
        }
        if !self.env.pending_publications.is_empty() {
            // Whoever reads changes is still told of the ends.
            return;
        }
        self.finish();
    }

    fn finish(&mut self) {
        let Some(closing) = &mut self.closing else {
            return;
        };
        closing.done = true;
        // With a journal that is there at the next start nothing is lost: it is owed.
        let untold = &closing.report.unnotified;
        for parent in untold.iter().filter(|_| !self.env.journal.is_persistent()) {
            tracing::warn!(parent = %parent, "not told of the end of its background tasks");
        }
        // Read once: whoever asks later learns of nothing, unless nobody has asked yet.
        if !closing.replies.is_empty() {
            let report = std::mem::take(&mut closing.report);
            for reply in closing.replies.drain(..) {
                // Whoever asked may have gone away.
                let _ = reply.send(report.clone());
            }
        }
        self.env.shut_down.store(true, Ordering::Release);
        self.tasks.clear();
        self.by_acceptance.clear();
        self.by_session.clear();
        self.children.clear();
        self.open_children.clear();
        self.wait_queues.clear();
        self.waiting = 0;
        self.parents.clear();
        self.deadlines.clear();
        self.refs.aborts.clear();
        self.refs.tasks.clear();
        self.refs.notifiers.clear();
        self.timer = None;
        self.refs.poller.clear();
        self.refs.toaster.clear();
        self.refs.slots.clear();
        // Histories stay readable for as long as anybody holds the system: the registry lets go of itself.
        self.refs.registry = Default::default();
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct AbortsCheck;

impl Handler<AbortsCheck> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, _: AbortsCheck, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: Look");
        self.consider_closed(ctx);
    }
}

impl Handler<Shutdown> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, shutdown: Shutdown, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: Shutdown");
        match &mut self.closing {
            Some(closing) if closing.done => {
                // Whoever asked may have gone away.
                let _ = shutdown.reply.send(std::mem::take(&mut closing.report));
            }
            Some(closing) => closing.replies.push(shutdown.reply),
            None => self.begin_closing(Some(shutdown.reply), ctx),
        }
    }
}

impl Handler<MessageDone> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, done: MessageDone, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: MessageDone");
        if let Some(closing) = &mut self.closing {
            closing.messages = closing.messages.saturating_sub(1);
            if done.has_pending && !closing.report.unnotified.contains(&done.parent) {
                closing.report.unnotified.push(done.parent);
            }
        }
        self.consider_closed(ctx);
    }
}

impl Handler<MessagesGivenUp> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, _: MessagesGivenUp, ctx: &mut Context<Self>) {
        self.env.failpoints.hit("registry: MessagesGivenUp");
        if let Some(closing) = &mut self.closing {
            closing.messages = 0;
        }
        self.consider_closed(ctx);
    }
}

impl Handler<AbortsGivenUp> for TaskRegistry {
    type Result = ();

    fn handle(&mut self, _: AbortsGivenUp, _: &mut Context<Self>) {
        self.env.failpoints.hit("registry: AbortsGivenUp");
        if self.closing.as_ref().is_some_and(|closing| !closing.done) {
            tracing::warn!(
                aborts = self.refs.aborts.len(),
                "aborts were not answered in time"
            );
            self.finish();
        }
    }
}
